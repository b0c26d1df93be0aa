//! Extension API servers: APIServices with a Service, whose groups are answered by what runs behind it.
//!
//! A request for such a group is authenticated and authorized here, and passed on with the names of its user in headers; a
//! certificate of an authority of its own tells the other side that they come from this server.

mod availability;
mod discovery;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use parking_lot::RwLock;
use serde_json::{Value, json};

pub(crate) use discovery::{aggregated, group, groups, openapi_index};

use crate::authn::{self, User};
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, keeping, text_answer};
use crate::outbound::{self, Peer};
use crate::rest::write::{WriteOptions, Writer};
use crate::state::{Server, now};
use crate::storage::Key;
use crate::target::{self, Target};
use crate::{proxy, rest};

pub(crate) const GROUP: &str = "apiregistration.k8s.io";
const TABLE: &str = "apiregistration.k8s.io/apiservices";
/// The name in the certificate that this server shows extension servers.
const CLIENT: &str = "front-proxy-client";
/// How often extension servers are asked whether they still answer.
const CHECK: Duration = Duration::from_secs(30);
/// How long one may take to answer that.
const PATIENCE: Duration = Duration::from_secs(5);

/// What extension servers know this server by: an authority made at each start, and its one certificate.
pub(crate) struct FrontProxy {
    ca_pem: String,
    identity: pki::tls::Identity,
}

impl FrontProxy {
    pub fn new(now: SystemTime) -> Result<Self, pki::Error> {
        const YEAR: u32 = 365;
        let ca = pki::Authority::new_root("front-proxy-ca", "", now, YEAR)?;
        let life = Duration::from_secs(u64::from(YEAR) * 24 * 3600);
        let validity = pki::Validity::starting(now, life).backdated(Duration::from_secs(60));
        let issued = ca.issue(&pki::CertRequest::client(CLIENT, &[], validity))?;
        Ok(Self {
            ca_pem: ca.root_pem().to_owned(),
            identity: pki::tls::Identity::from_pem(&issued.chain_pem, &issued.key_pem)?,
        })
    }
}

/// One group-version that is answered elsewhere.
#[derive(Clone)]
pub(crate) struct Remote {
    name: String,
    group: String,
    version: String,
    namespace: String,
    service: String,
    port: u16,
    version_priority: i64,
    spec: Value,
    tls: Result<Arc<rustls::ClientConfig>, String>,
    /// The last check found it answering.
    available: bool,
    /// Its APIResourceList, when it has answered.
    resources: Value,
    /// It has an OpenAPI v3 document.
    openapi: bool,
}

/// All of them; replaced as a whole when something about them changes.
pub(crate) struct Aggregator {
    remotes: RwLock<Arc<Vec<Arc<Remote>>>>,
    front: FrontProxy,
}

impl Aggregator {
    pub fn new(front: FrontProxy) -> Self {
        Self {
            remotes: RwLock::default(),
            front,
        }
    }

    fn remotes(&self) -> Arc<Vec<Arc<Remote>>> {
        self.remotes.read().clone()
    }

    /// Who answers for a group-version, when it is not this server.
    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let remotes = self.remotes.read();
        let mut all = remotes.iter();
        all.find(|r| r.group == group && r.version == version)
            .cloned()
    }

    /// Who answers a path that names no object: a group-version's list of resources, or its OpenAPI document.
    pub fn find_path(&self, path: &str) -> Option<Arc<Remote>> {
        if self.remotes.read().is_empty() {
            return None;
        }
        let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let (group, version) = path.strip_prefix("/apis/")?.split_once('/')?;
        self.find(group, version.trim_end_matches('/'))
    }

    /// What the ConfigMap `extension-apiserver-authentication` says: how extension servers recognise users and this server.
    pub fn authentication(&self, client_ca_pem: &str) -> Value {
        json!({
            "client-ca-file": client_ca_pem,
            "requestheader-allowed-names": json!([CLIENT]).to_string(),
            "requestheader-client-ca-file": self.front.ca_pem,
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        })
    }

    fn tls(&self, spec: &Value) -> Result<Arc<rustls::ClientConfig>, String> {
        let identity = Some(self.front.identity.clone());
        if spec["insecureSkipTLSVerify"] == true {
            return proxy::unverified(identity).map_err(|e| e.message);
        }
        let bundle = STANDARD
            .decode(spec["caBundle"].as_str().unwrap_or(""))
            .map_err(|e| format!("spec.caBundle: {e}"))?;
        let roots_pem = String::from_utf8(bundle).map_err(|e| format!("spec.caBundle: {e}"))?;
        pki::tls::client_config(
            runtime::tls::provider(),
            &pki::tls::ServerTrust::Name { roots_pem },
            identity,
            &[pki::tls::HTTP1],
        )
        .map(Arc::new)
        .map_err(|e| format!("spec.caBundle: {e}"))
    }

    /// An APIService with a Service; what was known about the same one before is kept.
    fn remote(&self, object: &Value) -> Option<Arc<Remote>> {
        let (name, spec) = (api::meta::name(object), &object["spec"]);
        let service = &spec["service"];
        if !service.is_object() {
            return None;
        }
        let before = self.remotes().iter().find(|r| r.name == name).cloned();
        if let Some(same) = before.filter(|r| r.spec == *spec) {
            return Some(same);
        }
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        Some(Arc::new(Remote {
            name: name.to_owned(),
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service["port"]
                .as_u64()
                .and_then(|p| u16::try_from(p).ok())
                .unwrap_or(443),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            tls: self.tls(spec),
            spec: spec.clone(),
            available: false,
            resources: Value::Null,
            openapi: false,
        }))
    }
}

