//! Admission: what happens to an object between its author and the store.

pub(crate) mod certificates;
pub(crate) mod limits;
pub(crate) mod namespace;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod priority;
pub(crate) mod quota;
pub(crate) mod runtime_class;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod storage;
pub(crate) mod webhook;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::User;
use crate::error::ApiResult;
use crate::registry::Resource;
use crate::state::Server;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn text(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One request as admission sees it.
pub(crate) struct Attributes<'a> {
    pub operation: Operation,
    pub resource: &'a Resource,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    pub old: Option<&'a Value>,
    pub user: &'a User,
    pub dry_run: bool,
    pub warnings: &'a Mutex<Vec<String>>,
}

impl Attributes<'_> {
    fn creates(&self, plural: &str) -> bool {
        self.operation == Operation::Create && self.is_core(plural)
    }

    fn is_core(&self, plural: &str) -> bool {
        self.resource.is("", plural) && self.subresource.is_empty()
    }
}

/// Changes objects on their way in. True: it may have, so that what is written is to be looked at again.
pub(crate) async fn mutate(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &mut Value,
) -> ApiResult<bool> {
    namespace::check(&server.storage, a)?;
    if a.creates("pods") {
        service_account::admit(&server.storage, a, object).await?;
        pod::admit(object);
        priority::admit(&server.storage, object)?;
        runtime_class::admit(&server.storage, object)?;
        limits::default(&server.storage, a, object);
    }
    storage::admit(&server.storage, a, object);
    certificates::admit(a, object);
    let touched = a.creates("pods") || a.creates("persistentvolumeclaims");
    Ok(webhook::mutate(server, a, object).await? || touched)
}

/// Gives addresses and ports to what needs them. The result holds what was promised to the
/// object until it is stored.
pub(crate) fn allocate(
    server: &Server,
    a: &Attributes<'_>,
    object: &mut Value,
) -> ApiResult<service::Reserved> {
    if a.is_core("services") && matches!(a.operation, Operation::Create | Operation::Update) {
        return service::admit(server, a, object);
    }
    Ok(service::Reserved::default())
}

/// Refuses objects; nothing is changed any more.
pub(crate) async fn validate(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &Value,
) -> ApiResult<()> {
    if a.creates("pods") {
        limits::check(&server.storage, a, object)?;
    }
    certificates::validate(server, a, object)?;
    storage::validate(&server.storage, a, object)?;
    policy::validate(server, a, object)?;
    webhook::validate(server, a, object).await?;
    // Last: what is charged should also be stored.
    quota::admit(server, a, object).await
}

/// Asks about a stream into a pod, or a request through the server; `options` says what is wanted of it.
pub(crate) async fn connect(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    mut options: Value,
) -> ApiResult<()> {
    webhook::mutate(server, a, &mut options).await?;
    policy::validate(server, a, &options)?;
    webhook::validate(server, a, &options).await
}
