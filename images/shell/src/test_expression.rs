//! `test`, `[` and `[[`.

use std::fs::{Metadata, metadata, symlink_metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Whether the expression holds.
pub(crate) fn main(name: &str, args: &[String]) -> Result<bool, String> {
    let args = match (name, args.split_last()) {
        ("[", Some((last, rest))) if last == "]" => rest,
        ("[", _) => return Err("[: missing ]".into()),
        // As in the shell of busybox: the same under another name.
        ("[[", Some((last, rest))) if last == "]]" => rest,
        ("[[", _) => return Err("[[: missing ]]".into()),
        _ => args,
    };
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    evaluate(&words).map_err(|error| format!("{name}: {error}"))
}

fn evaluate(words: &[&str]) -> Result<bool, String> {
    // With few words POSIX says what each is; operators may be operands then.
    match words {
        [] => Ok(false),
        [word] => Ok(!word.is_empty()),
        ["!", word] => Ok(word.is_empty()),
        [operator, operand] => unary(operator, operand)
            .unwrap_or_else(|| Err(format!("{operator}: unary operator expected"))),
        [left, operator, right] if is_binary(operator) => binary(left, operator, right),
        ["!", rest @ ..] if rest.len() <= 3 => evaluate(rest).map(|held| !held),
        ["(", inner @ .., ")"] if words.len() <= 4 => evaluate(inner),
        words => {
            let mut reader = Reader {
                words,
                at: 0,
                depth: 0,
            };
            let held = reader.either()?;
            match words.get(reader.at) {
                Some(extra) => Err(format!("{extra}: unexpected operator")),
                None => Ok(held),
            }
        }
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Result<bool, String> {
        let mut held = self.both()?;
        while self.take("-o") {
            held |= self.both()?;
        }
        Ok(held)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut held = self.one()?;
        while self.take("-a") {
            held &= self.one()?;
        }
        Ok(held)
    }

    fn one(&mut self) -> Result<bool, String> {
        self.depth += 1;
        if self.depth > 100 {
            return Err("expression is nested too deeply".into());
        }
        let held = self.primary();
        self.depth -= 1;
        held
    }

    fn primary(&mut self) -> Result<bool, String> {
        let rest = &self.words[self.at..];
        match rest {
            [left, operator, right, ..] if is_binary(operator) => {
                self.at += 3;
                binary(left, operator, right)
            }
            ["!", ..] => {
                self.at += 1;
                self.one().map(|held| !held)
            }
            ["(", ..] => {
                self.at += 1;
                let held = self.either()?;
                if self.take(")") {
                    Ok(held)
                } else {
                    Err("closing paren expected".into())
                }
            }
            [operator, operand, ..] if let Some(held) = unary(operator, operand) => {
                self.at += 2;
                held
            }
            [word, ..] => {
                self.at += 1;
                Ok(!word.is_empty())
            }
            [] => Err("argument expected".into()),
        }
    }
}

fn is_binary(operator: &str) -> bool {
    matches!(
        operator,
        "=" | "=="
            | "!="
            | "<"
            | ">"
            | "-eq"
            | "-ne"
            | "-lt"
            | "-le"
            | "-gt"
            | "-ge"
            | "-nt"
            | "-ot"
            | "-ef"
    )
}

fn binary(left: &str, operator: &str, right: &str) -> Result<bool, String> {
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| format!("Illegal number: {text}"))
    };
    let numbers = || Ok::<_, String>((number(left)?, number(right)?));
    let modified = |path: &str| metadata(path).and_then(|metadata| metadata.modified()).ok();
    Ok(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">" => left > right,
        "-eq" => numbers().map(|(a, b)| a == b)?,
        "-ne" => numbers().map(|(a, b)| a != b)?,
        "-lt" => numbers().map(|(a, b)| a < b)?,
        "-le" => numbers().map(|(a, b)| a <= b)?,
        "-gt" => numbers().map(|(a, b)| a > b)?,
        "-ge" => numbers().map(|(a, b)| a >= b)?,
        "-nt" => modified(left) > modified(right),
        "-ot" => modified(left) < modified(right),
        _ => match (metadata(left), metadata(right)) {
            (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
            _ => false,
        },
    })
}

/// Nothing when there is no such operator.
fn unary(operator: &str, operand: &str) -> Option<Result<bool, String>> {
    let file =
        |judge: fn(&Metadata) -> bool| metadata(operand).is_ok_and(|metadata| judge(&metadata));
    let access = |mode| {
        std::ffi::CString::new(operand).is_ok_and(|path| {
            // Safety: a string that lives as long as the call.
            unsafe { libc::access(path.as_ptr(), mode) == 0 }
        })
    };
    Some(Ok(match operator {
        "-z" => operand.is_empty(),
        "-n" => !operand.is_empty(),
        "-e" => file(|_| true),
        "-f" => file(Metadata::is_file),
        "-d" => file(Metadata::is_dir),
        "-s" => file(|metadata| metadata.len() > 0),
        "-h" | "-L" => symlink_metadata(operand).is_ok_and(|metadata| metadata.is_symlink()),
        "-p" => file(|metadata| metadata.file_type().is_fifo()),
        "-S" => file(|metadata| metadata.file_type().is_socket()),
        "-b" => file(|metadata| metadata.file_type().is_block_device()),
        "-c" => file(|metadata| metadata.file_type().is_char_device()),
        "-u" => file(|metadata| metadata.mode() & 0o4000 != 0),
        "-g" => file(|metadata| metadata.mode() & 0o2000 != 0),
        "-k" => file(|metadata| metadata.mode() & 0o1000 != 0),
        "-r" => access(libc::R_OK),
        "-w" => access(libc::W_OK),
        "-x" => access(libc::X_OK),
        "-t" => match operand.parse() {
            // Safety: asks about a number.
            Ok(fd) => unsafe { libc::isatty(fd) == 1 },
            Err(_) => return Some(Err(format!("Illegal number: {operand}"))),
        },
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::evaluate;

    #[test]
    fn expressions() {
        for (line, expected) in [
            ("", Ok(false)),
            ("x", Ok(true)),
            ("-n", Ok(true)),
            ("! x", Ok(false)),
            ("-z x", Ok(false)),
            ("a = a", Ok(true)),
            ("! a = a", Ok(false)),
            ("1 -lt 2 -a 2 -gt 3", Ok(false)),
            ("1 -lt 2 -o 2 -gt 3", Ok(true)),
            ("( a = b ) -o ! -z x", Ok(true)),
            ("-d /", Ok(true)),
            ("1 -eq x", Err(())),
            ("a b c", Err(())),
            ("-q x", Err(())),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(evaluate(&words).map_err(|_| ()), expected, "{line}");
        }
    }
}
