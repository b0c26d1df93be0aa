//! Capture of a pod's TCP traffic by its sidecar: what `istio-iptables` does, as one nftables table.
//!
//! Order and meaning of the rules are those of Istio's chains ISTIO_INBOUND, ISTIO_OUTPUT, ISTIO_REDIRECT and
//! ISTIO_IN_REDIRECT (tools/istio-iptables of Istio, interception mode REDIRECT). One thing is added: connections
//! that carry the proxy's packet mark count as the proxy's own, because user 1337 does not exist in the
//! user namespace of an ordinary user.

use std::net::Ipv4Addr;

use crate::nft::{self, ChainKind, Hook, PRIORITY_DSTNAT, Step, TCP, Table, Verdict};
use crate::{Cidr, Error, Result};

/// Which ports of a list are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// `*`
    All,
    /// These; none at all when empty.
    Only(Vec<u16>),
}

/// Which destination networks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// `*`
    All,
    /// These; none at all when empty.
    Only(Vec<Cidr>),
}

/// The flags of `istio-iptables`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `-p`: where outbound connections go, 15001.
    pub outbound_port: u16,
    /// `-z`: where inbound connections go, 15006.
    pub inbound_port: u16,
    /// `-e`: HBONE port, never captured, 15008.
    pub tunnel_port: u16,
    /// `-u`: users whose connections are the proxy's own, 1337.
    pub proxy_uids: Vec<u32>,
    /// `-g`: groups likewise, 1337.
    pub proxy_gids: Vec<u32>,
    /// SO_MARK value that marks the proxy's own connections: 0x539 (1337).
    pub proxy_mark: u32,
    /// `-i`: destinations captured.
    pub outbound_networks: Networks,
    /// `-x`: destinations not captured.
    pub outbound_networks_excluded: Vec<Cidr>,
    /// `-q`: ports captured whatever the destination.
    pub outbound_ports: Vec<u16>,
    /// `-o`: ports not captured.
    pub outbound_ports_excluded: Vec<u16>,
    /// `-b`: inbound ports captured.
    pub inbound_ports: Ports,
    /// `-d`: inbound ports not captured, only with `-b *`.
    pub inbound_ports_excluded: Vec<u16>,
    /// `-c`: interfaces whose traffic is not captured.
    pub interfaces_excluded: Vec<String>,
}

impl Default for Redirect {
    /// `istio-iptables` without flags captures nothing; ports and identities are Istio's.
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            proxy_uids: vec![1337],
            proxy_gids: vec![1337],
            proxy_mark: 1337,
            outbound_networks: Networks::Only(Vec::new()),
            outbound_networks_excluded: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_excluded: Vec::new(),
            inbound_ports: Ports::Only(Vec::new()),
            inbound_ports_excluded: Vec::new(),
            interfaces_excluded: Vec::new(),
        }
    }
}

const TABLE: &str = "theater-sidecar";

/// Long name, short name, takes a value, effect.
struct Flag {
    long: &'static str,
    short: &'static str,
    set: fn(&mut Redirect, &str) -> std::result::Result<(), String>,
}

