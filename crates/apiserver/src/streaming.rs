//! Logs, exec, attach and port-forward: passed through to the node agent of the pod.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, BoxError, full};
use crate::outbound::{self, Peer};
use crate::rest::Call;
use crate::storage::Key;

/// The pod, checked for being somewhere.
fn pod(call: &Call<'_>) -> ApiResult<Value> {
    let stored = call
        .server
        .storage
        .cache()
        .get(&call.resource.key(&call.target.namespace, &call.target.name))
        .ok_or_else(|| call.resource.not_found(&call.target.name))?;
    Ok(stored.value().clone())
}

/// The container a request means: the named one, the annotated default, the only one.
fn container(call: &Call<'_>, pod: &Value) -> ApiResult<String> {
    let names = |list: &str| -> Vec<String> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let debugging = names("ephemeralContainers");
    let asked = call.request.query.text("container");
    if !asked.is_empty() {
        let known = main
            .iter()
            .chain(&init)
            .chain(&debugging)
            .any(|n| n == asked);
        if !known {
            return Err(ApiError::bad_request(format!(
                "container {asked} is not valid for pod {}",
                call.target.name
            )));
        }
        return Ok(asked.to_owned());
    }
    if let Some(default) = api::meta::annotation(pod, "kubectl.kubernetes.io/default-container")
        && main.iter().any(|n| n == default)
    {
        return Ok(default.to_owned());
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let shown = |list: &[String]| list.join(" ");
            let mut text = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                call.target.name,
                shown(&main)
            );
            if !init.is_empty() {
                text.push_str(&format!(
                    " or one of the init containers: [{}]",
                    shown(&init)
                ));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// The node agent of a pod.
fn kubelet(call: &Call<'_>, pod: &Value) -> ApiResult<Peer> {
    let name = api::meta::name(pod);
    let node_name = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if node_name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let node = call
        .server
        .storage
        .cache()
        .get(&Key::new(&"core/nodes".into(), "", node_name))
        .ok_or_else(|| ApiError::not_found("", "nodes", node_name))?;
    peer(call.server, node.value())
}

/// Where a node's agent listens.
pub(crate) fn peer(server: &crate::state::Server, node: &Value) -> ApiResult<Peer> {
    let name = api::meta::name(node);
    let ip: IpAddr = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|a| a["type"] == "InternalIP")
        .and_then(|a| a["address"].as_str()?.parse().ok())
        .ok_or_else(|| ApiError::internal(format!("node {name} has no InternalIP")))?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|p| u16::try_from(p).ok())
        // Zero is what clients write that do not know the field.
        .filter(|p| *p != 0)
        .unwrap_or(server.kubelet.port);
    let tls = server
        .kubelet
        .tls
        .clone()
        .ok_or_else(|| ApiError::internal("this server has no credentials for node agents"))?;
    Ok(Peer {
        address: SocketAddr::new(ip, port),
        tls,
        name: ip.to_string(),
    })
}

fn unreachable(peer: &Peer, path: &str, e: &BoxError) -> ApiError {
    ApiError::internal(format!(
        "Get \"https://{}{path}\": {}",
        peer.address,
        outbound::explain(e)
    ))
}

/// `pods/<name>/log`.
pub(crate) async fn logs(call: &Call<'_>) -> ApiResult<Answer> {
    let pod = pod(call)?;
    let container = container(call, &pod)?;
    waiting(&pod, &container, &call.request.query)?;
    let peer = kubelet(call, &pod)?;
    let query: Vec<String> = call
        .request
        .query
        .0
        .iter()
        .filter(|(k, _)| k != "container" && k != "insecureSkipTLSVerifyBackend")
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    let mut path = format!(
        "/containerLogs/{}/{}/{}",
        encode(&call.target.namespace),
        encode(&call.target.name),
        encode(&container)
    );
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let request = http::Request::get(&path)
        .header(header::HOST, peer.address.to_string())
        .body(Empty::new())
        .map_err(ApiError::internal)?;
    let answer = outbound::send(&peer, request)
        .await
        .map_err(|e| unreachable(&peer, &path, &e))?;
    if answer.status().is_success()
        && call
            .request
            .header(header::UPGRADE)
            .eq_ignore_ascii_case("websocket")
    {
        return over_websocket(call, answer.into_body());
    }
    Ok(relay(answer).await)
}

