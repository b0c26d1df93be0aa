//! `istioctl x authz check`: which AuthorizationPolicies a proxy carries out, as its listeners have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::dump::{Dump, list, text};
use crate::mesh::Mesh;
use crate::table::Table;
use crate::{Global, Shell, async_runtime, command, files};

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the policies of a pod's proxy
    Check {
        /// A pod: [TYPE/]NAME[.NAMESPACE]
        pods: Vec<String>,
        /// A file with what the proxy answered to /config_dump
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Admin port of the proxy
        #[arg(
            long = "proxy-admin-port",
            value_name = "PORT",
            default_value_t = 15000
        )]
        port: u16,
    },
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let Some(Command::Check { pods, file, port }) = &arguments.command else {
        write!(
            shell.stdout,
            "{}",
            command::help(&["experimental", "authz"])
        )?;
        return Ok(0);
    };
    let dump = match (file, pods.as_slice()) {
        (_, [_, _, ..]) => {
            let usage = command::help(&["experimental", "authz", "check"]);
            writeln!(shell.stderr, "{usage}")?;
            bail!("check requires only <pod-name>[.<pod-namespace>]")
        }
        (Some(file), _) => files::read(file, shell)
            .and_then(|text| Dump::parse(&text))
            .map_err(|error| {
                anyhow!(
                    "failed to get config dump from file {}: {error}",
                    file.display()
                )
            })?,
        (None, []) => bail!("expecting pod name or config dump, found: 0"),
        (None, [pod]) => {
            let mesh = Mesh::connect(global, shell)
                .map_err(|error| anyhow!("failed to create k8s client: {error}"))?;
            let runtime = async_runtime()?;
            let (pod, namespace) = runtime.block_on(mesh.pod(pod))?;
            runtime
                .block_on(mesh.ask((&pod, &namespace), "GET", "/config_dump", *port))
                .and_then(|text| Dump::parse(&text))
                .map_err(|_| anyhow!("failed to get config dump from pod {pod} in {namespace}"))?
        }
    };
    write!(
        shell.stdout,
        "{}",
        table(dump.section("ListenersConfigDump")?)
    )?;
    Ok(0)
}

/// Actions in the order in which they are told.
const ACTIONS: [&str; 4] = ["DENY", "ALLOW", "LOG", "CUSTOM"];
/// The name of a policy that matches nothing, for example one without rules.
const NOTHING: &str = "_anonymous_match_nothing_";
/// Before the names of policies that ask somebody else.
const EXTERNAL: &str = "istio-ext-authz-";

fn table(listeners: &Value) -> String {
    let mut actions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |action: &str, (policy, rule): (String, String)| {
        rules.entry(policy.clone()).or_default().insert(rule);
        actions.entry(action.to_owned()).or_default().insert(policy);
    };
    for listener in list(listeners, "dynamic_listeners") {
        for chain in list(&listener["active_state"]["listener"], "filter_chains") {
            for filter in filters(chain) {
                let action = match text(&filter["rules"], "action") {
                    "" => "ALLOW",
                    action => action,
                };
                let names = |rules: &str| -> Vec<String> {
                    let policies = filter[rules]["policies"].as_object();
                    policies
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.clone())
                        .collect()
                };
                let own = names("rules");
                if own.is_empty() {
                    add(action, (NOTHING.to_owned(), "0".to_owned()));
                }
                for name in own {
                    add(action, parts(&name));
                }
                for name in names("shadow_rules") {
                    if name.starts_with(EXTERNAL) {
                        add("CUSTOM", parts(&name));
                    }
                }
            }
        }
    }
    let mut table = Table::new(&["ACTION", "AuthorizationPolicy", "RULES"]);
    for action in ACTIONS {
        for policy in actions.get(action).into_iter().flatten() {
            let count = rules.get(policy).map_or(0, BTreeSet::len);
            table.row(&[action, policy, &count.to_string()]);
        }
    }
    table.render(3)
}

/// The filters of a chain that allow and deny, of HTTP and of the network.
fn filters(chain: &Value) -> impl Iterator<Item = &Value> {
    list(chain, "filters").iter().flat_map(|filter| {
        let config = &filter["typed_config"];
        match text(filter, "name") {
            "envoy.filters.network.rbac" => vec![config],
            "envoy.filters.network.http_connection_manager" => list(config, "http_filters")
                .iter()
                .filter(|http| text(http, "name") == "envoy.filters.http.rbac")
                .map(|http| &http["typed_config"])
                .collect(),
            _ => Vec::new(),
        }
    })
}

/// Policy and rule of `ns[shop]-policy[viewers]-rule[0]`: `viewers.shop`, `0`. Both empty when it is named otherwise.
fn parts(name: &str) -> (String, String) {
    let found = || {
        let rest = name
            .strip_prefix(EXTERNAL)
            .unwrap_or(name)
            .strip_prefix("ns[")?;
        let (namespace, rest) = rest.split_once("]-policy[")?;
        let (policy, rest) = rest.split_once("]-rule[")?;
        Some((
            format!("{policy}.{namespace}"),
            rest.strip_suffix(']')?.to_owned(),
        ))
    };
    found().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_are_told_by_action_with_the_number_of_their_rules() {
        let http = |filters: Value| json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {"http_filters": filters}});
        let rbac =
            |config: Value| json!({"name": "envoy.filters.http.rbac", "typed_config": config});
        let filters = [
            http(json!([
                rbac(
                    json!({"rules": {"policies": {"ns[a]-policy[p]-rule[0]": {}, "ns[a]-policy[p]-rule[1]": {}}}})
                ),
                rbac(
                    json!({"rules": {"action": "DENY", "policies": {"ns[a]-policy[d]-rule[0]": {}}}})
                ),
                rbac(
                    json!({"rules": {"action": "DENY", "policies": {"x": {}}}, "shadow_rules": {"policies": {"istio-ext-authz-ns[a]-policy[e]-rule[0]": {}}}})
                ),
            ])),
            json!({"name": "envoy.filters.network.rbac", "typed_config": {"rules": {}}}),
        ];
        let listeners = json!({"dynamic_listeners": [{"active_state": {"listener": {"filter_chains": [{"filters": filters}]}}}]});
        assert_eq!(
            table(&listeners),
            "ACTION   AuthorizationPolicy         RULES\n\
             DENY                                 1\n\
             DENY     d.a                         1\n\
             ALLOW    _anonymous_match_nothing_   1\n\
             ALLOW    p.a                         2\n\
             CUSTOM   e.a                         1\n"
        );
        assert_eq!(table(&json!({})), "ACTION   AuthorizationPolicy   RULES\n");
    }
}