const FLAGS: &[Flag] = &[
    Flag {
        long: "envoy-port",
        short: "p",
        set: |r, v| port(v).map(|p| r.outbound_port = p),
    },
    Flag {
        long: "inbound-capture-port",
        short: "z",
        set: |r, v| port(v).map(|p| r.inbound_port = p),
    },
    Flag {
        long: "inbound-tunnel-port",
        short: "e",
        set: |r, v| port(v).map(|p| r.tunnel_port = p),
    },
    Flag {
        long: "proxy-uid",
        short: "u",
        set: |r, v| {
            let ids = list(v, |s| {
                s.parse().map_err(|_| format!("{s:?} is not a user number"))
            })?;
            // As istio-iptables: the groups are the users' unless given.
            if !ids.is_empty() {
                r.proxy_uids = ids;
            }
            Ok(())
        },
    },
    Flag {
        long: "proxy-gid",
        short: "g",
        set: |r, v| {
            let ids = list(v, |s| {
                s.parse()
                    .map_err(|_| format!("{s:?} is not a group number"))
            })?;
            if !ids.is_empty() {
                r.proxy_gids = ids;
            }
            Ok(())
        },
    },
    Flag {
        long: "istio-inbound-interception-mode",
        short: "m",
        set: |_, v| match v {
            "" | "REDIRECT" => Ok(()),
            other => Err(format!(
                "interception mode {other} is not supported; use REDIRECT"
            )),
        },
    },
    Flag {
        long: "istio-service-cidr",
        short: "i",
        set: |r, v| {
            r.outbound_networks = if v == "*" {
                Networks::All
            } else {
                Networks::Only(list(v, network)?)
            };
            Ok(())
        },
    },
    Flag {
        long: "istio-service-exclude-cidr",
        short: "x",
        set: |r, v| list(v, network).map(|n| r.outbound_networks_excluded = n),
    },
    Flag {
        long: "istio-outbound-ports",
        short: "q",
        set: |r, v| list(v, port).map(|p| r.outbound_ports = p),
    },
    Flag {
        long: "istio-local-outbound-ports-exclude",
        short: "o",
        set: |r, v| list(v, port).map(|p| r.outbound_ports_excluded = p),
    },
    Flag {
        long: "istio-inbound-ports",
        short: "b",
        set: |r, v| {
            r.inbound_ports = if v == "*" {
                Ports::All
            } else {
                Ports::Only(list(v, port)?)
            };
            Ok(())
        },
    },
    Flag {
        long: "istio-local-exclude-ports",
        short: "d",
        set: |r, v| list(v, port).map(|p| r.inbound_ports_excluded = p),
    },
    Flag {
        long: "istio-exclude-interfaces",
        short: "c",
        set: |r, v| list(v, |s| Ok(s.to_owned())).map(|names| r.interfaces_excluded = names),
    },
    Flag {
        long: "kube-virt-interfaces",
        short: "k",
        set: |_, v| {
            if v.is_empty() {
                Ok(())
            } else {
                Err("rerouting virtual interfaces is not supported".into())
            }
        },
    },
    // Nothing here depends on these.
    Flag {
        long: "istio-inbound-tproxy-mark",
        short: "t",
        set: |_, _| Ok(()),
    },
    Flag {
        long: "istio-inbound-tproxy-route-table",
        short: "r",
        set: |_, _| Ok(()),
    },
    Flag {
        long: "log_output_level",
        short: "",
        set: |_, _| Ok(()),
    },
];

/// Flags without a value (or with `=true`) that change nothing for IPv4 REDIRECT.
const IGNORED_SWITCHES: &[&str] = &["skip-rule-apply", "force-apply", "reconcile"];

fn port(s: &str) -> std::result::Result<u16, String> {
    s.parse().map_err(|_| format!("{s:?} is not a port"))
}

fn network(s: &str) -> std::result::Result<Cidr, String> {
    s.parse()
}

