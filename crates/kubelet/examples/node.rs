//! A stand-alone node agent for trying it against the API server's example, as root in fresh network
//! and mount namespaces:
//!
//! `unshare -nm node --dir D` with the directory that `apiserver --dir D` made. Its images run the
//! machine's own programs: `busybox` (any command, default `sleep infinity`) and `redis`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if args
        .get(1)
        .is_some_and(|first| first == sandbox::INIT_COMMAND)
    {
        sandbox::init_main(&args[2..]);
    }
    runtime::log::init(runtime::log::Level::INFO);
    let dir = PathBuf::from(args.get(2).expect("--dir DIRECTORY"));
    let runner = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("tokio");
    if let Err(problem) = runner.block_on(node(dir)) {
        eprintln!("{problem}");
        std::process::exit(1);
    }
}

async fn node(dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name));
    let cidr = |text: &str| -> Result<sandbox::Cidr, Box<dyn std::error::Error>> {
        let (network, prefix) = kubelet::ipam::parse_cidr(text)?;
        Ok(sandbox::Cidr::new(network, prefix))
    };
    let node_ip = "10.10.0.1".parse()?;
    let network = sandbox::node::NodeNetwork {
        bridge: "cni0".into(),
        node_ip,
        pod_cidr: cidr("10.10.0.0/16")?,
        service_cidr: cidr("10.97.0.0/16")?,
        wan_ip: "203.0.113.1".parse()?,
        wan_subnet: cidr("203.0.113.0/26")?,
        wan_ports: vec![6443],
    };
    match sandbox::node::setup(&network) {
        // Started again in the same network namespace.
        Err(problem) if problem.errno() == Some(libc::EEXIST) => {}
        other => other?,
    }
    let ca = pki::Authority::from_pem(&read("ca.crt")?, &read("ca.key")?, "")?;
    let validity = pki::Validity::starting(SystemTime::now(), Duration::from_secs(86_400));
    let serving = ca.issue(&pki::CertRequest::server(
        "node-1",
        &["node-1"],
        &[node_ip.into()],
        validity,
    ))?;
    let image = |name: &str, entrypoint: &[&str], cmd: &[&str]| kubelet::Image {
        names: vec![name.into()],
        entrypoint: entrypoint.iter().map(|word| (*word).into()).collect(),
        cmd: cmd.iter().map(|word| (*word).into()).collect(),
        host_programs: true,
        env: vec![("PATH".into(), "/usr/bin:/usr/sbin:/bin".into())],
        ..kubelet::Image::default()
    };
    let config = kubelet::Config {
        client: kube_client::Client::from_kubeconfig_str(&read("node-1.kubeconfig")?, None)?,
        node_name: "node-1".into(),
        node_ip,
        node_port_ips: Vec::new(),
        bridge: "cni0".into(),
        labels: BTreeMap::from([("cluster-name".into(), "example".into())]),
        pod_cidr: "10.10.0.0/16".into(),
        catalog: kubelet::ImageCatalog {
            images: vec![
                image("busybox", &[], &["sleep", "infinity"]),
                image("redis", &["redis-server"], &[]),
            ],
        },
        data_dir: dir.join("node"),
        volumes_dir: dir.join("node-volumes"),
        dns_ip: "10.97.0.10".parse()?,
        zone: "cluster.local".into(),
        dns_forward: None,
        tls: kubelet::ServerTls {
            cert_pem: serving.chain_pem,
            key_pem: serving.key_pem,
            client_ca_pem: ca.root_pem().to_owned(),
        },
        log_max_bytes: 10 << 20,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    Ok(kubelet::run(config, runtime::shutdown::on_signal()?).await?)
}
