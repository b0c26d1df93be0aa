//! `istioctl x config`: the defaults that variables of the environment may change.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::table::Table;
use crate::{Global, Shell, command};

/// Flags with their defaults, by name. Only the namespace is a flag of this program, too; the others are those of Istio's, which asks
/// control planes outside of a cluster as well.
const FLAGS: [(&str, &str); 8] = [
    ("authority", ""),
    ("cert-dir", ""),
    ("insecure", ""),
    ("istioNamespace", "istio-system"),
    ("plaintext", ""),
    ("prefer-experimental", ""),
    ("xds-address", ""),
    ("xds-port", "15012"),
];

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// List the defaults and where they come from
    List {
        #[arg(hide = true)]
        words: Vec<String>,
    },
    #[command(external_subcommand)]
    Unknown(#[expect(dead_code, reason = "what it is does not matter")] Vec<String>),
}

/// Runs the command; the exit code.
pub(crate) fn run(_: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    match &arguments.what {
        Some(What::List { words }) if words.is_empty() => {
            write!(shell.stdout, "{}", table(&shell.settings))?;
            Ok(0)
        }
        Some(What::List { words }) => {
            bail!("accepts 0 arg(s), received {}", words.len())
        }
        None | Some(What::Unknown(_)) => {
            write!(
                shell.stdout,
                "{}",
                command::help(&["experimental", "config"])
            )?;
            Ok(0)
        }
    }
}

/// The variable of a flag.
fn variable(flag: &str) -> String {
    format!("ISTIOCTL_{}", flag.replace('-', "_").to_uppercase())
}

fn table(settings: &BTreeMap<String, String>) -> String {
    let mut table = Table::new(&["FLAG", "VALUE", "FROM"]);
    for (flag, default) in FLAGS {
        let variable = variable(flag);
        match settings.get(&variable) {
            Some(value) => table.row(&[flag, value, &format!("${variable}")]),
            None => table.row(&[flag, default, "default"]),
        }
    }
    table.render(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As the real program printed them.
    #[test]
    fn defaults_and_variables_are_listed_in_columns() {
        let plain = table(&BTreeMap::new());
        assert!(
            plain.starts_with(
                "FLAG                    VALUE            FROM\n\
                 authority                                default\n"
            ),
            "{plain}"
        );
        let set = [
            ("ISTIOCTL_XDS_PORT".to_owned(), "3".to_owned()),
            ("ISTIOCTL_ISTIONAMESPACE".to_owned(), "foo".to_owned()),
        ];
        let set = table(&set.into());
        for row in [
            "istioNamespace          foo       $ISTIOCTL_ISTIONAMESPACE",
            "plaintext                         default",
            "xds-port                3         $ISTIOCTL_XDS_PORT",
        ] {
            assert!(set.lines().any(|line| line == row), "{row}\n{set}");
        }
    }
}
