//! `hexdump -C`: bytes in hexadecimal and as text.

use std::io::Read as _;

use super::each_input;
use crate::options::{Ended, Failure, Options};
use crate::output;

/// Sixteen bytes a line; a line that repeats the one before is shown as `*`.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut last: Option<&[u8]> = None;
    let mut repeated = false;
    for (row, chunk) in bytes.chunks(16).enumerate() {
        if last == Some(chunk) && chunk.len() == 16 {
            if !repeated {
                out.push_str("*\n");
            }
            repeated = true;
            continue;
        }
        (last, repeated) = (Some(chunk), false);
        let mut hex = String::new();
        for at in 0..16 {
            match chunk.get(at) {
                Some(byte) => hex.push_str(&format!("{byte:02x} ")),
                None => hex.push_str("   "),
            }
            if at == 7 {
                hex.push(' ');
            }
        }
        let text: String = chunk
            .iter()
            .map(|byte| match byte {
                b' '..=b'~' => char::from(*byte),
                _ => '.',
            })
            .collect();
        out.push_str(&format!("{:08x}  {hex} |{text}|\n", row * 16));
    }
    if !bytes.is_empty() {
        out.push_str(&format!("{:08x}\n", bytes.len()));
    }
    out
}

pub(super) fn hexdump(args: &[String]) -> Ended {
    let options = Options::parse(args, "C")?;
    if !options.has('C') {
        return Err(Failure::Usage("it shows bytes as with -C only".into()));
    }
    each_input("hexdump", &options.operands, |_, mut reader| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        output::write_all(1, dump(&bytes).as_bytes())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::dump;

    #[test]
    fn bytes_are_shown_twice() {
        assert_eq!(
            dump(b"\xde\xca\xfe\xba\xd0\xfe\xff\x00Ab"),
            "00000000  de ca fe ba d0 fe ff 00  41 62                    |........Ab|\n0000000a\n"
        );
        assert_eq!(dump(b""), "");
        assert_eq!(dump(&[0; 48]).matches('*').count(), 1);
    }
}
