//! Patterns of file names, `case` and `${a#…}`.

use std::path::Path;

/// A character, and whether it was quoted: then it means itself.
pub type Mark = (char, bool);

/// Whether the whole text matches.
#[must_use]
pub fn matches(pattern: &[Mark], text: &[char]) -> bool {
    // Only the latest star needs another try.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&('*', false)) {
            p += 1;
            star = Some((p, t));
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        if let Some(width) = one(&pattern[p..], text[t]) {
            p += width;
            t += 1;
            continue;
        }
        let Some((after, taken)) = star else {
            return false;
        };
        p = after;
        t = taken + 1;
        star = Some((after, t));
    }
}

fn one(pattern: &[Mark], c: char) -> Option<usize> {
    match pattern.first()? {
        ('?', false) => Some(1),
        ('[', false) => match class(&pattern[1..], c) {
            Some((found, width)) => found.then_some(width + 1),
            // Never closed: a bracket like any other character.
            None => (c == '[').then_some(1),
        },
        (literal, _) => (*literal == c).then_some(1),
    }
}

fn class(rest: &[Mark], c: char) -> Option<(bool, usize)> {
    let negated = matches!(rest.first(), Some(('!' | '^', false)));
    let mut at = usize::from(negated);
    let mut found = false;
    let mut first = true;
    loop {
        let (low, quoted) = *rest.get(at)?;
        if low == ']' && !quoted && !first {
            return Some((found != negated, at + 1));
        }
        first = false;
        if low == '[' && !quoted && rest.get(at + 1) == Some(&(':', false)) {
            let name: String = rest[at + 2..]
                .iter()
                .map(|(c, _)| *c)
                .take_while(|c| *c != ':')
                .collect();
            let after = at + 2 + name.len();
            if rest.get(after + 1).is_some_and(|(c, _)| *c == ']') {
                found |= in_class(&name, c);
                at = after + 2;
                continue;
            }
        }
        let range_end = match (rest.get(at + 1), rest.get(at + 2)) {
            (Some(('-', false)), Some((high, _))) if *high != ']' => Some(*high),
            _ => None,
        };
        match range_end {
            Some(high) => {
                found |= (low..=high).contains(&c);
                at += 3;
            }
            None => {
                found |= low == c;
                at += 1;
            }
        }
    }
}

/// Whether a character belongs to `[:name:]`.
#[must_use]
pub fn in_class(name: &str, c: char) -> bool {
    match name {
        "alpha" => c.is_alphabetic(),
        "digit" => c.is_ascii_digit(),
        "alnum" => c.is_alphanumeric(),
        "upper" => c.is_uppercase(),
        "lower" => c.is_lowercase(),
        "space" => c.is_whitespace(),
        "blank" => matches!(c, ' ' | '\t'),
        "punct" => c.is_ascii_punctuation(),
        "xdigit" => c.is_ascii_hexdigit(),
        "cntrl" => c.is_control(),
        "print" => !c.is_control(),
        "graph" => !c.is_control() && !c.is_whitespace(),
        _ => false,
    }
}

/// Files whose names match, in order; empty when none does.
#[must_use]
pub fn files(pattern: &[Mark]) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut components = pattern.split(|(c, _)| *c == '/').enumerate().peekable();
    while let Some((index, component)) = components.next() {
        let last = components.peek().is_none();
        if index > 0 {
            for path in &mut found {
                path.push('/');
            }
        }
        let wild = component
            .iter()
            .any(|mark| matches!(mark, ('*' | '?' | '[', false)));
        if !wild {
            let name: String = component.iter().map(|(c, _)| *c).collect();
            for path in &mut found {
                path.push_str(&name);
            }
            found.retain(|path| path.is_empty() || Path::new(path).symlink_metadata().is_ok());
            continue;
        }
        found = found
            .iter()
            .flat_map(|path| entries(path, component, !last))
            .collect();
    }
    found.sort();
    found
}

fn entries(path: &str, component: &[Mark], directories: bool) -> Vec<String> {
    let directory = if path.is_empty() { "." } else { path };
    let hidden = component.first().is_some_and(|(c, _)| *c == '.');
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .chain(
            hidden
                .then(|| [".".to_owned(), "..".to_owned()])
                .into_iter()
                .flatten(),
        )
        .filter(|name| hidden || !name.starts_with('.'))
        .filter(|name| matches(component, &name.chars().collect::<Vec<_>>()))
        .map(|name| format!("{path}{name}"))
        .filter(|path| !directories || Path::new(path).is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[[:digit:]]*", "5a", true),
            ("[a", "[a", true),
            ("*.txt", "a.txt", true),
        ] {
            let marks: Vec<Mark> = pattern.chars().map(|c| (c, false)).collect();
            let text: Vec<char> = text.chars().collect();
            assert_eq!(matches(&marks, &text), expected, "{pattern} {text:?}");
        }
        assert!(!matches(&[('*', true)], &['a']));
    }
}
