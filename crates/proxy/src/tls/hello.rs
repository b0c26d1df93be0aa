//! Reading a ClientHello without answering it: what the `tls_inspector` listener filter finds out.

/// What the first record of a TLS connection says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server name, in lower case.
    pub server_name: Option<String>,
    /// The application protocols in order.
    pub alpn: Vec<String>,
}

/// The verdict over the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Inspection {
    /// It is TLS and says this.
    Tls(Hello),
    /// It is not TLS.
    NotTls,
    /// It may be TLS; more bytes are needed.
    More,
}

/// The largest ClientHello that is looked at.
const MAX_HELLO: usize = 64 * 1024;

/// Looks at the first bytes of a connection.
pub fn inspect(bytes: &[u8]) -> Inspection {
    if bytes.is_empty() {
        return Inspection::More;
    }
    // handshake record, major version 3
    if bytes[0] != 0x16 || (bytes.len() > 1 && bytes[1] != 3) {
        return Inspection::NotTls;
    }
    // The hello may be spread over several records.
    let mut message = Vec::new();
    let mut rest = bytes;
    let mut complete = false;
    while rest.len() >= 5 {
        if rest[0] != 0x16 {
            return Inspection::NotTls;
        }
        let length = usize::from(rest[3]) << 8 | usize::from(rest[4]);
        let have = (rest.len() - 5).min(length);
        message.extend_from_slice(&rest[5..5 + have]);
        if message.len() >= 4 {
            if message[0] != 1 {
                return Inspection::NotTls;
            }
            let wanted = 4
                + (usize::from(message[1]) << 16
                    | usize::from(message[2]) << 8
                    | usize::from(message[3]));
            if wanted > MAX_HELLO {
                return Inspection::NotTls;
            }
            if message.len() >= wanted {
                message.truncate(wanted);
                complete = true;
                break;
            }
        }
        if have < length {
            break;
        }
        rest = &rest[5 + length..];
    }
    if !complete {
        return Inspection::More;
    }
    match parse(&message[4..]) {
        Some(hello) => Inspection::Tls(hello),
        None => Inspection::NotTls,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
    fn u8(&mut self) -> Option<usize> {
        Some(usize::from(self.take(1)?[0]))
    }
    fn u16(&mut self) -> Option<usize> {
        let bytes = self.take(2)?;
        Some(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
    }
}

fn parse(message: &[u8]) -> Option<Hello> {
    let mut hello = Hello::default();
    let mut reader = Reader(message);
    reader.take(2 + 32)?;
    let session = reader.u8()?;
    reader.take(session)?;
    let ciphers = reader.u16()?;
    reader.take(ciphers)?;
    let compression = reader.u8()?;
    reader.take(compression)?;
    if reader.0.is_empty() {
        return Some(hello);
    }
    let length = reader.u16()?;
    let mut extensions = Reader(reader.take(length)?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let mut body = Reader(extensions.take(length)?);
        match kind {
            0 => {
                let length = body.u16()?;
                let mut names = Reader(body.take(length)?);
                while !names.0.is_empty() {
                    let kind = names.u8()?;
                    let length = names.u16()?;
                    let name = names.take(length)?;
                    if kind == 0 {
                        hello.server_name =
                            Some(String::from_utf8_lossy(name).to_ascii_lowercase());
                    }
                }
            }
            16 => {
                let length = body.u16()?;
                let mut names = Reader(body.take(length)?);
                while !names.0.is_empty() {
                    let length = names.u8()?;
                    hello
                        .alpn
                        .push(String::from_utf8_lossy(names.take(length)?).into_owned());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut connection =
            rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn names_and_protocols_are_found_at_any_split() {
        let name = "outbound_.8081_.v1_.user-service.theater-msa.svc.cluster.local";
        let bytes = client_hello(name, &["istio", "h2"]);
        for end in 0..bytes.len() {
            assert_eq!(inspect(&bytes[..end]), Inspection::More, "{end}");
        }
        let expected = Hello {
            server_name: Some(name.into()),
            alpn: vec!["istio".into(), "h2".into()],
        };
        assert_eq!(inspect(&bytes), Inspection::Tls(expected));
    }

    #[test]
    fn other_protocols_are_not_tls() {
        assert_eq!(inspect(b"GET / HTTP/1.1\r\n"), Inspection::NotTls);
        assert_eq!(inspect(&[0x16, 9, 9]), Inspection::NotTls);
        assert_eq!(inspect(&[]), Inspection::More);
    }
}
