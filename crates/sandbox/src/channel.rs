//! The private channel between a caller and its re-executed helper: JSON messages with descriptors.
//!
//! It is the helper's standard input, because that is the one descriptor that `posix_spawn` passes on
//! without running code between fork and exec in a process with threads.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

const MOST_DESCRIPTORS: usize = 16;
/// A spec carries the contents of small files; more than this is a bug.
const MOST_BYTES: u64 = 256 << 20;

#[repr(C, align(8))]
struct ControlBuffer([u8; 128]);

/// Sends a message; the descriptors are copied into the receiver.
pub(crate) fn send<T: Serialize>(
    mut socket: &UnixStream,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(
        fds.len() <= MOST_DESCRIPTORS,
        "at most {MOST_DESCRIPTORS} descriptors a message"
    );
    let body = serde_json::to_vec(message)?;
    let length = (body.len() as u64).to_ne_bytes();
    let mut vector = libc::iovec {
        iov_base: length.as_ptr().cast_mut().cast(),
        iov_len: length.len(),
    };
    let mut control = ControlBuffer([0; 128]);
    // SAFETY: all buffers live until the call returns; the control buffer has room for 16 descriptors.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            let bytes = (fds.len() * size_of::<i32>()) as u32;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
            for (i, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(first)
                    .cast::<i32>()
                    .add(i)
                    .write_unaligned(fd.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    if sent != length.len() as isize {
        return Err(io::Error::last_os_error());
    }
    socket.write_all(&body)
}

/// Receives a message and its descriptors (close-on-exec).
pub(crate) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0u8; 8];
    let mut vector = libc::iovec {
        iov_base: length.as_mut_ptr().cast(),
        iov_len: length.len(),
    };
    let mut control = ControlBuffer([0; 128]);
    let mut fds = Vec::new();
    // SAFETY: all buffers live until the call returns; descriptors in the answer are new and ours.
    let received = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        let n = loop {
            let n = libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut header,
                libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL,
            );
            if n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break n;
            }
        };
        let mut part = libc::CMSG_FIRSTHDR(&raw const header);
        while n > 0 && !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(part).cast::<i32>();
                let bytes = (*part).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for i in 0..bytes / size_of::<i32>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            part = libc::CMSG_NXTHDR(&raw const header, part);
        }
        n
    };
    match received {
        8 => {}
        n if n < 0 => return Err(io::Error::last_os_error()),
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let length = u64::from_ne_bytes(length);
    if length > MOST_BYTES {
        return Err(io::Error::other(format!("message of {length} bytes")));
    }
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_carry_descriptors_and_large_bodies() {
        let (a, b) = UnixStream::pair().unwrap();
        let (read, write) = crate::sys::pipe().unwrap();
        let large = "x".repeat(1 << 20);
        let sender = std::thread::spawn({
            let large = large.clone();
            move || send(&a, &large, &[write.as_fd()]).unwrap()
        });
        let (text, fds): (String, _) = receive(&b).unwrap();
        sender.join().unwrap();
        assert!(text == large);
        assert_eq!(fds.len(), 1);
        std::fs::File::from(fds.into_iter().next().unwrap())
            .write_all(b"hi")
            .unwrap();
        let mut got = String::new();
        std::fs::File::from(read).read_to_string(&mut got).unwrap();
        assert_eq!(got, "hi");
        assert_eq!(
            receive::<String>(&b).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
