//! `nslookup`: asks a name server, over the search list of `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::say;
use crate::options::{Ended, Failure, Options};
use crate::output;

const ADDRESS: u16 = 1;
const ALIAS: u16 = 5;
const POINTER: u16 = 12;
const ADDRESS_6: u16 = 28;

pub(super) struct Resolver {
    pub(super) servers: Vec<IpAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Resolver {
    pub(super) fn parse(text: &str) -> Self {
        let mut resolver = Resolver {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["nameserver", address, ..] => resolver.servers.extend(address.parse::<IpAddr>()),
                ["search" | "domain", domains @ ..] => {
                    resolver.search = domains.iter().map(|domain| (*domain).to_owned()).collect();
                }
                ["options", options @ ..] => {
                    for option in options {
                        if let Some(count) = option
                            .strip_prefix("ndots:")
                            .and_then(|count| count.parse().ok())
                        {
                            resolver.dots = count;
                        }
                    }
                }
                _ => {}
            }
        }
        resolver
    }

    /// Names to ask for, in order.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{name}.{domain}"))
            .collect();
        if name.matches('.').count() >= self.dots {
            names.insert(0, name.to_owned());
        } else {
            names.push(name.to_owned());
        }
        names
    }
}

#[derive(Debug, PartialEq)]
enum Data {
    Address(IpAddr),
    Name(String),
}

#[derive(Debug)]
struct Answer {
    code: u8,
    authoritative: bool,
    records: Vec<(String, u16, Data)>,
}

pub(super) fn query(id: u16, name: &str, kind: u16) -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length < 64);
        message.push(length.ok_or_else(|| {
            Failure::Message(format!("'{name}': a part is longer than 63 characters"))
        })?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() > 12 + 255 {
        return Err(Failure::Message(format!(
            "'{name}': longer than 255 characters"
        )));
    }
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    Ok(message)
}

pub(super) fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([
        *message.get(at)?,
        *message.get(at + 1)?,
    ]))
}

/// A name and where it ends. Names refer to earlier ones; a hundred references are none.
pub(super) fn name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let mut at = start;
    let mut end = None;
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        if length & 0xc0 == 0xc0 {
            end.get_or_insert(at + 2);
            at = usize::from(number(message, at)? & 0x3fff);
            continue;
        }
        at += 1;
        if length == 0 {
            return Some((labels.join("."), end.unwrap_or(at)));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned());
        at += length;
    }
    None
}

fn parse(message: &[u8]) -> Option<Answer> {
    let flags = number(message, 2)?;
    let mut at = 12;
    for _ in 0..number(message, 4)? {
        at = name(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..number(message, 6)? {
        let (owner, after) = name(message, at)?;
        let kind = number(message, after)?;
        let length = usize::from(number(message, after + 8)?);
        let start = after + 10;
        let bytes = message.get(start..start + length)?;
        let data = match kind {
            ADDRESS => <[u8; 4]>::try_from(bytes)
                .ok()
                .map(|bytes| Data::Address(Ipv4Addr::from(bytes).into())),
            ADDRESS_6 => <[u8; 16]>::try_from(bytes)
                .ok()
                .map(|bytes| Data::Address(Ipv6Addr::from(bytes).into())),
            ALIAS | POINTER => Some(Data::Name(name(message, start)?.0)),
            _ => None,
        };
        records.extend(data.map(|data| (owner, kind, data)));
        at = start + length;
    }
    Some(Answer {
        code: (flags & 15) as u8,
        authoritative: flags & 0x400 != 0,
        records,
    })
}

fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Answer, Failure> {
    parse(&exchange(server, name, kind)?)
        .ok_or_else(|| Failure::Message("the server's answer is damaged".into()))
}

/// Asks over UDP; the server's message as it came.
pub(super) fn exchange(server: SocketAddr, name: &str, kind: u16) -> Result<Vec<u8>, Failure> {
    let local: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    let mut buffer = [0; 4096];
    for attempt in 0..2_u32 {
        let id = (std::process::id() as u16)
            .wrapping_mul(31)
            .wrapping_add(kind)
            .wrapping_add(attempt as u16);
        socket.send(&query(id, name, kind)?)?;
        let deadline = Instant::now() + Duration::from_millis(2500);
        while let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                // Others' answers, or late ones, are passed over.
                Ok(count) if number(&buffer[..count], 0) == Some(id) => {
                    return Ok(buffer[..count].to_vec());
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    return Err(Failure::Message(format!(
                        "server {server}: Connection refused"
                    )));
                }
                Err(_) => break,
            }
        }
    }
    Err(Failure::Message(
        "connection timed out; no servers could be reached".into(),
    ))
}

pub(super) fn code_name(code: u8) -> String {
    match code {
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("code {other}"),
    }
}

pub(super) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address
                .octets()
                .into_iter()
                .flat_map(|byte| [byte >> 4, byte & 15]);
            let digits: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!(
                "{}.ip6.arpa",
                digits.into_iter().rev().collect::<Vec<_>>().join(".")
            )
        }
    }
}

