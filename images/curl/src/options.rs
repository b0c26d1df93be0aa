//! The command lines of curl and wget.

use std::time::Duration;

use crate::{Failure, exit};

/// What `curl --help` prints.
pub const CURL_HELP: &str = "Usage: curl [options...] <url>
 -A, --user-agent <name>    Send User-Agent <name> to server
     --cacert <file>        CA certificate to verify peer against
     --connect-timeout <s>  Maximum time allowed to connect
 -d, --data <data>          HTTP POST data
 -f, --fail                 Fail fast with no output on HTTP errors
 -D, --dump-header <file>   Write the received headers to <file>
 -G, --get                  Put the post data in the URL and use GET
 -H, --header <header>      Pass custom header(s) to server
 -i, --include              Include response headers in output
 -I, --head                 Show document info only
 -k, --insecure             Allow insecure server connections
 -L, --location             Follow redirects
 -m, --max-time <seconds>   Maximum time allowed for transfer
 -o, --output <file>        Write to file instead of stdout
 -s, --silent               Silent mode
 -S, --show-error           Show error even when -s is used
 -u, --user <user:password> Server user and password
 -v, --verbose              Make the operation more talkative
 -w, --write-out <format>   Output FORMAT after completion
 -X, --request <method>     Specify request method to use
";

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub urls: Vec<String>,
    pub method: Option<String>,
    pub headers: Vec<(String, String)>,
    pub removed_headers: Vec<String>,
    pub data: Option<Vec<u8>>,
    pub data_in_url: bool,
    pub output: Option<String>,
    pub dump_header: Option<String>,
    pub write_out: Option<String>,
    pub include: bool,
    pub head: bool,
    pub silent: bool,
    pub show_error: bool,
    pub fail: bool,
    pub insecure: bool,
    pub location: bool,
    pub verbose: bool,
    pub help: bool,
    pub ca_file: Option<String>,
    pub max_time: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    /// The own address that connections come from.
    pub interface: Option<std::net::IpAddr>,
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(exit::USAGE, message)
}

impl Options {
    /// Reads curl's arguments.
    pub fn curl(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self::default();
        options.headers.push((
            "User-Agent".into(),
            format!("curl/8.5.0-theater-{}", env!("CARGO_PKG_VERSION")),
        ));
        options.headers.push(("Accept".into(), "*/*".into()));
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = |name: &str| {
                args.next()
                    .cloned()
                    .ok_or_else(|| usage(format!("option {name}: requires parameter")))
            };
            if let Some(name) = arg.strip_prefix("--") {
                let name = long(name).ok_or_else(|| usage(format!("option {arg}: is unknown")))?;
                options.set(name, || value(arg))?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                for (at, letter) in arg[1..].char_indices() {
                    let rest = &arg[1 + at + letter.len_utf8()..];
                    if takes_value(letter) && !rest.is_empty() {
                        options.set(letter, || Ok(rest.to_owned()))?;
                        break;
                    }
                    options.set(letter, || value(arg))?;
                }
            } else {
                options.urls.push(arg.clone());
            }
        }
        if options.urls.is_empty() && !options.help {
            return Err(usage("(2) no URL specified"));
        }
        Ok(options)
    }

    fn set(
        &mut self,
        letter: char,
        value: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        match letter {
            's' => self.silent = true,
            'S' => self.show_error = true,
            'f' => self.fail = true,
            'k' => self.insecure = true,
            'L' => self.location = true,
            'v' => self.verbose = true,
            'i' => self.include = true,
            'I' => self.head = true,
            'G' => self.data_in_url = true,
            'h' => self.help = true,
            // Progress is never shown, no file of settings is read, and URLs are not patterns.
            '#' | 'N' | 'q' | 'g' => {}
            'o' => self.output = Some(value()?),
            'D' => self.dump_header = Some(value()?),
            'w' => self.write_out = Some(value()?),
            'X' => self.method = Some(value()?),
            'A' => self.header("User-Agent", &value()?),
            'E' => self.ca_file = Some(value()?),
            'm' => self.max_time = Some(seconds(&value()?)?),
            'c' => self.connect_timeout = Some(seconds(&value()?)?),
            'B' => {
                let text = value()?;
                let address = text
                    .parse()
                    .map_err(|_| usage(format!("option --interface: {text:?} is no address")))?;
                self.interface = Some(address);
            }
            'H' => self.header_line(&value()?),
            'd' => self.add_data(&value()?)?,
            'u' => {
                use base64::Engine;
                let encoded = base64::engine::general_purpose::STANDARD.encode(value()?);
                self.header("Authorization", &format!("Basic {encoded}"));
            }
            'U' => self.urls.push(value()?),
            _ => return Err(usage(format!("option -{letter}: is unknown"))),
        }
        Ok(())
    }

    /// `Name: value`; `Name:` takes the header away, `Name;` sends it empty.
    fn header_line(&mut self, line: &str) {
        match line.split_once(':') {
            Some((name, value)) if value.trim().is_empty() => {
                self.headers
                    .retain(|(known, _)| !known.eq_ignore_ascii_case(name.trim()));
                self.removed_headers.push(name.trim().to_ascii_lowercase());
            }
            Some((name, value)) => self.header(name.trim(), value.trim()),
            None => self.header(line.trim_end_matches(';'), ""),
        }
    }

    /// Adds a header; curl's own ones are replaced.
    fn header(&mut self, name: &str, value: &str) {
        if ["user-agent", "accept", "content-type"].contains(&name.to_ascii_lowercase().as_str()) {
            self.headers
                .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        }
        self.headers.push((name.into(), value.into()));
    }

    fn add_data(&mut self, value: &str) -> Result<(), Failure> {
        let more = match value.strip_prefix('@') {
            Some("-") => {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin(), &mut text)
                    .map_err(|error| Failure::new(26, format!("stdin: {error}")))?;
                text
            }
            Some(file) => std::fs::read(file)
                .map_err(|error| Failure::new(26, format!("Failed to open {file}: {error}")))?,
            None => value.as_bytes().to_vec(),
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'&');
                data.extend(more);
            }
            None => self.data = Some(more),
        }
        Ok(())
    }

    /// Reads wget's arguments: `-q`, `-O FILE`, `-S`, `-T SECONDS`, `--spider`, `--header`, `--post-data`.
    pub fn wget(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            fail: true,
            location: true,
            show_error: true,
            ..Self::default()
        };
        options.headers.push(("User-Agent".into(), "Wget".into()));
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| args.next().cloned())
                    .ok_or_else(|| usage(format!("option requires an argument: {arg}")))
            };
            match name {
                "-q" | "--quiet" => options.silent = true,
                "-S" => options.include = true,
                "-O" => options.output = Some(value()?),
                "-qO-" | "-qO" => {
                    options.silent = true;
                    options.output = Some(if name == "-qO" { value()? } else { "-".into() });
                }
                "-O-" => options.output = Some("-".into()),
                "-T" | "--timeout" => options.max_time = Some(seconds(&value()?)?),
                "--spider" => options.head = true,
                "--no-check-certificate" => options.insecure = true,
                "--header" => options.header_line(&value()?),
                "--post-data" => options.data = Some(value()?.into_bytes()),
                _ if name.starts_with('-') => {
                    return Err(usage(format!("unrecognized option: {arg}")));
                }
                _ => options.urls.push(arg.clone()),
            }
        }
        let Some(url) = options.urls.first() else {
            return Err(usage("missing URL"));
        };
        if options.output.is_none() {
            let path = url.split("://").nth(1).unwrap_or(url);
            let file = path.split(['?', '#']).next().unwrap_or_default();
            let file = file
                .split('/')
                .skip(1)
                .last()
                .filter(|name| !name.is_empty());
            options.output = Some(file.unwrap_or("index.html").to_owned());
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Result<Duration, Failure> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| usage(format!("{text:?} is not a number of seconds")))
}

