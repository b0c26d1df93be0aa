//! `istioctl version`: of this program, the control plane and the proxies.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime, proto_json, yaml};

/// The release of Istio whose command line this is.
pub const ISTIO_VERSION: &str = "1.31.0";
const MONITORING: u16 = 15014;

/// Flags of `version`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// One of yaml or json
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<String>,
    /// Only versions; --short=false shows everything about the builds
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    short: bool,
    /// Ask control plane and proxies as well
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    remote: bool,
    /// Control plane revision; there is one here
    #[arg(long, hide = true)]
    revision: Option<String>,
}

/// What is known about one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Build {
    version: String,
    revision: String,
    golang: String,
    status: String,
    tag: String,
}

impl Build {
    fn own() -> Self {
        Self {
            version: ISTIO_VERSION.to_owned(),
            revision: format!("theater-{}", env!("CARGO_PKG_VERSION")),
            golang: "none".to_owned(),
            status: "Clean".to_owned(),
            tag: ISTIO_VERSION.to_owned(),
        }
    }

    /// From `VERSION-REVISION-STATUS`, the answer of a control plane's `/version`.
    fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split('-').collect();
        let [version @ .., revision, status] = &parts[..] else {
            return Self {
                version: text.to_owned(),
                ..Self::default()
            };
        };
        if version.is_empty() {
            return Self {
                version: text.to_owned(),
                ..Self::default()
            };
        }
        let (version, revision) = match (*revision, version) {
            ("dirty", [before @ .., hash]) => (before.join("-"), format!("{hash}-dirty")),
            _ => (version.join("-"), (*revision).to_owned()),
        };
        Self {
            tag: version.clone(),
            version,
            revision,
            golang: String::new(),
            status: (*status).to_owned(),
        }
    }

    fn long(&self) -> String {
        format!(
            "version.BuildInfo{{Version:{:?}, GitRevision:{:?}, GolangVersion:{:?}, BuildStatus:{:?}, GitTag:{:?}}}",
            self.version, self.revision, self.golang, self.status, self.tag
        )
    }

    fn json(&self) -> Value {
        json!({"version": self.version, "revision": self.revision, "golang_version": self.golang,
            "status": self.status, "tag": self.tag})
    }
}

#[derive(Debug)]
struct Server {
    component: String,
    revision: String,
    build: Build,
}

#[derive(Debug)]
struct Proxy {
    id: String,
    version: String,
    kind: String,
}

/// Runs the command; the exit code.
///
/// # Errors
/// When the flags contradict or nothing can be written.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let output = arguments.output.as_deref().unwrap_or_default();
    if !["", "yaml", "json"].contains(&output) {
        bail!("--output must be 'yaml' or 'json'");
    }
    let (mut servers, mut proxies) = (None, None);
    if arguments.remote {
        match Mesh::connect(global, shell) {
            Ok(mesh) => {
                let runtime = async_runtime()?;
                match runtime.block_on(control_planes(&mesh)) {
                    Ok(found) => servers = Some(found),
                    Err(error) => {
                        writeln!(shell.stderr, "Istio is not present in the cluster: {error}")?
                    }
                }
                proxies = runtime.block_on(proxies_of(&mesh)).ok();
            }
            Err(error) => writeln!(shell.stderr, "Istio is not present in the cluster: {error}")?,
        }
    }
    let (servers, proxies) = (servers.as_deref(), proxies.as_deref());
    let text = match output {
        "" if arguments.short => short(&Build::own(), servers, proxies),
        "" => long(&Build::own(), servers, proxies),
        format => {
            let document = document(&Build::own(), servers, proxies);
            if format == "yaml" {
                format!("{}\n", yaml::to_string(&document))
            } else {
                format!("{}\n", proto_json::indented(&document, 2))
            }
        }
    };
    write!(shell.stdout, "{text}")?;
    Ok(0)
}

