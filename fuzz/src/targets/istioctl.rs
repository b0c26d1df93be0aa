//! What istioctl reads: answers of proxies, files of people.

use std::collections::BTreeMap;

use istioctl::Shell;

use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "istioctl-config-dump",
        run: config_dump,
        also: &[],
    },
    Target {
        name: "istioctl-analyze",
        run: analyze,
        also: &[],
    },
    Target {
        name: "istioctl-validate",
        run: validate,
        also: &[],
    },
];

fn run(words: &[&str], input: &[u8]) -> u8 {
    let (mut stdin, mut stdout, mut stderr) = (input, Vec::new(), Vec::new());
    istioctl::run(
        words.iter().map(Into::into).collect(),
        &mut Shell {
            directory: "/nonexistent".into(),
            kubeconfig: None,
            home: None,
            settings: BTreeMap::new(),
            terminal: false,
            stdin: &mut stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
        },
    )
}

/// `all` reads clusters, listeners, routes, endpoints and extensions.
fn config_dump(input: &[u8]) {
    for (what, format) in [
        ("all", "short"),
        ("all", "json"),
        ("secret", "short"),
        ("bootstrap", "json"),
    ] {
        run(&["proxy-config", what, "-f", "-", "-o", format], input);
    }
}

fn analyze(input: &[u8]) {
    run(&["analyze", "--use-kube=false", "-A", "-"], input);
}

fn validate(input: &[u8]) {
    run(&["validate", "-f", "-"], input);
}
