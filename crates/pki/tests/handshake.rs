//! Real TLS handshakes in memory between the configurations of `pki::tls`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use theater_pki::tls::{self, ClientAuth, Identity, ServerTrust};
use theater_pki::{Authority, CertRequest, KeyPair, Validity, csr, peer_identity, spiffe};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn day() -> Validity {
    Validity::starting(SystemTime::now(), Duration::from_secs(86_400))
        .backdated(Duration::from_secs(120))
}

/// Root and intermediate, as a mesh has them.
fn mesh() -> (Authority, Authority) {
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let root = Authority::new_root("Root CA", "Istio", yesterday, 3650).unwrap();
    let middle = root
        .intermediate("Intermediate CA", "Istio", yesterday, 365)
        .unwrap();
    (root, middle)
}

fn workload(ca: &Authority, service_account: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let request = csr::create(&key, &[]).unwrap();
    let id = spiffe::id("cluster.local", "ns", service_account);
    let chain = ca.sign_csr(&request, &[id], day()).unwrap();
    Identity::from_pem(&chain, &key.to_pem()).unwrap()
}

/// Runs a handshake to its end and returns the first error of either side.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut read = &wire[..];
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
        }
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        let mut read = &wire[..];
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
        }
        client.process_new_packets()?;
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok((client, server));
        }
    }
    panic!("the handshake did not end");
}

#[test]
fn mutual_tls_between_workloads_by_spiffe_identity() {
    let (root, middle) = mesh();
    let roots_pem = root.root_pem().to_owned();
    let server = || {
        tls::server_config(
            provider(),
            workload(&middle, "server"),
            &ClientAuth::Required {
                roots_pem: roots_pem.clone(),
            },
            &[tls::HTTP2, tls::HTTP1],
        )
        .unwrap()
    };
    let client = |accepted: &str| {
        tls::client_config(
            provider(),
            &ServerTrust::Uri {
                roots_pem: roots_pem.clone(),
                any_of: vec![spiffe::id("cluster.local", "ns", accepted)],
            },
            Some(workload(&middle, "client")),
            &[tls::HTTP2],
        )
        .unwrap()
    };
    let (client_side, server_side) =
        handshake(client("server"), server(), "outbound.example").unwrap();
    assert_eq!(client_side.alpn_protocol(), Some(tls::HTTP2));
    let seen = &server_side.peer_certificates().unwrap()[0];
    assert_eq!(
        peer_identity(seen).unwrap().uris,
        [spiffe::id("cluster.local", "ns", "client")]
    );
    let error = handshake(client("other"), server(), "outbound.example").unwrap_err();
    assert!(error.to_string().contains("sa/other"), "{error}");
}

#[test]
fn a_stranger_is_refused_and_a_missing_certificate_only_when_required() {
    let (root, middle) = mesh();
    let (_, stranger) = mesh();
    let roots_pem = root.root_pem().to_owned();
    let trust = ServerTrust::Chain {
        roots_pem: roots_pem.clone(),
    };
    let server = |auth: &ClientAuth| {
        tls::server_config(provider(), workload(&middle, "server"), auth, &[]).unwrap()
    };
    let client = |identity| tls::client_config(provider(), &trust, identity, &[]).unwrap();
    let optional = ClientAuth::Optional {
        roots_pem: roots_pem.clone(),
    };
    let required = ClientAuth::Required { roots_pem };
    handshake(client(None), server(&ClientAuth::None), "x.example").unwrap();
    handshake(client(None), server(&optional), "x.example").unwrap();
    handshake(client(None), server(&required), "x.example").unwrap_err();
    let wrong = workload(&stranger, "client");
    handshake(client(Some(wrong)), server(&optional), "x.example").unwrap_err();
}

#[test]
fn ordinary_servers_are_verified_by_name() {
    let (root, middle) = mesh();
    let request = CertRequest::server(
        "api",
        &["api.example"],
        &["127.0.0.1".parse().unwrap()],
        day(),
    );
    let issued = middle.issue(&request).unwrap();
    let identity = Identity::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
    let server =
        tls::server_config(provider(), identity, &ClientAuth::None, &[tls::HTTP1]).unwrap();
    let trust = ServerTrust::Name {
        roots_pem: root.root_pem().to_owned(),
    };
    let client = tls::client_config(provider(), &trust, None, &[tls::HTTP1]).unwrap();
    handshake(client.clone(), server.clone(), "api.example").unwrap();
    handshake(client.clone(), server.clone(), "127.0.0.1").unwrap();
    handshake(client, server, "other.example").unwrap_err();
}

#[test]
fn an_expired_certificate_is_refused() {
    let (root, middle) = mesh();
    let past = Validity::starting(
        SystemTime::now() - Duration::from_secs(7200),
        Duration::from_secs(3600),
    );
    let issued = middle
        .issue(&CertRequest::server("a", &["a.example"], &[], past))
        .unwrap();
    let identity = Identity::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
    let server = tls::server_config(provider(), identity, &ClientAuth::None, &[]).unwrap();
    let trust = ServerTrust::Name {
        roots_pem: root.root_pem().to_owned(),
    };
    let client = tls::client_config(provider(), &trust, None, &[]).unwrap();
    let error = handshake(client, server, "a.example").unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
}