async fn control_planes(mesh: &Mesh) -> Result<Vec<Server>> {
    let mut pods = mesh.control_planes().await?;
    pods.retain(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array();
        statuses
            .is_some_and(|all| !all.is_empty() && all.iter().all(|status| status["ready"] == true))
    });
    if pods.is_empty() {
        bail!(
            "no running Istio pods in namespace {:?}",
            mesh.istio_namespace
        );
    }
    let mut servers = Vec::new();
    for pod in &pods {
        let name = api::meta::name(pod);
        let answer = mesh
            .ask((name, &mesh.istio_namespace), "GET", "/version", MONITORING)
            .await?;
        let label = |key: &str| {
            pod["metadata"]["labels"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        servers.push(Server {
            component: label("istio"),
            revision: label("istio.io/rev"),
            build: Build::parse(String::from_utf8_lossy(&answer).trim()),
        });
    }
    Ok(servers)
}

async fn proxies_of(mesh: &Mesh) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    for pod in mesh.control_planes().await? {
        let name = api::meta::name(&pod);
        let answer = mesh
            .ask(
                (name, &mesh.istio_namespace),
                "GET",
                "/debug/syncz",
                MONITORING,
            )
            .await?;
        let list: Vec<Value> = serde_json::from_slice(&answer)?;
        proxies.extend(list.iter().map(|proxy| {
            let text = |key: &str| proxy[key].as_str().unwrap_or_default().to_owned();
            Proxy {
                id: text("proxy"),
                version: text("istio_version"),
                kind: match text("proxy_type").as_str() {
                    "router" => "gateway".to_owned(),
                    kind => kind.to_owned(),
                },
            }
        }));
    }
    Ok(proxies)
}

fn short(own: &Build, servers: Option<&[Server]>, proxies: Option<&[Proxy]>) -> String {
    let mut out = format!("client version: {}\n", own.version);
    if let Some([first, rest @ ..]) = servers {
        if rest
            .iter()
            .all(|server| server.build.version == first.build.version)
        {
            out.push_str(&format!("control plane version: {}\n", first.build.version));
        } else {
            for server in servers.unwrap_or_default() {
                out.push_str(&format!(
                    "{} version: {}\n",
                    server.component, server.build.version
                ));
            }
        }
    }
    if let Some(proxies) = proxies {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for proxy in proxies {
            *counts.entry(&proxy.version).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(version, count)| format!("{version} ({count} proxies)"))
            .collect();
        let text = if counts.is_empty() {
            "none".to_owned()
        } else {
            counts.join(", ")
        };
        out.push_str(&format!("data plane version: {text}\n"));
    }
    out
}

fn long(own: &Build, servers: Option<&[Server]>, proxies: Option<&[Proxy]>) -> String {
    let mut out = format!("client version: {}\n", own.long());
    for server in servers.unwrap_or_default() {
        out.push_str(&format!(
            "{} version: {}\n",
            server.component,
            server.build.long()
        ));
    }
    for proxy in proxies.unwrap_or_default() {
        out.push_str(&format!(
            "data plane version: version.ProxyInfo{{ID:{:?}, IstioVersion:{:?}, Type:{:?}}}\n",
            proxy.id, proxy.version, proxy.kind
        ));
    }
    out
}

fn document(own: &Build, servers: Option<&[Server]>, proxies: Option<&[Proxy]>) -> Value {
    let mut document = json!({"clientVersion": own.json()});
    if let Some(servers) = servers {
        document["meshVersion"] = servers
            .iter()
            .map(|server| json!({"Component": server.component, "Revision": server.revision, "Info": server.build.json()}))
            .collect();
    }
    if let Some(proxies) = proxies {
        document["dataPlaneVersion"] = proxies
            .iter()
            .map(|proxy| json!({"ID": proxy.id, "IstioVersion": proxy.version, "Type": proxy.kind}))
            .collect();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_control_planes_are_read() {
        let build = Build::parse("1.31.0-abc-Clean");
        assert_eq!(
            (&*build.version, &*build.revision, &*build.status),
            ("1.31.0", "abc", "Clean")
        );
        let build = Build::parse("1.31.0-beta.1-abc-dirty-Modified");
        assert_eq!(
            (&*build.version, &*build.revision),
            ("1.31.0-beta.1", "abc-dirty")
        );
        assert_eq!(Build::parse("unknown").version, "unknown");
    }

    #[test]
    fn equal_versions_are_told_once() {
        let server = |version: &str| Server {
            component: "pilot".into(),
            revision: "default".into(),
            build: Build::parse(version),
        };
        let proxy = Proxy {
            id: "a.b".into(),
            version: "1.31.0".into(),
            kind: "sidecar".into(),
        };
        let seen = short(
            &Build::own(),
            Some(&[server("1.31.0-a-Clean"), server("1.31.0-b-Clean")]),
            Some(&[proxy]),
        );
        assert_eq!(
            seen,
            "client version: 1.31.0\ncontrol plane version: 1.31.0\ndata plane version: 1.31.0 (1 proxies)\n"
        );
        let seen = short(
            &Build::own(),
            Some(&[server("1.31.0-a-Clean"), server("1.30.0-b-Clean")]),
            None,
        );
        assert!(
            seen.ends_with("pilot version: 1.31.0\npilot version: 1.30.0\n"),
            "{seen}"
        );
    }
}
