//! Certificate requests: who asks is written by the server, and who may approve and sign is asked of RBAC.

use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::authz::Action;
use crate::error::{ApiError, ApiResult};
use crate::state::Server;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

/// Writes into a new request who makes it.
pub(crate) fn admit(a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create || !a.resource.is(GROUP, PLURAL) {
        return;
    }
    let spec = api::meta::map_mut(object, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.shift_remove(field);
    }
    spec.insert("username".into(), a.user.name.clone().into());
    if !a.user.uid.is_empty() {
        spec.insert("uid".into(), a.user.uid.clone().into());
    }
    spec.insert("groups".into(), a.user.groups.clone().into());
    if !a.user.extra.is_empty() {
        spec.insert("extra".into(), json!(a.user.extra));
    }
}

/// Refuses requests nobody may make, and approvals and signatures of people who may not give them.
pub(crate) fn validate(server: &Server, a: &Attributes<'_>, object: &Value) -> ApiResult<()> {
    if !a.resource.is(GROUP, PLURAL) {
        return Ok(());
    }
    let signer = object["spec"]["signerName"].as_str().unwrap_or("");
    let forbidden = |why: &str| Err(ApiError::forbidden(GROUP, PLURAL, a.name, why));
    if a.operation == Operation::Create && signer == "kubernetes.io/kube-apiserver-client" {
        // Whoever is in this group may do everything, and no role can be taken from a certificate again.
        if organizations(object).iter().any(|o| o == "system:masters") {
            return forbidden(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            );
        }
        return Ok(());
    }
    let (verb, what) = match a.subresource {
        "approval" => ("approve", "approve requests"),
        "status"
            if a.old.is_some_and(|old| {
                old["status"]["certificate"] != object["status"]["certificate"]
            }) =>
        {
            ("sign", "sign requests")
        }
        _ => return Ok(()),
    };
    let domain = signer.split('/').next().unwrap_or("");
    let allowed = [signer.to_owned(), format!("{domain}/*")]
        .into_iter()
        .any(|name| {
            let question = Action::Resource {
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                resource: "signers".to_owned(),
                subresource: String::new(),
                namespace: String::new(),
                name,
            };
            server.rights().require(a.user, &question).is_ok()
        });
    if allowed {
        return Ok(());
    }
    forbidden(&format!(
        "user not permitted to {what} with signerName {signer:?}"
    ))
}

/// The groups a request asks for.
fn organizations(object: &Value) -> Vec<String> {
    use base64::Engine;
    let pem = base64::engine::general_purpose::STANDARD
        .decode(object["spec"]["request"].as_str().unwrap_or(""))
        .unwrap_or_default();
    pki::csr::wanted(&String::from_utf8_lossy(&pem))
        .map(|wanted| wanted.organizations)
        .unwrap_or_default()
}
