//! `istioctl x internal-debug`: pages about a control plane and its proxies, by its xDS port.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::mesh::Mesh;
use crate::xds_debug::{self, Answer};
use crate::{Global, Shell, USAGE, async_runtime, proto_json};

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A page, such as syncz or config_dump?proxyID=NAME.NAMESPACE
    pages: Vec<String>,
    /// Ask all control planes, not only one
    #[arg(long)]
    all: bool,
    /// List the pages
    #[arg(long, short = 'L')]
    list: bool,
    /// Control plane revision; there is one here
    #[arg(long, short = 'r', hide = true)]
    revision: Option<String>,
    /// Label of control planes to ask
    #[arg(long = "xds-label", hide = true)]
    label: Option<String>,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let mesh = Mesh::connect(global, shell)?;
    let page = match arguments.pages.first() {
        Some(page) => page,
        None if arguments.list => "list",
        None => {
            writeln!(
                shell.stderr,
                "Error: debug type is required, you can specify --list flag to list supported debug types"
            )?;
            return Ok(USAGE);
        }
    };
    let runtime = async_runtime()?;
    let ask = |page: &str| {
        let names = [page.to_owned()];
        runtime.block_on(xds_debug::ask_all(&mesh, xds_debug::PAGES, &names))
    };
    let mut answers = pages(ask(page)?);
    if answers
        .iter()
        .any(|(_, text)| text.contains("You must provide a proxyID in the query string"))
    {
        bail!(
            " You must provide a proxyID in the query string, e.g. [edsz?proxyID=istio-ingressgateway]"
        );
    }
    if answers
        .iter()
        .any(|(_, text)| text.contains("404 page not found"))
    {
        writeln!(
            shell.stdout,
            "error: according to below command list, please check all supported internal debug commands"
        )?;
        answers = pages(ask("list")?);
    }
    write!(shell.stdout, "{}", written(&answers, arguments.all))?;
    Ok(0)
}

/// Who answered, and the page.
fn pages(answers: Vec<Answer>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for answer in answers {
        for page in &answer.response.resources {
            let text = String::from_utf8_lossy(&page.value).into_owned();
            out.push((answer.id().to_owned(), text));
        }
    }
    out
}

/// One page, or those of all control planes by their names.
fn written(pages: &[(String, String)], all: bool) -> String {
    let read = |text: &str| serde_json::from_str::<Value>(text);
    if all {
        let by_name: Map<String, Value> = pages
            .iter()
            .map(|(id, text)| {
                (
                    id.clone(),
                    read(text).unwrap_or_else(|_| text.clone().into()),
                )
            })
            .collect();
        return match by_name.is_empty() {
            true => String::new(),
            false => proto_json::indented(&Value::Object(by_name), 2) + "\n",
        };
    }
    pages
        .iter()
        .take(1)
        .map(|(_, text)| match read(text) {
            Ok(value) => proto_json::indented(&value, 2) + "\n",
            Err(_) => format!("{text}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_indented_where_it_is_json_and_named_where_all_are_asked() {
        let pages = [
            ("istiod-1".to_owned(), r#"{"a":[1]}"#.to_owned()),
            ("istiod-2".to_owned(), "no JSON".to_owned()),
        ];
        assert_eq!(written(&pages, false), "{\n  \"a\": [\n    1\n  ]\n}\n");
        assert_eq!(written(&pages[1..], false), "no JSON\n");
        assert_eq!(
            written(&pages[1..], true),
            "{\n  \"istiod-2\": \"no JSON\"\n}\n"
        );
        assert_eq!(written(&[], true), "");
    }
}
