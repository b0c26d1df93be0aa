//! What proxies, API servers and tools send to the control plane, and what Secrets hold for it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use istiod::ads::session::{Changes, Generated, Session, Variant, World};
use istiod::ads::subscription::{Ask, Resources};
use istiod::ca::CertificateAuthority;
use istiod::credential::{CredentialName, credential};
use istiod::identity::Caller;
use istiod::webhook::inject::{self, Injection};
use istiod::webhook::{review, validate};
use serde_json::{Value, json};
use translate::{Locality, ProxyInfo};
use xds::envoy::config::cluster::v3::Cluster;
use xds::prost_types::Any;
use xds::type_url;

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "admission-inject",
        run: admission_inject,
        also: &[],
    },
    Target {
        name: "admission-validate",
        run: admission_validate,
        also: &[],
    },
    Target {
        name: "remote-secret",
        run: remote_secret,
        also: &[],
    },
    Target {
        name: "credential-secret",
        run: credential_secret,
        also: &[],
    },
    Target {
        name: "istiod-certificate-request",
        run: certificate_request,
        also: &[],
    },
    Target {
        name: "discovery-requests",
        run: discovery_requests,
        also: &[],
    },
    Target {
        name: "istiod-debug",
        run: debug_pages,
        also: &[],
    },
];

fn value(input: &[u8]) -> Option<Value> {
    serde_json::from_slice(input).ok()
}

/// What is injected once is left alone the next time.
fn admission_inject(input: &[u8]) {
    let Some(mut review) = value(input) else {
        return;
    };
    let injection = Injection {
        image: "proxyv2".to_owned(),
        cluster: Some("ctx1".to_owned()),
        network: None,
        mesh_id: "mesh".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        revision: "default".to_owned(),
    };
    let decide = |request: &Value| inject::decide(request, &injection);
    let Ok(answer) = review::answer(&review, decide) else {
        return;
    };
    if answer["response"]["patch"].is_null() {
        return;
    }
    let pod = &review["request"]["object"];
    let namespace = review["request"]["namespace"].as_str().unwrap_or("default");
    let injected = inject::inject(pod, namespace, &injection);
    review["request"]["object"] = injected;
    let again = review::answer(&review, decide).expect("a review still");
    assert!(again["response"]["patch"].is_null(), "injected twice");
}

fn admission_validate(input: &[u8]) {
    let Some(review) = value(input) else { return };
    let _ = review::answer(&review, |request| validate::decide(request, None));
}

/// A Secret with kubeconfigs of other clusters.
fn remote_secret(input: &[u8]) {
    let Some(secret) = value(input) else { return };
    for kubeconfig in istiod::clusters::remote_kubeconfigs(&[Arc::new(secret)]).into_values() {
        let text = String::from_utf8_lossy(&kubeconfig);
        // Files are nothing for a Secret to name; here they are not to be read.
        if text.contains('/') && !text.contains("://") {
            return;
        }
        let _ = kube_client::Kubeconfig::parse(&text);
    }
}

/// The name of a credential on the first line, and the Secret.
fn credential_secret(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (name, secret) = text.split_once('\n').unwrap_or((text, "{}"));
    let Some(reference) = CredentialName::parse(name, "istio-system") else {
        return;
    };
    let Ok(secret) = serde_json::from_str::<Value>(secret) else {
        return;
    };
    if let Some(made) = credential(name, reference.ca_only, &secret) {
        assert_eq!(made.name, name);
    }
}

/// A request for a certificate; the one that is signed is for the caller, whatever it asks for.
fn certificate_request(input: &[u8]) {
    let Some(text) = text(input) else { return };
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let authority = AUTHORITY.get_or_init(|| {
        let nowhere = std::path::Path::new("/nonexistent");
        CertificateAuthority::load(nowhere, "cluster.local", now).expect("an authority")
    });
    let caller = Caller {
        namespace: "shop".to_owned(),
        service_account: "till".to_owned(),
    };
    if let Ok(chain) = authority.sign(text, &caller, None, now) {
        assert!(chain.len() > 1, "a chain ends with the root");
    }
}

/// A world of a few clusters; which ones depends on its version.
struct Few(u64);

