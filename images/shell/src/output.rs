//! Writing without surprises: no panic on a closed pipe or a full disk.

use std::io::{self, BufWriter, Write};

/// A descriptor that stays open.
pub(crate) struct Descriptor(pub i32);

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Safety: the slice lives as long as the call.
        let count = unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output of a program.
pub(crate) type Out = BufWriter<Descriptor>;

pub(crate) fn stdout() -> Out {
    BufWriter::with_capacity(32 * 1024, Descriptor(1))
}

pub(crate) fn write_all(fd: i32, bytes: &[u8]) -> io::Result<()> {
    Descriptor(fd).write_all(bytes)
}

/// A line about an error.
pub(crate) fn error_line(text: &str) {
    // Where errors cannot be told, they are not told.
    let _ = write_all(2, format!("{text}\n").as_bytes());
}

/// The system's words without their number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
