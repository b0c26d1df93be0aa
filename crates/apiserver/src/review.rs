//! Questions asked of the server: who is this, may they do that, give me a token.

use http::StatusCode;
use serde_json::{Value, json};

use crate::authn::{self, User, review_user};
use crate::authz::{Action, Rights};
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, json_answer};
use crate::rest::Call;
use crate::state::unix_now;

/// Shortest and longest life of an issued token, in seconds.
const LIFE: std::ops::RangeInclusive<i64> = 600..=(1 << 32);

/// Answers a virtual resource: the question comes back with its `status`.
pub(crate) async fn answer(call: &Call<'_>, mut object: Value) -> ApiResult<Value> {
    let rights = call.server.rights();
    let me = &call.request.user;
    let spec = object["spec"].clone();
    let status = match call.resource.plural.as_str() {
        "tokenreviews" => token_review(call, &spec),
        "selfsubjectreviews" => json!({"userInfo": me.to_value()}),
        "subjectaccessreviews" => access(&rights, &review_user(&spec), &spec)?,
        "selfsubjectaccessreviews" => access(&rights, me, &spec)?,
        "localsubjectaccessreviews" => {
            if spec["resourceAttributes"]["namespace"] != call.target.namespace.as_str() {
                return Err(ApiError::bad_request(
                    "spec.resourceAttributes.namespace must match namespace",
                ));
            }
            access(&rights, &review_user(&spec), &spec)?
        }
        "selfsubjectrulesreviews" => rights.rules_for(me, spec["namespace"].as_str().unwrap_or("")),
        "bindings" => {
            let pod = api::meta::name(&object).to_owned();
            crate::rest::subresource::bind(call, &pod, &object).await?;
            return Ok(
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
            );
        }
        other => {
            return Err(ApiError::internal(format!("nothing answers {other}")));
        }
    };
    if call.resource.plural == "selfsubjectreviews" {
        object["metadata"]["creationTimestamp"] = crate::state::now().into();
    }
    object["status"] = status;
    Ok(object)
}

fn access(rights: &Rights, user: &User, spec: &Value) -> ApiResult<Value> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let r = &spec["resourceAttributes"];
    let p = &spec["nonResourceAttributes"];
    let action = if r.is_object() {
        Action::Resource {
            verb: text(&r["verb"]),
            group: text(&r["group"]),
            resource: text(&r["resource"]),
            subresource: text(&r["subresource"]),
            namespace: text(&r["namespace"]),
            name: text(&r["name"]),
        }
    } else if p.is_object() {
        Action::Path {
            verb: text(&p["verb"]),
            path: text(&p["path"]),
        }
    } else {
        let e = api::field::FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
        return Err(ApiError::invalid(
            "authorization.k8s.io",
            "SubjectAccessReview",
            "",
            &[e],
        ));
    };
    Ok(match rights.allows(user, &action) {
        Some(why) if why.is_empty() => json!({"allowed": true}),
        Some(why) => json!({"allowed": true, "reason": why}),
        None => json!({"allowed": false}),
    })
}

fn token_review(call: &Call<'_>, spec: &Value) -> Value {
    let audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let token = spec["token"].as_str().unwrap_or("");
    match call
        .server
        .tokens
        .verify(&call.server.storage, token, &audiences, unix_now())
    {
        Ok(verified) => {
            if let Some(secret) = &verified.secret {
                authn::note_use(call.server, secret);
            }
            json!({"authenticated": true, "user": verified.user.to_value(), "audiences": verified.audiences})
        }
        Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    }
}

/// `serviceaccounts/<name>/token`: issues a token.
pub(crate) async fn token(call: &Call<'_>) -> ApiResult<Answer> {
    let (ns, name) = (&call.target.namespace, &call.target.name);
    let account = call
        .server
        .storage
        .cache()
        .get(&call.resource.key(ns, name))
        .ok_or_else(|| call.resource.not_found(name))?;
    let bytes = call.request.read_body().await?;
    let mut request = crate::body::parse(call.request.content_type(), &bytes, "TokenRequest")?;
    let seconds = request["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(3600);
    if !LIFE.contains(&seconds) {
        let why = if seconds < *LIFE.start() {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let e = api::field::FieldError::invalid("spec.expirationSeconds", &json!(seconds), why);
        return Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[e],
        ));
    }
    let mut audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(call.server.tokens.issuer.clone());
    }
    let bound = bound_object(call, ns, &request["spec"]["boundObjectRef"])?;
    let issued = unix_now();
    let claims = pki::jwt::Claims {
        aud: audiences.clone(),
        exp: issued + seconds,
        iat: issued,
        iss: call.server.tokens.issuer.clone(),
        jti: Some(uuid::Uuid::new_v4().to_string()),
        kubernetes: Some(pki::jwt::Bound {
            namespace: ns.clone(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: pki::jwt::ObjectId {
                name: name.clone(),
                uid: api::meta::uid(account.value()).to_owned(),
            },
        }),
        nbf: issued,
        sub: format!("system:serviceaccount:{ns}:{name}"),
    };
    let token = call
        .server
        .tokens
        .signer
        .sign(&claims)
        .map_err(ApiError::internal)?;
    let expires =
        api::time::Time::from_unix_timestamp(issued + seconds).map_err(ApiError::internal)?;
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] =
        json!({"name": name, "namespace": ns, "creationTimestamp": crate::state::now()});
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": api::time::rfc3339(expires)});
    Ok(json_answer(StatusCode::CREATED, &request))
}

/// What a token is bound to.
#[derive(Default)]
struct BoundTo {
    pod: Option<pki::jwt::ObjectId>,
    node: Option<pki::jwt::ObjectId>,
    secret: Option<pki::jwt::ObjectId>,
}

/// The object that a request for a token names; of a pod its node, too.
fn bound_object(call: &Call<'_>, namespace: &str, reference: &Value) -> ApiResult<BoundTo> {
    if !reference.is_object() {
        return Ok(BoundTo::default());
    }
    let field = |name: &str| reference[name].as_str().unwrap_or("");
    let (name, kind, version) = (field("name"), field("kind"), field("apiVersion"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let plural = match (group, kind) {
        ("", "Pod") => "pods",
        ("", "Node") => "nodes",
        ("", "Secret") => "secrets",
        _ => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let find = |plural: &str, name: &str| {
        let namespace = if plural == "nodes" { "" } else { namespace };
        let key = crate::storage::Key::new(&format!("core/{plural}").into(), namespace, name);
        call.server.storage.cache().get(&key)
    };
    let object = find(plural, name).ok_or_else(|| ApiError::not_found("", plural, name))?;
    let account = call.target.name.as_str();
    let spec = &object.value()["spec"];
    if kind == "Pod" && spec["serviceAccountName"] != account {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let (uid, asked) = (api::meta::uid(object.value()), field("uid"));
    if !asked.is_empty() && asked != uid {
        return Err(ApiError::conflict(
            "",
            kind,
            name,
            &format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let id = Some(pki::jwt::ObjectId {
        name: name.to_owned(),
        uid: uid.to_owned(),
    });
    let mut bound = BoundTo::default();
    match kind {
        "Secret" => bound.secret = id,
        "Node" => bound.node = id,
        _ => {
            bound.pod = id;
            let node = spec["nodeName"].as_str().filter(|node| !node.is_empty());
            bound.node = node.map(|node| pki::jwt::ObjectId {
                name: node.to_owned(),
                uid: find("nodes", node)
                    .map(|object| api::meta::uid(object.value()).to_owned())
                    .unwrap_or_default(),
            });
        }
    }
    Ok(bound)
}
