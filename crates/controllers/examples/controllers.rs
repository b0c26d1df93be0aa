//! Runs the controllers against any API server: `controllers KUBECONFIG`.

use std::path::PathBuf;

use kube_client::{Client, Kubeconfig};
use theater_controllers::{Config, run};

#[tokio::main]
async fn main() {
    runtime::log::init(runtime::log::Level::INFO);
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: controllers KUBECONFIG");
        std::process::exit(2);
    };
    if let Err(error) = start(&path).await {
        eprintln!("controllers: {error}");
        std::process::exit(1);
    }
}

async fn start(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(path)?;
    let directory = path.parent().unwrap_or(std::path::Path::new("."));
    let config = Kubeconfig::parse(&text)?.config(None, directory)?;
    let token = runtime::shutdown::on_signal()?;
    let root_ca_pem = config.ca_pem.clone();
    let client = |name: &str| Client::new(config.clone().user_agent(format!("{name}/v1.32")));
    let config = Config {
        controller_manager: client("kube-controller-manager")?,
        scheduler: client("kube-scheduler")?,
        root_ca_pem,
    };
    run(config, token).await;
    Ok(())
}
