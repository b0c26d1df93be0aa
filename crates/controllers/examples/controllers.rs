//! Runs controllers and scheduler against any API server:
//! `controllers KUBECONFIG [KUBECONFIG_OF_THE_SCHEDULER [KEY_OF_SERVICE_ACCOUNTS]]`.

use std::path::{Path, PathBuf};

use kube_client::{Client, Kubeconfig};
use theater_controllers::{Config, run};

#[tokio::main]
async fn main() {
    runtime::log::init(runtime::log::Level::INFO);
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (Some(manager), scheduler) = (paths.first(), paths.get(1)) else {
        eprintln!(
            "usage: controllers KUBECONFIG [KUBECONFIG_OF_THE_SCHEDULER [KEY_OF_SERVICE_ACCOUNTS]]"
        );
        std::process::exit(2);
    };
    if let Err(error) = start(manager, scheduler.unwrap_or(manager), paths.get(2)).await {
        eprintln!("controllers: {error}");
        std::process::exit(1);
    }
}

async fn start(
    manager: &Path,
    scheduler: &Path,
    signing_key: Option<&PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    let token = runtime::shutdown::on_signal()?;
    let read = |path: &Path| -> Result<_, Box<dyn std::error::Error>> {
        let text = std::fs::read_to_string(path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        Ok(Kubeconfig::parse(&text)?.config(None, directory)?)
    };
    let (manager, scheduler) = (read(manager)?, read(scheduler)?);
    let config = Config {
        root_ca_pem: manager.ca_pem.clone(),
        service_account_key_pem: signing_key.map(std::fs::read_to_string).transpose()?,
        signer: None,
        controller_manager: Client::new(manager.user_agent("kube-controller-manager/v1.32"))?,
        scheduler: Client::new(scheduler.user_agent("kube-scheduler/v1.32"))?,
    };
    run(config, token).await;
    Ok(())
}
