//! `tr`.

use std::io::{Read, Write};

use crate::options::{Ended, Failure, Options};
use crate::output;
use crate::shell::pattern::in_class;

/// The bytes a set means, in order.
fn expand(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes = text.as_bytes();
    let mut set = Vec::new();
    let mut at = 0;
    let next = |at: &mut usize| -> Option<u8> {
        let byte = *bytes.get(*at)?;
        if byte != b'\\' {
            *at += 1;
            return Some(byte);
        }
        let rest = text.get(*at + 1..).unwrap_or_default();
        let (escaped, used, _) = crate::printf::escape(rest, false);
        *at += 1 + used;
        // An escape that means nothing is the character itself.
        escaped.last().copied()
    };
    while at < bytes.len() {
        if let Some(rest) = text.get(at..).and_then(|rest| rest.strip_prefix("[:"))
            && let Some((name, _)) = rest.split_once(":]")
        {
            const KNOWN: [&str; 12] = [
                "alpha", "digit", "alnum", "upper", "lower", "space", "blank", "punct", "xdigit",
                "cntrl", "print", "graph",
            ];
            if !KNOWN.contains(&name) {
                return Err(Failure::Usage(format!("invalid character class '{name}'")));
            }
            set.extend((0..128_u8).filter(|byte| in_class(name, char::from(*byte))));
            at += name.len() + 4;
            continue;
        }
        let Some(low) = next(&mut at) else { break };
        if bytes.get(at) == Some(&b'-') && at + 1 < bytes.len() {
            at += 1;
            let high = next(&mut at).unwrap_or(b'-');
            if high < low {
                return Err(Failure::Usage(format!(
                    "range '{}-{}' is reversed",
                    char::from(low),
                    char::from(high)
                )));
            }
            set.extend(low..=high);
        } else {
            set.push(low);
        }
    }
    Ok(set)
}

pub(super) fn tr(args: &[String]) -> Ended {
    let options = Options::parse(args, "+cCds")?;
    let (delete, squeeze) = (options.has('d'), options.has('s'));
    let expected = match (delete, squeeze) {
        (true, false) => 1..=1,
        (true, true) => 2..=2,
        (false, true) => 1..=2,
        (false, false) => 2..=2,
    };
    if !expected.contains(&options.operands.len()) {
        return Err(Failure::Usage(format!("{} sets expected", expected.end())));
    }
    let mut first = expand(&options.operands[0])?;
    if options.has('c') || options.has('C') {
        first = (0..=255).filter(|byte| !first.contains(byte)).collect();
    }
    let second = options
        .operands
        .get(1)
        .map(|text| expand(text))
        .transpose()?;
    let mut map: Vec<u8> = (0..=255).collect();
    if !delete && let Some(second) = &second {
        let last = *second
            .last()
            .ok_or_else(|| Failure::Usage("the second set must not be empty".into()))?;
        for (index, byte) in first.iter().enumerate() {
            map[usize::from(*byte)] = second.get(index).copied().unwrap_or(last);
        }
    }
    let squeezed = second.as_ref().unwrap_or(&first);
    let mut input = std::io::stdin().lock();
    let mut out = output::stdout();
    let mut chunk = [0; 8192];
    let mut previous = None;
    loop {
        let count = input.read(&mut chunk)?;
        if count == 0 {
            return Ok(0);
        }
        for byte in &chunk[..count] {
            if delete && first.contains(byte) {
                continue;
            }
            let byte = map[usize::from(*byte)];
            if squeeze && previous == Some(byte) && squeezed.contains(&byte) {
                continue;
            }
            previous = Some(byte);
            out.write_all(&[byte])?;
        }
        out.flush()?;
    }
}
