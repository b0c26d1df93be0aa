//! One question, one answer.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::TTL;
use super::table::{Endpoint, Port, Service, ServiceKind, Table};

/// The largest answer over UDP to a client that does not say more.
const UDP_SIZE: u16 = 512;

/// What a name stands for.
enum Found {
    /// No such name.
    Nothing,
    /// It exists but has no records of its own.
    Empty,
    Addresses(Vec<Ipv4Addr>),
    Alias(String),
    /// (port, target name, target address if known)
    Services(Vec<(u16, String, Option<Ipv4Addr>)>),
    Zone,
    Pointer(String),
}

/// Reads a query; `Err` holds the answer to something that is none we serve, `None` in it when even
/// the header cannot be read.
///
/// # Errors
/// An error message to send back, or nothing to say.
pub fn parse_question(bytes: &[u8]) -> Result<Message, Option<Vec<u8>>> {
    let refused = |id, code| Message::error_msg(id, OpCode::Query, code).to_vec().ok();
    let id = match bytes {
        // A response is never answered: two servers must not talk to each other for ever.
        [_, _, flags, ..] if flags & 0x80 != 0 => return Err(None),
        [a, b, ..] if bytes.len() >= 12 => u16::from_be_bytes([*a, *b]),
        _ => return Err(None),
    };
    let message = Message::from_vec(bytes).map_err(|_| refused(id, ResponseCode::FormErr))?;
    if message.metadata.message_type != MessageType::Query {
        return Err(None);
    }
    if message.metadata.op_code != OpCode::Query {
        return Err(refused(id, ResponseCode::NotImp));
    }
    if message.queries.len() != 1 {
        return Err(refused(id, ResponseCode::FormErr));
    }
    Ok(message)
}

/// Whether the question is about a name this server is the authority for.
pub(super) fn in_zone(query: &Query, zone: &str) -> bool {
    let name = text(query.name());
    name == zone
        || name
            .strip_suffix(zone)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// The answer to `question`, as bytes that fit the transport (`udp`: cut to what the client takes,
/// with the truncation flag). `turn` rotates the order of addresses.
pub fn answer(table: &Table, question: &Message, turn: usize, udp: bool) -> Vec<u8> {
    let mut response = Message::response(question.metadata.id, OpCode::Query);
    response.metadata = Metadata::response_from_request(&question.metadata);
    response.metadata.authoritative = true;
    if let Some(edns) = &question.edns {
        let mut own = Edns::new();
        own.set_max_payload(1232).set_version(0);
        response.set_edns(own);
        if edns.version() > 0 {
            response.metadata.response_code = ResponseCode::BADVERS;
        }
    }
    if let Some(query) = question.queries.first() {
        response.add_query(query.clone());
        fill(&mut response, table, query, turn);
    }
    let limit = question
        .edns
        .as_ref()
        .map_or(UDP_SIZE, |edns| edns.max_payload().clamp(UDP_SIZE, 1232));
    match response.to_vec() {
        Ok(bytes) if !udp || bytes.len() <= usize::from(limit) => bytes,
        Ok(_) => response.truncate().to_vec().unwrap_or_default(),
        Err(problem) => {
            tracing::warn!(%problem, "DNS answer");
            Message::error_msg(question.metadata.id, OpCode::Query, ResponseCode::ServFail)
                .to_vec()
                .unwrap_or_default()
        }
    }
}

fn fill(response: &mut Message, table: &Table, query: &Query, turn: usize) {
    if query.query_class() != DNSClass::IN {
        response.metadata.response_code = ResponseCode::Refused;
        return;
    }
    let owner = query.name().clone();
    let kind = query.query_type();
    let wants = |record: RecordType| kind == record || kind == RecordType::ANY;
    let mut found = find(table, &text(&owner));
    let mut owner_now = owner.clone();
    // An alias that stays in the zone is followed here, so that one question is enough.
    for _ in 0..8 {
        let Found::Alias(target) = &found else { break };
        let Ok(target_name) = name(target) else { break };
        response.add_answer(record(&owner_now, RData::CNAME(CNAME(target_name.clone()))));
        if kind == RecordType::CNAME {
            return;
        }
        let inside = target
            .to_ascii_lowercase()
            .ends_with(&format!(".{}", table.zone));
        if !inside {
            return;
        }
        owner_now = target_name;
        found = find(table, &target.to_ascii_lowercase());
    }
    match found {
        // An alias to nothing is still an answer.
        Found::Nothing if response.answers.is_empty() => {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        Found::Addresses(mut addresses) if wants(RecordType::A) => {
            if !addresses.is_empty() {
                let by = turn % addresses.len();
                addresses.rotate_left(by);
            }
            for address in addresses {
                response.add_answer(record(&owner_now, RData::A(A(address))));
            }
        }
        Found::Services(list) if wants(RecordType::SRV) => {
            for (port, target, address) in list {
                let Ok(target) = name(&target) else { continue };
                if let Some(address) = address {
                    response.add_additional(record(&target, RData::A(A(address))));
                }
                response.add_answer(record(
                    &owner_now,
                    RData::SRV(SRV::new(0, 100, port, target)),
                ));
            }
        }
        Found::Pointer(target) if wants(RecordType::PTR) => {
            if let Ok(target) = name(&target) {
                response.add_answer(record(&owner_now, RData::PTR(PTR(target))));
            }
        }
        Found::Zone if wants(RecordType::SOA) => {
            response.add_answer(soa(table));
        }
        Found::Zone if wants(RecordType::NS) => {
            if let Ok(server) = name(&format!("ns.dns.{}", table.zone)) {
                response.add_answer(record(&owner_now, RData::NS(NS(server))));
            }
        }
        _ => {}
    }
    if response.answers.is_empty() && in_zone(query, &table.zone) {
        response.add_authority(soa(table));
    }
}

fn name(text: &str) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = Name::from_ascii(text)?;
    name.set_fqdn(true);
    Ok(name)
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL, data)
}