/// The short form of a long option; options without one have a letter of our own.
fn long(name: &str) -> Option<char> {
    Some(match name {
        "silent" => 's',
        "disable" => 'q',
        "globoff" => 'g',
        "show-error" => 'S',
        "fail" => 'f',
        "insecure" => 'k',
        "location" => 'L',
        "verbose" => 'v',
        "include" => 'i',
        "head" => 'I',
        "get" => 'G',
        "help" => 'h',
        "progress-bar" | "no-progress-meter" => '#',
        "no-buffer" => 'N',
        "output" => 'o',
        "dump-header" => 'D',
        "write-out" => 'w',
        "request" => 'X',
        "user-agent" => 'A',
        "cacert" => 'E',
        "max-time" => 'm',
        "connect-timeout" => 'c',
        "interface" => 'B',
        "header" => 'H',
        "data" | "data-raw" | "data-ascii" | "data-binary" => 'd',
        "user" => 'u',
        "url" => 'U',
        _ => return None,
    })
}

fn takes_value(letter: char) -> bool {
    "oDwXAEmcBHduU".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curl(line: &str) -> Result<Options, Failure> {
        let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        Options::curl(&args)
    }

    #[test]
    fn letters_may_be_joined_and_values_attached() {
        let options = curl("-sSo /dev/null -w%{http_code} -XPOST http://a/").unwrap();
        assert!(options.silent && options.show_error);
        assert_eq!(options.output.as_deref(), Some("/dev/null"));
        assert_eq!(options.write_out.as_deref(), Some("%{http_code}"));
        assert_eq!(options.method.as_deref(), Some("POST"));
        assert_eq!(options.urls, ["http://a/"]);
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(curl("--nonsense http://a/").unwrap_err().code, exit::USAGE);
        assert!(curl("-s").is_err());
    }

    #[test]
    fn wget_writes_where_it_is_told_or_by_the_name_in_the_url() {
        let wget = |line: &str| {
            let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
            Options::wget(&args).unwrap().output.unwrap()
        };
        assert_eq!(wget("-qO- http://a/b"), "-");
        assert_eq!(wget("http://a/b/c.txt?x"), "c.txt");
        assert_eq!(wget("http://a"), "index.html");
    }
}
