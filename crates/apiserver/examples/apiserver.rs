//! A stand-alone API server for trying kubectl and other clients against it.
//!
//! `cargo run -p theater-apiserver --example apiserver -- --dir D --port P` keeps objects and
//! credentials under `D` and writes `D/admin.kubeconfig`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[tokio::main]
async fn main() -> Result<()> {
    runtime::log::init(runtime::log::Level::INFO);
    let (dir, port) = arguments()?;
    std::fs::create_dir_all(&dir)?;
    let ca = authority(&dir)?;
    let validity = pki::Validity::starting(SystemTime::now(), YEAR);
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let serving = ca.issue(&pki::CertRequest::server(
        "kube-apiserver",
        &[
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
        &[local, "10.97.0.1".parse()?],
        validity,
    ))?;
    let kubelet = ca.issue(&pki::CertRequest::client(
        "kube-apiserver-kubelet-client",
        &["system:masters"],
        validity,
    ))?;
    let listener = tokio::net::TcpListener::bind((local, port))
        .await
        .with_context(|| format!("port {port}"))?;
    let address = listener.local_addr()?;
    for (user, groups) in [
        ("admin", &["system:masters"][..]),
        ("system:kube-controller-manager", &[]),
        ("system:kube-scheduler", &[]),
        ("system:node:node-1", &["system:nodes"]),
    ] {
        let issued = ca.issue(&pki::CertRequest::client(user, groups, validity))?;
        let file = dir.join(format!(
            "{}.kubeconfig",
            user.rsplit(':').next().unwrap_or(user)
        ));
        write_private(&file, &kubeconfig(address, &ca, &issued, user))?;
    }
    write_private(&dir.join("ca.crt"), ca.cert_pem())?;
    write_private(&dir.join("ca.key"), ca.key_pem())?;
    let config = theater_apiserver::Config {
        cluster: "example".into(),
        data_dir: dir.join("objects"),
        listener,
        serving_cert_pem: serving.chain_pem,
        serving_key_pem: serving.key_pem,
        client_ca_pem: ca.root_pem().to_owned(),
        service_account_key_pem: service_account_key(&dir)?,
        issuer: theater_apiserver::DEFAULT_ISSUER.into(),
        advertise: address,
        service_cidr: "10.97.0.0/16".into(),
        load_balancer_pool: "203.0.113.10".parse()?..="203.0.113.60".parse()?,
        node_ports: 30000..=32767,
        kubelet: Some(theater_apiserver::KubeletAccess {
            cert_pem: kubelet.chain_pem,
            key_pem: kubelet.key_pem,
            ca_pem: ca.root_pem().to_owned(),
            port: 10250,
        }),
    };
    let token = runtime::shutdown::on_signal()?;
    let handle = theater_apiserver::run(config, token).await?;
    println!(
        "export KUBECONFIG={}",
        dir.join("admin.kubeconfig").display()
    );
    handle.stopped().await;
    Ok(())
}

fn arguments() -> Result<(PathBuf, u16)> {
    let (mut dir, mut port) = (None, 0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--port" => port = value.parse().with_context(|| format!("--port {value}"))?,
            _ => bail!("unknown argument {arg}: use --dir DIRECTORY [--port PORT]"),
        }
    }
    Ok((
        std::path::absolute(dir.context("--dir DIRECTORY is needed")?)?,
        port,
    ))
}

/// Writes a file that nobody else may read, and that is whole as soon as it is there.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(())
}

/// The authority of the last run, so that kubeconfigs stay valid, or a new one.
fn authority(dir: &Path) -> Result<pki::Authority> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name));
    if let (Ok(cert), Ok(key)) = (read("ca.crt"), read("ca.key")) {
        return Ok(pki::Authority::from_pem(&cert, &key, "")?);
    }
    Ok(pki::Authority::new_root(
        "kubernetes",
        "theater",
        SystemTime::now(),
        3650,
    )?)
}

fn service_account_key(dir: &Path) -> Result<String> {
    let path = dir.join("sa.key");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(text);
    }
    let text = pki::KeyPair::generate()?.to_pem();
    write_private(&path, &text)?;
    Ok(text)
}

fn kubeconfig(
    address: SocketAddr,
    ca: &pki::Authority,
    issued: &pki::Issued,
    user: &str,
) -> String {
    use base64::Engine as _;
    let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: example\nclusters:\n- name: example\n  cluster:\n    server: https://{address}\n    certificate-authority-data: {}\ncontexts:\n- name: example\n  context: {{cluster: example, user: \"{user}\"}}\nusers:\n- name: \"{user}\"\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        b64(ca.root_pem()),
        b64(&issued.chain_pem),
        b64(&issued.key_pem),
    )
}
