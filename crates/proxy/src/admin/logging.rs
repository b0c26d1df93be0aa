//! Levels of loggers, changed while the proxy runs.

use std::collections::BTreeMap;

use runtime::log::Level;

/// The loggers that people know by name, and the part of this proxy that speaks under it; empty: nothing does, but the
/// name is known.
const LOGGERS: [(&str, &str); 26] = [
    ("admin", "proxy::admin"),
    ("assert", ""),
    ("client", "proxy::h1::client"),
    ("config", "proxy::config"),
    ("conn_handler", "proxy::listener"),
    ("connection", "proxy::io"),
    ("dns", ""),
    ("ext_authz", "proxy::http::filters::ext_authz"),
    ("file", "proxy::access_log"),
    ("filter", "proxy::tcp_proxy"),
    ("forward_proxy", ""),
    ("grpc", "proxy::xds_client"),
    ("http", "proxy::http"),
    ("http2", "proxy::h2"),
    ("init", "proxy::server"),
    ("jwt", "proxy::http::filters::jwt"),
    ("lua", ""),
    ("main", ""),
    ("misc", ""),
    ("pool", "proxy::upstream::pool"),
    ("rate_limit", "proxy::http::filters::rate_limit"),
    ("rbac", "proxy::network_filters"),
    ("router", "proxy::http::router"),
    ("tracing", "proxy::tracer"),
    ("upstream", "proxy::upstream"),
    ("wasm", ""),
];

const LEVELS: [(&str, Level); 7] = [
    ("trace", Level::TRACE),
    ("debug", Level::DEBUG),
    ("info", Level::INFO),
    ("warning", Level::WARN),
    ("error", Level::ERROR),
    ("critical", Level::ERROR),
    ("off", Level::OFF),
];

/// The loggers and their levels.
pub struct Loggers(BTreeMap<&'static str, &'static str>);

impl Default for Loggers {
    fn default() -> Self {
        Self(LOGGERS.iter().map(|(name, _)| (*name, "warning")).collect())
    }
}

impl Loggers {
    /// Changes levels: `level=debug` all, `rbac=debug` and `paths=rbac:debug,http:info` some.
    ///
    /// # Errors
    /// When a name or level is not known; then nothing changes.
    pub fn change(&mut self, query: &[(String, String)]) -> Result<(), &'static str> {
        let mut next = self.0.clone();
        let mut set = |logger: &str, level: &str| -> Result<(), &'static str> {
            let (level, _) = LEVELS
                .iter()
                .find(|(name, _)| *name == level)
                .ok_or("unknown logger level")?;
            let entry = next.iter_mut().find(|(name, _)| **name == logger);
            *entry.ok_or("unknown logger name")?.1 = level;
            Ok(())
        };
        for (name, value) in query {
            match name.as_str() {
                "level" => {
                    for (logger, _) in LOGGERS {
                        set(logger, value)?;
                    }
                }
                "paths" => {
                    for pair in value.split(',') {
                        let (logger, level) = pair.split_once(':').ok_or("unknown logger level")?;
                        set(logger, level)?;
                    }
                }
                logger => set(logger, value)?,
            }
        }
        if next != self.0 {
            self.0 = next;
            self.apply();
        }
        Ok(())
    }

    fn apply(&self) {
        let level = |name: &str| {
            let set = self.0.get(name).copied().unwrap_or("warning");
            LEVELS
                .iter()
                .find(|(level, _)| *level == set)
                .map_or(Level::WARN, |(_, level)| *level)
        };
        let targets: Vec<(&str, Level)> = LOGGERS
            .iter()
            .filter(|(_, target)| !target.is_empty())
            .map(|(name, target)| (*target, level(name)))
            .collect();
        runtime::log::set_levels(level("main"), &targets);
    }

    /// The list, as `/logging` prints it.
    pub fn text(&self) -> String {
        let mut out = String::from("active loggers:\n");
        for (name, level) in &self.0 {
            out.push_str(&format!("  {name}: {level}\n"));
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_change_one_by_one_or_not_at_all() {
        let mut loggers = Loggers::default();
        let query = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        loggers
            .change(&query("paths", "rbac:debug,http:info"))
            .expect("known");
        assert!(
            loggers.text().contains("  rbac: debug\n") && loggers.text().contains("  http: info\n")
        );
        assert_eq!(
            loggers.change(&query("rbac", "loud")),
            Err("unknown logger level")
        );
        assert_eq!(
            loggers.change(&query("nobody", "debug")),
            Err("unknown logger name")
        );
        loggers.change(&query("level", "error")).expect("known");
        assert!(!loggers.text().contains("debug"), "{}", loggers.text());
    }
}
