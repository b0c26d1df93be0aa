//! Links, addresses and routes over rtnetlink.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::netlink::{CREATE, CREATE_EXCL, Message, PLAIN, ROUTE, Socket};
use crate::{Cidr, Error, Result};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// Routing requests within one network namespace: the one in which it was opened.
#[derive(Debug)]
pub(crate) struct Links {
    socket: Socket,
}

/// One end of a veth pair.
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Option<[u8; 6]>,
}

/// Where a route leads.
pub(crate) enum Via {
    /// Through a gateway on an interface.
    Gateway(Ipv4Addr, u32),
    /// On the link.
    Link(u32),
    /// Delivered to this machine.
    Local(u32),
}

fn ifinfo(index: u32, up: Option<bool>) -> [u8; 16] {
    let mut b = [0; 16];
    b[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(up) = up {
        b[8..12].copy_from_slice(&u32::from(up).to_ne_bytes());
        b[12..16].copy_from_slice(&1u32.to_ne_bytes());
    }
    b
}

/// Index of an interface in the calling thread's network namespace.
pub(crate) fn index(name: &str) -> Result<u32> {
    let c = CString::new(name)
        .map_err(|_| Error::Invalid(format!("interface name {name:?} contains a zero byte")))?;
    // SAFETY: a valid C string.
    match unsafe { libc::if_nametoindex(c.as_ptr()) } {
        0 => Err(Error::last_os(format!("find network interface {name}"))),
        i => Ok(i),
    }
}

impl Links {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(ROUTE)
                .map_err(|e| Error::sys("open a routing netlink socket", e))?,
        })
    }

    pub(crate) fn up(&mut self, index: u32, up: bool) -> Result<()> {
        let mut m = Message::new(
            RTM_NEWLINK,
            PLAIN,
            format!("set interface {index} {}", if up { "up" } else { "down" }),
        );
        m.raw(&ifinfo(index, Some(up)));
        self.socket.request(m)
    }

    pub(crate) fn create_bridge(&mut self, name: &str, mac: [u8; 6]) -> Result<()> {
        let mut m = Message::new(RTM_NEWLINK, CREATE_EXCL, format!("create bridge {name}"));
        m.raw(&ifinfo(0, Some(true)))
            .attr_str(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac);
        m.nest_raw(IFLA_LINKINFO, |m| {
            m.attr(IFLA_INFO_KIND, b"bridge");
        });
        self.socket.request(m)
    }

    /// A pair of connected interfaces: `near` here, up, attached to the bridge with index `master`; `far` in another network namespace, down.
    pub(crate) fn create_veth(
        &mut self,
        near: &End<'_>,
        master: Option<u32>,
        far: &End<'_>,
        far_netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut m = Message::new(
            RTM_NEWLINK,
            CREATE_EXCL,
            format!("create veth pair {} - {}", near.name, far.name),
        );
        let end = |m: &mut Message, e: &End<'_>, up| {
            m.raw(&ifinfo(0, up)).attr_str(IFLA_IFNAME, e.name);
            if let Some(mac) = e.mac {
                m.attr(IFLA_ADDRESS, &mac);
            }
        };
        end(&mut m, near, Some(true));
        if let Some(master) = master {
            m.attr_u32(IFLA_MASTER, master);
        }
        m.nest_raw(IFLA_LINKINFO, |m| {
            m.attr(IFLA_INFO_KIND, b"veth");
            m.nest_raw(IFLA_INFO_DATA, |m| {
                m.nest_raw(VETH_INFO_PEER, |m| {
                    // Not up yet: it has no peer at this moment.
                    end(m, far, None);
                    m.attr_u32(IFLA_NET_NS_FD, far_netns.as_raw_fd() as u32);
                });
            });
        });
        self.socket.request(m)
    }

    /// Deletes an interface by name; none is not an error.
    pub(crate) fn delete(&mut self, name: &str) -> Result<()> {
        let mut m = Message::new(RTM_DELLINK, PLAIN, format!("delete interface {name}"));
        m.raw(&ifinfo(0, None)).attr_str(IFLA_IFNAME, name);
        match self.socket.request(m) {
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Adds an address. Without `connected`, no route to its network appears.
    pub(crate) fn add_address(&mut self, index: u32, address: Cidr, connected: bool) -> Result<()> {
        const IFA_ADDRESS: u16 = 1;
        const IFA_LOCAL: u16 = 2;
        const IFA_FLAGS: u16 = 8;
        const IFA_F_NOPREFIXROUTE: u32 = 0x200;
        let mut m = Message::new(
            RTM_NEWADDR,
            CREATE_EXCL,
            format!("add address {address} to interface {index}"),
        );
        let mut header = [libc::AF_INET as u8, address.prefix, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        m.raw(&header)
            .attr(IFA_LOCAL, &address.addr.octets())
            .attr(IFA_ADDRESS, &address.addr.octets());
        if !connected {
            m.attr_u32(IFA_FLAGS, IFA_F_NOPREFIXROUTE);
        }
        self.socket.request(m)
    }

    pub(crate) fn add_route(
        &mut self,
        destination: Cidr,
        via: &Via,
        source: Option<Ipv4Addr>,
    ) -> Result<()> {
        const RTA_DST: u16 = 1;
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        const RTA_PREFSRC: u16 = 7;
        const MAIN: u8 = 254;
        const STATIC: u8 = 4;
        let (table, scope, kind) = match via {
            Via::Gateway(..) => (MAIN, 0, 1),
            Via::Link(_) => (MAIN, 253, 1),
            // In the main table, so that longer prefixes within it win over it.
            Via::Local(_) => (MAIN, 254, 2),
        };
        let mut m = Message::new(RTM_NEWROUTE, CREATE, format!("add route to {destination}"));
        m.raw(&[
            libc::AF_INET as u8,
            destination.prefix,
            0,
            0,
            table,
            STATIC,
            scope,
            kind,
            0,
            0,
            0,
            0,
        ]);
        if destination.prefix > 0 {
            m.attr(RTA_DST, &destination.network().octets());
        }
        match via {
            Via::Gateway(gateway, index) => m
                .attr(RTA_GATEWAY, &gateway.octets())
                .attr_u32(RTA_OIF, *index),
            Via::Link(index) | Via::Local(index) => m.attr_u32(RTA_OIF, *index),
        };
        if let Some(source) = source {
            m.attr(RTA_PREFSRC, &source.octets());
        }
        self.socket.request(m)
    }

    /// Delays what leaves an interface; zero removes the delay.
    ///
    /// # Errors
    /// ENOENT (inside) when the kernel has no netem.
    pub(crate) fn set_delay(
        &mut self,
        index: u32,
        latency: Duration,
        jitter: Duration,
    ) -> Result<()> {
        const TCA_KIND: u16 = 1;
        const TCA_OPTIONS: u16 = 2;
        const TCA_NETEM_LATENCY64: u16 = 10;
        const TCA_NETEM_JITTER64: u16 = 11;
        const TC_H_ROOT: u32 = u32::MAX;
        let none = latency.is_zero() && jitter.is_zero();
        let (kind, flags) = if none {
            (RTM_DELQDISC, PLAIN)
        } else {
            (RTM_NEWQDISC, CREATE | 0x100)
        };
        let mut m = Message::new(kind, flags, format!("set the delay of interface {index}"));
        let mut header = [0u8; 20];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[12..16].copy_from_slice(&TC_H_ROOT.to_ne_bytes());
        m.raw(&header).attr_str(TCA_KIND, "netem");
        if !none {
            let nanoseconds = |d: Duration| {
                i64::try_from(d.as_nanos())
                    .unwrap_or(i64::MAX)
                    .to_ne_bytes()
            };
            // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter. The 64-bit attributes carry the times.
            let mut options = [0u8; 24];
            options[4..8].copy_from_slice(&100_000u32.to_ne_bytes());
            m.nest_raw(TCA_OPTIONS, |m| {
                m.raw(&options);
                m.attr(TCA_NETEM_LATENCY64, &nanoseconds(latency))
                    .attr(TCA_NETEM_JITTER64, &nanoseconds(jitter));
            });
        }
        match self.socket.request(m) {
            // Nothing to remove.
            Err(e) if none && matches!(e.errno(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            other => other,
        }
    }
}

/// Writes a setting under /proc/sys of the calling thread's namespaces.
pub(crate) fn sysctl(path: &str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/{path}"), value)
        .map_err(|e| Error::sys(format!("set {} to {value}", path.replace('/', ".")), e))
}

/// The same where the setting may not exist in this kernel.
pub(crate) fn sysctl_if_present(path: &str, value: &str) -> Result<()> {
    match sysctl(path, value) {
        Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub(crate) fn loopback_up() -> Result<()> {
    Links::open()?.up(index("lo")?, true)
}
