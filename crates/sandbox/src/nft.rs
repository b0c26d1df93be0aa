//! nftables rule sets as values, sent as one transaction.
//!
//! Names and numbers are those of the kernel's `linux/netfilter/nf_tables.h`. Only what our tables need is here.

use std::net::Ipv4Addr;

use crate::netlink::{CREATE, CREATE_APPEND, Message, NETFILTER, PLAIN, Socket};
use crate::{Cidr, Error, Result};

const SUBSYSTEM: u16 = 10;
const FAMILY_IPV4: u8 = 2;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;

/// Where a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

/// Destination NAT priority.
pub(crate) const PRIORITY_DSTNAT: i32 = -100;
/// Source NAT priority.
pub(crate) const PRIORITY_SRCNAT: i32 = 100;
/// Filter priority.
pub(crate) const PRIORITY_FILTER: i32 = 0;

/// TCP's protocol number.
pub(crate) const TCP: u8 = 6;
/// UDP's protocol number.
pub(crate) const UDP: u8 = 17;

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(String),
}

/// One step of a rule: a condition, or what to do when all conditions before it hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Transport protocol.
    Protocol(u8),
    Source(Cidr, bool),
    /// Destination network; `false` = anything else.
    Destination(Cidr, bool),
    /// Destination port of TCP or UDP (check the protocol first); `false` = any other.
    Port(u16, bool),
    InInterface(String, bool),
    OutInterface(String, bool),
    /// Packet mark.
    Mark(u32),
    /// User of the sending socket, in the numbers of the network namespace's user namespace.
    SocketUser(u32),
    /// Group of the sending socket.
    SocketGroup(u32),
    /// Part of, or related to, a connection already seen.
    Established,
    /// The connection's destination was translated.
    DestinationTranslated,
    /// True for this share of packets, in ten-thousandths.
    Chance(u32),
    /// Destination, protocol and port (and `slot` chosen at random below the number) looked up in a set.
    /// With a verdict map, the verdict found is carried out.
    LookupService {
        set: String,
        verdict: bool,
    },
    /// Source and destination looked up in a set.
    LookupPair {
        set: String,
    },
    Then(Verdict),
    /// To port of this machine.
    Redirect(u16),
    Masquerade,
    /// TCP reset; the packet must be TCP.
    RejectTcp,
    /// ICMP port unreachable.
    Reject,
    /// A slot below `slots`, then destination NAT to the address and port found in the map under (destination, protocol, port, slot).
    /// The slot is random, or (`sticky`) follows from the source address.
    TranslateByMap {
        map: String,
        slots: u32,
        sticky: bool,
    },
}

/// Kinds of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// (source, destination)
    Pairs,
    /// (destination, protocol, port)
    Services,
    /// (destination, protocol, port) -> verdict
    ServiceVerdicts,
    /// (destination, protocol, port, slot) -> (address, port)
    ServiceTargets,
}

/// Value of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Verdict(Verdict),
    Target(Ipv4Addr, u16),
}

/// Key of a service: each field padded to four bytes, as the kernel concatenates them.
pub(crate) fn service_key(ip: Ipv4Addr, protocol: u8, port: u16) -> Vec<u8> {
    let mut key = ip.octets().to_vec();
    key.extend_from_slice(&[protocol, 0, 0, 0]);
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    key
}

/// Key of one target of a service.
pub(crate) fn target_key(ip: Ipv4Addr, protocol: u8, port: u16, slot: u32) -> Vec<u8> {
    let mut key = service_key(ip, protocol, port);
    key.extend_from_slice(&slot.to_ne_bytes());
    key
}

/// Key of a pair.
pub(crate) fn pair_key(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    [source.octets(), destination.octets()].concat()
}

/// A table that replaces the one of the same name.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    messages: Vec<Message>,
    sets: u32,
}

fn message(kind: u16, flags: u16, what: String) -> Message {
    let mut m = Message::new(SUBSYSTEM << 8 | kind, flags, what);
    m.raw(&[FAMILY_IPV4, 0, 0, 0]);
    m
}

impl Table {
    pub(crate) fn replace(name: &str) -> Self {
        let mut t = Self {
            name: name.to_owned(),
            messages: Vec::new(),
            sets: 0,
        };
        // Adding before deleting makes the deletion succeed when there was no table.
        t.table(NEWTABLE, CREATE);
        t.table(DELTABLE, PLAIN);
        t.table(NEWTABLE, CREATE);
        t
    }

