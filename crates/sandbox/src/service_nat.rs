//! Virtual addresses of services: destination NAT to endpoints, the role of kube-proxy.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::error::Context;
use crate::netlink::Socket;
use crate::nft::{
    self, ChainKind, Hook, PRIORITY_DSTNAT, PRIORITY_SRCNAT, SetKind, Step, Table, Value, Verdict,
};

/// Transport protocol of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn number(self) -> u8 {
        match self {
            Protocol::Tcp => nft::TCP,
            Protocol::Udp => nft::UDP,
        }
    }
}

/// `ip:port` leads to one of `targets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRule {
    /// Cluster IP, load-balancer IP, or (node ports) an address of the node.
    pub ip: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Endpoints, chosen at random for each connection. None = connections are refused.
    pub targets: Vec<SocketAddrV4>,
    /// The endpoint follows from the client's address (`sessionAffinity: ClientIP`): it stays the same for as long as the endpoints do.
    pub sticky: bool,
}

const TABLE: &str = "theater-services";

/// Replaces all rules of the current network namespace in one transaction: a packet sees either all old or all new rules.
/// They hold for pods, for processes of the node and for packets from the WAN. Existing connections keep their endpoint; so does a UDP client
/// that keeps sending from one port, until 30 seconds of silence (120 for a flow with answers).
/// Of two rules for the same address, port and protocol, the first counts.
/// Takes a few milliseconds for hundreds of rules; blocking.
///
/// # Errors
/// The kernel refused the transaction; the old rules then stay.
pub fn apply(rules: &[NatRule]) -> Result<()> {
    // Closing such a socket waits until the kernel has cleared the old rules away, ten times as long as the transaction: keep it.
    static SOCKET: Mutex<Option<(u64, Socket)>> = Mutex::new(None);
    let namespace = std::fs::metadata("/proc/thread-self/ns/net")
        .doing("look at the network namespace")?
        .ino();
    let mut kept = SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match &mut *kept {
        Some((its, socket)) if *its == namespace => socket,
        other => &mut other.insert((namespace, nft::open()?)).1,
    };
    table(rules).commit_with(socket)
}

/// Removes the rules of [`apply`]; none is not an error.
///
/// # Errors
/// The kernel refused.
pub fn clear() -> Result<()> {
    nft::delete(TABLE)
}

/// The rule set has a constant number of rules, whatever the number of services: one map says how many targets a service has,
/// one chain for each such number picks a slot (at random, or by the client's address), one map knows the target of each slot.
fn table(rules: &[NatRule]) -> Table {
    let mut verdicts = Vec::new();
    let mut targets = Vec::new();
    let mut refused = Vec::new();
    let mut hairpins = BTreeSet::new();
    let mut slots = BTreeMap::new();
    let mut seen = HashSet::new();
    for rule in rules {
        let protocol = rule.protocol.number();
        let key = nft::service_key(rule.ip, protocol, rule.port);
        if !seen.insert(key.clone()) {
            continue;
        }
        if rule.targets.is_empty() {
            refused.push((key, Value::None));
            continue;
        }
        let count = u32::try_from(rule.targets.len()).unwrap_or(u32::MAX);
        let chain = slots.entry((count, rule.sticky)).or_insert_with(|| {
            let how = if rule.sticky { "client-to" } else { "to" };
            format!("{how}-1-of-{count}")
        });
        verdicts.push((key, Value::Verdict(Verdict::Goto(chain.clone()))));
        for (slot, target) in (0..).zip(&rule.targets) {
            let key = nft::target_key(rule.ip, protocol, rule.port, slot);
            targets.push((key, Value::Target(*target.ip(), target.port())));
            hairpins.insert((*target.ip(), *target.ip()));
            if rule.ip.is_loopback() {
                // A process of the node that used its own loopback address would never be answered.
                hairpins.insert((Ipv4Addr::LOCALHOST, *target.ip()));
            }
        }
    }
    let hairpins: Vec<_> = hairpins
        .into_iter()
        .map(|(from, to)| (nft::pair_key(from, to), Value::None))
        .collect();

    let mut t = Table::replace(TABLE);
    t.set("targets", SetKind::ServiceTargets, &targets);
    for ((count, sticky), chain) in &slots {
        t.chain(chain);
        t.rule(
            chain,
            &[Step::TranslateByMap {
                map: "targets".into(),
                slots: *count,
                sticky: *sticky,
            }],
        );
    }
    t.set("services", SetKind::ServiceVerdicts, &verdicts);
    t.set("refused", SetKind::Services, &refused);
    t.set("hairpins", SetKind::Pairs, &hairpins);
    let by_service = |protocol| {
        [
            Step::Protocol(protocol),
            Step::LookupService {
                set: "services".into(),
                verdict: true,
            },
        ]
    };
    let in_refused = |protocol| {
        [
            Step::Protocol(protocol),
            Step::LookupService {
                set: "refused".into(),
                verdict: false,
            },
        ]
    };
    // Refusal comes before translation, where the packet still carries the service's address.
    for (name, hook) in [
        ("refuse-prerouting", Hook::Prerouting),
        ("refuse-output", Hook::Output),
    ] {
        t.base_chain(name, ChainKind::Filter, hook, PRIORITY_DSTNAT - 10);
        let [p, l] = in_refused(nft::TCP);
        t.rule(name, &[p, l, Step::RejectTcp]);
        let [p, l] = in_refused(nft::UDP);
        t.rule(name, &[p, l, Step::Reject]);
    }
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        t.base_chain(name, ChainKind::Nat, hook, PRIORITY_DSTNAT);
        t.rule(name, &by_service(nft::TCP));
        t.rule(name, &by_service(nft::UDP));
    }
    // A pod that reaches itself through its service must see another source than itself, or it would answer itself directly.
    t.base_chain(
        "postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        PRIORITY_SRCNAT,
    );
    t.rule(
        "postrouting",
        &[
            Step::DestinationTranslated,
            Step::LookupPair {
                set: "hairpins".into(),
            },
            Step::Masquerade,
        ],
    );
    t
}
