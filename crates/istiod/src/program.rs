//! `pilot-discovery`: the control plane as the program of its image.

use std::ffi::OsString;
use std::process::ExitCode;

use kube_client::Client;

use crate::server::{Config, run};

/// Runs `pilot-discovery ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    runtime::log::init(runtime::log::Level::INFO);
    match args.first().and_then(|arg| arg.to_str()) {
        Some("discovery") => {}
        Some("version") => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!(
                "pilot-discovery: unknown command {:?}; there are discovery and version",
                other.unwrap_or_default()
            );
            return ExitCode::FAILURE;
        }
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(discovery(&args[1..])));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pilot-discovery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn discovery(args: &[OsString]) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut config = Config::new(Client::in_cluster()?);
    config.cluster = variable("CLUSTER_ID").filter(|id| id != "Kubernetes");
    config.network = variable("NETWORK");
    if let Some(namespace) = variable("POD_NAMESPACE") {
        config.namespace = namespace;
    }
    if let Some(mesh_id) = variable("MESH_ID") {
        config.mesh_id = mesh_id;
    }
    if let Some(revision) = variable("REVISION") {
        config.revision = revision;
    }
    if let Some(image) = variable("PROXY_IMAGE") {
        config.proxy_image = image;
    }
    if let Some(domain) = flag(args, "--domain") {
        config.domain = domain;
    }
    run(config, runtime::shutdown::on_signal()?).await
}

/// The value of `--name value` or `--name=value`.
fn flag(args: &[OsString], name: &str) -> Option<String> {
    let mut args = args.iter().filter_map(|arg| arg.to_str());
    while let Some(arg) = args.next() {
        if arg == name {
            return args.next().map(ToOwned::to_owned);
        }
        if let Some(value) = arg
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_in_both_forms() {
        let args: Vec<OsString> = ["--monitoringAddr=:15014", "--domain", "x.local"]
            .map(OsString::from)
            .into();
        assert_eq!(flag(&args, "--domain").as_deref(), Some("x.local"));
        assert_eq!(flag(&args, "--monitoringAddr").as_deref(), Some(":15014"));
        assert_eq!(flag(&args, "--domainx"), None);
    }
}
