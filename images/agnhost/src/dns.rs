//! What the resolver of this host is configured with.

use anyhow::{Context, Result};

/// The resolver's configuration.
pub(crate) fn resolv_conf() -> Result<String> {
    std::fs::read_to_string("/etc/resolv.conf").context("/etc/resolv.conf")
}

/// The search list, joined by commas.
pub(crate) fn suffixes(conf: &str) -> Result<String> {
    words(conf, "search")
}

/// The servers of the first line that names some, joined by commas.
pub(crate) fn servers(conf: &str) -> Result<String> {
    words(conf, "nameserver")
}

fn words(conf: &str, keyword: &str) -> Result<String> {
    let line = conf
        .lines()
        .find(|line| line.starts_with(keyword))
        .with_context(|| format!("/etc/resolv.conf has no line {keyword:?}"))?;
    Ok(line
        .split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(","))
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_are_joined_by_commas() {
        let conf = "nameserver 10.97.0.10\nsearch a.svc.cluster.local svc.cluster.local\n";
        assert_eq!(super::servers(conf).unwrap(), "10.97.0.10");
        assert_eq!(
            super::suffixes(conf).unwrap(),
            "a.svc.cluster.local,svc.cluster.local"
        );
        assert!(super::suffixes("").is_err());
    }
}