/// Sends what comes as messages of a WebSocket: binary ones, or base64 where the client asked for that.
fn over_websocket(call: &Call<'_>, mut body: Incoming) -> ApiResult<Answer> {
    use futures::SinkExt as _;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::{Message, Role};

    let client = call.request.upgrade.lock().take();
    let key = call.request.header(header::SEC_WEBSOCKET_KEY);
    let (Some(client), false) = (client, key.is_empty()) else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let asked = call.request.header(header::SEC_WEBSOCKET_PROTOCOL);
    let known = ["binary.k8s.io", "base64.binary.k8s.io"];
    let protocol = asked.split(',').map(str::trim).find(|p| known.contains(p));
    let as_text = protocol == Some("base64.binary.k8s.io");
    let mut out = Response::new(full(bytes::Bytes::new()));
    *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = out.headers_mut();
    headers.insert(
        header::UPGRADE,
        header::HeaderValue::from_static("websocket"),
    );
    headers.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("Upgrade"),
    );
    let accept = derive_accept_key(key.as_bytes());
    for (name, value) in [
        (header::SEC_WEBSOCKET_ACCEPT, Some(accept.as_str())),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol),
    ] {
        if let Some(value) = value.and_then(|v| v.parse().ok()) {
            headers.insert(name, value);
        }
    }
    tokio::spawn(async move {
        let Ok(client) = client.await else { return };
        let mut socket =
            WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let message = if as_text {
                use base64::Engine as _;
                Message::text(base64::engine::general_purpose::STANDARD.encode(&data))
            } else {
                Message::binary(data)
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
        let _ = socket.close(None).await;
    });
    Ok(out)
}

/// A container that never started has no log; say why.
fn waiting(pod: &Value, container: &str, query: &crate::target::Query) -> ApiResult<()> {
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let status = lists
        .iter()
        .flat_map(|l| pod["status"][*l].as_array().into_iter().flatten())
        .find(|s| s["name"] == container);
    let Some(status) = status else {
        return Ok(());
    };
    let waiting = &status["state"]["waiting"];
    let started_before = status["lastState"]["terminated"].is_object();
    let refuse = |why: &str| {
        Err(ApiError::bad_request(format!(
            "container {container:?} in pod {:?} is waiting to start: {why}",
            api::meta::name(pod)
        )))
    };
    if query.flag("previous") && !started_before {
        return Err(ApiError::bad_request(format!(
            "previous terminated container {container:?} in pod {:?} not found",
            api::meta::name(pod)
        )));
    }
    match waiting["reason"].as_str() {
        Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName") if !started_before => {
            refuse("trying and failing to pull image")
        }
        Some(reason @ ("ContainerCreating" | "PodInitializing")) if !started_before => {
            refuse(reason)
        }
        _ => Ok(()),
    }
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Passes an answer on as it comes.
async fn relay(answer: Response<Incoming>) -> Answer {
    let (parts, body) = answer.into_parts();
    if parts.status.is_success() {
        let mut out = Response::new(body.map_err(|e| -> BoxError { e.into() }).boxed_unsync());
        *out.status_mut() = parts.status;
        let kind = parts
            .headers
            .get(header::CONTENT_TYPE)
            .cloned()
            .unwrap_or(header::HeaderValue::from_static("text/plain"));
        out.headers_mut().insert(header::CONTENT_TYPE, kind);
        return out;
    }
    let limited = http_body_util::Limited::new(body, 64 * 1024)
        .collect()
        .await;
    let text = limited.map(|b| b.to_bytes()).unwrap_or_default();
    if let Ok(status) = serde_json::from_slice::<Value>(&text)
        && status["kind"] == "Status"
    {
        return crate::http_types::json_answer(parts.status, &status);
    }
    let message = String::from_utf8_lossy(&text).trim().to_owned();
    let code = parts.status.as_u16();
    let e = match code {
        404 => ApiError::new(
            404,
            "NotFound",
            format!("the server could not find the requested resource ( {message})"),
        ),
        400 => ApiError::bad_request(message),
        _ => ApiError::new(
            code,
            "InternalError",
            format!(
                "an error on the server ({message:?}) has prevented the request from succeeding"
            ),
        ),
    };
    crate::http_types::error_answer(&e)
}

