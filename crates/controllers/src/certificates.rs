//! Certificate requests: what is signed, what is refused, and what is forgotten.

use std::time::SystemTime;

use api::time::Time;
use base64::Engine;
use kube_client::Resource;
use pki::csr::Wanted;
use pki::{Authority, CertRequest, Validity};
use serde_json::{Value, json};
use time::Duration;

use crate::action::Action;
use crate::object::{condition, created, items, status_patch, text, time_at};

/// `certificatesigningrequests` of group `certificates.k8s.io`.
pub const REQUESTS: Resource = Resource::fixed(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
);

/// How long a certificate lives when the request does not say: a year.
const LIFE: i64 = 365 * 24 * 3600;
/// Clocks of those who check may be a little behind.
const BACKDATE: std::time::Duration = std::time::Duration::from_secs(300);

/// What a signer allows.
struct Signer {
    /// Usages a request may name.
    allowed: &'static [&'static str],
    /// Usages it must name.
    required: &'static [&'static str],
    client: bool,
    server: bool,
}

/// The signers of this cluster; others' requests are left to others.
fn signer(name: &str) -> Option<Signer> {
    let (allowed, required, client, server): (&[_], &[_], _, _) = match name {
        "kubernetes.io/kube-apiserver-client" => (
            &["digital signature", "key encipherment", "client auth"],
            &["client auth"],
            true,
            false,
        ),
        "kubernetes.io/kube-apiserver-client-kubelet" => (
            &["digital signature", "key encipherment", "client auth"],
            &["digital signature", "client auth"],
            true,
            false,
        ),
        "kubernetes.io/kubelet-serving" => (
            &["digital signature", "key encipherment", "server auth"],
            &["digital signature", "server auth"],
            false,
            true,
        ),
        _ => return None,
    };
    Some(Signer {
        allowed,
        required,
        client,
        server,
    })
}

/// What is done with a request.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Nothing, yet or ever.
    Leave,
    /// A certificate with these names and usages is made.
    Sign(CertWish),
    /// It is marked as failed: reason and message.
    Fail(&'static str, String),
    /// It is old enough to be forgotten.
    Forget,
}

/// Names and usages of a certificate to be made.
#[derive(Debug, PartialEq)]
pub struct CertWish {
    /// Names taken over from the request.
    pub names: Wanted,
    /// For TLS clients.
    pub client: bool,
    /// For TLS servers.
    pub server: bool,
    /// Lifetime in seconds.
    pub seconds: i64,
}

/// How long requests are kept: approved or denied ones an hour, pending ones a day, signed ones no longer than the
/// certificate.
fn is_old(request: &Value, now: Time) -> bool {
    let conditions = &request["status"]["conditions"];
    let older = |since: Option<Time>, limit: Duration| since.is_some_and(|at| now - at > limit);
    let changed = |kind: &str| {
        let c = condition(conditions, kind)?;
        time_at(&c["lastUpdateTime"]).or_else(|| Some(created(request)))
    };
    let hour = Duration::hours(1);
    let decided = items(conditions)
        .iter()
        .any(|c| c["type"] == "Approved" || c["type"] == "Denied");
    let signed = !text(&request["status"]["certificate"]).is_empty();
    older(changed("Denied"), hour)
        || older(changed("Failed"), hour)
        || (signed && older(changed("Approved"), hour))
        || (!decided && older(Some(created(request)), Duration::hours(24)))
}

/// Judges a request. `wanted` are the names in its body, or why it cannot be read.
pub fn judge(request: &Value, wanted: &Result<Wanted, String>, now: Time) -> Verdict {
    if is_old(request, now) {
        return Verdict::Forget;
    }
    let (spec, status) = (&request["spec"], &request["status"]);
    let has = |kind: &str| condition(&status["conditions"], kind).is_some();
    let name = text(&spec["signerName"]);
    let Some(signer) = signer(name) else {
        return Verdict::Leave;
    };
    if !has("Approved")
        || has("Denied")
        || has("Failed")
        || !text(&status["certificate"]).is_empty()
    {
        return Verdict::Leave;
    }
    let fail = |message: String| Verdict::Fail("SignerValidationFailure", message);
    let names = match wanted {
        Ok(names) => names.clone(),
        Err(why) => return fail(format!("unable to parse csr: {why}")),
    };
    let usages: Vec<&str> = items(&spec["usages"]).iter().map(text).collect();
    let complete = signer.required.iter().all(|u| usages.contains(u));
    if !complete || !usages.iter().all(|u| signer.allowed.contains(u)) {
        return fail(format!(
            "invalid usages for {name}: it allows {:?} and needs {:?}",
            signer.allowed, signer.required
        ));
    }
    if name != "kubernetes.io/kube-apiserver-client" {
        if names.organizations != ["system:nodes"] {
            return fail("subject organization is not system:nodes".to_owned());
        }
        if !names.common_name.starts_with("system:node:") {
            return fail("subject common name does not begin with system:node: ".to_owned());
        }
    }
    let has_names = !names.dns.is_empty() || !names.ips.is_empty();
    if signer.server && (!has_names || names.others) {
        return fail("DNS or IP subjectAltName is required, and no other".to_owned());
    }
    if name.ends_with("-kubelet") && (has_names || names.others) {
        return fail("subjectAltNames are not allowed".to_owned());
    }
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(LIFE).min(LIFE);
    Verdict::Sign(CertWish {
        names,
        client: signer.client,
        server: signer.server,
        seconds,
    })
}

