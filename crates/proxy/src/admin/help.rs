//! What the admin interface offers, as `/help` says it.

/// A path, what it is for, whether it changes something, and its parameters.
type Entry = (
    &'static str,
    &'static str,
    bool,
    &'static [(&'static str, &'static str)],
);

const ENTRIES: [Entry; 23] = [
    ("/", "Admin home page", false, &[]),
    ("/certs", "print certs on machine", false, &[]),
    (
        "/clusters",
        "upstream cluster status",
        false,
        &[(
            "filter",
            "Regular expression for filtering clusters by name",
        )],
    ),
    (
        "/config_dump",
        "dump current Envoy configs",
        false,
        &[
            ("resource", "The resource to dump"),
            (
                "mask",
                "The fields to show, of each element where a resource is named",
            ),
            ("name_regex", "Only configurations whose names match"),
            ("include_eds", "Endpoints as well"),
        ],
    ),
    (
        "/contention",
        "dump current Envoy mutex contention stats (if enabled)",
        false,
        &[],
    ),
    (
        "/drain_listeners",
        "drain listeners",
        true,
        &[
            ("graceful", "Connections are asked to close first"),
            ("skip_exit", "Listeners stay open after that time"),
            ("inboundonly", "Only listeners of inbound traffic"),
        ],
    ),
    (
        "/healthcheck/fail",
        "cause the server to fail health checks",
        true,
        &[],
    ),
    (
        "/healthcheck/ok",
        "cause the server to pass health checks",
        true,
        &[],
    ),
    ("/help", "print out list of admin commands", false, &[]),
    (
        "/hot_restart_version",
        "print the hot restart compatibility version",
        false,
        &[],
    ),
    (
        "/init_dump",
        "dump current Envoy init manager information (experimental)",
        false,
        &[],
    ),
    (
        "/listeners",
        "print listener info",
        false,
        &[("format", "File format to use; One of (text, json)")],
    ),
    (
        "/logging",
        "query/change logging levels",
        true,
        &[
            (
                "paths",
                "Several loggers: <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>",
            ),
            (
                "level",
                "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)",
            ),
        ],
    ),
    ("/memory", "print current allocation/heap usage", false, &[]),
    ("/quitquitquit", "exit the server", true, &[]),
    (
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        false,
        &[],
    ),
    ("/reopen_logs", "reopen access logs", true, &[]),
    ("/reset_counters", "reset all counters to zero", true, &[]),
    ("/runtime", "print runtime values", false, &[]),
    (
        "/runtime_modify",
        "Adds or modifies runtime values as passed in query parameters.",
        true,
        &[],
    ),
    (
        "/server_info",
        "print server version/status information",
        false,
        &[],
    ),
    (
        "/stats",
        "print server stats",
        false,
        &[
            (
                "usedonly",
                "Only include stats that have been written by system since restart",
            ),
            ("filter", "Regular expression for filtering stats"),
            (
                "format",
                "Format to use; One of (html, json, prometheus, text)",
            ),
            (
                "type",
                "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
            ),
        ],
    ),
    (
        "/stats/prometheus",
        "print server stats in prometheus format",
        false,
        &[
            (
                "usedonly",
                "Only include stats that have been written by system since restart",
            ),
            ("filter", "Regular expression for filtering stats"),
        ],
    ),
];

/// Whether this path changes something: it wants a POST.
pub fn changes_something(path: &str) -> bool {
    ENTRIES
        .iter()
        .any(|(known, _, changes, _)| *known == path && *changes)
}

/// The list of all paths.
pub fn text() -> String {
    let mut out = String::from("admin commands are:\n");
    for (path, what, changes, parameters) in ENTRIES {
        let post = if changes { " (POST)" } else { "" };
        out.push_str(&format!("  {path}{post}: {what}\n"));
        for (name, what) in parameters {
            out.push_str(&format!("      {name}: {what}\n"));
        }
    }
    out
}
