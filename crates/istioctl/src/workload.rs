//! `istioctl x workload`: what workloads outside of the cluster need.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{Global, Shell, command, yaml};

mod configure;

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// WorkloadGroups
    Group {
        #[command(subcommand)]
        what: Option<Group>,
    },
    /// WorkloadEntries
    Entry {
        #[command(subcommand)]
        what: Option<Entry>,
    },
    #[command(external_subcommand)]
    Unknown(#[expect(dead_code, reason = "what it is does not matter")] Vec<String>),
}

#[derive(Subcommand, Debug)]
enum Group {
    /// Print a WorkloadGroup for `kubectl apply`
    Create(Create),
    #[command(external_subcommand)]
    Unknown(#[expect(dead_code, reason = "what it is does not matter")] Vec<String>),
}

#[derive(Subcommand, Debug)]
enum Entry {
    /// Write the files with which a machine outside of the cluster joins the mesh
    Configure(Box<configure::Arguments>),
    #[command(external_subcommand)]
    Unknown(#[expect(dead_code, reason = "what it is does not matter")] Vec<String>),
}

#[derive(Args, Debug, Default)]
struct Create {
    /// Name of the WorkloadGroup
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Annotations of its workloads: KEY=VALUE,...
    #[arg(long, short = 'a', value_name = "ANNOTATIONS", value_delimiter = ',')]
    annotations: Vec<String>,
    /// Labels of its workloads: KEY=VALUE,...
    #[arg(long, short = 'l', value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Ports that its workloads offer: NAME=PORT,...
    #[arg(long, short = 'p', value_name = "PORTS", value_delimiter = ',')]
    ports: Vec<String>,
    /// Service account of its workloads
    #[arg(
        long = "serviceAccount",
        short = 's',
        value_name = "NAME",
        default_value = "default"
    )]
    service_account: String,
    /// Network of its workloads
    #[arg(long, value_name = "NETWORK", default_value = "")]
    network: String,
    /// Locality of its workloads
    #[arg(long, value_name = "LOCALITY", default_value = "")]
    locality: String,
    /// Weight of its workloads
    #[arg(long, short = 'w', value_name = "WEIGHT", default_value_t = 0)]
    weight: u32,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let path: &[&str] = match &arguments.what {
        Some(What::Group {
            what: Some(Group::Create(create)),
        }) => {
            let namespace = global.namespace.as_deref().unwrap_or_default();
            if create.name.is_empty() {
                bail!("expecting a workload name");
            }
            if namespace.is_empty() {
                bail!("expecting a workload namespace");
            }
            let (group, problems) = group(create, namespace);
            for problem in problems {
                writeln!(shell.stderr, "error\t{problem}")?;
            }
            write!(shell.stdout, "{}", yaml::to_string(&group))?;
            return Ok(0);
        }
        Some(What::Entry {
            what: Some(Entry::Configure(arguments)),
        }) => return configure::run(global, arguments, shell),
        Some(What::Group { .. }) => &["experimental", "workload", "group"],
        Some(What::Entry { .. }) => &["experimental", "workload", "entry"],
        None | Some(What::Unknown(_)) => &["experimental", "workload"],
    };
    write!(shell.stdout, "{}", command::help(path))?;
    Ok(0)
}

/// The WorkloadGroup without empty fields, and what was wrong with its ports.
fn group(create: &Create, namespace: &str) -> (Value, Vec<String>) {
    let texts = |pairs: &[String]| -> Map<String, Value> {
        let pair = |pair: &String| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.into())
        };
        pairs.iter().map(pair).collect()
    };
    let mut problems = Vec::new();
    let mut ports = Map::new();
    for pair in &create.ports {
        let (name, port) = pair.split_once('=').unwrap_or((pair, ""));
        // As the real program: what is no number is told, and counts as 0.
        let port = port.parse::<u32>().unwrap_or_else(|_| {
            problems.push(format!(
                "failed to convert to uint32: strconv.ParseUint: parsing {port:?}: invalid syntax"
            ));
            0
        });
        ports.insert(name.to_owned(), port.into());
    }
    let filled = |fields: [(&str, Value); 5]| -> Map<String, Value> {
        let empty =
            |value: &Value| *value == json!({}) || *value == json!("") || *value == json!(0);
        let fields = fields.into_iter().filter(|(_, value)| !empty(value));
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    };
    let group = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": create.name, "namespace": namespace},
        "spec": {
            "metadata": filled([
                ("annotations", texts(&create.annotations).into()),
                ("labels", texts(&create.labels).into()),
                ("", json!("")), ("", json!("")), ("", json!("")),
            ]),
            "template": filled([
                ("locality", create.locality.clone().into()),
                ("network", create.network.clone().into()),
                ("ports", ports.into()),
                ("serviceAccount", create.service_account.clone().into()),
                ("weight", create.weight.into()),
            ]),
        },
    });
    (group, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As the real program printed it.
    #[test]
    fn a_group_has_what_was_typed_and_no_empty_fields() {
        let words = |text: &str| text.split(',').map(str::to_owned).collect();
        let create = Create {
            name: "foo".into(),
            labels: words("app=foo,bar=baz"),
            annotations: words("annotation=foobar"),
            ports: words("grpc=3550,http=x"),
            service_account: "sa".into(),
            weight: 3,
            locality: "a/b".into(),
            ..Create::default()
        };
        let (value, problems) = group(&create, "bar");
        assert_eq!(
            yaml::to_string(&value),
            "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata:\n  name: foo\n  namespace: bar\n\
             spec:\n  metadata:\n    annotations:\n      annotation: foobar\n    labels:\n      app: foo\n      bar: baz\n  \
             template:\n    locality: a/b\n    ports:\n      grpc: 3550\n      http: 0\n    serviceAccount: sa\n    weight: 3\n"
        );
        assert_eq!(
            problems,
            ["failed to convert to uint32: strconv.ParseUint: parsing \"x\": invalid syntax"]
        );
        let (value, _) = group(&Create::default(), "bar");
        assert_eq!(value["spec"], json!({"metadata": {}, "template": {}}));
    }
}
