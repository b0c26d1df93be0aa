//! `ab`'s options.

use std::time::Duration;

use base64::Engine;

pub(super) const USAGE: &str = "\
Usage: ab [options] http://hostname[:port]/path
Options are:
    -n requests     Number of requests to perform
    -c concurrency  Number of multiple requests to make at a time
    -t timelimit    Seconds to max. to spend on benchmarking
                    This implies -n 50000
    -s timeout      Seconds to max. wait for each response
                    Default is 30 seconds
    -p postfile     File containing data to POST. Remember also to set -T
    -u putfile      File containing data to PUT. Remember also to set -T
    -T content-type Content-type header to use for POST/PUT data
                    Default is 'text/plain'
    -i              Use HEAD instead of GET
    -C attribute    Add cookie, eg. 'Apache=1234'. (repeatable)
    -H attribute    Add Arbitrary header line, eg. 'Accept-Encoding: gzip'
                    Inserted after all normal header lines. (repeatable)
    -A attribute    Add Basic WWW Authentication, the attributes
                    are a colon separated username and password.
    -V              Print version number and exit
    -k              Use HTTP KeepAlive feature
    -d              Do not show percentiles served table.
    -S              Do not show confidence estimators and warnings.
    -q              Do not show progress when doing more than 150 requests
    -l              Accept variable document length (use this for dynamic pages)
    -r              Don't exit on socket receive errors.
    -m method       Method name
    -h              Display usage information (this message)
";

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    Help,
    Version,
    Load(Box<Options>),
}

#[derive(Debug)]
pub(super) struct Options {
    pub requests: usize,
    pub concurrency: usize,
    pub limit: Option<Duration>,
    pub timeout: Duration,
    pub keep_alive: bool,
    pub percentiles: bool,
    pub confidence: bool,
    pub quiet: bool,
    pub variable_length: bool,
    pub tolerant: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    /// What goes over the wire for each request.
    pub message: Vec<u8>,
    /// Bytes of the body in it.
    pub body: usize,
    /// Whether answers have no body.
    pub head: bool,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Asked, String> {
        let mut requests = None;
        let mut concurrency = 1;
        let mut limit = None;
        let mut timeout = Duration::from_secs(30);
        let mut flags = std::collections::BTreeSet::new();
        let mut method = None;
        let mut headers: Vec<String> = Vec::new();
        let mut cookies: Vec<String> = Vec::new();
        let mut content_type = "text/plain".to_owned();
        let mut body: Option<(char, Vec<u8>)> = None;
        let mut urls = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                urls.push(arg.clone());
                continue;
            };
            for (at, letter) in letters.char_indices() {
                if "kdSqlrihV".contains(letter) {
                    flags.insert(letter);
                    continue;
                }
                if !"nctsputTCHAm".contains(letter) {
                    return Err(format!("invalid option -- {letter}"));
                }
                let attached = &letters[at + letter.len_utf8()..];
                let value = match attached {
                    "" => args.next().cloned(),
                    attached => Some(attached.to_owned()),
                }
                .ok_or_else(|| format!("option requires an argument -- {letter}"))?;
                match letter {
                    'n' => requests = Some(number("requests", &value)?),
                    'c' => concurrency = number("concurrency", &value)?,
                    't' => limit = Some(Duration::from_secs(number("timelimit", &value)? as u64)),
                    's' => timeout = Duration::from_secs(number("timeout", &value)? as u64),
                    'T' => content_type = value,
                    'C' => cookies.push(value),
                    'H' => headers.push(value),
                    'A' => headers.push(format!(
                        "Authorization: Basic {}",
                        base64::engine::general_purpose::STANDARD.encode(value)
                    )),
                    'm' => method = Some(value),
                    _ => {
                        let data = std::fs::read(&value)
                            .map_err(|error| format!("Could not open {value}: {error}"))?;
                        body = Some((letter, data));
                    }
                }
                break;
            }
        }
        if flags.contains(&'h') {
            return Ok(Asked::Help);
        }
        if flags.contains(&'V') {
            return Ok(Asked::Version);
        }
        let [url] = urls.as_slice() else {
            return Err("wrong number of arguments".into());
        };
        let url = Url::parse(url)?;
        let requests = requests.unwrap_or(if limit.is_some() { 50_000 } else { 1 });
        if requests == 0 {
            return Err("Invalid number of requests".into());
        }
        if concurrency == 0 || concurrency > 20_000 {
            return Err("Invalid Concurrency [Range 0..20000]".into());
        }
        if concurrency > requests {
            return Err(
                "Cannot use concurrency level greater than total number of requests".into(),
            );
        }
        let head = flags.contains(&'i');
        if head && body.is_some() {
            return Err("Cannot mix POST/PUT and HEAD".into());
        }
        let method = method.unwrap_or_else(|| {
            match &body {
                Some(('p', _)) => "POST",
                Some(_) => "PUT",
                None if head => "HEAD",
                None => "GET",
            }
            .to_owned()
        });
        let keep_alive = flags.contains(&'k');
        let message = message(
            &method,
            &url,
            keep_alive,
            &cookies,
            &headers,
            body.as_ref()
                .map(|(_, data)| (content_type.as_str(), data.as_slice())),
        );
        Ok(Asked::Load(Box::new(Self {
            requests,
            concurrency,
            limit,
            timeout,
            keep_alive,
            percentiles: !flags.contains(&'d'),
            confidence: !flags.contains(&'S'),
            quiet: flags.contains(&'q'),
            variable_length: flags.contains(&'l'),
            tolerant: flags.contains(&'r'),
            host: url.host,
            port: url.port,
            path: url.path,
            message,
            body: body.map_or(0, |(_, data)| data.len()),
            head: head || method == "HEAD",
        })))
    }
}