fn list<T>(
    s: &str,
    item: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Vec<T>, String> {
    s.split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(item)
        .collect()
}

impl Redirect {
    /// Parses the arguments of `istio-iptables` (without the program name). Flags that do not concern IPv4 REDIRECT are
    /// accepted when they change nothing here (`--log_output_level=…`); TPROXY and unknown flags are errors.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the flag and the value.
    pub fn parse<S: AsRef<str>>(args: &[S]) -> Result<Redirect> {
        let mut r = Redirect::default();
        let mut groups_given = false;
        let mut args = args.iter().map(AsRef::as_ref);
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((n, v)) => (n, Some(v)),
                None => (arg, None),
            };
            let bad = |why: String| Error::Invalid(format!("istio-iptables {name}: {why}"));
            let long = name.strip_prefix("--");
            if long.is_some_and(|l| IGNORED_SWITCHES.contains(&l)) {
                continue;
            }
            let short = name
                .strip_prefix('-')
                .filter(|s| long.is_none() && !s.is_empty());
            // `-p15001` as pflag allows.
            let (short, attached) = match short {
                Some(s) if s.len() > 1 && s.is_char_boundary(1) => (Some(&s[..1]), Some(&arg[2..])),
                s => (s, None),
            };
            let flag = FLAGS
                .iter()
                .find(|f| long == Some(f.long) || (!f.short.is_empty() && short == Some(f.short)));
            let flag = flag.ok_or_else(|| bad("unknown flag".into()))?;
            let value = match attached
                .map(|a| a.strip_prefix('=').unwrap_or(a))
                .or(inline)
            {
                Some(v) => v,
                None => args.next().ok_or_else(|| bad("needs a value".into()))?,
            };
            groups_given |= flag.short == "g";
            (flag.set)(&mut r, value).map_err(bad)?;
        }
        if !groups_given {
            r.proxy_gids.clone_from(&r.proxy_uids);
        }
        Ok(r)
    }

    /// Installs the rules in the current network namespace in one transaction, replacing earlier ones. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel refused; earlier rules stay.
    pub fn apply(&self) -> Result<()> {
        let mut t = Table::replace(TABLE);
        for chain in ["to-outbound", "to-inbound", "proxy-output"] {
            t.chain(chain);
        }
        t.base_chain(
            "prerouting",
            ChainKind::Nat,
            Hook::Prerouting,
            PRIORITY_DSTNAT,
        );
        t.base_chain("output", ChainKind::Nat, Hook::Output, PRIORITY_DSTNAT);
        for (chain, steps) in self.rules() {
            t.rule(chain, &steps);
        }
        t.commit()
    }

    /// Chain and steps of every rule, in order.
    fn rules(&self) -> Vec<(&'static str, Vec<Step>)> {
        let return_ = || Step::Then(Verdict::Return);
        let goto = |chain: &str| Step::Then(Verdict::Goto(chain.to_owned()));
        let host = |d: u8| Cidr::new(Ipv4Addr::new(127, 0, 0, d), 32);
        let lo = || Step::OutInterface("lo".into(), true);
        let tcp = || Step::Protocol(TCP);
        let mut rules = vec![
            (
                "to-outbound",
                vec![tcp(), Step::Redirect(self.outbound_port)],
            ),
            ("to-inbound", vec![tcp(), Step::Redirect(self.inbound_port)]),
        ];
        let mut add = |chain, steps: Vec<Step>| rules.push((chain, steps));

        for name in &self.interfaces_excluded {
            add(
                "prerouting",
                vec![Step::InInterface(name.clone(), true), return_()],
            );
            add(
                "output",
                vec![Step::OutInterface(name.clone(), true), return_()],
            );
        }

        add(
            "prerouting",
            vec![tcp(), Step::Port(self.tunnel_port, true), return_()],
        );
        match &self.inbound_ports {
            Ports::All => {
                for p in &self.inbound_ports_excluded {
                    add("prerouting", vec![tcp(), Step::Port(*p, true), return_()]);
                }
                add("prerouting", vec![tcp(), goto("to-inbound")]);
            }
            Ports::Only(ports) => {
                for p in ports {
                    add(
                        "prerouting",
                        vec![tcp(), Step::Port(*p, true), goto("to-inbound")],
                    );
                }
            }
        }

        for p in &self.outbound_ports_excluded {
            add("output", vec![tcp(), Step::Port(*p, true), return_()]);
        }
        // The proxy's connections to the application of its own pod.
        add("output", vec![lo(), Step::Source(host(6), true), return_()]);
        add(
            "output",
            vec![Step::Mark(self.proxy_mark), goto("proxy-output")],
        );
        for uid in &self.proxy_uids {
            add("output", vec![Step::SocketUser(*uid), goto("proxy-output")]);
        }
        for gid in &self.proxy_gids {
            add(
                "output",
                vec![Step::SocketGroup(*gid), goto("proxy-output")],
            );
        }
        // The application calls its own service through the outbound side of the proxy; the proxy then reaches the pod's own address: inbound side.
        add(
            "proxy-output",
            vec![
                lo(),
                Step::Destination(host(1), false),
                tcp(),
                Step::Port(self.tunnel_port, false),
                goto("to-inbound"),
            ],
        );
        add("proxy-output", vec![return_()]);
        // The application to itself by address, unless loopback is asked for explicitly.
        let loopback_included = matches!(&self.outbound_networks, Networks::Only(n) if n.iter().any(|c| c.addr.is_loopback()));
        if !loopback_included {
            add("output", vec![lo(), return_()]);
        }
        add("output", vec![Step::Destination(host(1), true), return_()]);
        for network in &self.outbound_networks_excluded {
            add("output", vec![Step::Destination(*network, true), return_()]);
        }
        for p in &self.outbound_ports {
            add(
                "output",
                vec![tcp(), Step::Port(*p, true), goto("to-outbound")],
            );
        }
        match &self.outbound_networks {
            Networks::All => add("output", vec![goto("to-outbound")]),
            Networks::Only(networks) => {
                for network in networks {
                    add(
                        "output",
                        vec![Step::Destination(*network, true), goto("to-outbound")],
                    );
                }
            }
        }
        rules
    }
}

