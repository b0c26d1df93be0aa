//! `nc`: TCP connections.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::options::{Ended, Failure, Options};
use crate::output;

fn port(text: &str) -> Result<u16, Failure> {
    text.parse()
        .map_err(|_| Failure::Usage(format!("bad port '{text}'")))
}

pub(super) fn nc(args: &[String]) -> Ended {
    let options = Options::parse(args, "nvzlw:p:")?;
    let limit: Option<u64> = options.number('w')?;
    let limit = limit
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    if options.has('l') {
        let text = options
            .value('p')
            .or(options.operands.last().map(String::as_str));
        let number = port(text.ok_or_else(|| Failure::Usage("a port is expected".into()))?)?;
        let listener = TcpListener::bind(("0.0.0.0", number)).map_err(|error| {
            Failure::Message(format!("port {number}: {}", output::reason(&error)))
        })?;
        let (stream, peer) = listener.accept()?;
        if options.has('v') {
            output::error_line(&format!("connect to {} from {peer}", stream.local_addr()?));
        }
        return carry(stream, limit);
    }
    let [host, text] = options.exactly::<2>()?;
    let number = port(text)?;
    let stream = match connect(host, number, limit) {
        Ok(stream) => stream,
        Err(error) => {
            // Scripts that only ask are answered by the status.
            if !options.has('z') || options.has('v') {
                output::error_line(&format!(
                    "nc: {host} ({number}): {}",
                    output::reason(&error)
                ));
            }
            return Ok(1);
        }
    };
    if options.has('v') {
        output::error_line(&format!("{host} ({}) open", stream.peer_addr()?));
    }
    if options.has('z') {
        return Ok(0);
    }
    carry(stream, limit)
}

fn connect(host: &str, port: u16, limit: Option<Duration>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "bad address");
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "bad address"))?;
    for address in addresses {
        let result = match limit {
            Some(limit) => TcpStream::connect_timeout(&address, limit),
            None => TcpStream::connect(address),
        };
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Carries bytes both ways until the other side ends.
fn carry(stream: TcpStream, limit: Option<Duration>) -> Ended {
    stream.set_read_timeout(limit)?;
    let mut sending = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut chunk = [0; 8192];
        let mut input = io::stdin().lock();
        while let Ok(count) = input.read(&mut chunk) {
            if count == 0 || sending.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        // The other side may have more to say.
        let _ = sending.shutdown(Shutdown::Write);
    });
    let mut receiving = stream;
    let mut chunk = [0; 8192];
    loop {
        match receiving.read(&mut chunk) {
            Ok(0) => return Ok(0),
            Ok(count) => output::write_all(1, &chunk[..count])?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
