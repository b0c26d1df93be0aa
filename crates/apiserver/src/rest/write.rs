//! Create, update and patch: the way of an object into the store.

use std::sync::Arc;

use api::patch::PatchKind;
use api::prune::{Duplicates, FieldValidation};
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::{self, Attributes, Operation};
use crate::authn::User;
use crate::error::{ApiError, ApiResult, from_write};
use crate::machinery;
use crate::registry::Resource;
use crate::shape;
use crate::state::{Server, now};
use crate::storage::{Change, Expect, Stored};
use crate::strategy;
use crate::target::Query;
use crate::{conversion, convert};

/// How often a write that nobody pinned to a version is tried again after losing a race.
const ATTEMPTS: usize = 50;

/// The options of a write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub manager: String,
    pub force: bool,
    /// Fields the body has twice.
    pub duplicates: Duplicates,
    /// A server-side apply keeps its own account of managed fields.
    pub apply: bool,
    /// The object is the outcome of a patch, and what is wrong with it is the patch's fault.
    pub patch: Option<(PatchKind, Value)>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            field_validation: FieldValidation::Warn,
            manager: String::new(),
            force: false,
            duplicates: Duplicates::default(),
            apply: false,
            patch: None,
        }
    }
}

impl WriteOptions {
    /// Reads them from a query; `user_agent` names the manager when nothing else does.
    pub fn from_query(query: &Query, user_agent: &str) -> ApiResult<Self> {
        let dry_run = dry_run(query.text("dryRun"))?;
        let field_validation =
            FieldValidation::parse(query.get("fieldValidation"), "CreateOptions")?;
        let manager = match query.text("fieldManager") {
            "" => user_agent.split('/').next().unwrap_or("").to_owned(),
            named => named.to_owned(),
        };
        Ok(Self {
            dry_run,
            field_validation,
            manager,
            force: query.flag("force"),
            duplicates: Duplicates::default(),
            apply: false,
            patch: None,
        })
    }
}

/// Is nothing to be written? Only `All` means so.
pub(crate) fn dry_run(text: &str) -> ApiResult<bool> {
    match text {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(ApiError::new(
            422,
            "Invalid",
            format!(
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ),
        )),
    }
}

/// Who writes, how, and where the warnings go.
pub(crate) struct Writer<'a> {
    pub server: &'a Arc<Server>,
    pub user: Arc<User>,
    pub options: WriteOptions,
    pub warnings: &'a Mutex<Vec<String>>,
}

/// Where the real server keeps an object in etcd, which some of its messages say.
fn etcd_key(resource: &Resource, namespace: &str, name: &str) -> String {
    let table = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("networking.k8s.io", "ingresses") => "ingress",
        (_, plural) => plural,
    };
    let own = resource.custom.is_some()
        || matches!(
            resource.group.as_str(),
            "apiextensions.k8s.io" | "apiregistration.k8s.io"
        );
    let group = if own { resource.group.as_str() } else { "" };
    let parts = ["/registry", group, table, namespace, name];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// How a patch or update turns the stored object into the new one.
pub(crate) type Edit<'a> = dyn Fn(&Value) -> ApiResult<Value> + Send + Sync + 'a;