impl Remote {
    async fn peer(&self, server: &Server) -> Result<Peer, String> {
        let tls = self.tls.clone()?;
        let key = Key::new(&"core/services".into(), &self.namespace, &self.service);
        let service = server.storage.cache().get(&key);
        let spec = service
            .as_ref()
            .map_or(&Value::Null, |s| &s.value()["spec"]);
        let at = format!("service {}/{}", self.namespace, self.service);
        let address = if let Some(host) = spec["externalName"].as_str() {
            let found = tokio::net::lookup_host((host, self.port)).await;
            let mut all = found.map_err(|e| format!("{at}: {host}: {e}"))?;
            all.next()
                .ok_or_else(|| format!("{at}: {host} has no address"))?
        } else {
            let ip = spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
            let ip: IpAddr = ip.ok_or_else(|| format!("{at} has no cluster IP"))?;
            SocketAddr::new(ip, self.port)
        };
        Ok(Peer {
            address,
            tls,
            name: format!("{}.{}.svc", self.service, self.namespace),
        })
    }

    /// GET of a path, as this server itself; the JSON of a good answer.
    async fn get(&self, server: &Server, path: &str) -> Result<Value, String> {
        let peer = self.peer(server).await?;
        let url = format!("https://{}{path}", peer.address);
        let mut request = http::Request::get(path)
            .header(http::header::HOST, format!("{}:{}", peer.name, self.port))
            .header(http::header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        // The real server checks as a user that every server lets in.
        identify(request.headers_mut(), &authn::itself());
        let failing = |why: String| format!("failing or missing response from {url}: {why}");
        let asked = async {
            let answer = outbound::send(&peer, request)
                .await
                .map_err(|e| failing(format!("Get {url:?}: {}", outbound::explain(&e))))?;
            let code = answer.status();
            if !code.is_success() && !code.is_redirection() {
                return Err(failing(format!("bad status from {url}: {}", code.as_u16())));
            }
            let body = Limited::new(answer.into_body(), 8 << 20)
                .collect()
                .await
                .map_err(|e| failing(outbound::explain(&e)))?;
            Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null))
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(failing(format!("Get {url:?}: context deadline exceeded"))))
    }
}

/// Says in headers for whom a request is; what a client has put there goes.
fn identify(headers: &mut http::HeaderMap, user: &User) {
    let theirs: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in theirs {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        for value in values {
            add(&name, value);
        }
    }
}

/// A key as part of a header's name: what may not stand there is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte.to_ascii_lowercase()));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Answers for an object of an extension server: asks whether the user may, then there. A watch counts, for the seats of those who write
/// what it watches, until its answer ends.
pub(crate) async fn handle(
    server: &Server,
    request: &Request,
    target: &Target,
    remote: &Remote,
) -> ApiResult<Answer> {
    let verb = target::verb(&request.method, target, request.query.flag("watch")).unwrap_or("");
    let action = rest::action(target, verb, &request.query);
    server.rights().require(&request.user, &action)?;
    let watched = (verb == "watch").then(|| server.flow.watching(target, &request.query));
    let answer = pass_on(server, request, remote).await?;
    Ok(answer.map(|body| keeping(body, watched)))
}

