//! From the authority of a request to its virtual host.

use std::borrow::Cow;
use std::collections::HashMap;

/// The domains of all virtual hosts, each with the virtual host's index.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<String, usize>,
    /// `*.example.com` as `.example.com`, by length, longest first.
    suffixes: Vec<(usize, HashMap<String, usize>)>,
    /// `example.*` as `example.`, likewise.
    prefixes: Vec<(usize, HashMap<String, usize>)>,
    any: Option<usize>,
    ignore_port: bool,
}

impl Hosts {
    pub(super) fn new(ignore_port: bool) -> Self {
        Self {
            ignore_port,
            ..Self::default()
        }
    }

    /// Adds a domain; `false` if it is taken.
    pub(super) fn add(&mut self, domain: &str, host: usize) -> bool {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            let free = self.any.is_none();
            self.any = self.any.or(Some(host));
            return free;
        }
        let insert = |names: &mut HashMap<String, usize>, name: &str| {
            let free = !names.contains_key(name);
            if free {
                names.insert(name.to_owned(), host);
            }
            free
        };
        let by_length = |wildcards: &mut Vec<(usize, HashMap<String, usize>)>, text: &str| {
            let place = match wildcards.binary_search_by(|(length, _)| text.len().cmp(length)) {
                Ok(place) => place,
                Err(place) => {
                    wildcards.insert(place, (text.len(), HashMap::new()));
                    place
                }
            };
            insert(&mut wildcards[place].1, text)
        };
        if let Some(suffix) = domain.strip_prefix('*') {
            by_length(&mut self.suffixes, suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            by_length(&mut self.prefixes, prefix)
        } else {
            insert(&mut self.exact, &domain)
        }
    }

    /// Exact names first, then the longest suffix, then the longest prefix, then `*`.
    pub(super) fn find(&self, authority: &str) -> Option<usize> {
        let host = match port_start(authority) {
            Some(port) if self.ignore_port => &authority[..port],
            _ => authority,
        };
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        let host = host.as_ref();
        if let Some(found) = self.exact.get(host) {
            return Some(*found);
        }
        // A wildcard stands for at least one character.
        let suffix = self
            .suffixes
            .iter()
            .filter(|(length, _)| *length < host.len())
            .find_map(|(length, names)| names.get(host.get(host.len() - length..)?));
        let prefix = || {
            self.prefixes
                .iter()
                .filter(|(length, _)| *length < host.len())
                .find_map(|(length, names)| names.get(host.get(..*length)?))
        };
        suffix.or_else(prefix).copied().or(self.any)
    }
}

/// Where the port of an authority begins (at its colon).
pub(super) fn port_start(authority: &str) -> Option<usize> {
    let colon = authority.rfind(':')?;
    // The colons of an IPv6 address stand in brackets.
    authority
        .rfind(']')
        .is_none_or(|bracket| bracket < colon)
        .then_some(colon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_domain_wins() {
        let mut hosts = Hosts::new(true);
        for (index, domain) in [
            "*",
            "*.example.com",
            "*-bar.example.com",
            "www.Example.com",
            "www.*",
            "[::1]",
        ]
        .iter()
        .enumerate()
        {
            assert!(hosts.add(domain, index));
        }
        assert!(!hosts.add("WWW.example.com", 9), "taken, whatever the case");
        let find = |host: &str| hosts.find(host).expect("there is a default");
        assert_eq!(find("WWW.example.com:8080"), 3);
        assert_eq!(find("foo-bar.example.com"), 2);
        assert_eq!(find("a.b.example.com"), 1);
        assert_eq!(find("example.com"), 0);
        assert_eq!(
            find(".example.com"),
            0,
            "the star is at least one character"
        );
        assert_eq!(find("www.other"), 4);
        assert_eq!(find("[::1]:80"), 5);
        assert_eq!(find("[::1]"), 5);
        let mut strict = Hosts::new(false);
        strict.add("a", 0);
        assert_eq!(
            strict.find("a:80"),
            None,
            "the port counts unless it is ignored"
        );
    }
}