/// Headers that belong to one hop, or to this server's own authentication.
fn passed_on(name: &header::HeaderName) -> bool {
    !matches!(
        *name,
        header::AUTHORIZATION
            | header::HOST
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::COOKIE
    ) && !name.as_str().starts_with("impersonate-")
}

fn upgrade_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if passed_on(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// `exec`, `attach` and `portforward`: the upgrade is repeated towards the node agent, and
/// after `101` bytes are copied both ways. What they mean is between client and agent.
pub(crate) async fn upgrade(call: &Call<'_>, sub: &str) -> ApiResult<Answer> {
    let pod = pod(call)?;
    let (ns, name) = (encode(&call.target.namespace), encode(&call.target.name));
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    let path = match sub {
        "portforward" => format!("/portForward/{ns}/{name}"),
        _ => {
            if matches!(phase, "Succeeded" | "Failed") {
                return Err(ApiError::bad_request(format!(
                    "cannot exec in a stopped pod: current phase is {phase}"
                )));
            }
            let container = container(call, &pod)?;
            format!("/{sub}/{ns}/{name}/{}", encode(&container))
        }
    };
    let peer = kubelet(call, &pod)?;
    let Some(client) = call.request.upgrade.lock().take() else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    if call.request.header(header::UPGRADE).is_empty() {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    // Kubelets spell the stream switches differently.
    let query: Vec<String> = call
        .request
        .query
        .0
        .iter()
        .filter(|(k, _)| k != "container")
        .map(|(k, v)| match k.as_str() {
            "stdin" => format!("input={}", i32::from(v != "false")),
            "stdout" => format!("output={}", i32::from(v != "false")),
            "stderr" => format!("error={}", i32::from(v != "false")),
            "tty" => format!("tty={}", i32::from(v != "false")),
            "ports" => v
                .split(',')
                .map(|port| format!("port={}", encode(port)))
                .collect::<Vec<_>>()
                .join("&"),
            _ => format!("{}={}", encode(k), encode(v)),
        })
        .collect();
    let path = if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    };
    let method = if call.request.method == Method::POST {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = http::Request::builder()
        .method(method)
        .uri(&path)
        .body(Empty::new())
        .map_err(ApiError::internal)?;
    upgrade_headers(&call.request.headers, request.headers_mut());
    if let Ok(host) = peer.address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let answer = outbound::send(&peer, request)
        .await
        .map_err(|e| unreachable(&peer, &path, &e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(relay(answer).await);
    }
    let mut out = Response::new(full(bytes::Bytes::new()));
    *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    upgrade_headers(answer.headers(), out.headers_mut());
    tokio::spawn(async move {
        let (client, agent) = match tokio::try_join!(client, hyper::upgrade::on(answer)) {
            Ok(both) => both,
            Err(e) => {
                tracing::debug!(error = %e, "an upgrade was not completed");
                return;
            }
        };
        let (mut client, mut agent) = (TokioIo::new(client), TokioIo::new(agent));
        if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut agent).await {
            tracing::debug!(error = %e, "a stream ended");
        }
        // One side may have gone without a farewell; the other one gets a proper end.
        let _ = tokio::join!(client.shutdown(), agent.shutdown());
    });
    Ok(out)
}
