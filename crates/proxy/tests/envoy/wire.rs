//! Reading HTTP/1 messages as they stand on the wire, without a library that would be lenient or strict.

use tokio::io::{AsyncRead, AsyncReadExt};

/// A message, request or answer.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// Start line and headers, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
}

impl Message {
    /// Reads a head; `None` when the connection ends first.
    pub async fn head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Self> {
        loop {
            if let Some(at) = find(buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..at]).into_owned();
                buffer.drain(..at + 4);
                return Some(Self {
                    head,
                    ..Self::default()
                });
            }
            if !more(stream, buffer).await {
                return None;
            }
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_ascii_lowercase())
        })
    }

    /// Whether the sender will close the connection.
    pub fn closes(&self) -> bool {
        self.value("connection")
            .is_some_and(|value| value.contains("close"))
    }

    /// Reads the body; `false` when it broke off.
    pub async fn body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
        is_request: bool,
        bodiless: bool,
    ) -> bool {
        let status: u16 = self
            .head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        if bodiless || !is_request && (status / 100 == 1 || status == 204 || status == 304) {
            return true;
        }
        if self
            .value("transfer-encoding")
            .is_some_and(|value| value.contains("chunked"))
        {
            loop {
                let Some(line) = line(stream, buffer).await else {
                    return false;
                };
                let size = line.split(';').next().unwrap_or_default().trim();
                let Ok(size) = usize::from_str_radix(size, 16) else {
                    return false;
                };
                if size == 0 {
                    loop {
                        match self::line(stream, buffer).await {
                            Some(line) if line.is_empty() => return true,
                            Some(line) => self.trailers.push(line),
                            None => return false,
                        }
                    }
                }
                if !self.take(stream, buffer, size).await
                    || self::line(stream, buffer).await.is_none()
                {
                    return false;
                }
            }
        }
        if let Some(length) = self
            .value("content-length")
            .and_then(|length| length.parse().ok())
        {
            return self.take(stream, buffer, length).await;
        }
        if !is_request {
            while more(stream, buffer).await {}
            self.body.append(buffer);
        }
        true
    }

    async fn take(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
        length: usize,
    ) -> bool {
        while buffer.len() < length {
            if !more(stream, buffer).await {
                self.body.append(buffer);
                return false;
            }
        }
        self.body.extend(buffer.drain(..length));
        true
    }

    /// Everything as text, headers in alphabetical order, long bodies by their length.
    pub fn text(&self) -> String {
        let mut lines: Vec<&str> = self.head.lines().collect();
        if lines.len() > 1 {
            lines[1..].sort_unstable();
        }
        let mut text = lines.join("\n");
        text.push_str("\n\n");
        if self.body.len() > 2048 {
            text.push_str(&format!("<{} bytes>", self.body.len()));
        } else {
            text.push_str(&String::from_utf8_lossy(&self.body));
        }
        for trailer in &self.trailers {
            text.push_str(&format!("\ntrailer {trailer}"));
        }
        text
    }
}

/// Reads a whole message; the flag says whether it is complete.
pub async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    is_request: bool,
    bodiless: bool,
) -> Option<(Message, bool)> {
    let mut message = Message::head(stream, buffer).await?;
    let complete = message.body(stream, buffer, is_request, bodiless).await;
    Some((message, complete))
}

async fn line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = find(buffer, b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + 2);
            return Some(line);
        }
        if !more(stream, buffer).await {
            return None;
        }
    }
}

/// Reads some; `false` at the end.
pub async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16 * 1024];
    match stream.read(&mut chunk).await {
        Ok(n) if n > 0 => {
            buffer.extend_from_slice(&chunk[..n]);
            true
        }
        _ => false,
    }
}

/// Where `what` begins.
pub fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}
