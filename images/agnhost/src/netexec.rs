//! An HTTP and a UDP server that tell who asks, echo, dial further and run commands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::sync::Notify;

use crate::flags::{Flag, Flags, duration};
use crate::server::{self, Body, Request, handler, hostname, log, text};

/// How long a dialled peer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Default)]
struct State {
    /// The UDP server runs.
    ready: AtomicBool,
    /// The process was told to end.
    ending: AtomicBool,
    /// The exit code wanted by `/exit`, plus one.
    exit: AtomicU16,
    exits: Notify,
}

/// Serves until it is told to end.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("http-port", "8080"),
            Flag::Value("tls-cert-file", ""),
            Flag::Value("tls-private-key-file", ""),
            Flag::Value("udp-port", "8081"),
            Flag::Value("sctp-port", "-1"),
            Flag::Value("http-override", ""),
            Flag::Value("udp-listen-addresses", ""),
            Flag::Value("delay-shutdown", "0"),
        ],
    )?;
    if flags.get::<i32>("sctp-port")? != -1 {
        bail!("--sctp-port: this image has no SCTP");
    }
    let http_port: u16 = flags.get("http-port")?;
    let udp_port: i32 = flags.get("udp-port")?;
    let delay = Duration::from_secs(flags.get("delay-shutdown")?);
    let tls = match flags.text("tls-cert-file") {
        "" => None,
        certificate => Some(server::tls_from_files(
            certificate,
            flags.text("tls-private-key-file"),
        )?),
    };
    let instead = flags.text("http-override").to_owned();
    let addresses = udp_addresses(flags.text("udp-listen-addresses"))?;
    server::block_on(async move {
        let state = Arc::new(State::default());
        let listener = server::bind(http_port).await?;
        log(&format!("Started HTTP server on port {http_port}"));
        if udp_port != -1 {
            let port = u16::try_from(udp_port).context("--udp-port")?;
            for address in addresses {
                let socket = bind_udp(&address, port).await?;
                log(&format!("Started UDP server on port {address} {port}"));
                state.ready.store(true, Ordering::Relaxed);
                tokio::spawn(answer_udp(socket));
            }
        }
        let answering = {
            let state = state.clone();
            handler(move |mut request: Request| {
                let state = state.clone();
                if !instead.is_empty() {
                    let (path, query) = instead.split_once('?').unwrap_or((&instead, ""));
                    request.path = path.to_owned();
                    request.query = server::pairs(query);
                }
                async move { answer(&state, request).await }
            })
        };
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let serving = server::serve(listener, tls, answering);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                ended = &mut serving => return ended,
                () = state.exits.notified() => {
                    let code = i32::from(state.exit.load(Ordering::Relaxed)) - 1;
                    std::process::exit(code);
                }
                _ = terminate.recv() => {
                    state.ending.store(true, Ordering::Relaxed);
                    let state = state.clone();
                    if !delay.is_zero() {
                        log(&format!("Sleeping {} seconds before terminating...", delay.as_secs()));
                    }
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        exit(&state, 0);
                    });
                }
            }
        }
    })
}

fn exit(state: &State, code: u8) {
    state.exit.store(u16::from(code) + 1, Ordering::Relaxed);
    state.exits.notify_one();
}

fn udp_addresses(list: &str) -> Result<Vec<String>> {
    if list.is_empty() {
        return Ok(vec![String::new()]);
    }
    list.split(',')
        .map(|address| match address.parse::<std::net::IpAddr>() {
            Ok(_) => Ok(address.to_owned()),
            Err(_) => bail!("parseAddress: invalid address {address}"),
        })
        .collect()
}

async fn bind_udp(address: &str, port: u16) -> Result<UdpSocket> {
    let wanted = if address.is_empty() {
        "0.0.0.0"
    } else {
        address
    };
    UdpSocket::bind((wanted, port))
        .await
        .with_context(|| format!("failed to create listener for UDP address {address}:{port}"))
}

async fn answer_udp(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error of an earlier answer.
            continue;
        };
        if let Some(reply) = udp_reply(&String::from_utf8_lossy(&buffer[..n]), from) {
            let _ = socket.send_to(reply.as_bytes(), from).await;
        }
    }
}

/// What a datagram is answered with; nothing when it is no command.
fn udp_reply(datagram: &str, from: SocketAddr) -> Option<String> {
    let received = datagram.trim().to_lowercase();
    match received.split_once(' ') {
        Some(("echo", rest)) => Some(rest.to_owned()),
        _ if received == "hostname" => Some(hostname()),
        _ if received == "clientip" => Some(from.to_string()),
        _ => {
            if !received.is_empty() {
                log(&format!(
                    "Unknown UDP command received from {from}: {received}"
                ));
            }
            None
        }
    }
}

