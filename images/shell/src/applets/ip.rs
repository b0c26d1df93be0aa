//! `ip link add NAME type dummy`: asks the kernel for a network interface, which refuses it to containers without the right to.

use std::io;

use crate::options::{Ended, Failure};
use crate::output;

const NEW_LINK: u16 = 16;
/// It is a request, wants an answer, and makes something that must not be there.
const FLAGS: u16 = 0x1 | 0x4 | 0x200 | 0x400;
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn message(name: &str, kind: &str) -> Vec<u8> {
    let text = |text: &str| [text.as_bytes(), &[0]].concat();
    let mut body = vec![0; 16];
    body.extend(attribute(NAME, &text(name)));
    body.extend(attribute(LINK_INFO, &attribute(INFO_KIND, kind.as_bytes())));
    let length = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(NEW_LINK.to_ne_bytes());
    out.extend(FLAGS.to_ne_bytes());
    out.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(body);
    out
}

fn ask(message: &[u8]) -> io::Result<()> {
    // Safety: plain system calls on memory that outlives them.
    let (socket, received, answer) = unsafe {
        let socket = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        );
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = libc::send(socket, message.as_ptr().cast(), message.len(), 0);
        let mut answer = [0_u8; 1024];
        let received = if sent < 0 {
            -1
        } else {
            libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0)
        };
        (socket, received, answer)
    };
    let failed = (received < 20).then(io::Error::last_os_error);
    // Safety: the descriptor is ours.
    unsafe { libc::close(socket) };
    if let Some(error) = failed {
        return Err(error);
    }
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

pub(super) fn ip(args: &[String]) -> Ended {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let ["link", "add", name, "type", "dummy"] = words.as_slice() else {
        return Err(Failure::Usage(
            "it only adds interfaces of type dummy; see /proc/net for what there is".into(),
        ));
    };
    if name.is_empty() || name.len() > 15 {
        return Err(Failure::Usage(format!(
            "'{name}' is no name of an interface"
        )));
    }
    match ask(&message(name, "dummy")) {
        Ok(()) => Ok(0),
        Err(error) => {
            output::error_line(&format!(
                "ip: RTNETLINK answers: {}",
                output::reason(&error)
            ));
            Ok(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_laid_out_as_the_kernel_reads_it() {
        let m = message("d0", "dummy");
        assert_eq!(m.len(), 16 + 16 + 8 + 16);
        assert_eq!(m[..4], 56_u32.to_ne_bytes());
        assert_eq!(m[32..40], [7, 0, 3, 0, b'd', b'0', 0, 0]);
        assert_eq!(m[40..44], [16, 0, 18, 0]);
    }

    #[test]
    fn other_requests_are_refused() {
        for line in [
            "addr",
            "link add x type veth",
            "link add averyveryverylongname type dummy",
        ] {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert!(ip(&args).is_err(), "{line}");
        }
    }
}