fn soa(table: &Table) -> Record {
    let zone = name(&table.zone).unwrap_or_default();
    let server = name(&format!("ns.dns.{}", table.zone)).unwrap_or_default();
    let mailbox = name(&format!("hostmaster.{}", table.zone)).unwrap_or_default();
    record(
        &zone,
        RData::SOA(SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL)),
    )
}

/// Looks a lower-case name up.
fn find(table: &Table, name: &str) -> Found {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = reversed.split('.').collect();
        parts.reverse();
        let ip: Option<Ipv4Addr> = parts.join(".").parse().ok();
        return match ip.and_then(|ip| table.name_of(ip)) {
            Some(name) => Found::Pointer(name.to_owned()),
            None => Found::Nothing,
        };
    }
    if name == table.zone {
        return Found::Zone;
    }
    let Some(inside) = name
        .strip_suffix(&table.zone)
        .and_then(|rest| rest.strip_suffix('.'))
    else {
        return Found::Nothing;
    };
    let mut labels: Vec<&str> = inside.split('.').collect();
    labels.reverse();
    match labels.as_slice() {
        ["svc"] | ["pod"] => Found::Empty,
        ["svc" | "pod", namespace] if table.has_namespace(namespace) => Found::Empty,
        ["pod", namespace, ip] if table.has_namespace(namespace) => match dashed(ip) {
            Some(ip) => Found::Addresses(vec![ip]),
            None => Found::Nothing,
        },
        ["svc", namespace, service, rest @ ..] => match table.service(namespace, service) {
            Some(found) => in_service(table, namespace, service, found, rest),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

/// `10-10-0-5` → 10.10.0.5.
fn dashed(text: &str) -> Option<Ipv4Addr> {
    text.replace('-', ".").parse().ok()
}

fn in_service(
    table: &Table,
    namespace: &str,
    name: &str,
    service: &Service,
    rest: &[&str],
) -> Found {
    let full = format!("{name}.{namespace}.svc.{}", table.zone);
    match (&service.kind, rest) {
        (ServiceKind::ClusterIp(ip), []) => Found::Addresses(vec![*ip]),
        (ServiceKind::External(target), []) => Found::Alias(target.clone()),
        // As CoreDNS: a headless service without a ready endpoint has no name.
        (ServiceKind::Headless(endpoints), []) if endpoints.is_empty() => Found::Nothing,
        (ServiceKind::Headless(endpoints), []) => {
            let mut addresses: Vec<Ipv4Addr> =
                endpoints.iter().map(|endpoint| endpoint.ip).collect();
            addresses.dedup();
            Found::Addresses(addresses)
        }
        (ServiceKind::Headless(endpoints), [label]) if !label.starts_with('_') => {
            let addresses: Vec<Ipv4Addr> = endpoints
                .iter()
                .filter(|endpoint| endpoint.label().eq_ignore_ascii_case(label))
                .map(|endpoint| endpoint.ip)
                .collect();
            if addresses.is_empty() {
                Found::Nothing
            } else {
                Found::Addresses(addresses)
            }
        }
        (kind, [protocol]) if protocol.starts_with('_') => {
            let known = matches!(kind, ServiceKind::ClusterIp(_) | ServiceKind::Headless(_))
                && service
                    .ports
                    .iter()
                    .any(|port| port.protocol == protocol[1..]);
            if known { Found::Empty } else { Found::Nothing }
        }
        (kind, [protocol, port]) => {
            let (Some(protocol), Some(port)) = (protocol.strip_prefix('_'), port.strip_prefix('_'))
            else {
                return Found::Nothing;
            };
            let wanted =
                |candidate: &Port| candidate.protocol == protocol && candidate.name == port;
            let list: Vec<(u16, String, Option<Ipv4Addr>)> = match kind {
                ServiceKind::ClusterIp(ip) => service
                    .ports
                    .iter()
                    .filter(|port| wanted(port))
                    .map(|port| (port.port, full.clone(), Some(*ip)))
                    .collect(),
                ServiceKind::Headless(endpoints) => endpoints
                    .iter()
                    .flat_map(|endpoint: &Endpoint| {
                        let target = format!("{}.{full}", endpoint.label());
                        endpoint
                            .ports
                            .iter()
                            .filter(|port| wanted(port))
                            .map(move |port| (port.port, target.clone(), Some(endpoint.ip)))
                    })
                    .collect(),
                ServiceKind::External(_) => Vec::new(),
            };
            if list.is_empty() {
                Found::Nothing
            } else {
                Found::Services(list)
            }
        }
        _ => Found::Nothing,
    }
}