async fn answer(state: &Arc<State>, request: Request) -> Response<Body> {
    let ok = |body: String| text(StatusCode::OK, body);
    let query: Vec<String> = request
        .query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    log(&format!("GET {}{mark}{}", request.path, query.join("&")));
    match request.path.as_str() {
        "/clientip" => ok(request.from.to_string()),
        "/header" => ok(header(&request)),
        "/dial" => dial(&request).await,
        "/echo" => echo(&request),
        "/exit" => exit_later(state, &request),
        "/healthz" => {
            let ready = state.ready.load(Ordering::Relaxed);
            text(
                if ready {
                    StatusCode::OK
                } else {
                    StatusCode::PRECONDITION_FAILED
                },
                "",
            )
        }
        "/readyz" if state.ending.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
        }
        "/readyz" if state.ready.load(Ordering::Relaxed) => ok("ok".into()),
        "/readyz" => text(StatusCode::PRECONDITION_FAILED, ""),
        "/hostname" | "/hostName" => ok(hostname()),
        "/redirect" => {
            let code = request.value("code");
            match code
                .parse::<u16>()
                .ok()
                .and_then(|c| StatusCode::from_u16(c).ok())
            {
                Some(code) => server::redirect(code, request.value("location")),
                None if code.is_empty() => {
                    server::redirect(StatusCode::FOUND, request.value("location"))
                }
                None => ok(format!(
                    "argument 'code' must be an integer or empty, got {code:?}\n"
                )),
            }
        }
        "/shell" => shell(&request).await,
        "/shutdown" => {
            exit(state, 0);
            ok(String::new())
        }
        "/upload" => upload(&request),
        _ => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            ok(format!("NOW: {}.{:09}", now.as_secs(), now.subsec_nanos()))
        }
    }
}

fn header(request: &Request) -> String {
    let key = request.value("key");
    if !key.is_empty() {
        return request
            .headers
            .get(key)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
            .to_owned();
    }
    let mut all = Map::new();
    for (name, value) in &request.headers {
        let list = all
            .entry(canonical(name.as_str()))
            .or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    Value::Object(all).to_string()
}

/// `x-forwarded-for` as `X-Forwarded-For`.
fn canonical(name: &str) -> String {
    name.split('-')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(letters).collect::<String>()
            })
        })
        .collect::<Vec<_>>()
        .join("-")
}

fn echo(request: &Request) -> Response<Body> {
    let code = request.value("code");
    if code.is_empty() {
        return text(StatusCode::OK, request.value("msg").to_owned());
    }
    match code
        .parse::<u16>()
        .ok()
        .and_then(|c| StatusCode::from_u16(c).ok())
    {
        Some(status) => text(status, request.value("msg").to_owned()),
        None => text(
            StatusCode::OK,
            format!("argument 'code' must be an integer or empty, got {code:?}\n"),
        ),
    }
}

fn exit_later(state: &Arc<State>, request: &Request) -> Response<Body> {
    let mut times = [Duration::ZERO; 2];
    for (name, time) in ["wait", "timeout"].into_iter().zip(&mut times) {
        let given = request.value(name);
        match duration(given) {
            Some(parsed) => *time = parsed,
            None if given.is_empty() => {}
            None => {
                return text(
                    StatusCode::OK,
                    format!(
                        "argument '{name}' must be a valid golang duration or empty, got {given:?}\n"
                    ),
                );
            }
        }
    }
    let code = match request.value("code") {
        "" => 0,
        given => match given.parse::<u8>() {
            Ok(code) => code,
            Err(_) => {
                return text(
                    StatusCode::OK,
                    format!("argument 'code' must be an integer [0-127] or empty, got {given:?}\n"),
                );
            }
        },
    };
    let [wait, timeout] = times;
    let state = state.clone();
    tokio::spawn(async move {
        tokio::time::sleep(wait + timeout.min(Duration::from_secs(1))).await;
        exit(&state, code);
    });
    text(StatusCode::OK, "")
}