/// Passes a request on, and its answer back.
pub(crate) async fn pass_on(
    server: &Server,
    request: &Request,
    remote: &Remote,
) -> ApiResult<Answer> {
    let unavailable = |why: &str| text_answer(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if !remote.available {
        return Ok(unavailable("service unavailable"));
    }
    let peer = match remote.peer(server).await {
        Ok(peer) => peer,
        Err(why) => {
            tracing::warn!(name = remote.name, why, "a request could not be passed on");
            return Ok(unavailable("service unavailable"));
        }
    };
    let host = format!("{}:{}", peer.name, remote.port);
    let mut outgoing = proxy::outgoing(request, &host, &request.path)?;
    identify(outgoing.headers_mut(), &request.user);
    match outbound::send(&peer, outgoing).await {
        Ok(answer) => Ok(proxy::relay(request, answer, None).await),
        Err(e) => Ok(unavailable(&format!(
            "error trying to reach service: {}",
            outbound::explain(&e)
        ))),
    }
}

/// Follows APIServices and what is behind them, and says in their status whether they answer.
pub(crate) async fn run(server: Arc<Server>) {
    let cache = server.storage.cache();
    let mut changed = cache.subscribe(TABLE);
    let mut services = cache.subscribe("core/services");
    let mut endpoints = cache.subscribe("core/endpoints");
    loop {
        changed.borrow_and_update();
        services.borrow_and_update();
        endpoints.borrow_and_update();
        let some = look(&server).await;
        tokio::select! {
            c = changed.changed() => if c.is_err() { return },
            _ = services.changed(), if some => {}
            _ = endpoints.changed(), if some => {}
            () = tokio::time::sleep(CHECK), if some => {}
            () = server.shutdown.cancelled() => return,
        }
    }
}

/// Looks at all APIServices once; true when there are any with a Service.
async fn look(server: &Arc<Server>) -> bool {
    let (objects, _) = server.storage.cache().list(TABLE, "");
    let aggregator = &server.aggregator;
    let known: Vec<Arc<Remote>> = objects
        .iter()
        .filter_map(|(_, o)| aggregator.remote(o.value()))
        .collect();
    if known.is_empty() && aggregator.remotes().is_empty() {
        return false;
    }
    *aggregator.remotes.write() = Arc::new(known.clone());
    let checks = known.iter().map(|remote| check(server, remote));
    let checked = futures::future::join_all(checks).await;
    let next: Vec<Arc<Remote>> = checked.iter().map(|(next, _)| next.clone()).collect();
    *aggregator.remotes.write() = Arc::new(next);
    // Said only now: whoever reads that a group is available finds it served.
    for (remote, verdict) in &checked {
        if let Err(e) = write_condition(server, &remote.name, verdict).await {
            tracing::debug!(error = %e, name = remote.name, "the condition of an APIService could not be written");
        }
    }
    !checked.is_empty()
}

/// Checks one: what it serves now, and whether it is available.
async fn check(server: &Arc<Server>, remote: &Arc<Remote>) -> (Arc<Remote>, availability::Verdict) {
    let cache = server.storage.cache();
    let key = |table: &str| Key::new(&table.into(), &remote.namespace, &remote.service);
    let service = cache.get(&key("core/services"));
    let endpoints = cache.get(&key("core/endpoints"));
    let mut next = Remote::clone(remote);
    let verdict = match availability::reachable(
        &remote.spec,
        service.as_ref().map(|s| s.value()),
        endpoints.as_ref().map(|e| e.value()),
    ) {
        Err(problem) => Err(problem),
        Ok(()) => {
            let path = format!("/apis/{}/{}", remote.group, remote.version);
            match remote.get(server, &path).await {
                Ok(resources) => {
                    next.resources = resources;
                    let document = remote.get(server, &format!("/openapi/v3{path}")).await;
                    next.openapi = document.is_ok_and(|d| d.is_object());
                    Ok(())
                }
                Err(why) => Err(("FailedDiscoveryCheck", why)),
            }
        }
    };
    next.available = verdict.is_ok();
    (Arc::new(next), verdict)
}

async fn write_condition(
    server: &Arc<Server>,
    name: &str,
    verdict: &availability::Verdict,
) -> ApiResult<()> {
    let registry = server.registry();
    let resource = registry
        .find(GROUP, "v1", "apiservices")
        .ok_or_else(ApiError::no_such_path)?;
    let Some(stored) = server.storage.cache().get(&resource.key("", name)) else {
        return Ok(());
    };
    let condition = availability::condition(verdict);
    if condition.holds(stored.value()) {
        return Ok(());
    }
    let at = now();
    let warnings = parking_lot::Mutex::default();
    let writer = Writer {
        server,
        user: authn::itself(),
        options: WriteOptions {
            manager: "kube-apiserver".into(),
            ..WriteOptions::default()
        },
        warnings: &warnings,
    };
    let edit = |old: &Value| {
        let mut new = old.clone();
        condition.set(&mut new, &at);
        Ok(new)
    };
    writer.update(resource, "", name, "status", &edit).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_by_this_server_only() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        let user = User {
            name: "bob".into(),
            uid: String::new(),
            groups: vec!["a".into(), "b".into()],
            extra: [("example.com/Key".to_owned(), vec!["v".to_owned()])].into(),
        };
        identify(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> {
            headers
                .get_all(name)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .collect()
        };
        assert_eq!(all("x-remote-user"), ["bob"]);
        assert_eq!(all("x-remote-group"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-example.com%2Fkey"), ["v"]);
        assert!(all("x-remote-extra-scopes").is_empty());
    }
}
