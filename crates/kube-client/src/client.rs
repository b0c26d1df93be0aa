//! Requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use crate::auth::Bearer;
use crate::params::{Query, accepted};
use crate::port_forward::{self, PortForward};
use crate::transport::{self, HttpClient};
use crate::watch::{Event, WatchConnection};
use crate::{
    Config, DeleteOptions, Error, Kubeconfig, ListParams, PatchType, Resource, Result, WatchParams,
};

const JSON: &str = "application/json";
/// How often a request the server has no capacity for is repeated.
const MAX_THROTTLED: u32 = 5;

/// A client of one API server as one user. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: HttpClient,
    bearer: Bearer,
    impersonate: Vec<(HeaderName, HeaderValue)>,
    /// Scheme, authority and path prefix, without a slash at the end.
    base: String,
    user_agent: HeaderValue,
    timeout: Duration,
    /// For connections that leave HTTP and thus cannot be shared.
    config: Config,
}

/// One page of a list.
#[derive(Debug, Clone, Default)]
pub struct List {
    /// The objects, each with `apiVersion` and `kind`.
    pub items: Vec<Value>,
    /// Version of the collection: a watch that starts here misses nothing.
    pub resource_version: String,
    /// Where to go on, when there is more.
    pub continue_: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.inner.base)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client; it connects with the first request.
    ///
    /// # Errors
    /// When address, certificates or token are unusable.
    pub fn new(config: Config) -> Result<Self> {
        let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| {
            Error::Config(format!("user agent {:?} is not valid", config.user_agent))
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                http: transport::connect(&config)?,
                bearer: Bearer::new(&config.auth)?,
                impersonate: config.impersonate.headers()?,
                base: config.server.trim_end_matches('/').to_owned(),
                user_agent,
                timeout: config.timeout,
                config,
            }),
        })
    }

    /// A client from the text of a kubeconfig; file references in it are relative to the
    /// working directory.
    ///
    /// # Errors
    /// When the text or what it refers to is unusable.
    pub fn from_kubeconfig_str(yaml: &str, context: Option<&str>) -> Result<Self> {
        Self::new(Kubeconfig::parse(yaml)?.config(context, std::path::Path::new("."))?)
    }

    /// A client from a kubeconfig file.
    ///
    /// # Errors
    /// When the file or what it refers to is unusable.
    pub fn from_kubeconfig_file(path: &std::path::Path, context: Option<&str>) -> Result<Self> {
        let directory = path.parent().unwrap_or(std::path::Path::new("."));
        Self::new(Kubeconfig::parse(&crate::config::read(path)?)?.config(context, directory)?)
    }

    /// The client of a process in a pod.
    ///
    /// # Errors
    /// When this process does not run in a pod.
    pub fn in_cluster() -> Result<Self> {
        Self::new(Config::in_cluster()?)
    }

    /// Address of the API server.
    pub fn server(&self) -> &str {
        &self.inner.base
    }

    /// Reads one object.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when it does not exist; others as usual.
    pub async fn get(&self, resource: &Resource, ns: Option<&str>, name: &str) -> Result<Value> {
        let path = resource.path(ns, Some(name_of(resource, name)?), None);
        self.json(Method::GET, &path, None, JSON).await
    }

    /// Reads one subresource, for instance `scale`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_sub(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        name: &str,
        subresource: &str,
    ) -> Result<Value> {
        let path = resource.path(ns, Some(name_of(resource, name)?), Some(subresource));
        self.json(Method::GET, &path, None, JSON).await
    }

    /// Lists objects of a namespace, or (`ns` none) of the whole cluster. One page, if `limit`
    /// is set.
    ///
    /// # Errors
    /// [`Error::is_gone`] when `continue_` is too old; others as usual.
    pub async fn list(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        params: &ListParams,
    ) -> Result<List> {
        let mut query = Query::default();
        params.query(&mut query);
        let path = format!("{}{}", resource.path(ns, None, None), query.as_str());
        let media = accepted(params.metadata_only);
        let mut answer = self.json(Method::GET, &path, None, media).await?;
        let Value::Array(items) = answer["items"].take() else {
            return Err(self.protocol(format!("{path}: the list has no items")));
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(List {
            items: items
                .into_iter()
                .map(|item| resource.complete(item))
                .collect(),
            resource_version: text(&answer["metadata"]["resourceVersion"]),
            continue_: Some(text(&answer["metadata"]["continue"])).filter(|next| !next.is_empty()),
        })
    }

    /// Creates an object; `generateName` is honoured by the server.
    ///
    /// # Errors
    /// [`Error::is_already_exists`] when the name is taken; others as usual.
    pub async fn create(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(ns, None, None);
        self.json(Method::POST, &path, Some(object), JSON).await
    }

    /// Creates an object, for those who do not look at what has become of it: the answer is not read.
    ///
    /// # Errors
    /// As [`Client::create`].
    pub async fn create_only(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        object: &Value,
    ) -> Result<()> {
        let path = resource.path(ns, None, None);
        let done = self.success(Method::POST, &path, Some(object), JSON).await;
        done.map(|_| ())
    }

    /// Creates a subresource: `token`, `binding`, `eviction`.
    ///
    /// # Errors
    /// As usual.
    pub async fn create_sub(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(ns, Some(name_of(resource, name)?), Some(subresource));
        self.json(Method::POST, &path, Some(object), JSON).await
    }

    /// Replaces an object; its `resourceVersion` guards against lost updates.
    ///
    /// # Errors
    /// [`Error::is_conflict`] when it changed meanwhile; others as usual.
    pub async fn update(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        object: &Value,
    ) -> Result<Value> {
        self.put(resource, ns, object, None).await
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn update_status(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        object: &Value,
    ) -> Result<Value> {
        self.put(resource, ns, object, Some("status")).await
    }

    /// Replaces a subresource of an object: `finalize` of a namespace, `scale`.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn update_sub(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        self.put(resource, ns, object, Some(subresource)).await
    }

    async fn put(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        object: &Value,
        subresource: Option<&str>,
    ) -> Result<Value> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = resource.path(ns, Some(name_of(resource, name)?), subresource);
        self.json(Method::PUT, &path, Some(object), JSON).await
    }

    /// Patches an object or one of its subresources.
    ///
    /// # Errors
    /// [`Error::is_conflict`], [`Error::is_invalid`]; others as usual.
    pub async fn patch(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        name: &str,
        patch_type: &PatchType,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<Value> {
        let path = patched(resource, ns, name, patch_type, subresource)?;
        self.json(Method::PATCH, &path, Some(patch), patch_type.content_type())
            .await
    }

    /// Patches, for those who do not look at what has become of the object: the answer is not read.
    ///
    /// # Errors
    /// As [`Client::patch`].
    pub async fn patch_only(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        name: &str,
        patch_type: &PatchType,
        patch: &Value,
        subresource: Option<&str>,
    ) -> Result<()> {
        let path = patched(resource, ns, name, patch_type, subresource)?;
        self.success(Method::PATCH, &path, Some(patch), patch_type.content_type())
            .await
            .map(|_| ())
    }

    /// Deletes an object. Returns the object when its end takes time, otherwise a status.
    ///
    /// # Errors
    /// [`Error::is_not_found`]; [`Error::is_conflict`] when a precondition fails.
    pub async fn delete(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let path = resource.path(ns, Some(name_of(resource, name)?), None);
        self.delete_path(&path, options).await
    }

    /// Deletes all objects that fit.
    ///
    /// # Errors
    /// As usual; 405 where a kind does not offer it.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<Value> {
        let mut query = Query::default();
        params.query(&mut query);
        let path = format!("{}{}", resource.path(ns, None, None), query.as_str());
        self.delete_path(&path, options).await
    }

    async fn delete_path(&self, path: &str, options: &DeleteOptions) -> Result<Value> {
        let options = serde_json::to_value(options)
            .map_err(|error| Error::Request(format!("delete options: {error}")))?;
        self.json(Method::DELETE, path, Some(&options), JSON).await
    }

    /// A request of any kind; the answer is returned whatever its code is. `media` is the type of the body; where there is none, of the
    /// answer that is wanted.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn raw(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Bytes>,
        media: Option<&str>,
    ) -> Result<(StatusCode, Bytes)> {
        let answer = async {
            let response = self
                .send(&method, path_and_query, body, media.unwrap_or(JSON))
                .await?;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| self.transport(&error))?.to_bytes();
            Ok((status, body))
        };
        match tokio::time::timeout(self.inner.timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                server: self.inner.base.clone(),
                seconds: self.inner.timeout.as_secs(),
            }),
        }
    }

    /// Watches a collection. The stream ends when the server ends the watch; an error is the
    /// last item. [`crate::Store`] keeps going by itself.
    pub fn watch(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        params: WatchParams,
    ) -> impl Stream<Item = Result<Event>> + Send + use<> {
        enum State {
            Open(Box<(Client, Resource, Option<String>, WatchParams)>),
            Reading(Box<WatchConnection>),
            Done,
        }
        let open = (
            self.clone(),
            resource.clone(),
            ns.map(str::to_owned),
            params,
        );
        let start = State::Open(Box::new(open));
        futures::stream::unfold(start, |state| async {
            let mut connection = match state {
                State::Open(open) => {
                    let (client, resource, ns, params) = *open;
                    match client.open_watch(&resource, ns.as_deref(), &params).await {
                        Ok(connection) => Box::new(connection),
                        Err(error) => return Some((Err(error), State::Done)),
                    }
                }
                State::Reading(connection) => connection,
                State::Done => return None,
            };
            match connection.next().await? {
                Ok(event) => Some((Ok(event), State::Reading(connection))),
                Err(error) => Some((Err(error), State::Done)),
            }
        })
    }

    /// Opens a watch and returns once the server has accepted it.
    ///
    /// # Errors
    /// [`Error::is_gone`] when the version is too old; others as usual.
    pub async fn open_watch(
        &self,
        resource: &Resource,
        ns: Option<&str>,
        params: &WatchParams,
    ) -> Result<WatchConnection> {
        let mut query = Query::default();
        params.query(&mut query);
        let path = format!("{}{}", resource.path(ns, None, None), query.as_str());
        let media = accepted(params.metadata_only);
        let response = self.open_as(&Method::GET, &path, media).await?;
        Ok(WatchConnection::new(
            response.into_body(),
            self.inner.base.clone(),
        ))
    }

    /// Opens a long answer (a followed log) and returns its body once the head is there.
    ///
    /// # Errors
    /// As usual.
    pub async fn open(&self, method: &Method, path_and_query: &str) -> Result<Response<Incoming>> {
        self.open_as(method, path_and_query, JSON).await
    }

    async fn open_as(
        &self,
        method: &Method,
        path_and_query: &str,
        accepted: &str,
    ) -> Result<Response<Incoming>> {
        let head = self.send(method, path_and_query, None, accepted);
        let response = tokio::time::timeout(self.inner.timeout, head).await;
        let response = response.map_err(|_| Error::Timeout {
            server: self.inner.base.clone(),
            seconds: self.inner.timeout.as_secs(),
        })??;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.transport(&error))?.to_bytes();
        Err(Error::from_response(code, &body))
    }

    /// Connects to a port of a pod.
    ///
    /// # Errors
    /// When the server refuses. Whether the pod accepts shows in [`PortForward::problem`] when reading ends.
    pub async fn port_forward(&self, ns: &str, pod: &str, port: u16) -> Result<PortForward> {
        let resource = Resource::new("", "v1", "pods", "Pod");
        let path = resource.path(
            Some(ns),
            Some(name_of(&resource, pod)?),
            Some("portforward"),
        );
        let mut head = vec![(USER_AGENT, self.inner.user_agent.clone())];
        if let Some(value) = self.inner.bearer.header(Instant::now())? {
            head.push((AUTHORIZATION, value));
        }
        head.extend(self.inner.impersonate.iter().cloned());
        let connector = transport::Connector::new(&self.inner.config, &[pki::tls::HTTP1])?;
        let opening = port_forward::open(connector, &self.inner.base, &path, &head, port);
        match tokio::time::timeout(self.inner.timeout, opening).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                server: self.inner.base.clone(),
                seconds: self.inner.timeout.as_secs(),
            }),
        }
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        media: &str,
    ) -> Result<Value> {
        let body = self.success(method, path, body, media).await?;
        serde_json::from_slice(&body)
            .map_err(|error| self.protocol(format!("{path}: not JSON: {error}")))
    }

    /// The body of a successful answer.
    async fn success(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        media: &str,
    ) -> Result<Bytes> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Error::Request(format!("{method} {path}: {error}")))?;
        let (status, body) = self
            .raw(method, path, body.map(Bytes::from), Some(media))
            .await?;
        if !status.is_success() {
            return Err(Error::from_response(status.as_u16(), &body));
        }
        Ok(body)
    }

    /// Sends a request; again when the token is refused but may have been replaced, or when the
    /// server asks to come back later. `media` is the type of the body; where there is none, of the answer that is wanted.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        media: &str,
    ) -> Result<Response<Incoming>> {
        let mut throttled = 0;
        let mut token_forgotten = false;
        loop {
            let request = self.request(method, path, body.clone(), media)?;
            let response = self.inner.http.request(request).await;
            let response = response.map_err(|error| self.transport(&error))?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !token_forgotten && self.inner.bearer.forget() => {
                    token_forgotten = true;
                }
                StatusCode::TOO_MANY_REQUESTS if throttled < MAX_THROTTLED => {
                    let Some(seconds) = retry_after(&response) else {
                        return Ok(response);
                    };
                    throttled += 1;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return Ok(response),
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        media: &str,
    ) -> Result<Request<Full<Bytes>>> {
        let accepted = if body.is_some() { JSON } else { media };
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.inner.base))
            .header(ACCEPT, accepted)
            .header(USER_AGENT, self.inner.user_agent.clone());
        if let Some(value) = self.inner.bearer.header(Instant::now())? {
            builder = builder.header(AUTHORIZATION, value);
        }
        for (name, value) in &self.inner.impersonate {
            builder = builder.header(name, value);
        }
        if body.is_some() {
            builder = builder.header(CONTENT_TYPE, media);
        }
        builder
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| Error::Request(format!("{method} {path}: {error}")))
    }

    fn transport(&self, error: &dyn std::error::Error) -> Error {
        Error::Transport {
            server: self.inner.base.clone(),
            reason: causes(error),
        }
    }

    fn protocol(&self, reason: String) -> Error {
        Error::Protocol {
            server: self.inner.base.clone(),
            reason,
        }
    }
}

/// The error and what caused it, each text once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn retry_after(response: &Response<Incoming>) -> Option<u64> {
    response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The path of a patch.
fn patched(
    resource: &Resource,
    ns: Option<&str>,
    name: &str,
    patch_type: &PatchType,
    subresource: Option<&str>,
) -> Result<String> {
    let mut query = Query::default();
    if let PatchType::Apply { manager, force } = patch_type {
        query.add("fieldManager", Some(manager));
        query.add("force", force.then_some("true"));
    }
    let path = resource.path(ns, Some(name_of(resource, name)?), subresource);
    Ok(format!("{path}{}", query.as_str()))
}

/// An empty name would turn a request for one object into one for the whole collection.
fn name_of<'a>(resource: &Resource, name: &'a str) -> Result<&'a str> {
    if name.is_empty() {
        return Err(Error::Request(format!(
            "{}: the name of the object is empty",
            resource.kind
        )));
    }
    Ok(name)
}
