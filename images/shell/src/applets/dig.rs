//! `dig`: one question to a name server, and its answer as a zone file has it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::lookup::{self, Resolver};
use super::say;
use crate::options::{Ended, Failure};
use crate::output;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Types of records that can be asked for and shown.
const KINDS: [(&str, u16); 6] = [
    ("A", 1),
    ("CNAME", 5),
    ("PTR", 12),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
];

#[derive(Debug, PartialEq)]
struct Asked {
    server: Option<String>,
    name: String,
    kind: u16,
    tcp: bool,
    search: bool,
    short: bool,
    /// The comments around the answer are shown.
    comments: bool,
    answer: bool,
}

fn asked(args: &[String]) -> Result<Asked, Failure> {
    let mut out = Asked {
        server: None,
        name: String::new(),
        kind: 1,
        tcp: false,
        search: false,
        short: false,
        comments: true,
        answer: true,
    };
    let mut reverse = false;
    for arg in args {
        match arg.as_str() {
            "+tcp" | "+vc" => out.tcp = true,
            "+notcp" | "+novc" => out.tcp = false,
            "+search" => out.search = true,
            "+nosearch" => out.search = false,
            "+short" => out.short = true,
            "+noall" => (out.comments, out.answer) = (false, false),
            "+answer" => out.answer = true,
            "+noanswer" => out.answer = false,
            "-x" => reverse = true,
            other => {
                let kind = KINDS.iter().find(|(n, _)| other.eq_ignore_ascii_case(n));
                if let Some(server) = other.strip_prefix('@') {
                    out.server = Some(server.to_owned());
                } else if other.starts_with(['+', '-']) {
                    return Err(Failure::Usage(format!("unrecognized option '{other}'")));
                } else if let (Some((_, kind)), false) = (kind, out.name.is_empty()) {
                    out.kind = *kind;
                } else if out.name.is_empty() {
                    out.name = other.to_owned();
                } else {
                    return Err(Failure::Usage(format!("unknown type '{other}'")));
                }
            }
        }
    }
    if reverse {
        let address: IpAddr = out
            .name
            .parse()
            .map_err(|_| Failure::Usage(format!("'{}' is no address", out.name)))?;
        (out.name, out.kind) = (lookup::reverse(address), 12);
    }
    if out.name.is_empty() {
        return Err(Failure::Usage("a name is expected".into()));
    }
    Ok(out)
}

/// Owner, seconds to live, type, data as text.
type Record = (String, u32, &'static str, String);

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// The code of an answer and its records; nothing when it is damaged.
fn parse(message: &[u8]) -> Option<(u8, Vec<Record>)> {
    let number = |at| lookup::number(message, at);
    let mut at = 12;
    for _ in 0..number(4)? {
        at = lookup::name(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..number(6)? {
        let (owner, after) = lookup::name(message, at)?;
        let kind = number(after)?;
        let life = u32::from(number(after + 4)?) << 16 | u32::from(number(after + 6)?);
        let length = usize::from(number(after + 8)?);
        let start = after + 10;
        let bytes = message.get(start..start + length)?;
        let target = |at| Some(absolute(&lookup::name(message, at)?.0));
        let data = match kind {
            1 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            28 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            5 | 12 => target(start)?,
            33 => format!(
                "{} {} {} {}",
                number(start)?,
                number(start + 2)?,
                number(start + 4)?,
                target(start + 6)?
            ),
            16 => format!("{:?}", String::from_utf8_lossy(bytes.get(1..)?)),
            _ => String::new(),
        };
        if let Some((name, _)) = KINDS.iter().find(|(_, k)| *k == kind) {
            records.push((absolute(&owner), life, *name, data));
        }
        at = start + length;
    }
    Some(((number(2)? & 15) as u8, records))
}

fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut framed = u16::try_from(question.len())
        .unwrap_or_default()
        .to_be_bytes()
        .to_vec();
    framed.extend(question);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn ask(server: SocketAddr, name: &str, asked: &Asked) -> Result<(u8, Vec<Record>), Failure> {
    let message = if asked.tcp {
        let question = lookup::query(std::process::id() as u16, name, asked.kind)?;
        over_tcp(server, &question)?
    } else {
        lookup::exchange(server, name, asked.kind)?
    };
    parse(&message).ok_or_else(|| Failure::Message("the server's answer is damaged".into()))
}

pub(super) fn dig(args: &[String]) -> Ended {
    let asked = asked(args)?;
    let resolver =
        Resolver::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let server = match &asked.server {
        Some(text) => lookup::server_of(text)?,
        None => match resolver.servers.first() {
            Some(address) => SocketAddr::new(*address, 53),
            None => return Err(Failure::Message("no nameserver in /etc/resolv.conf".into())),
        },
    };
    let names = if asked.search {
        resolver.candidates(&asked.name)
    } else {
        vec![asked.name.clone()]
    };
    let (mut code, mut records) = (3, Vec::new());
    for name in names {
        match ask(server, &name, &asked) {
            Ok(found) => (code, records) = found,
            Err(Failure::Message(why)) => {
                // As a comment, so that what reads answers reads none.
                output::write_all(1, format!(";; {why}\n").as_bytes())?;
                return Ok(9);
            }
            Err(other) => return Err(other),
        }
        if !records.is_empty() {
            break;
        }
    }
    say(&shown(&asked, code, &records))
}

fn shown(asked: &Asked, code: u8, records: &[Record]) -> String {
    if asked.short {
        return records.iter().map(|r| format!("{}\n", r.3)).collect();
    }
    let mut text = String::new();
    if asked.comments {
        let status = match code {
            0 => "NOERROR".to_owned(),
            other => lookup::code_name(other),
        };
        text.push_str(&format!(
            ";; ->>HEADER<<- opcode: QUERY, status: {status}\n"
        ));
        if !records.is_empty() {
            text.push_str("\n;; ANSWER SECTION:\n");
        }
    }
    if asked.answer {
        for (owner, life, kind, data) in records {
            text.push_str(&format!("{owner}\t{life}\tIN\t{kind}\t{data}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_service_record_is_shown_as_a_zone_file_has_it() {
        let mut message = lookup::query(7, "_http._tcp.a", 33).unwrap();
        message[7] = 1;
        message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 5, 0, 9]);
        message.extend([0, 0, 0, 100, 0, 80, 1, b'b', 0]);
        let asked = asked(&words("+notcp +noall +answer +search _http._tcp.a SRV")).unwrap();
        assert_eq!((asked.kind, asked.search, asked.tcp), (33, true, false));
        let (code, records) = parse(&message).unwrap();
        assert_eq!(
            shown(&asked, code, &records),
            "_http._tcp.a.\t5\tIN\tSRV\t0 100 80 b.\n"
        );
        for cut in 0..message.len() {
            let _ = parse(&message[..cut]);
        }
    }

    #[test]
    fn short_answers_are_the_data_alone() {
        let asked = asked(&words("+short x.y CNAME")).unwrap();
        let records = [("x.y.".to_owned(), 30, "CNAME", "z.".to_owned())];
        assert_eq!(shown(&asked, 0, &records), "z.\n");
    }

    #[test]
    fn wrong_questions_are_refused() {
        for line in ["", "+nonsense a", "a b", "-x name"] {
            assert!(asked(&words(line)).is_err(), "{line}");
        }
        assert_eq!(
            asked(&words("-x 10.1.2.3")).unwrap().name,
            "3.2.1.10.in-addr.arpa"
        );
    }
}