/// The text of a request's body.
pub(crate) fn body(request: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(&request["spec"]["request"]));
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// Makes the certificate and puts it into the request, or says there why that cannot be.
pub(crate) fn sign(
    request: &Value,
    wish: &CertWish,
    authority: &Authority,
    now: SystemTime,
) -> Option<Action> {
    let seconds = u64::try_from(wish.seconds).unwrap_or(0);
    let granted = CertRequest {
        cn: wish.names.common_name.clone(),
        orgs: wish.names.organizations.clone(),
        dns: wish.names.dns.clone(),
        ips: wish.names.ips.clone(),
        uris: Vec::new(),
        client: wish.client,
        server: wish.server,
        validity: Validity::starting(now, std::time::Duration::from_secs(seconds))
            .backdated(BACKDATE),
    };
    match authority.sign_key_of(&body(request), &granted) {
        Ok(pem) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
            Some(Action::status(
                REQUESTS,
                request,
                json!({"status": {"certificate": encoded}}),
            ))
        }
        Err(error) => fail(request, "SignerValidationFailure", &error.to_string()),
    }
}

/// Marks a request as failed.
pub(crate) fn fail(request: &Value, reason: &str, message: &str) -> Option<Action> {
    let mut status = request["status"].clone();
    let mut conditions = items(&status["conditions"]).to_vec();
    conditions
        .push(json!({"type": "Failed", "status": "True", "reason": reason, "message": message}));
    status["conditions"] = conditions.into();
    let patch = status_patch(request, &status)?;
    Some(Action::status(REQUESTS, request, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = time::macros::datetime!(2026-01-01 12:00:00 UTC);

    fn request(signer: &str, usages: Value, conditions: Value) -> Value {
        json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T11:59:00Z"},
            "spec": {"signerName": signer, "usages": usages, "expirationSeconds": 3600}, "status": {"conditions": conditions}})
    }

    fn approved() -> Value {
        json!([{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T11:59:30Z"}])
    }

    fn jane() -> Result<Wanted, String> {
        Ok(Wanted {
            common_name: "jane".into(),
            organizations: vec!["dev".into()],
            ..Wanted::default()
        })
    }

    #[test]
    fn only_approved_requests_of_our_signers_are_signed() {
        let client = "kubernetes.io/kube-apiserver-client";
        let of = |signer: &str, usages: Value, conditions: Value| {
            judge(&request(signer, usages, conditions), &jane(), NOW)
        };
        assert!(
            matches!(of(client, json!(["client auth"]), approved()), Verdict::Sign(w) if w.seconds == 3600 && w.client && !w.server)
        );
        assert_eq!(
            of(client, json!(["client auth"]), json!([])),
            Verdict::Leave
        );
        assert_eq!(
            of("example.com/mine", json!(["client auth"]), approved()),
            Verdict::Leave
        );
        assert!(matches!(
            of(client, json!(["server auth"]), approved()),
            Verdict::Fail("SignerValidationFailure", _)
        ));
        let node = "kubernetes.io/kube-apiserver-client-kubelet";
        let usages = json!(["digital signature", "client auth"]);
        assert!(
            matches!(of(node, usages, approved()), Verdict::Fail(_, why) if why.contains("system:nodes"))
        );
    }

    #[test]
    fn decided_requests_are_forgotten_after_an_hour_and_pending_ones_after_a_day() {
        let later = |hours: i64| NOW + Duration::hours(hours);
        let denied =
            json!([{"type": "Denied", "status": "True", "lastUpdateTime": "2026-01-01T11:59:30Z"}]);
        let r = request("example.com/mine", json!(["client auth"]), denied);
        assert_eq!(judge(&r, &jane(), later(0)), Verdict::Leave);
        assert_eq!(judge(&r, &jane(), later(2)), Verdict::Forget);
        let pending = request("example.com/mine", json!(["client auth"]), json!([]));
        assert_eq!(judge(&pending, &jane(), later(23)), Verdict::Leave);
        assert_eq!(judge(&pending, &jane(), later(25)), Verdict::Forget);
    }

    #[test]
    fn a_signed_certificate_says_who_was_approved() {
        let authority = Authority::new_root("ca", "", SystemTime::now(), 30).unwrap();
        let key = pki::KeyPair::generate().unwrap();
        let pem = pki::csr::create(&key, &[]).unwrap();
        let mut r = request(
            "kubernetes.io/kube-apiserver-client",
            json!(["client auth"]),
            approved(),
        );
        r["spec"]["request"] = base64::engine::general_purpose::STANDARD.encode(pem).into();
        let Verdict::Sign(wish) = judge(&r, &jane(), NOW) else {
            panic!("not signed")
        };
        let action = sign(&r, &wish, &authority, SystemTime::now()).unwrap();
        let crate::action::Verb::Patch(patch, Some("status")) = action.verb else {
            panic!("no status")
        };
        let certificate = base64::engine::general_purpose::STANDARD
            .decode(text(&patch["status"]["certificate"]))
            .unwrap();
        let der =
            pki::pem::certificates(&String::from_utf8(certificate).unwrap(), "signed").unwrap();
        let identity = pki::peer_identity(&der[0]).unwrap();
        assert_eq!(
            (identity.common_name.as_deref(), identity.organizations),
            (Some("jane"), vec!["dev".to_owned()])
        );
    }
}