pub(super) fn server_of(text: &str) -> Result<SocketAddr, Failure> {
    let found = match text.parse::<SocketAddr>() {
        Ok(address) => Some(address),
        Err(_) => (text, 53)
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next()),
    };
    found.ok_or_else(|| Failure::Message(format!("can't resolve server '{text}'")))
}

/// `getent hosts NAME...`: names as this machine's programs resolve them.
pub(super) fn getent(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    let Some((database, names)) = options.operands.split_first() else {
        return Err(Failure::Usage("a database is expected".into()));
    };
    if database != "hosts" && database != "ahosts" {
        return Err(Failure::Usage(format!("unknown database: {database}")));
    }
    let mut status = 0;
    for name in names {
        let found: Vec<SocketAddr> = (name.as_str(), 0)
            .to_socket_addrs()
            .map_or_else(|_| Vec::new(), Iterator::collect);
        match found.first() {
            Some(address) => {
                say(&format!("{:<15} {name}\n", address.ip()))?;
            }
            // What programs that read its output look at.
            None => status = 2,
        }
    }
    Ok(status)
}

pub(super) fn nslookup(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    options.at_least(1)?;
    options.at_most(2)?;
    let wanted = &options.operands[0];
    let resolver =
        Resolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let server = match options.operands.get(1) {
        Some(text) => server_of(text)?,
        None => match resolver.servers.first() {
            Some(address) => SocketAddr::new(*address, 53),
            None => {
                return Err(Failure::Message(
                    "no nameserver in /etc/resolv.conf; name one as the second argument".into(),
                ));
            }
        },
    };
    output::write_all(
        1,
        format!("Server:\t\t{}\nAddress:\t{server}\n\n", server.ip()).as_bytes(),
    )?;
    if let Ok(address) = wanted.parse::<IpAddr>() {
        let answer = ask(server, &reverse(address), POINTER)?;
        let names: Vec<&(String, u16, Data)> = answer
            .records
            .iter()
            .filter(|(_, kind, _)| *kind == POINTER)
            .collect();
        let mut text = String::new();
        for (owner, _, data) in &names {
            if let Data::Name(name) = data {
                let _ = writeln!(text, "{owner}\tname = {name}");
            }
        }
        if names.is_empty() {
            output::write_all(
                1,
                format!(
                    "** server can't find {}: {}\n\n",
                    reverse(address),
                    code_name(answer.code.max(3))
                )
                .as_bytes(),
            )?;
            return Ok(1);
        }
        return say(&format!("{text}\n"));
    }
    let mut code = 3;
    for candidate in resolver.candidates(wanted) {
        let first = ask(server, &candidate, ADDRESS)?;
        if first.code != 0 {
            // A server's failure matters more than a name that does not exist.
            code = if code == 3 { first.code } else { code };
            continue;
        }
        let second = ask(server, &candidate, ADDRESS_6)?;
        let text = shown(&first, &second);
        if text.is_empty() {
            continue;
        }
        let doubt = if first.authoritative {
            ""
        } else {
            "Non-authoritative answer:\n"
        };
        return say(&format!("{doubt}{text}\n"));
    }
    let what = if code == 0 {
        "No answer".to_owned()
    } else {
        code_name(code)
    };
    output::write_all(
        1,
        format!("** server can't find {wanted}: {what}\n\n").as_bytes(),
    )?;
    Ok(1)
}

fn shown(first: &Answer, second: &Answer) -> String {
    let mut text = String::new();
    for (owner, _, data) in first.records.iter().chain(&second.records) {
        let line = match data {
            Data::Address(address) => format!("Name:\t{owner}\nAddress: {address}\n"),
            Data::Name(name) => format!("{owner}\tcanonical name = {name}\n"),
        };
        // Aliases come with both answers.
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists() {
        let resolver = Resolver::parse(
            "nameserver 10.97.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
        );
        assert_eq!(resolver.servers, ["10.97.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            resolver.candidates("redis"),
            [
                "redis.a.svc.cluster.local",
                "redis.svc.cluster.local",
                "redis"
            ]
        );
        assert_eq!(resolver.candidates("a.b."), ["a.b"]);
    }

    #[test]
    fn answers() {
        let mut message = query(7, "a.b", ADDRESS).unwrap();
        message[2..4].copy_from_slice(&[0x85, 0]);
        message[7] = 1;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
        let answer = parse(&message).unwrap();
        assert!(answer.authoritative);
        assert_eq!(
            answer.records,
            [(
                "a.b".to_owned(),
                1,
                Data::Address("10.0.0.1".parse().unwrap())
            )]
        );
        // A name that refers to itself.
        let length = message.len();
        message[12..14].copy_from_slice(&[0xc0, 12]);
        assert!(parse(&message[..length]).is_none());
        for cut in 0..length {
            let _ = parse(&message[..cut]);
        }
    }

    #[test]
    fn reversed_addresses() {
        assert_eq!(
            reverse("10.1.2.3".parse().unwrap()),
            "3.2.1.10.in-addr.arpa"
        );
    }
}