impl Writer<'_> {
    fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    fn warn_of_finalizers(&self, resource: &Resource, object: &Value, old: Option<&Value>) {
        if resource.custom.is_some() {
            for text in api::validate::finalizer_warnings(object, old) {
                self.warn(text);
            }
        }
    }

    fn attributes<'b>(
        &'b self,
        operation: Operation,
        resource: &'b Resource,
        namespace: &'b str,
        name: &'b str,
        subresource: &'b str,
        old: Option<&'b Value>,
    ) -> Attributes<'b> {
        Attributes {
            operation,
            resource,
            namespace,
            name,
            subresource,
            old,
            user: &self.user,
            dry_run: self.options.dry_run,
            warnings: self.warnings,
        }
    }

    /// Removes or refuses what the schema does not know.
    fn decode(
        &self,
        resource: &Resource,
        object: &mut Value,
        patched: &dyn Fn() -> Value,
    ) -> ApiResult<()> {
        let texts = machinery::decode(resource, object, &self.options, patched)?;
        for text in texts {
            self.warn(text);
        }
        Ok(())
    }

    /// Creates an object and returns it as stored.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        mut object: Value,
    ) -> ApiResult<Arc<Stored>> {
        if let Some(text) = resource.custom.as_ref().and_then(|c| c.deprecation.clone()) {
            self.warn(text);
        }
        let applied = if self.options.apply {
            object.clone()
        } else {
            Value::Null
        };
        self.decode(resource, &mut object, &|| applied.clone())?;
        if let Some(text) = strategy::without_effect(resource, &object) {
            self.warn(text.to_owned());
        }
        place(resource, namespace, &mut object)?;
        if !api::meta::resource_version(&object).is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let generate = api::meta::generate_name(&object).to_owned();
        if generate.is_empty() || !api::meta::name(&object).is_empty() {
            return self.create_named(resource, namespace, object).await;
        }
        let mut attempts = 8;
        loop {
            let mut candidate = object.clone();
            let name = api::meta::generated_name(&generate, rand::random());
            api::meta::set(&mut candidate, "name", name);
            match self.create_named(resource, namespace, candidate).await {
                Err(e) if e.reason == "AlreadyExists" && attempts > 1 => attempts -= 1,
                other => return other,
            }
        }
    }

    async fn create_named(
        &self,
        resource: &Resource,
        namespace: &str,
        mut object: Value,
    ) -> ApiResult<Arc<Stored>> {
        let storage = &self.server.storage;
        let uid = uuid::Uuid::new_v4().to_string();
        let at = now();
        strategy::prepare_create(resource, &mut object, &uid, &at);
        machinery::default(resource, &mut object);
        let name = api::meta::name(&object).to_owned();
        let attributes = self.attributes(Operation::Create, resource, namespace, &name, "", None);
        // What admission and the allocators add belongs to nobody.
        if !self.options.apply {
            machinery::manage(resource, None, &mut object, &self.options, "", &at);
        }
        if admission::mutate(self.server, &attributes, &mut object).await? {
            machinery::prune(resource, &mut object);
            machinery::default(resource, &mut object);
        }
        let reserved = admission::allocate(self.server, &attributes, &mut object)?;
        if crate::crd::is_definition(resource) {
            crate::crd::check_conversion(&object)?;
            crate::crd::establish(self.server, &mut object);
        }
        crate::crd::check_alive(self.server, resource)?;
        machinery::validate_create(resource, &object)?;
        self.warn_of_finalizers(resource, &object, None);
        admission::validate(self.server, &attributes, &object).await?;
        if self.options.dry_run {
            if storage
                .cache()
                .get(&resource.key(namespace, &name))
                .is_some()
            {
                return Err(ApiError::already_exists(
                    &resource.group,
                    &resource.plural,
                    &name,
                ));
            }
            return Ok(Arc::new(Stored::of(object, 0)));
        }
        let stored = self
            .put(resource, namespace, &name, Expect::Absent, object)
            .await?;
        drop(reserved);
        Ok(shape::shown(resource, &stored))
    }

    /// Writes and does what follows from the write at once.
    pub async fn put(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        expect: Expect,
        mut object: Value,
    ) -> ApiResult<Arc<Stored>> {
        conversion::to_stored(self.server, resource, &mut object).await?;
        convert::to_stored(resource, &mut object);
        let stored = self
            .server
            .storage
            .write(resource.key(namespace, name), expect, Change::Put(object))
            .await
            .map_err(|e| from_write(e, &resource.group, &resource.plural, name))?;
        self.server.after_write(resource);
        conversion::prepare(self.server, resource, [stored.as_ref()]).await?;
        Ok(stored)
    }

    /// Changes an object: `edit` makes the new one from the stored one and is asked again
    /// when somebody else wrote in between, unless the caller pinned a version.
    pub async fn update(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        edit: &Edit<'_>,
    ) -> ApiResult<Arc<Stored>> {
        let key = resource.key(namespace, name);
        let mut attempt = 0;
        let mut turn = None;
        loop {
            attempt += 1;
            let current = self
                .server
                .storage
                .cache()
                .get(&key)
                .ok_or_else(|| resource.not_found(name))?;
            conversion::prepare(self.server, resource, [current.as_ref()]).await?;
            let old = shape::value_of(resource, &current);
            let mut object = edit(&old)?;
            let asked = api::meta::resource_version(&object).to_owned();
            let pinned =
                !asked.is_empty() && asked != "0" && asked != api::meta::resource_version(&old);
            if pinned {
                return Err(ApiError::modified(&resource.group, &resource.plural, name));
            }
            if asked.is_empty() && resource.custom.is_some() {
                let e = api::field::FieldError {
                    kind: api::field::ErrorType::Invalid,
                    field: "metadata.resourceVersion".into(),
                    shown: Some("0x0".into()),
                    detail: "must be specified for an update".into(),
                };
                return Err(ApiError::invalid(
                    &resource.group,
                    &resource.kind,
                    name,
                    &[e],
                ));
            }
            let wrong_uid = api::meta::uid(&object).to_owned();
            if !wrong_uid.is_empty() && wrong_uid != api::meta::uid(&old) {
                if self.options.patch.is_some() {
                    let e = api::field::FieldError::invalid(
                        "metadata.uid",
                        &wrong_uid.into(),
                        "field is immutable",
                    );
                    return Err(ApiError::invalid(
                        &resource.group,
                        &resource.kind,
                        name,
                        &[e],
                    ));
                }
                return Err(ApiError::conflict(
                    &resource.group,
                    &resource.plural,
                    name,
                    &format!(
                        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wrong_uid}, UID in object meta: {}",
                        etcd_key(resource, namespace, name),
                        api::meta::uid(&old)
                    ),
                ));
            }
            let at = now();
            self.decode(resource, &mut object, &|| edit(&old).unwrap_or_default())?;
            place(resource, namespace, &mut object)?;
            machinery::default(resource, &mut object);
            strategy::prepare_update(resource, &mut object, &old, subresource);
            let attributes = self.attributes(
                Operation::Update,
                resource,
                namespace,
                name,
                subresource,
                Some(&old),
            );
            if !self.options.apply {
                machinery::manage(
                    resource,
                    Some(&old),
                    &mut object,
                    &self.options,
                    subresource,
                    &at,
                );
            }
            if admission::mutate(self.server, &attributes, &mut object).await? {
                machinery::prune(resource, &mut object);
                machinery::default(resource, &mut object);
                // A webhook may have touched what only the server may write.
                strategy::prepare_update(resource, &mut object, &old, subresource);
            }
            strategy::count_templates(resource, &mut object, &old);
            let reserved = admission::allocate(self.server, &attributes, &mut object)?;
            if crate::crd::is_definition(resource) && subresource.is_empty() {
                crate::crd::check_conversion(&object)?;
                crate::crd::establish(self.server, &mut object);
            }
            machinery::validate_update(resource, &object, &old, subresource)?;
            self.warn_of_finalizers(resource, &object, Some(&old));
            admission::validate(self.server, &attributes, &object).await?;
            if strategy::unchanged(&object, &old) {
                return Ok(shape::shown(resource, &current));
            }
            if self.options.dry_run {
                return Ok(Arc::new(Stored::of(object, 0)));
            }
            let expect = Expect::Revision(current.revision);
            let done = if super::delete::is_over(&object) {
                // The last finalizer went: nothing holds the object any more.
                self.remove(resource, namespace, name, expect, Some(object))
                    .await
            } else {
                self.put(resource, namespace, name, expect, object).await
            };
            drop(reserved);
            match done {
                Ok(stored) => return Ok(shape::shown(resource, &stored)),
                // Tried again on the newer object; a version the caller pinned is stale by then.
                Err(e) if e.reason == "Conflict" && attempt < ATTEMPTS => {
                    if turn.is_none() {
                        turn = Some(self.server.turns.wait(&key).await);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes an object for good.
    pub async fn remove(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        expect: Expect,
        last: Option<Value>,
    ) -> ApiResult<Arc<Stored>> {
        let mut last = last;
        if let Some(object) = &mut last {
            conversion::to_stored(self.server, resource, object).await?;
            convert::to_stored(resource, object);
        }
        let stored = self
            .server
            .storage
            .write(resource.key(namespace, name), expect, Change::Delete(last))
            .await
            .map_err(|e| from_write(e, &resource.group, &resource.plural, name))?;
        self.server.after_write(resource);
        conversion::prepare(self.server, resource, [stored.as_ref()]).await?;
        Ok(stored)
    }
}

/// Makes namespace and path agree.
fn place(resource: &Resource, namespace: &str, object: &mut Value) -> ApiResult<()> {
    if !resource.namespaced {
        return Ok(());
    }
    let own = api::meta::namespace(object).to_owned();
    if own.is_empty() {
        api::meta::set(object, "namespace", namespace);
    } else if own != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
