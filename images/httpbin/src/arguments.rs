//! The command lines of the two programs.

use anyhow::{Context, Result, bail};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Host and port to listen on.
    pub address: String,
}

impl Arguments {
    /// `gunicorn -b 0.0.0.0:80 httpbin:app -k gevent`, as the images start it.
    pub fn gunicorn(args: &[String]) -> Result<Self> {
        let mut address = "0.0.0.0:80".to_owned();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, attached) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (arg.as_str(), None),
            };
            let mut value = || {
                attached
                    .clone()
                    .or_else(|| args.next().cloned())
                    .with_context(|| format!("{name} needs a value"))
            };
            match name {
                "-b" | "--bind" => address = value()?,
                "-k" | "--worker-class" => {
                    let kind = value()?;
                    if kind != "gevent" {
                        bail!("worker class {kind}: only gevent is known");
                    }
                }
                // Where its access log goes; here it always goes to standard output.
                "--access-logfile" => {
                    let file = value()?;
                    if file != "-" {
                        bail!("--access-logfile {file}: only - is understood");
                    }
                }
                "httpbin:app" => {}
                other => bail!("unknown argument {other}"),
            }
        }
        if !address.contains(':') {
            address.push_str(":8000");
        }
        Ok(Self { address })
    }

    /// `go-httpbin -host 0.0.0.0 -port 8080`.
    pub fn go(args: &[String]) -> Result<Self> {
        let variable = |name: &str, default: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let mut host = variable("HOST", "0.0.0.0");
        let mut port = variable("PORT", "8080");
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let name = arg.trim_start_matches('-');
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let target = match name {
                "host" if arg.starts_with('-') => &mut host,
                "port" if arg.starts_with('-') => &mut port,
                _ => bail!("flag provided but not defined: {arg}"),
            };
            *target = attached
                .or_else(|| args.next().cloned())
                .with_context(|| format!("flag needs an argument: {arg}"))?;
        }
        Ok(Self {
            address: format!("{host}:{port}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_images_own_command_lines_are_understood_and_others_refused() {
        let gunicorn = |text| Arguments::gunicorn(&args(text)).map(|found| found.address);
        assert_eq!(
            gunicorn("-b 0.0.0.0:80 httpbin:app -k gevent").unwrap(),
            "0.0.0.0:80"
        );
        assert_eq!(
            gunicorn("--bind=[::]:8000 httpbin:app").unwrap(),
            "[::]:8000"
        );
        assert!(gunicorn("-w 4 httpbin:app").is_err());
        let go = |text| Arguments::go(&args(text)).map(|found| found.address);
        assert_eq!(go("-port 9000").unwrap(), "0.0.0.0:9000");
        assert!(go("-prefix /x").is_err());
    }
}
