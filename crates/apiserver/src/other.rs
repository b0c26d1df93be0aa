//! Everything that is not an object: discovery, OpenAPI, health, version, metrics, keys.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::authz::Action;
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, bytes_answer, json_answer, text_answer};
use crate::negotiate::media_ranges;
use crate::state::Server;

/// The Kubernetes version whose API this is.
pub(crate) const VERSION: &str = "v1.32.4";

/// Paths that need no identity: probes come without one.
pub(crate) fn is_public(path: &str) -> bool {
    matches!(
        path,
        "/healthz" | "/livez" | "/readyz" | "/version" | "/version/"
    ) || path.starts_with("/healthz/")
        || path.starts_with("/livez/")
        || path.starts_with("/readyz/")
}

/// Answers a public path.
pub(crate) fn public(server: &Server, request_query: &crate::target::Query, path: &str) -> Answer {
    if path.starts_with("/version") {
        // Indented, because people look at it with curl.
        let text = serde_json::to_string_pretty(&version()).unwrap_or_default();
        return bytes_answer(StatusCode::OK, "application/json", text);
    }
    let (kind, check) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    let checks = ["ping", "log", "etcd"];
    if !check.is_empty() {
        return if checks.contains(&check) {
            text_answer(StatusCode::OK, "ok")
        } else {
            text_answer(StatusCode::NOT_FOUND, "404 page not found\n")
        };
    }
    let leaving = kind == "readyz" && server.shutdown.is_cancelled();
    if request_query.get("verbose").is_some() || leaving {
        let mut text = String::new();
        for check in checks {
            let _ = writeln!(text, "[+]{check} ok");
        }
        if leaving {
            text.push_str("[-]shutdown failed: reason withheld\n");
        }
        let _ = writeln!(
            text,
            "{kind} check {}",
            if leaving { "failed" } else { "passed" }
        );
        let code = if leaving {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        };
        return text_answer(code, text);
    }
    text_answer(StatusCode::OK, "ok")
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": format!("{VERSION}+theater"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// Does the client want discovery in one piece?
fn aggregated(request: &Request) -> bool {
    media_ranges(request.header(header::ACCEPT))
        .iter()
        .any(|r| {
            r.media == "application/json"
                && r.get("g") == Some("apidiscovery.k8s.io")
                && r.get("v") == Some("v2")
                && r.get("as") == Some("APIGroupDiscoveryList")
        })
}

/// May the user ask for a path that names no object?
pub(crate) fn authorize(server: &Server, request: &Request) -> ApiResult<()> {
    let verb = if crate::rest::reads(&request.method) {
        "get".to_owned()
    } else {
        request.method.as_str().to_lowercase()
    };
    let action = Action::Path {
        verb,
        path: request.path.clone(),
    };
    server.rights().require(&request.user, &action)
}

/// Answers a path that names no object.
pub(crate) fn handle(server: &Arc<Server>, request: &Request) -> ApiResult<Answer> {
    let path = request.path.trim_end_matches('/');
    authorize(server, request)?;
    let registry = server.registry();
    let ok = |v: &Value| json_answer(StatusCode::OK, v);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let found = match parts.as_slice() {
        [""] => Some(ok(&paths(server))),
        ["api" | "apis"] if aggregated(request) => {
            let core = parts[0] == "api";
            let own = api::discovery::aggregated(&registry.custom, core);
            let mut body = crate::metrics_api::extend_aggregated(own, core);
            if !core {
                body = crate::aggregation::aggregated(&server.aggregator, body);
            }
            Some(bytes_answer(
                StatusCode::OK,
                api::discovery::AGGREGATED_CONTENT_TYPE,
                body.to_string(),
            ))
        }
        ["api"] => Some(ok(&api::discovery::core_versions(
            &server.advertise.to_string(),
        ))),
        ["apis"] => Some(ok(&groups(server))),
        ["api", "v1"] => api::discovery::resource_list(&registry.custom, "", "v1").map(|v| ok(&v)),
        ["apis", "metrics.k8s.io", "v1beta1"] => Some(ok(&crate::metrics_api::resources())),
        ["apis", group] => crate::aggregation::group(&groups(server), group).map(|v| ok(&v)),
        ["apis", group, version] => {
            api::discovery::resource_list(&registry.custom, group, version).map(|v| ok(&v))
        }
        ["openapi", "v2"] => Some(openapi_v2(request, &registry)),
        ["openapi", "v3"] => Some(ok(&crate::aggregation::openapi_index(
            &server.aggregator,
            api::openapi::index(&registry.custom),
        ))),
        ["openapi", "v3", "api", version] => openapi(request, &registry, "", version),
        ["openapi", "v3", "apis", group, version] => openapi(request, &registry, group, version),
        ["metrics"] => Some(bytes_answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics(server),
        )),
        ["debug", "api_priority_and_fairness", what] => {
            crate::flow::dump(&server.flow, what, &request.query)
                .map(|text| text_answer(StatusCode::OK, text))
        }
        [".well-known", "openid-configuration"] => Some(ok(&json!({
            "issuer": server.tokens.issuer,
            "jwks_uri": format!("https://{}/openid/v1/jwks", server.advertise),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }))),
        ["openid", "v1", "jwks"] => Some(bytes_answer(
            StatusCode::OK,
            "application/jwk-set+json",
            server.tokens.verifier.jwks().to_string(),
        )),
        _ => None,
    };
    let found = found.ok_or_else(ApiError::no_such_path)?;
    if !crate::rest::reads(&request.method) {
        return Err(ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    Ok(found)
}

/// All groups: built in, of definitions, and of extension servers.
fn groups(server: &Server) -> Value {
    let own = api::discovery::group_list(&server.registry().custom);
    crate::aggregation::groups(&server.aggregator, crate::metrics_api::extend_groups(own))
}

/// OpenAPI v2: as JSON, or as protobuf where a client insists, as kubectl does.
fn openapi_v2(request: &Request, registry: &crate::registry::Registry) -> Answer {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    if request.header(header::ACCEPT).contains("protobuf") {
        bytes_answer(StatusCode::OK, PROTOBUF, registry.openapi_v2_protobuf())
    } else {
        bytes_answer(StatusCode::OK, "application/json", registry.openapi_v2())
    }
}

/// A document of OpenAPI v3, compressed when the client takes it so.
fn openapi(
    request: &Request,
    registry: &crate::registry::Registry,
    group: &str,
    version: &str,
) -> Option<Answer> {
    let zipped = request.header(header::ACCEPT_ENCODING).contains("gzip");
    if zipped && let Some(bytes) = api::openapi::builtin_gzip(group, version) {
        let mut answer = bytes_answer(StatusCode::OK, "application/json", bytes.to_vec());
        answer
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return Some(answer);
    }
    let bytes = api::openapi::document(&registry.custom, group, version)?;
    Some(bytes_answer(StatusCode::OK, "application/json", bytes))
}

fn paths(server: &Server) -> Value {
    let registry = server.registry();
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".into(),
        "/api/v1".into(),
        "/apis".into(),
    ];
    for r in registry.all().iter().filter(|r| !r.group.is_empty()) {
        for p in [
            format!("/apis/{}", r.group),
            format!("/apis/{}/{}", r.group, r.version),
        ] {
            if !paths.contains(&p) {
                paths.push(p);
            }
        }
    }
    for p in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(p.into());
    }
    json!({"paths": paths})
}

