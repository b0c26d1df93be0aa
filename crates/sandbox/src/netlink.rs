//! Netlink messages and sockets: the encoding shared by routing (links, addresses, routes) and nftables.
//!
//! Own code rather than a crate: what we need is some forty message shapes, synchronous, usable between
//! `unshare` and `exec` and on sockets that belong to different network namespaces. `nlink` (async, 227,000
//! lines) costs more build time than everything here runs for, and `nf_tables` lacks maps and numgen.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Create; fail when it exists.
pub(crate) const CREATE_EXCL: u16 = 0x400 | 0x200;
/// Create, or change what exists.
pub(crate) const CREATE: u16 = 0x400;
/// Append to a list (rules).
pub(crate) const CREATE_APPEND: u16 = 0x400 | 0x800;
/// No further flags.
pub(crate) const PLAIN: u16 = 0;

/// One netlink message under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// What the message asks for, for errors.
    what: String,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, what: impl Into<String>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self {
            bytes,
            what: what.into(),
        }
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = u16::try_from(payload.len() + 4).expect("netlink attribute below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(payload)
    }

    /// Zero-terminated string.
    pub(crate) fn attr_str(&mut self, kind: u16, s: &str) -> &mut Self {
        let mut v = s.as_bytes().to_vec();
        v.push(0);
        self.attr(kind, &v)
    }

    /// Host byte order, as the routing family uses.
    pub(crate) fn attr_u32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_ne_bytes())
    }

    /// Network byte order, as nfnetlink uses.
    pub(crate) fn attr_be32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_be_bytes())
    }

    /// Attribute that contains attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_raw(kind | 0x8000, fill)
    }

    /// The same without the nested flag, which some old routing attributes do not expect.
    pub(crate) fn nest_raw(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("netlink attribute below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self
    }

    fn seal(&mut self, seq: u32, ack: bool) -> &[u8] {
        let len = u32::try_from(self.bytes.len()).expect("netlink message below 4 GiB");
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        if ack {
            let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | NLM_F_ACK;
            self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        &self.bytes
    }
}

/// A netlink socket. It belongs to the network namespace in which it was opened, wherever its thread goes later.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
}

/// `NETLINK_ROUTE`.
pub(crate) const ROUTE: i32 = 0;
/// `NETLINK_NETFILTER`.
pub(crate) const NETFILTER: i32 = 12;