async fn dial(request: &Request) -> Response<Body> {
    let bad = |why: String| text(StatusCode::BAD_REQUEST, format!("{why}\n"));
    let (host, what) = (request.value("host"), request.value("request"));
    let protocol = request.value("protocol").to_lowercase();
    let tries: usize = match request.value("tries") {
        "" => 1,
        given => match given.parse() {
            Ok(n) => n,
            Err(_) => {
                return bad(format!(
                    "tries parameter is invalid. strconv.Atoi: parsing {given:?}: invalid syntax"
                ));
            }
        },
    };
    if what.is_empty() {
        return bad("request parameter not specified. <nil>".into());
    }
    let Ok(port) = request.value("port").parse::<u16>() else {
        return bad(format!(
            "host and/or port param are invalid. address {:?}: invalid port",
            request.value("port")
        ));
    };
    if !matches!(protocol.as_str(), "" | "http" | "udp") {
        return bad(format!("unsupported protocol. {protocol}"));
    }
    let (mut responses, mut errors) = (Vec::new(), Vec::new());
    for _ in 0..tries {
        let answer = if protocol == "udp" {
            dial_udp(host, port, what).await
        } else {
            server::get(host, port, &format!("/{what}"), PATIENCE)
                .await
                .map(|(_, body)| String::from_utf8_lossy(&body).into_owned())
        };
        match answer {
            Ok(answer) => responses.push(answer),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    let mut out = Map::new();
    if !responses.is_empty() {
        out.insert("responses".into(), responses.into());
    }
    if !errors.is_empty() {
        out.insert("errors".into(), errors.into());
    }
    text(StatusCode::OK, Value::Object(out).to_string())
}

async fn dial_udp(host: &str, port: u16, what: &str) -> Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket
        .connect((host, port))
        .await
        .context("udp dial failed")?;
    socket
        .send(what.as_bytes())
        .await
        .context("udp connection write failed")?;
    let mut buffer = [0; 2048];
    match tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await {
        Ok(Ok(n)) if n > 0 => Ok(String::from_utf8_lossy(&buffer[..n]).into_owned()),
        Ok(Ok(_)) => bail!("reading from udp connection failed. err:'<nil>'"),
        Ok(Err(error)) => bail!("reading from udp connection failed. err:'{error}'"),
        Err(_) => bail!("reading from udp connection failed. err:'i/o timeout'"),
    }
}

async fn shell(request: &Request) -> Response<Body> {
    let command = match request.value("shellCommand") {
        "" => request.value("cmd"),
        given => given,
    };
    let mut out = Map::new();
    match Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .output()
        .await
    {
        Err(error) => {
            out.insert("error".into(), error.to_string().into());
        }
        Ok(done) => {
            let all = [done.stdout, done.stderr].concat();
            if !all.is_empty() {
                out.insert("output".into(), String::from_utf8_lossy(&all).into());
            }
            if !done.status.success() {
                let code = done.status.code().unwrap_or(-1);
                out.insert("error".into(), format!("exit status {code}").into());
            }
        }
    }
    text(StatusCode::OK, Value::Object(out).to_string())
}

/// Keeps the part `file` of a form in `/uploads`.
fn upload(request: &Request) -> Response<Body> {
    let failed = |why: &str| text(StatusCode::OK, json!({ "error": why }).to_string());
    let Some(content) = form_file(request) else {
        return failed("Unable to upload file.");
    };
    let name = format!("/uploads/upload{}", rand::random::<u32>());
    if std::fs::create_dir_all("/uploads").is_err() {
        return failed("Unable to open file for write");
    }
    let written = std::fs::write(&name, content).and_then(|()| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o700))
    });
    if written.is_err() {
        return failed("Unable to write file.");
    }
    text(StatusCode::CREATED, json!({ "output": name }).to_string())
}

/// The content of the part called `file` of a multipart body.
fn form_file(request: &Request) -> Option<&[u8]> {
    let kind = request
        .headers
        .get(http::header::CONTENT_TYPE)?
        .to_str()
        .ok()?;
    let boundary = kind.split("boundary=").nth(1)?.trim_matches('"');
    let mark = format!("--{boundary}");
    let body = &request.body[..];
    let find = |from: usize, what: &[u8]| -> Option<usize> {
        body[from..]
            .windows(what.len())
            .position(|w| w == what)
            .map(|at| at + from)
    };
    let mut at = find(0, mark.as_bytes())?;
    loop {
        let head = at + mark.len();
        let blank = find(head, b"\r\n\r\n")?;
        let end = find(blank, format!("\r\n{mark}").as_bytes())?;
        let headers = String::from_utf8_lossy(&body[head..blank]);
        if headers.contains("name=\"file\"") {
            return body.get(blank + 4..end);
        }
        at = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(query: &str) -> Request {
        Request {
            method: http::Method::GET,
            path: "/".into(),
            query: server::pairs(query),
            headers: http::HeaderMap::new(),
            from: "10.0.0.1:99".parse().unwrap(),
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn datagrams_are_commands() {
        let from = "10.0.0.1:99".parse().unwrap();
        assert_eq!(
            udp_reply("echo Hi there\n", from).as_deref(),
            Some("hi there")
        );
        assert_eq!(udp_reply("clientIP", from).as_deref(), Some("10.0.0.1:99"));
        assert_eq!(udp_reply("hostname", from), Some(hostname()));
        assert_eq!(udp_reply("what", from), None);
    }

    #[test]
    fn an_echo_has_the_wanted_status() {
        assert_eq!(echo(&request("msg=a&code=418")).status(), 418);
        assert_eq!(echo(&request("msg=a")).status(), 200);
    }

    #[test]
    fn names_of_headers_are_written_as_go_does() {
        assert_eq!(canonical("x-forwarded-for"), "X-Forwarded-For");
    }

    #[test]
    fn the_file_of_a_form_is_found() {
        let mut r = request("");
        r.headers.insert(
            http::header::CONTENT_TYPE,
            "multipart/form-data; boundary=B".parse().unwrap(),
        );
        r.body = "--B\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhello\r\n--B--\r\n".into();
        assert_eq!(form_file(&r), Some(&b"hello"[..]));
    }
}