impl Few {
    fn all(&self) -> Generated {
        let clusters = (0..4).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| {
            let cluster = Cluster {
                name: format!("c{bit}"),
                alt_stat_name: (self.0 >> 4).to_string(),
                ..Cluster::default()
            };
            (cluster.name.clone(), xds::any::pack(&cluster))
        });
        let resources: Resources = clusters.collect();
        Generated::from([(type_url::CLUSTER, resources)])
    }
}

impl World for Few {
    type Built = ();
    fn version(&self) -> u64 {
        self.0
    }
    fn generate(&self, _: &ProxyInfo) -> ((), Generated) {
        ((), self.all())
    }
    fn update(&self, _: &ProxyInfo, (): &mut (), generated: &mut Generated) -> Changes {
        *generated = self.all();
        Changes::Everything
    }
    fn secret(&self, _: &ProxyInfo, name: &str) -> Option<Any> {
        name.starts_with("kubernetes://").then(Any::default)
    }
}

/// Lines of a conversation: `+name`, `-name`, `=name` (has it already), `ack`, `nack`, `world N`, others as types. A client that asks for
/// everything and takes what it gets has what the world has.
fn discovery_requests(input: &[u8]) {
    let Some(text) = text(input) else { return };
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        converse(text, variant);
    }
}

fn converse(text: &str, variant: Variant) {
    let id = "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local";
    let proxy = ProxyInfo::from_node(id, &json!({}), Locality::default()).expect("a proxy");
    let mut session = Session::new(variant, proxy, Arc::new(Few(0)));
    let (mut ask, mut kind, mut nonce) = (Ask::default(), type_url::CLUSTER, String::new());
    let mut has: BTreeMap<String, Any> = BTreeMap::new();
    let mut faithful = true;
    for line in text.lines().take(64) {
        let (first, rest) = line.split_at(
            line.len()
                .min(line.chars().next().map_or(0, char::len_utf8)),
        );
        let responses = match first {
            "+" => {
                ask.names.push(rest.to_owned());
                faithful = false;
                continue;
            }
            "-" => {
                ask.unsubscribe.push(rest.to_owned());
                faithful = false;
                continue;
            }
            "=" => {
                ask.initial.push(rest.to_owned());
                faithful = false;
                continue;
            }
            _ if line == "ask" => session.on_request(kind, &std::mem::take(&mut ask)),
            _ if line == "ack" => {
                ask.nonce.clone_from(&nonce);
                session.on_request(kind, &std::mem::take(&mut ask))
            }
            _ if line == "nack" => {
                faithful = false;
                ask.nonce.clone_from(&nonce);
                ask.error = Some("no".to_owned());
                session.on_request(kind, &std::mem::take(&mut ask))
            }
            _ if line.starts_with("world ") => {
                let number = line[6..].parse().unwrap_or(3);
                session.on_world(Arc::new(Few(number)))
            }
            _ => {
                kind = match line {
                    "eds" => type_url::ENDPOINT,
                    "sds" => type_url::SECRET,
                    _ => type_url::CLUSTER,
                };
                faithful = false;
                continue;
            }
        };
        for response in responses {
            nonce.clone_from(&response.nonce);
            if response.type_url != type_url::CLUSTER {
                continue;
            }
            if variant == Variant::StateOfTheWorld {
                has.clear();
            }
            for name in &response.update.removed {
                has.remove(name);
            }
            has.extend(response.update.resources);
        }
        let _ = session.status();
        let asked = session
            .status()
            .iter()
            .any(|of| of.type_url == type_url::CLUSTER);
        if faithful && asked {
            let all = session.world().all();
            assert_eq!(has, all[type_url::CLUSTER], "{variant:?} after {line:?}");
        }
    }
}

/// What tools ask: the type on the first line, then names.
fn debug_pages(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut lines = text.lines();
    let kind = format!("istio.io/{}", lines.next().unwrap_or("debug"));
    let names: Vec<String> = lines.map(ToOwned::to_owned).collect();
    assert_eq!(
        kind.starts_with("istio.io/debug/") || kind == "istio.io/debug",
        istiod::status::is_status(&kind)
    );
    for reader in ["istio-system", "shop"] {
        let _ = istiod::status::answer(&kind, &names, reader, &[], &Few(3));
    }
}