impl Socket {
    pub(crate) fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: plain system calls; the descriptor is owned from here on.
        let fd = unsafe {
            let fd = libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol,
            );
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let set = |level: i32, option: i32, value: i32| {
            // SAFETY: value outlives the call.
            unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4) }
        };
        const SOL_NETLINK: i32 = 270;
        const NETLINK_CAP_ACK: i32 = 10;
        const NETLINK_EXT_ACK: i32 = 11;
        set(SOL_NETLINK, NETLINK_CAP_ACK, 1);
        set(SOL_NETLINK, NETLINK_EXT_ACK, 1);
        // A transaction must fit into one send. Forcing needs privilege in the first user namespace.
        if set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 4 << 20) < 0 {
            set(libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20);
        }
        Ok(Self { fd, seq: 0 })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_nl is plain data; zero addresses the kernel.
        let n = unsafe {
            let mut kernel: libc::sockaddr_nl = std::mem::zeroed();
            kernel.nl_family = libc::AF_NETLINK as u16;
            libc::sendto(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const kernel).cast(),
                size_of::<libc::sockaddr_nl>() as u32,
            )
        };
        if n < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Messages of one datagram: kind, sequence number, payload.
    fn receive(&self) -> io::Result<Vec<(u16, u32, Vec<u8>)>> {
        let mut buffer = vec![0u8; 64 << 10];
        let n = loop {
            // SAFETY: the buffer is as long as said.
            let n = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            if n >= 0 {
                break n as usize;
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        };
        let mut messages = Vec::new();
        let mut rest = &buffer[..n];
        while rest.len() >= HEADER {
            let len = u32::from_ne_bytes(rest[0..4].try_into().expect("4 bytes")) as usize;
            if len < HEADER || len > rest.len() {
                break;
            }
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let seq = u32::from_ne_bytes(rest[8..12].try_into().expect("4 bytes"));
            messages.push((kind, seq, rest[HEADER..len].to_vec()));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, mut message: Message) -> crate::Result<()> {
        self.seq += 1;
        let seq = self.seq;
        let result = (|| {
            self.send(message.seal(seq, true))?;
            loop {
                for (kind, answered, payload) in self.receive()? {
                    if kind == NLMSG_ERROR && answered == seq {
                        return acknowledgement(&payload);
                    }
                }
            }
        })();
        result.map_err(|e| crate::Error::sys(&message.what, e))
    }

    /// Sends messages as one nfnetlink transaction: all take effect or none.
    pub(crate) fn transaction(
        &mut self,
        subsystem: u16,
        messages: Vec<Message>,
    ) -> crate::Result<()> {
        const BATCH_BEGIN: u16 = 16;
        const BATCH_END: u16 = 17;
        let frame = |kind| {
            let mut m = Message::new(kind, PLAIN, "nfnetlink batch");
            let [hi, lo] = subsystem.to_be_bytes();
            m.raw(&[0, 0, hi, lo]);
            m
        };
        if messages.is_empty() {
            return Ok(());
        }
        let first = self.seq + 1;
        let count = messages.len();
        let mut names = Vec::with_capacity(count);
        let mut bytes = frame(BATCH_BEGIN).seal(first, false).to_vec();
        for (i, mut m) in messages.into_iter().enumerate() {
            // The acknowledgement of the last message comes after the commit; errors come for any.
            bytes.extend_from_slice(m.seal(first + 1 + i as u32, i + 1 == count));
            names.push(m.what);
        }
        bytes.extend_from_slice(frame(BATCH_END).seal(first + 1 + count as u32, false));
        self.seq = first + 1 + count as u32;
        self.send(&bytes).map_err(|e| {
            crate::Error::sys(
                format!("send an nftables transaction of {} bytes", bytes.len()),
                e,
            )
        })?;
        let last = first + count as u32;
        loop {
            for (kind, seq, payload) in self
                .receive()
                .map_err(|e| crate::Error::sys("nftables transaction", e))?
            {
                if kind != NLMSG_ERROR || seq < first {
                    continue;
                }
                let what = (seq as usize)
                    .checked_sub(first as usize + 1)
                    .and_then(|i| names.get(i));
                let what = what.map_or("nftables transaction", String::as_str);
                acknowledgement(&payload).map_err(|e| crate::Error::sys(what, e))?;
                if seq == last {
                    return Ok(());
                }
            }
        }
    }
}

/// The kernel's answer; with its explanation when it gives one.
fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let code = payload.get(0..4).map_or(-libc::EPROTO, |b| {
        i32::from_ne_bytes(b.try_into().expect("4 bytes"))
    });
    if code == 0 {
        return Ok(());
    }
    // The errno is what callers decide on; the kernel's words go to the log.
    if let Some(text) = explanation(payload.get(4 + HEADER..).unwrap_or_default()) {
        tracing::debug!(errno = -code, text, "netlink");
    }
    Err(io::Error::from_raw_os_error(-code))
}

fn explanation(mut attributes: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    while attributes.len() >= 4 {
        let len = u16::from_ne_bytes([attributes[0], attributes[1]]) as usize;
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..len)?;
        if kind == NLMSGERR_ATTR_MSG {
            return Some(
                String::from_utf8_lossy(value)
                    .trim_end_matches('\0')
                    .to_owned(),
            );
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nests_know_their_length() {
        let mut m = Message::new(16, CREATE, "test");
        m.nest(18, |m| {
            m.attr_str(1, "veth");
        });
        let bytes = m.seal(7, true);
        assert_eq!(bytes.len(), 16 + 4 + 4 + 8);
        assert_eq!(
            u32::from_ne_bytes(bytes[0..4].try_into().unwrap()) as usize,
            bytes.len()
        );
        assert_eq!(u16::from_ne_bytes([bytes[16], bytes[17]]), 16);
        assert_eq!(u16::from_ne_bytes([bytes[18], bytes[19]]), 18 | 0x8000);
        assert_eq!(u16::from_ne_bytes([bytes[20], bytes[21]]), 9);
        assert_eq!(
            u16::from_ne_bytes([bytes[6], bytes[7]]),
            CREATE | NLM_F_REQUEST | NLM_F_ACK
        );
    }

    #[test]
    fn kernel_explanations_are_found() {
        let mut m = Message::new(0, 0, "");
        m.attr(2, &[1, 2, 3, 4]).attr_str(1, "no such thing");
        assert_eq!(
            explanation(&m.bytes[16..]).as_deref(),
            Some("no such thing")
        );
    }
}
