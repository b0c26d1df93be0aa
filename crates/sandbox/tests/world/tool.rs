//! The program inside the test containers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

/// How long an answer is waited for; with the option `brief`, where none is expected, less.
const LIMIT: Duration = Duration::from_secs(30);
const BRIEF: Duration = Duration::from_secs(2);

pub fn main(args: &[OsString]) -> ExitCode {
    let args: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    match args.as_slice() {
        // Answers each connection with its name, the peer and the original destination.
        ["serve", port, name] => {
            let listener =
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse().unwrap())).unwrap();
            println!("listening");
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let original =
                    original_destination(&stream).map_or("none".into(), |a| a.to_string());
                let _ = write!(stream, "{name} from {peer} to {original}");
            }
            ExitCode::SUCCESS
        }
        ["get", address, rest @ ..] => match get(address.parse().unwrap(), rest) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(e) => {
                println!("error: {e}");
                ExitCode::FAILURE
            }
        },
        ["udp-serve", port, name] => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port.parse().unwrap())).unwrap();
            println!("listening");
            loop {
                let mut buffer = [0; 64];
                let (_, peer) = socket.recv_from(&mut buffer).unwrap();
                socket.send_to(name.as_bytes(), peer).unwrap();
            }
        }
        ["redirect", flags @ ..] => {
            theater_sandbox::redirect::Redirect::parse(flags)
                .unwrap()
                .apply()
                .unwrap();
            println!("redirected");
            ExitCode::SUCCESS
        }
        // Uses this many MiB of memory.
        ["allocate", mib] => {
            let bytes = vec![1u8; mib.parse::<usize>().unwrap() << 20];
            println!("{}", bytes.iter().map(|b| u64::from(*b)).sum::<u64>() >> 20);
            ExitCode::SUCCESS
        }
        // Computes for so many milliseconds; says how many of them it had a processor.
        ["burn", millis] => {
            let end = std::time::Instant::now() + Duration::from_millis(millis.parse().unwrap());
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            // SAFETY: a plain structure, filled by the call.
            let used = unsafe {
                let mut used: libc::timespec = std::mem::zeroed();
                libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used);
                used
            };
            println!("{}", used.tv_sec * 1000 + used.tv_nsec / 1_000_000);
            ExitCode::SUCCESS
        }
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap()),
        ["raise", signal] => {
            // SAFETY: ends this process; PID 1 ignores what it does not handle, so a child does it for SIGKILL only.
            unsafe { libc::raise(signal.parse().unwrap()) };
            ExitCode::SUCCESS
        }
        ["sleep"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        // Ends on SIGTERM with code 7: PID 1 sees only signals that it handles.
        ["graceful"] => {
            extern "C" fn end(_: i32) {
                // SAFETY: async-signal-safe.
                unsafe { libc::_exit(7) }
            }
            // SAFETY: a plain handler.
            unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
            println!("ready");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        ["echo"] => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            print!("{}", text.to_uppercase());
            eprint!("{} bytes", text.len());
            ExitCode::SUCCESS
        }
        ["cat", path] => {
            match std::fs::read_to_string(path) {
                Ok(t) => print!("{t}"),
                Err(e) => print!("error: {e}"),
            }
            ExitCode::SUCCESS
        }
        ["write", path] => {
            match std::fs::write(path, "x") {
                Ok(()) => print!("written"),
                Err(e) => print!("error: {e}"),
            }
            ExitCode::SUCCESS
        }
        ["ls", path] => {
            let mut names: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            print!("{}", names.join(" "));
            ExitCode::SUCCESS
        }
        ["who"] => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let field = |name: &str| {
                status
                    .lines()
                    .find_map(|l| l.strip_prefix(name))
                    .unwrap_or_default()
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            let env: Vec<_> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
            print!(
                "pid={} uid={} gid={} caps={} nnp={} host={} cwd={} env={}",
                std::process::id(),
                field("Uid:"),
                field("Gid:"),
                field("CapEff:"),
                field("NoNewPrivs:"),
                host.trim(),
                std::env::current_dir().unwrap().display(),
                env.join(","),
            );
            ExitCode::SUCCESS
        }
        ["terminal"] => {
            // Waits for a line, then says how large the terminal is.
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            // SAFETY: size is valid for writes.
            let (tty, size) = unsafe {
                let mut size: libc::winsize = std::mem::zeroed();
                libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size);
                (libc::isatty(1), size)
            };
            println!(
                "tty={tty} {}x{} said {}",
                size.ws_row,
                size.ws_col,
                line.trim()
            );
            ExitCode::SUCCESS
        }
        other => panic!("unknown tool {other:?}"),
    }
}

/// Connects (optionally marked, or from a given source) and reads to the end.
pub fn get(to: SocketAddr, options: &[&str]) -> std::io::Result<String> {
    let limit = if options.contains(&"brief") {
        BRIEF
    } else {
        LIMIT
    };
    if options.contains(&"udp") {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(limit))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let n = socket.recv(&mut buffer)?;
        return Ok(String::from_utf8_lossy(&buffer[..n]).into_owned());
    }
    let SocketAddr::V4(v4) = to else {
        panic!("IPv4 only")
    };
    // SAFETY: plain socket calls with valid pointers.
    let mut stream = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let owned = OwnedFd::from_raw_fd(fd);
        let timeout = libc::timeval {
            tv_sec: limit.as_secs() as _,
            tv_usec: 0,
        };
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDTIMEO,
            (&raw const timeout).cast(),
            size_of_val(&timeout) as _,
        );
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of_val(&timeout) as _,
        );
        let address = |a: SocketAddrV4| {
            let mut s: libc::sockaddr_in = std::mem::zeroed();
            s.sin_family = libc::AF_INET as _;
            s.sin_port = a.port().to_be();
            s.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
            s
        };
        let check = |r: i32| {
            if r < 0 {
                Err(std::io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        for option in options {
            if *option == "mark" {
                let mark = 1337u32;
                check(libc::setsockopt(
                    fd,
                    libc::SOL_SOCKET,
                    libc::SO_MARK,
                    (&raw const mark).cast(),
                    4,
                ))?;
            } else if *option != "brief" {
                let source = address(SocketAddrV4::new(option.parse().unwrap(), 0));
                check(libc::bind(
                    fd,
                    (&raw const source).cast(),
                    size_of_val(&source) as _,
                ))?;
            }
        }
        let target = address(v4);
        check(libc::connect(
            fd,
            (&raw const target).cast(),
            size_of_val(&target) as _,
        ))?;
        TcpStream::from(owned)
    };
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn original_destination(stream: &TcpStream) -> Option<SocketAddrV4> {
    const SO_ORIGINAL_DST: i32 = 80;
    // SAFETY: address and length are valid for writes.
    unsafe {
        let mut a: libc::sockaddr_in = std::mem::zeroed();
        let mut len = size_of_val(&a) as libc::socklen_t;
        let r = libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_IP,
            SO_ORIGINAL_DST,
            (&raw mut a).cast(),
            &raw mut len,
        );
        (r == 0).then(|| {
            SocketAddrV4::new(
                Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes()),
                u16::from_be(a.sin_port),
            )
        })
    }
}