/// Removes the rules (`istio-iptables --cleanup-only`); no rules is not an error.
///
/// # Errors
/// The kernel refused.
pub fn remove() -> Result<()> {
    nft::delete(TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line that injection writes.
    const INJECTED: &[&str] = &[
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021,9000,15020",
        "--log_output_level=default:info",
    ];

    #[test]
    fn the_injected_command_line_is_understood() {
        let r = Redirect::parse(INJECTED).unwrap();
        assert_eq!(
            r,
            Redirect {
                outbound_networks: Networks::All,
                inbound_ports: Ports::All,
                inbound_ports_excluded: vec![15090, 15021, 9000, 15020],
                ..Redirect::default()
            }
        );
    }

    #[test]
    fn optional_flags_of_annotations_are_understood() {
        let r = Redirect::parse(&[
            "-i",
            "10.96.0.0/12,10.0.0.1",
            "-x",
            "10.97.3.0/24",
            "-q",
            "6379",
            "-o",
            "3306,5432",
            "-b",
            "",
            "-c",
            "eth1",
            "-g=7",
            "-u5",
        ])
        .unwrap();
        assert_eq!(
            r.outbound_networks,
            Networks::Only(vec![
                "10.96.0.0/12".parse().unwrap(),
                "10.0.0.1/32".parse().unwrap()
            ])
        );
        assert_eq!(
            r.outbound_networks_excluded,
            ["10.97.3.0/24".parse().unwrap()]
        );
        assert_eq!(r.outbound_ports, [6379]);
        assert_eq!(r.outbound_ports_excluded, [3306, 5432]);
        assert_eq!(r.inbound_ports, Ports::Only(vec![]));
        assert_eq!(r.interfaces_excluded, ["eth1"]);
        assert_eq!((r.proxy_uids, r.proxy_gids), (vec![5], vec![7]));
    }

    #[test]
    fn what_is_not_supported_is_said_with_flag_and_value() {
        for (args, expected) in [
            (
                vec!["-m", "TPROXY"],
                "istio-iptables -m: interception mode TPROXY",
            ),
            (
                vec!["-p", "http"],
                "istio-iptables -p: \"http\" is not a port",
            ),
            (vec!["-x", "10.0.0.0/40"], "istio-iptables -x: "),
            (
                vec!["--nonsense", "1"],
                "istio-iptables --nonsense: unknown flag",
            ),
            (vec!["-z"], "istio-iptables -z: needs a value"),
            (vec!["-k", "tap0"], "istio-iptables -k: "),
        ] {
            let seen = Redirect::parse(&args).unwrap_err().to_string();
            assert!(
                seen.starts_with(expected),
                "seen {seen:?}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn loopback_exemptions_come_before_the_proxy_and_capture_comes_last() {
        let rules = Redirect::parse(INJECTED).unwrap().rules();
        let output: Vec<_> = rules
            .iter()
            .filter(|(c, _)| *c == "output")
            .map(|(_, s)| s)
            .collect();
        assert!(
            matches!(&output[0][1], Step::Source(c, true) if c.addr == Ipv4Addr::new(127, 0, 0, 6))
        );
        assert_eq!(output[1][0], Step::Mark(0x539));
        assert_eq!(output[2][0], Step::SocketUser(1337));
        assert_eq!(output[3][0], Step::SocketGroup(1337));
        assert_eq!(
            *output.last().unwrap(),
            &vec![Step::Then(Verdict::Goto("to-outbound".into()))]
        );
    }

    #[test]
    fn loopback_in_the_included_networks_captures_loopback() {
        let lo_returns = |i: &str| {
            let rules = Redirect::parse(&["-i", i]).unwrap().rules();
            rules.contains(&(
                "output",
                vec![
                    Step::OutInterface("lo".into(), true),
                    Step::Then(Verdict::Return),
                ],
            ))
        };
        assert!(lo_returns("*"));
        assert!(!lo_returns("127.1.2.3/32"));
    }
}
