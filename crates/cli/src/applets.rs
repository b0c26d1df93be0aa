//! The programs of the built-in images, and those that `theater env` puts on the PATH: this binary under
//! other names, as `argv[0]` or by `theater applet NAME`.

use std::ffi::OsString;
use std::process::ExitCode;

/// The names under which `theater env` puts this binary on the PATH.
pub const ON_PATH: [&str; 2] = ["theater", "istioctl"];

/// Runs the program called `name`, if there is one; `args` are without its name.
pub fn run(name: &str, args: Vec<OsString>) -> Option<ExitCode> {
    Some(match name {
        "user-service" => user_service::main(),
        "movie-service" => movie_service::main(),
        "booking-service" => booking_service::main(),
        "api-gateway" => api_gateway::main(),
        "agnhost" | "agnhost-2" => agnhost_image::main(args),
        "pause" => agnhost_image::pause_main(),
        "nonewprivs" => agnhost_image::nonewprivs_main(),
        "redis-server" => redis_image::server_main(args),
        "redis-cli" => redis_image::cli_main(args),
        "http-echo" => http_echo_image::main(args),
        "curl" => curl_image::curl_main(args),
        "wget" => curl_image::wget_main(args),
        "istioctl" => istioctl::main(args),
        "httpd" | "httpd-foreground" => httpd_image::httpd_main(args),
        "nginx" => httpd_image::nginx_main(args),
        "ab" => httpd_image::ab_main(args),
        "fortio" => fortio_image::main(args),
        "gunicorn" => httpbin_image::gunicorn_main(args),
        "go-httpbin" => httpbin_image::go_main(args),
        "tcp-echo" => tcp_echo_image::main(args),
        "helloworld" => helloworld_image::main(args),
        "socat" => socat_image::main(args),
        "pilot-discovery" => istiod::main(args),
        "istio-iptables" => iptables(args),
        "pilot-agent" => match args.first().and_then(|arg| arg.to_str()) {
            Some("istio-iptables") => iptables(args.into_iter().skip(1).collect()),
            _ => agent::main(args),
        },
        // Sandboxes start containers without one of our names with this program as well.
        name if shell_image::APPLETS.contains(&name) => shell_image::main(name, args),
        _ => return None,
    })
}

fn iptables(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match sandbox::redirect::Redirect::parse(&args).and_then(|redirect| redirect.apply()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("istio-iptables: {error}");
            ExitCode::FAILURE
        }
    }
}
