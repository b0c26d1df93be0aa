//! The image `curlimages/curl`, and the `curl` and `wget` that other images bring along: a client with the
//! options that courses and scripts use. Options it does not know are refused, never ignored.

mod options;
mod output;
mod transfer;

use std::ffi::OsString;
use std::process::ExitCode;

use options::Options;

/// curl's exit codes that are used here (curl's manual, "EXIT CODES").
pub(crate) mod exit {
    pub const USAGE: u8 = 2;
    pub const URL: u8 = 3;
    pub const RESOLVE: u8 = 6;
    pub const CONNECT: u8 = 7;
    pub const HTTP: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const TIMEOUT: u8 = 28;
    pub const TLS: u8 = 35;
    pub const REDIRECTS: u8 = 47;
    pub const EMPTY: u8 = 52;
    pub const RECEIVE: u8 = 56;
    pub const CERTIFICATE: u8 = 60;
    pub const CA_FILE: u8 = 77;
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// curl's exit code.
    pub code: u8,
    /// What curl prints after its number.
    pub message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Runs `curl ARGS…`; `args` are without the program's name.
pub fn curl_main(args: Vec<OsString>) -> ExitCode {
    match Options::curl(&text(args)) {
        Ok(options) if options.help => {
            print!("{}", options::CURL_HELP);
            ExitCode::SUCCESS
        }
        Ok(options) => run("curl", &options),
        Err(failure) => {
            eprintln!("curl: {}", failure.message);
            eprintln!("curl: try 'curl --help' for more information");
            ExitCode::from(failure.code)
        }
    }
}

/// Runs `wget ARGS…`; `args` are without the program's name.
pub fn wget_main(args: Vec<OsString>) -> ExitCode {
    match Options::wget(&text(args)) {
        Ok(options) => run("wget", &options),
        Err(failure) => {
            eprintln!("wget: {}", failure.message);
            ExitCode::FAILURE
        }
    }
}

fn text(args: Vec<OsString>) -> Vec<String> {
    args.into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

fn run(name: &str, options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut code = 0;
    for url in &options.urls {
        if let Err(failure) = runtime.block_on(transfer::transfer(options, url)) {
            code = if name == "curl" { failure.code } else { 1 };
            if !options.silent || options.show_error {
                if name == "curl" {
                    eprintln!("curl: ({}) {}", failure.code, failure.message);
                } else {
                    eprintln!("wget: {}", failure.message);
                }
            }
        }
    }
    ExitCode::from(code)
}