/// Counters in Prometheus' text form, under the names of the real API server.
fn metrics(server: &Server) -> String {
    let mut out = String::new();
    out.push_str("# HELP apiserver_request_total Counter of apiserver requests by verb, resource and HTTP response code.\n# TYPE apiserver_request_total counter\n");
    for ((verb, resource, code), n) in server.counters.requests.lock().iter() {
        let _ = writeln!(
            out,
            "apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {n}"
        );
    }
    out.push_str("# HELP apiserver_storage_objects Number of stored objects by resource.\n# TYPE apiserver_storage_objects gauge\n");
    let registry = server.registry();
    let mut seen: Vec<&str> = Vec::new();
    for r in registry.all().iter().filter(|r| !r.is_virtual()) {
        if seen.contains(&&*r.table) {
            continue;
        }
        seen.push(&r.table);
        let _ = writeln!(
            out,
            "apiserver_storage_objects{{resource=\"{}\"}} {}",
            r.qualified(),
            server.storage.cache().count(&r.table)
        );
    }
    let gauges = [
        (
            "apiserver_longrunning_requests",
            "Open watches.",
            server.counters.watches.load(Ordering::Relaxed),
        ),
        (
            "apiserver_current_connections",
            "Open connections.",
            server.counters.connections.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, value) in gauges {
        let _ = writeln!(
            out,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    let _ = writeln!(
        out,
        "# HELP apiserver_admission_webhook_request_total Calls of admission webhooks.\n# TYPE apiserver_admission_webhook_request_total counter\napiserver_admission_webhook_request_total {}\n# HELP apiserver_storage_revision Newest revision.\n# TYPE apiserver_storage_revision gauge\napiserver_storage_revision {}",
        server.counters.webhook_calls.load(Ordering::Relaxed),
        server.storage.cache().revision()
    );
    crate::flow::metrics(&server.flow, &mut out);
    out
}
