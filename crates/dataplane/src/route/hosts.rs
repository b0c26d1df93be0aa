//! From the authority of a request to its virtual host.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

/// The domains of all virtual hosts, each with the virtual host's index.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: Names,
    /// `*.example.com` as `.example.com`, by length, longest first.
    suffixes: Vec<(usize, Names)>,
    /// `example.*` as `example.`, likewise.
    prefixes: Vec<(usize, Names)>,
    any: Option<usize>,
    ignore_port: bool,
}

/// Names with their virtual hosts. A mesh has eight names for each of its services: when all are there they are packed, which takes
/// half the memory of a map.
#[derive(Debug, Default)]
struct Names {
    coming: HashMap<String, usize>,
    /// All of them in their order, one behind the other.
    text: Box<str>,
    /// Where each ends, and its virtual host.
    ends: Box<[(u32, u32)]>,
}

impl Names {
    fn pack(&mut self) {
        let mut all: Vec<_> = std::mem::take(&mut self.coming).into_iter().collect();
        all.sort_unstable();
        let mut text = String::with_capacity(all.iter().map(|(name, _)| name.len()).sum());
        let end = |(name, host): (String, usize)| {
            text.push_str(&name);
            (text.len() as u32, host as u32)
        };
        self.ends = all.into_iter().map(end).collect();
        self.text = text.into();
    }

    fn get(&self, name: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = (low + high) / 2;
            let start = middle
                .checked_sub(1)
                .map_or(0, |before| self.ends[before].0);
            let (end, host) = self.ends[middle];
            match self.text.as_bytes()[start as usize..end as usize].cmp(name.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(host as usize),
            }
        }
        None
    }
}

impl Hosts {
    pub(super) fn new(ignore_port: bool) -> Self {
        Self {
            ignore_port,
            ..Self::default()
        }
    }

    /// To be called when all domains are there; before, none is found.
    pub(super) fn pack(&mut self) {
        self.exact.pack();
        for (_, names) in self.suffixes.iter_mut().chain(&mut self.prefixes) {
            names.pack();
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
        let insert = |names: &mut Names, name: &str| {
            let free = !names.coming.contains_key(name);
            if free {
                names.coming.insert(name.to_owned(), host);
            }
            free
        };
        let by_length = |wildcards: &mut Vec<(usize, Names)>, text: &str| {
            let place = match wildcards.binary_search_by(|(length, _)| text.len().cmp(length)) {
                Ok(place) => place,
                Err(place) => {
                    wildcards.insert(place, (text.len(), Names::default()));
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
            return Some(found);
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
        suffix.or_else(prefix).or(self.any)
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
        hosts.pack();
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
        strict.pack();
        assert_eq!(
            strict.find("a:80"),
            None,
            "the port counts unless it is ignored"
        );
    }

    #[test]
    fn each_of_many_names_is_found_and_no_other() {
        let mut hosts = Hosts::new(false);
        for n in 0..1000 {
            hosts.add(&format!("service-{n}.shop"), n);
        }
        hosts.pack();
        for n in 0..1000 {
            assert_eq!(hosts.find(&format!("service-{n}.shop")), Some(n));
        }
        for name in ["", "service-", "service-1", "service-1000.shop", "zzz"] {
            assert_eq!(hosts.find(name), None, "{name}");
        }
    }
}
