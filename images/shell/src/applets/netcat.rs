//! `nc`: TCP connections and UDP exchanges.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use crate::options::{Ended, Failure, Options};
use crate::output;

fn port(text: &str) -> Result<u16, Failure> {
    text.parse()
        .map_err(|_| Failure::Usage(format!("bad port '{text}'")))
}

pub(super) fn nc(args: &[String]) -> Ended {
    // `-t` answers telnet's negotiation where there is any; nobody here negotiates.
    let options = Options::parse(args, "nvztulw:p:")?;
    let limit: Option<u64> = options.number('w')?;
    let limit = limit
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs);
    if options.has('l') {
        let text = options
            .value('p')
            .or(options.operands.last().map(String::as_str));
        let number = port(text.ok_or_else(|| Failure::Usage("a port is expected".into()))?)?;
        if options.has('u') {
            let socket = UdpSocket::bind(("0.0.0.0", number)).map_err(|error| {
                Failure::Message(format!("port {number}: {}", output::reason(&error)))
            })?;
            // The first one to write is who is talked to.
            let (_, peer) = socket.peek_from(&mut [0; 1])?;
            socket.connect(peer)?;
            return exchange(&socket, limit);
        }
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
    if options.has('u') {
        let own = options.value('p').map_or(Ok(0), port)?;
        let socket = match connect_udp(host, number, own) {
            Ok(socket) => socket,
            Err(error) => {
                output::error_line(&format!(
                    "nc: {host} ({number}): {}",
                    output::reason(&error)
                ));
                return Ok(1);
            }
        };
        if options.has('v') {
            output::error_line(&format!("{host} ({}) open", socket.peer_addr()?));
        }
        return exchange(&socket, limit);
    }
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

fn connect_udp(host: &str, port: u16, own: u16) -> io::Result<UdpSocket> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "bad address");
    let address = (host, port)
        .to_socket_addrs()
        .map_err(|_| unknown())?
        .next()
        .ok_or_else(unknown)?;
    let any: IpAddr = if address.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, own))?;
    socket.connect(address)?;
    Ok(socket)
}

/// Sends what is read, prints what comes back, and ends when nothing came for as long as `limit` says.
fn exchange(socket: &UdpSocket, limit: Option<Duration>) -> Ended {
    let sending = socket.try_clone()?;
    std::thread::spawn(move || {
        let mut chunk = [0; 8192];
        let mut input = io::stdin().lock();
        while let Ok(count) = input.read(&mut chunk) {
            if count == 0 || sending.send(&chunk[..count]).is_err() {
                break;
            }
        }
    });
    socket.set_read_timeout(limit)?;
    let mut datagram = [0; 65536];
    loop {
        match socket.recv(&mut datagram) {
            Ok(count) => output::write_all(1, &datagram[..count])?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(0);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(1),
            Err(error) => return Err(error.into()),
        }
    }
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
