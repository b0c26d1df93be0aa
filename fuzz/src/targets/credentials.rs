//! Certificates, tokens, kubeconfigs.

use std::sync::LazyLock;

use pki::jwt::{Expect, Verifier};

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "json-web-token",
        run: token,
        also: &[],
    },
    Target {
        name: "certificate",
        run: certificate,
        also: &[],
    },
    Target {
        name: "certificate-request",
        run: certificate_request,
        also: &[],
    },
    Target {
        name: "kubeconfig",
        run: kubeconfig,
        also: &[],
    },
];

static KEY: LazyLock<pki::KeyPair> = LazyLock::new(|| pki::KeyPair::generate().expect("a key"));

/// A token of nobody we know is not accepted; a key set is read as it is written.
fn token(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let verifier = Verifier::new([&*KEY]);
    let expect = Expect {
        issuer: "https://kubernetes.default.svc.cluster.local",
        audiences: &["api"],
        now: 1_700_000_000,
    };
    assert!(
        verifier.verify(text, &expect).is_err(),
        "{text:?} is let in"
    );
    assert!(
        verifier.verify_of_secret(text).is_err(),
        "{text:?} is let in"
    );
    let _ = pki::jwt::unverified_issuer(text);
    let _ = text.parse::<pki::SpiffeId>();
    if let Ok(set) = serde_json::from_str(text)
        && let Ok(verifier) = Verifier::from_jwks(&set)
    {
        let written = verifier.jwks();
        let again = Verifier::from_jwks(&written).expect("what is written can be read");
        assert_eq!(again.jwks(), written);
    }
}

/// The certificate that a client shows, as DER or in PEM.
fn certificate(input: &[u8]) {
    let _ = pki::peer_identity(input);
    if let Some(text) = text(input) {
        for one in pki::pem::certificates(text, "bundle").into_iter().flatten() {
            if let Ok(identity) = pki::peer_identity(&one) {
                let _ = identity.spiffe_ids().count();
            }
        }
        let _ = pki::pem::private_key(text, "key");
    }
}

fn certificate_request(input: &[u8]) {
    if let Some(text) = text(input) {
        let _ = pki::csr::wanted(text);
    }
}

fn kubeconfig(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(mut config) = kube_client::Kubeconfig::parse(text) else {
        return;
    };
    // Files that it names are none of ours: they are looked for where nothing is.
    let nowhere = std::path::Path::new("/nonexistent");
    if !text.contains("file") && !text.contains('/') {
        let _ = config.config(None, nowhere);
    }
    if let Ok(other) = kube_client::Kubeconfig::parse(text) {
        config.merge(other);
    }
    let _ = config.contexts().count();
}