    fn table(&mut self, kind: u16, flags: u16) {
        let mut m = message(kind, flags, format!("nftables table {}", self.name));
        m.attr_str(1, &self.name);
        self.messages.push(m);
    }

    pub(crate) fn chain(&mut self, name: &str) -> &mut Self {
        let mut m = message(
            NEWCHAIN,
            CREATE,
            format!("nftables chain {}/{name}", self.name),
        );
        m.attr_str(1, &self.name).attr_str(3, name);
        self.messages.push(m);
        self
    }

    pub(crate) fn base_chain(
        &mut self,
        name: &str,
        kind: ChainKind,
        hook: Hook,
        priority: i32,
    ) -> &mut Self {
        let mut m = message(
            NEWCHAIN,
            CREATE,
            format!("nftables chain {}/{name}", self.name),
        );
        m.attr_str(1, &self.name).attr_str(3, name);
        m.nest(4, |m| {
            m.attr_be32(1, hook as u32).attr_be32(2, priority as u32);
        });
        m.attr_str(
            7,
            match kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
        self.messages.push(m);
        self
    }

    pub(crate) fn rule(&mut self, chain: &str, steps: &[Step]) -> &mut Self {
        let mut m = message(
            NEWRULE,
            CREATE_APPEND,
            format!("nftables rule in {}/{chain}: {steps:?}", self.name),
        );
        m.attr_str(1, &self.name).attr_str(2, chain);
        m.nest(4, |m| {
            for step in steps {
                encode(m, step);
            }
        });
        self.messages.push(m);
        self
    }

    /// Declares a set or map and fills it.
    pub(crate) fn set(
        &mut self,
        name: &str,
        kind: SetKind,
        elements: &[(Vec<u8>, Value)],
    ) -> &mut Self {
        self.sets += 1;
        // Types matter only to programs that print the table: 6 bits a field.
        const IPV4: u32 = 7;
        const PROTOCOL: u32 = 12;
        const PORT: u32 = 13;
        const MARK: u32 = 19;
        let join = |types: &[u32]| types.iter().fold(0, |all, t| all << 6 | t);
        let (types, len, data): (u32, u32, Option<(u32, u32)>) = match kind {
            SetKind::Pairs => (join(&[IPV4, IPV4]), 8, None),
            SetKind::Services => (join(&[IPV4, PROTOCOL, PORT]), 12, None),
            SetKind::ServiceVerdicts => {
                (join(&[IPV4, PROTOCOL, PORT]), 12, Some((0xffff_ff00, 16)))
            }
            SetKind::ServiceTargets => (
                join(&[IPV4, PROTOCOL, PORT, MARK]),
                16,
                Some((join(&[IPV4, PORT]), 8)),
            ),
        };
        let mut m = message(NEWSET, CREATE, format!("nftables set {}/{name}", self.name));
        m.attr_str(1, &self.name)
            .attr_str(2, name)
            .attr_be32(3, if data.is_some() { 8 } else { 0 });
        m.attr_be32(4, types).attr_be32(5, len);
        if let Some((data_type, data_len)) = data {
            m.attr_be32(6, data_type).attr_be32(7, data_len);
        }
        m.attr_be32(10, self.sets);
        self.messages.push(m);
        // An attribute ends at 64 KiB: some hundred elements a message.
        for part in elements.chunks(400) {
            let mut m = message(
                NEWSETELEM,
                CREATE,
                format!("elements of nftables set {}/{name}", self.name),
            );
            m.attr_str(1, &self.name)
                .attr_str(2, name)
                .attr_be32(4, self.sets);
            m.nest(3, |m| {
                for (key, value) in part {
                    m.nest(1, |m| {
                        m.nest(1, |m| {
                            m.attr(1, key);
                        });
                        match value {
                            Value::None => {}
                            Value::Verdict(v) => {
                                m.nest(2, |m| encode_verdict(m, v));
                            }
                            Value::Target(ip, port) => {
                                let mut data = ip.octets().to_vec();
                                data.extend_from_slice(&port.to_be_bytes());
                                data.extend_from_slice(&[0, 0]);
                                m.nest(2, |m| {
                                    m.attr(1, &data);
                                });
                            }
                        }
                    });
                }
            });
            self.messages.push(m);
        }
        self
    }

    /// Puts it into the current network namespace, all at once.
    pub(crate) fn commit(self) -> Result<()> {
        self.commit_with(&mut open()?)
    }

    /// The same over a socket of the namespace meant.
    pub(crate) fn commit_with(self, socket: &mut Socket) -> Result<()> {
        socket.transaction(SUBSYSTEM, self.messages)
    }
}

/// Deletes a table of the current network namespace; none is not an error.
pub(crate) fn delete(name: &str) -> Result<()> {
    let mut t = Table {
        name: name.to_owned(),
        messages: Vec::new(),
        sets: 0,
    };
    t.table(NEWTABLE, CREATE);
    t.table(DELTABLE, PLAIN);
    t.commit()
}

/// A socket for the current network namespace.
pub(crate) fn open() -> Result<Socket> {
    Socket::open(NETFILTER).map_err(|e| Error::sys("open a netfilter netlink socket", e))
}

// Registers: 32-bit registers start at 8; register 1 is the first 16 bytes, the same memory as 8..=11.
const REG: u32 = 8;

fn expression(m: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    m.nest(1, |m| {
        m.attr_str(1, name);
        m.nest(2, fill);
    });
}

fn meta(m: &mut Message, key: u32, register: u32) {
    expression(m, "meta", |m| {
        m.attr_be32(1, register).attr_be32(2, key);
    });
}

/// Loads bytes of the network (1) or transport (2) header.
fn payload(m: &mut Message, base: u32, offset: u32, len: u32, register: u32) {
    expression(m, "payload", |m| {
        m.attr_be32(1, register)
            .attr_be32(2, base)
            .attr_be32(3, offset)
            .attr_be32(4, len);
    });
}

const EQ: u32 = 0;
const NEQ: u32 = 1;
const LT: u32 = 2;

fn compare(m: &mut Message, op: u32, value: &[u8]) {
    expression(m, "cmp", |m| {
        m.attr_be32(1, REG).attr_be32(2, op);
        m.nest(3, |m| {
            m.attr(1, value);
        });
    });
}

fn equal(m: &mut Message, is: bool, value: &[u8]) {
    compare(m, if is { EQ } else { NEQ }, value);
}

/// register &= mask
fn mask(m: &mut Message, bits: &[u8; 4]) {
    expression(m, "bitwise", |m| {
        m.attr_be32(1, REG).attr_be32(2, REG).attr_be32(3, 4);
        m.nest(4, |m| {
            m.attr(1, bits);
        });
        m.nest(5, |m| {
            m.attr(1, &[0; 4]);
        });
    });
}

fn network(m: &mut Message, offset: u32, cidr: Cidr, is: bool) {
    payload(m, 1, offset, 4, REG);
    if cidr.prefix < 32 {
        mask(m, &cidr.mask().octets());
    }
    equal(m, is, &cidr.network().octets());
}

fn interface(m: &mut Message, key: u32, name: &str, is: bool) {
    let mut padded = [0u8; 16];
    padded[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
    meta(m, key, 1);
    expression(m, "cmp", |m| {
        m.attr_be32(1, 1).attr_be32(2, if is { EQ } else { NEQ });
        m.nest(3, |m| {
            m.attr(1, &padded);
        });
    });
}

/// destination . protocol . destination port into the first three registers
fn load_service(m: &mut Message) {
    payload(m, 1, 16, 4, REG);
    meta(m, 16, REG + 1);
    payload(m, 2, 2, 2, REG + 2);
}

fn lookup(m: &mut Message, set: &str, destination: Option<u32>) {
    expression(m, "lookup", |m| {
        m.attr_str(1, set).attr_be32(2, REG);
        if let Some(register) = destination {
            m.attr_be32(3, register);
        }
    });
}

/// nft's numgen: random below `below`.
fn random(m: &mut Message, below: u32, register: u32) {
    expression(m, "numgen", |m| {
        m.attr_be32(1, register)
            .attr_be32(2, below)
            .attr_be32(3, 1)
            .attr_be32(4, 0);
    });
}

/// nft's jhash: what `len` bytes of a register are hashed to, below `below`.
fn hash(m: &mut Message, source: u32, len: u32, below: u32, register: u32) {
    expression(m, "hash", |m| {
        m.attr_be32(1, source)
            .attr_be32(2, register)
            .attr_be32(3, len)
            .attr_be32(4, below);
    });
}

fn conntrack(m: &mut Message, key: u32, bits: u32) {
    expression(m, "ct", |m| {
        m.attr_be32(1, REG).attr_be32(2, key);
    });
    mask(m, &bits.to_ne_bytes());
    equal(m, false, &[0; 4]);
}

fn encode_verdict(m: &mut Message, v: &Verdict) {
    let (code, chain) = match v {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Goto(c) => (-4, Some(c)),
        Verdict::Return => (-5, None),
    };
    m.nest(2, |m| {
        m.attr_be32(1, code as u32);
        if let Some(c) = chain {
            m.attr_str(2, c);
        }
    });
}

fn encode(m: &mut Message, step: &Step) {
    match step {
        Step::Protocol(p) => {
            meta(m, 16, REG);
            equal(m, true, &[*p]);
        }
        Step::Source(c, is) => network(m, 12, *c, *is),
        Step::Destination(c, is) => network(m, 16, *c, *is),
        Step::Port(p, is) => {
            payload(m, 2, 2, 2, REG);
            equal(m, *is, &p.to_be_bytes());
        }
        Step::InInterface(name, is) => interface(m, 6, name, *is),
        Step::OutInterface(name, is) => interface(m, 7, name, *is),
        Step::Mark(v) => {
            meta(m, 3, REG);
            equal(m, true, &v.to_ne_bytes());
        }
        Step::SocketUser(v) => {
            meta(m, 10, REG);
            equal(m, true, &v.to_ne_bytes());
        }
        Step::SocketGroup(v) => {
            meta(m, 11, REG);
            equal(m, true, &v.to_ne_bytes());
        }
        // Bits: established 2, related 4.
        Step::Established => conntrack(m, 0, 6),
        // IPS_DST_NAT
        Step::DestinationTranslated => conntrack(m, 2, 1 << 5),
        Step::Chance(share) => {
            random(m, 10_000, REG);
            // Comparison is by bytes: turn to network order.
            expression(m, "byteorder", |m| {
                m.attr_be32(1, REG)
                    .attr_be32(2, REG)
                    .attr_be32(3, 1)
                    .attr_be32(4, 4)
                    .attr_be32(5, 4);
            });
            compare(m, LT, &share.to_be_bytes());
        }
        Step::LookupService { set, verdict } => {
            load_service(m);
            lookup(m, set, verdict.then_some(0));
        }
        Step::LookupPair { set } => {
            payload(m, 1, 12, 4, REG);
            payload(m, 1, 16, 4, REG + 1);
            lookup(m, set, None);
        }
        Step::Then(v) => expression(m, "immediate", |m| {
            m.attr_be32(1, 0);
            m.nest(2, |m| encode_verdict(m, v));
        }),
        Step::Redirect(port) => {
            expression(m, "immediate", |m| {
                m.attr_be32(1, REG);
                m.nest(2, |m| {
                    m.attr(1, &port.to_be_bytes());
                });
            });
            expression(m, "redir", |m| {
                // NF_NAT_RANGE_PROTO_SPECIFIED
                m.attr_be32(1, REG).attr_be32(3, 2);
            });
        }
        Step::Masquerade => expression(m, "masq", |_| {}),
        Step::RejectTcp => expression(m, "reject", |m| {
            m.attr_be32(1, 1);
        }),
        Step::Reject => expression(m, "reject", |m| {
            m.attr_be32(1, 0).attr(2, &[3]);
        }),
        Step::TranslateByMap { map, slots, sticky } => {
            load_service(m);
            if *sticky {
                payload(m, 1, 12, 4, REG + 6);
                hash(m, REG + 6, 4, *slots, REG + 3);
            } else {
                random(m, *slots, REG + 3);
            }
            lookup(m, map, Some(REG + 4));
            expression(m, "nat", |m| {
                m.attr_be32(1, 1).attr_be32(2, u32::from(FAMILY_IPV4));
                m.attr_be32(3, REG + 4).attr_be32(5, REG + 5);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_to_four_bytes_a_field() {
        let key = target_key(Ipv4Addr::new(10, 97, 0, 10), UDP, 53, 2);
        assert_eq!(key[..12], [10, 97, 0, 10, 17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(key[12..], 2u32.to_ne_bytes());
        assert_eq!(
            pair_key(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST),
            [127, 0, 0, 1, 255, 255, 255, 255]
        );
    }
}