fn number(what: &str, text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("Invalid number of {what}: {text}"))
}

#[derive(Debug)]
struct Url {
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err("SSL not compiled in; no https support".into()),
            Some(_) => return Err("invalid URL".into()),
        };
        // The original wants a path, too.
        let (authority, path) = rest.split_once('/').ok_or("invalid URL")?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| "invalid URL")?),
            None => (authority, 80),
        };
        if host.is_empty() {
            return Err("invalid URL".into());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: format!("/{path}"),
        })
    }
}

/// A request as `ab` writes it: HTTP/1.0, own headers after the usual ones and instead of those of the same name.
fn message(
    method: &str,
    url: &Url,
    keep_alive: bool,
    cookies: &[String],
    headers: &[String],
    body: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let given = |name: &str| {
        headers.iter().any(|header| {
            header
                .split_once(':')
                .is_some_and(|(own, _)| own.trim().eq_ignore_ascii_case(name))
        })
    };
    let mut text = format!("{method} {} HTTP/1.0\r\n", url.path);
    if keep_alive {
        text.push_str("Connection: Keep-Alive\r\n");
    }
    if let Some((content_type, data)) = body {
        text.push_str(&format!("Content-length: {}\r\n", data.len()));
        if !given("content-type") {
            text.push_str(&format!("Content-type: {content_type}\r\n"));
        }
    }
    for cookie in cookies {
        text.push_str(&format!("Cookie: {cookie}\r\n"));
    }
    if !given("host") {
        let port = match url.port {
            80 => String::new(),
            port => format!(":{port}"),
        };
        text.push_str(&format!("Host: {}{port}\r\n", url.host));
    }
    if !given("user-agent") {
        text.push_str("User-Agent: ApacheBench/2.3\r\n");
    }
    if !given("accept") {
        text.push_str("Accept: */*\r\n");
    }
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text.push_str("\r\n");
    let mut message = text.into_bytes();
    message.extend_from_slice(body.map_or(&[], |(_, data)| data));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Asked, String> {
        Options::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn load(text: &str) -> Box<Options> {
        match parse(text) {
            Ok(Asked::Load(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_written_as_ab_writes_them() {
        let options = load("-n 10 -c2 -H Host:api.example.com http://web:8080/a");
        assert_eq!(
            String::from_utf8_lossy(&options.message),
            "GET /a HTTP/1.0\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\nHost:api.example.com\r\n\r\n"
        );
        assert_eq!((options.requests, options.concurrency), (10, 2));
        let options = load("-k http://web/");
        assert!(
            String::from_utf8_lossy(&options.message)
                .starts_with("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: web\r\n")
        );
    }

    #[test]
    fn what_ab_refuses_is_refused_and_nothing_is_ignored() {
        for (args, expected) in [
            ("http://web", "invalid URL"),
            ("-n 5 -c 6 http://web/", "Cannot use concurrency"),
            ("-n", "option requires an argument -- n"),
            ("-b 1024 http://web/", "invalid option -- b"),
            ("-n 5", "wrong number of arguments"),
            ("https://web/", "SSL not compiled in"),
        ] {
            let error = parse(args).expect_err(args);
            assert!(error.contains(expected), "{args}: {error}");
        }
    }
}
