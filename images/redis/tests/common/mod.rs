//! Servers to test: the built-in one, and the machine's own where it has one.

#![allow(dead_code, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-image");

const REAL: [&str; 2] = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    BuiltIn,
    Real,
}

fn real() -> Option<&'static str> {
    REAL.into_iter().find(|path| Path::new(path).exists())
}

/// The servers that can be tested here.
pub fn kinds() -> Vec<Kind> {
    match real() {
        Some(_) => vec![Kind::BuiltIn, Kind::Real],
        None => vec![Kind::BuiltIn],
    }
}

pub struct Server {
    pub child: Child,
    pub port: u16,
    kind: Kind,
    args: Vec<String>,
    dir: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server and waits until it answers.
    pub fn start(kind: Kind, dir: &Path, args: &[&str]) -> Server {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // Another program may take the port in between: then another port is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut server = Server {
                child: spawn(kind, dir, port, &args),
                port,
                kind,
                args: args.clone(),
                dir: dir.to_owned(),
            };
            if server.wait() {
                return server;
            }
        }
        panic!("{kind:?} does not start");
    }

    fn wait(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                let mut wire = Wire::new(stream);
                wire.send(b"PING\r\n");
                if wire.reply() == b"+PONG\r\n" {
                    return true;
                }
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Ends it without warning and starts it again on the same data.
    pub fn kill_and_restart(mut self) -> Server {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        Server::start(self.kind, &self.dir, &args)
    }

    pub fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

fn spawn(kind: Kind, dir: &Path, port: u16, args: &[String]) -> Child {
    let mut command = match kind {
        Kind::BuiltIn => {
            let mut command = Command::new(PROGRAM);
            command.arg("redis-server");
            command
        }
        Kind::Real => Command::new(real().unwrap()),
    };
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--dir", dir.to_str().unwrap()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A connection that shows every byte.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Wire(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    pub fn request(&mut self, args: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        redis_image::resp::encode_request(args, &mut bytes);
        self.send(&bytes);
        self.reply()
    }

    /// The bytes of one reply; empty at the end of the connection.
    pub fn reply(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_until(b'\n', &mut bytes).unwrap_or(0);
        let Some(kind) = bytes.first().copied() else {
            return bytes;
        };
        let number: i64 = String::from_utf8_lossy(&bytes[1..])
            .trim()
            .parse()
            .unwrap_or(-1);
        match kind {
            b'$' | b'=' if number >= 0 => {
                let mut body = vec![0; number as usize + 2];
                self.0.read_exact(&mut body).unwrap();
                bytes.extend(body);
            }
            b'*' | b'~' | b'>' | b'%' => {
                let count = if kind == b'%' { number * 2 } else { number };
                for _ in 0..count {
                    bytes.extend(self.reply());
                }
            }
            _ => {}
        }
        bytes
    }
}
