//! Which statistics are shown and which parts of their names become tags: the bootstrap's `stats_config`.

use dataplane::matching::StringMatch;
use regex::Regex;
use xds::envoy::config::metrics::v3::stats_matcher::StatsMatcher as Choice;
use xds::envoy::config::metrics::v3::tag_specifier::TagValue;
use xds::envoy::config::metrics::v3::{StatsConfig, StatsMatcher};

/// A name taken apart for Prometheus.
#[derive(Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The name without the tags.
    pub name: String,
    /// Tags in the order they were found.
    pub tags: Vec<(String, String)>,
}

/// The compiled `stats_config`.
pub struct Tags {
    extractors: Vec<(String, Regex)>,
    fixed: Vec<(String, String)>,
    choice: Visible,
}

enum Visible {
    All,
    None,
    Only(Vec<StringMatch>),
    Except(Vec<StringMatch>),
}

/// Envoy's own tags that occur here.
const DEFAULTS: [(&str, &str); 11] = [
    ("envoy.response_code", r"_rq(_(\d{3}))$"),
    ("envoy.response_code_class", r"_rq_((\d))xx$"),
    ("envoy.cluster_name", r"^cluster\.((.*?)\.)"),
    (
        "envoy.http_conn_manager_prefix",
        r"^(?:listener\..*?\.)?http\.((.*?)\.)",
    ),
    (
        "envoy.local_http_ratelimit_prefix",
        r"^((.*?)\.)http_local_rate_limit\.",
    ),
    (
        "envoy.local_network_ratelimit_prefix",
        r"^local_rate_limit\.((.*?)\.)",
    ),
    ("envoy.ratelimit_prefix", r"^ratelimit\.((.*?)\.)"),
    (
        "envoy.listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("envoy.tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("envoy.worker_id", r"^server\.worker_((\d+)\.)"),
    ("envoy.virtual_cluster", r"^vhost\..*?\.vcluster\.((.*?)\.)"),
];

impl Tags {
    /// Compiles the configuration. Expressions this engine does not know are left out with a warning.
    pub fn compile(config: Option<&StatsConfig>) -> Self {
        let mut extractors = Vec::new();
        let mut fixed = Vec::new();
        let mut add = |name: &str, text: &str| {
            // The only look-ahead in use says that a dot follows, which the rest of the expression says again.
            match dataplane::re2::compile(&text.replace(r"(?=\.)", "")) {
                Ok(regex) => extractors.push((name.to_owned(), regex)),
                Err(error) => tracing::warn!("stats_tags: {name}: {error}"),
            }
        };
        for tag in config.iter().flat_map(|config| &config.stats_tags) {
            match &tag.tag_value {
                Some(TagValue::Regex(text)) => add(&tag.tag_name, text),
                Some(TagValue::FixedValue(value)) => {
                    fixed.push((tag.tag_name.clone(), value.clone()))
                }
                None => {
                    if let Some((name, text)) =
                        DEFAULTS.iter().find(|(name, _)| *name == tag.tag_name)
                    {
                        add(name, text);
                    }
                }
            }
        }
        if config
            .and_then(|config| config.use_all_default_tags)
            .unwrap_or(true)
        {
            for (name, text) in DEFAULTS {
                add(name, text);
            }
        }
        Self {
            extractors,
            fixed,
            choice: visible(config.and_then(|config| config.stats_matcher.as_ref())),
        }
    }

    /// Whether a statistic is shown.
    pub fn shows(&self, name: &str) -> bool {
        match &self.choice {
            Visible::All => true,
            Visible::None => false,
            Visible::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
            Visible::Except(patterns) => !patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }

    /// Takes the tags out of a name.
    pub fn extract(&self, name: &str) -> Tagged {
        let mut cuts: Vec<(usize, usize)> = Vec::new();
        let mut tags = self.fixed.clone();
        for (tag, regex) in &self.extractors {
            if tags.iter().any(|(known, _)| known == tag) {
                continue;
            }
            let Some(found) = regex.captures(name) else {
                continue;
            };
            let Some(cut) = found.get(1) else { continue };
            // The second group, where there is one, is the value; the first is what goes.
            let value = found.get(2).unwrap_or(cut);
            tags.push((tag.clone(), value.as_str().to_owned()));
            cuts.push((cut.start(), cut.end()));
        }
        cuts.sort_unstable();
        let mut rest = String::with_capacity(name.len());
        let mut at = 0;
        for (start, end) in cuts {
            if start >= at {
                rest.push_str(&name[at..start]);
                at = end;
            }
        }
        rest.push_str(&name[at..]);
        Tagged { name: rest, tags }
    }
}

fn visible(matcher: Option<&StatsMatcher>) -> Visible {
    let compile = |patterns: &[xds::envoy::r#type::matcher::v3::StringMatcher]| {
        patterns
            .iter()
            .filter_map(|pattern| StringMatch::compile(pattern).ok())
            .collect()
    };
    match matcher.and_then(|matcher| matcher.stats_matcher.as_ref()) {
        None | Some(Choice::RejectAll(false)) => Visible::All,
        Some(Choice::RejectAll(true)) => Visible::None,
        Some(Choice::InclusionList(list)) => Visible::Only(compile(&list.patterns)),
        Some(Choice::ExclusionList(list)) => Visible::Except(compile(&list.patterns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_own_tags() {
        let tags = Tags::compile(None);
        let tagged = tags.extract("cluster.one.upstream_rq_503");
        assert_eq!(tagged.name, "cluster.upstream_rq");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            tagged.tags,
            [
                pair("envoy.response_code", "503"),
                pair("envoy.cluster_name", "one")
            ]
        );
        assert_eq!(
            tags.extract("cluster.one.upstream_rq_5xx").name,
            "cluster.upstream_rq_xx"
        );
        let limit = tags.extract("rl.http_local_rate_limit.enabled");
        assert_eq!(limit.name, "http_local_rate_limit.enabled");
        assert_eq!(
            limit.tags,
            [pair("envoy.local_http_ratelimit_prefix", "rl")]
        );
        let listener = tags.extract("listener.127.0.0.1_80.http.in.downstream_rq_2xx");
        assert_eq!(listener.name, "listener.http.downstream_rq_xx");
        assert_eq!(
            listener.tags,
            [
                pair("envoy.response_code_class", "2"),
                pair("envoy.http_conn_manager_prefix", "in"),
                pair("envoy.listener_address", "127.0.0.1_80"),
            ]
        );
        assert!(tags.shows("anything"));
    }

    #[test]
    fn istios_tags_take_names_with_dots() {
        let config = serde_json::json!({
            "use_all_default_tags": false,
            "stats_tags": [{"tag_name": "cluster_name", "regex": "^cluster(\\.(.+);)"}],
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster.xds-grpc"}, {"suffix": "rbac.allowed"}]}}
        });
        let tags = Tags::compile(Some(&xds::json::from_value(config, true).unwrap()));
        let tagged = tags
            .extract("cluster.outbound|8000||httpbin.default.svc.cluster.local;.upstream_rq_total");
        assert_eq!(tagged.name, "cluster.upstream_rq_total");
        assert_eq!(
            tagged.tags[0].1,
            "outbound|8000||httpbin.default.svc.cluster.local"
        );
        assert!(tags.shows("http.x.rbac.allowed") && !tags.shows("cluster.a.upstream_rq_total"));
    }
}
