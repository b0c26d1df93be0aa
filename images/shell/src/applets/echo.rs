//! `echo`.

use crate::options::Ended;
use crate::printf;

/// What it prints.
pub(crate) fn text(args: &[String]) -> Vec<u8> {
    let (mut line_end, mut escapes) = (true, false);
    let mut words = args;
    while let Some((word, rest)) = words.split_first() {
        let letters = word.strip_prefix('-').unwrap_or_default();
        // Anything else is text, as it has always been.
        if letters.is_empty() || !letters.chars().all(|letter| "neE".contains(letter)) {
            break;
        }
        for letter in letters.chars() {
            match letter {
                'n' => line_end = false,
                'e' => escapes = true,
                _ => escapes = false,
            }
        }
        words = rest;
    }
    let joined = words.join(" ");
    let mut out = if escapes {
        let (bytes, stop) = printf::unescape(&joined);
        line_end &= !stop;
        bytes
    } else {
        joined.into_bytes()
    };
    if line_end {
        out.push(b'\n');
    }
    out
}

pub(super) fn echo(args: &[String]) -> Ended {
    crate::output::write_all(1, &text(args))?;
    Ok(0)
}
