//! The requests themselves.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::lookup_host;

use super::options::Options;

/// One answered request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub connect: Duration,
    /// From the request's end to the first byte.
    pub wait: Duration,
    pub total: Duration,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub done: Vec<Done>,
    pub took: Duration,
    pub server: String,
    pub document_length: usize,
    pub failed_connect: usize,
    pub failed_receive: usize,
    pub failed_length: usize,
    pub failed_exception: usize,
    pub not_2xx: usize,
    pub kept_alive: usize,
    pub transferred: usize,
    pub html: usize,
    pub sent: usize,
}

/// Why there is no report.
#[derive(Debug)]
pub(super) struct Failure {
    pub message: String,
    pub code: u8,
    pub completed: usize,
}

/// The answer to one request.
struct Answer {
    first_byte: Instant,
    status: u16,
    server: String,
    head: usize,
    body: usize,
    keep_alive: bool,
}

pub(super) async fn run(options: &Options) -> Result<Measured, Failure> {
    let address = lookup_host((options.host.as_str(), options.port))
        .await
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| Failure {
            message: format!(
                "apr_sockaddr_info_get() for {}: Name or service not known (670002)",
                options.host
            ),
            code: 50,
            completed: 0,
        })?;
    let measured = RefCell::new(Measured::default());
    let begun = Cell::new(0);
    let started = Instant::now();
    let worker = async || -> Result<(), Failure> {
        let mut kept: Option<TcpStream> = None;
        while begun.get() < options.requests
            && options.limit.is_none_or(|limit| started.elapsed() < limit)
        {
            begun.set(begun.get() + 1);
            let begin = Instant::now();
            let stream = match kept.take() {
                Some(stream) => Ok((stream, Duration::ZERO)),
                None => TcpStream::connect(address)
                    .await
                    .map(|stream| (stream, begin.elapsed())),
            };
            let result = match stream {
                Ok((mut stream, connect)) => {
                    measured.borrow_mut().sent += options.message.len();
                    let exchange = exchange(&mut stream, options);
                    match tokio::time::timeout(options.timeout, exchange).await {
                        Ok(Ok((written, answer))) => {
                            kept = answer.keep_alive.then_some(stream);
                            Ok((connect, written, answer))
                        }
                        Ok(Err(error)) => Err((false, error)),
                        Err(_) => Err((false, std::io::ErrorKind::TimedOut.into())),
                    }
                }
                Err(error) => Err((true, error)),
            };
            let mut measured = measured.borrow_mut();
            match result {
                Ok((connect, written, answer)) => measured.count(
                    options,
                    Done {
                        connect,
                        wait: answer.first_byte.duration_since(written),
                        total: begin.elapsed(),
                    },
                    &answer,
                ),
                Err((connecting, error)) => {
                    // The original goes on only when it is told to, and never when nobody listens.
                    if !options.tolerant || (connecting && measured.done.is_empty()) {
                        return Err(failure(&error, measured.done.len()));
                    }
                    if connecting {
                        measured.failed_connect += 1;
                    } else {
                        measured.failed_receive += 1;
                    }
                    measured.done.push(Done {
                        total: begin.elapsed(),
                        ..Done::default()
                    });
                }
            }
            let count = measured.done.len();
            let step = (options.requests / 10).max(100);
            if !options.quiet && options.requests > 150 && count % step == 0 {
                eprintln!("Completed {count} requests");
            }
        }
        Ok(())
    };
    // All of them in this one task: what they share needs no lock.
    let mut workers: Vec<_> = (0..options.concurrency)
        .map(|_| Box::pin(worker()))
        .collect();
    let mut ended = vec![false; workers.len()];
    std::future::poll_fn(|context| {
        for (worker, ended) in workers.iter_mut().zip(&mut ended) {
            if !*ended {
                match worker.as_mut().poll(context) {
                    std::task::Poll::Ready(Ok(())) => *ended = true,
                    std::task::Poll::Ready(Err(failure)) => {
                        return std::task::Poll::Ready(Err(failure));
                    }
                    std::task::Poll::Pending => {}
                }
            }
        }
        if ended.iter().all(|ended| *ended) {
            std::task::Poll::Ready(Ok(()))
        } else {
            std::task::Poll::Pending
        }
    })
    .await?;
    drop(workers);
    let mut measured = measured.into_inner();
    measured.took = started.elapsed();
    Ok(measured)
}

fn failure(error: &std::io::Error, completed: usize) -> Failure {
    let number = error.raw_os_error().unwrap_or(70007);
    let reason = if error.kind() == std::io::ErrorKind::TimedOut {
        "The timeout specified has expired (70007)".to_owned()
    } else if error.kind() == std::io::ErrorKind::UnexpectedEof {
        "End of file found (70014)".to_owned()
    } else {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        format!("{text} ({number})")
    };
    Failure {
        message: format!("apr_socket_recv: {reason}"),
        code: u8::try_from(number & 255).unwrap_or(1).max(1),
        completed,
    }
}

impl Measured {
    fn count(&mut self, options: &Options, done: Done, answer: &Answer) {
        if self.done.is_empty() {
            self.document_length = answer.body;
            self.server.clone_from(&answer.server);
        } else if answer.body != self.document_length && !options.variable_length {
            self.failed_length += 1;
        }
        if !(200..300).contains(&answer.status) {
            self.not_2xx += 1;
        }
        if answer.keep_alive {
            self.kept_alive += 1;
        }
        self.transferred += answer.head + answer.body;
        self.html += answer.body;
        self.done.push(done);
    }
}

async fn exchange(stream: &mut TcpStream, options: &Options) -> std::io::Result<(Instant, Answer)> {
    stream.write_all(&options.message).await?;
    let written = Instant::now();
    let mut seen = Vec::with_capacity(8192);
    let mut first_byte = None;
    let end = loop {
        if let Some(end) = seen.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        first_byte.get_or_insert_with(Instant::now);
    };
    let head = Head::parse(&String::from_utf8_lossy(&seen[..end]));
    let mut body = seen.len() - end;
    let keep_alive = options.keep_alive && head.keep_alive && head.length.is_some();
    let bodiless = options.head || matches!(head.status, 204 | 304);
    let wanted = if bodiless {
        Some(0)
    } else if keep_alive {
        head.length
    } else {
        None
    };
    let mut buffer = vec![0; 8192];
    while wanted.is_none_or(|wanted| body < wanted) {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => body += count,
            // Some servers reset after the end of an answer that had said how long it is.
            Err(_) if head.length.is_some_and(|length| body >= length) => break,
            Err(error) => return Err(error),
        }
    }
    Ok((
        written,
        Answer {
            first_byte: first_byte.unwrap_or(written),
            status: head.status,
            server: head.server,
            head: end,
            body,
            keep_alive,
        },
    ))
}

/// What matters of an answer's head.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    status: u16,
    server: String,
    length: Option<usize>,
    keep_alive: bool,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let status = lines.next().unwrap_or_default();
        let mut head = Head {
            status: status
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .unwrap_or(500),
            ..Head::default()
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "server" => value.clone_into(&mut head.server),
                "content-length" => head.length = value.parse().ok(),
                "connection" => head.keep_alive = value.eq_ignore_ascii_case("keep-alive"),
                _ => {}
            }
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_understood() {
        assert_eq!(
            Head::parse(
                "HTTP/1.1 503 Service Unavailable\r\nServer: istio-envoy\r\ncontent-length: 19\r\n\
                 connection: Keep-Alive\r\n\r\n"
            ),
            Head {
                status: 503,
                server: "istio-envoy".into(),
                length: Some(19),
                keep_alive: true
            }
        );
    }
}
