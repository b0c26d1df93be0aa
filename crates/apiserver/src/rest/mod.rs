//! Objects over HTTP: which handler answers which request.

pub(crate) mod delete;
mod eviction;
mod list_options;
pub(crate) mod patch;
pub(crate) mod read;
pub(crate) mod subresource;
pub(crate) mod watch;
pub(crate) mod write;

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::Value;

use self::delete::DeleteOptions;
use self::write::{WriteOptions, Writer};
use crate::authz::Action;
use crate::conversion;
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, json_answer};
use crate::machinery::{self, Filter};
use crate::negotiate::{self, Form};
use crate::registry::Resource;
use crate::shape::{self, Page};
use crate::state::Server;
use crate::storage::Stored;
use crate::target::{self, Target};

/// One request for objects, with everything looked up.
pub(crate) struct Call<'a> {
    pub server: &'a Arc<Server>,
    pub request: &'a Request,
    pub target: &'a Target,
    pub resource: Arc<Resource>,
    pub form: Form,
}

/// The RBAC question of a request.
pub(crate) fn action(target: &Target, verb: &str, query: &target::Query) -> Action {
    let mut name = target.name.clone();
    if name.is_empty()
        && let Some(pinned) = query.exact_field("metadata.name")
    {
        // A list or watch of one object by name can be allowed by that name.
        name = pinned.to_owned();
    }
    Action::Resource {
        verb: verb.to_owned(),
        group: target.group.clone(),
        resource: target.plural.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name,
    }
}

/// Answers a request for objects.
pub(crate) async fn handle(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
) -> ApiResult<Answer> {
    let watching = request.query.flag("watch");
    let verb = match target::verb(&request.method, target, watching) {
        Some(verb) => verb,
        // A proxy passes on methods that have no verb of their own.
        None if target.subresource == "proxy" => "",
        None => {
            return Err(ApiError::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    let question = action(target, verb, &request.query);
    server.rights().require(&request.user, &question)?;
    let resource = server
        .registry()
        .find(&target.group, &target.version, &target.plural)
        .cloned()
        .ok_or_else(ApiError::no_such_path)?;
    if !resource.namespaced && !target.namespace.is_empty() && target.plural != "namespaces" {
        return Err(ApiError::no_such_path());
    }
    let accept = request.header(header::ACCEPT);
    // Logs and streams have no form of their own.
    let form = if matches!(
        target.subresource.as_str(),
        "log" | "exec" | "attach" | "portforward" | "proxy"
    ) {
        negotiate::form("")?
    } else {
        negotiate::form(accept)?
    };
    let call = Call {
        server,
        request,
        target,
        resource,
        form,
    };
    if verb != "create" {
        conversion::prepare_scope(server, &call.resource, &scope(&call), &target.name).await?;
    }
    if !target.subresource.is_empty() {
        return subresource::handle(&call, verb).await;
    }
    if !call.resource.allows(verb) {
        return Err(ApiError::method_not_allowed(
            &target.group,
            &target.plural,
            verb,
        ));
    }
    if resource_needs_namespace(&call, verb) {
        return match verb {
            "create" => Err(ApiError::bad_request(
                "an empty namespace may not be set during creation",
            )),
            _ => Err(ApiError::no_such_path()),
        };
    }
    match verb {
        "get" => read::get(
            server,
            request,
            &call.resource,
            &target.namespace,
            &target.name,
            form,
        ),
        "list" => {
            let filter = Filter::from_query(&request.query, &call.resource)?;
            read::list(
                server,
                request,
                &call.resource,
                &scope(&call),
                &filter,
                form,
            )
        }
        "watch" => {
            let filter = Filter::from_query(&request.query, &call.resource)?;
            watch::watch(&call, &scope(&call), filter)
        }
        "create" => call.create().await,
        "update" => call.update("").await,
        "patch" => call.patch("").await,
        "delete" => call.delete().await,
        _ => call.delete_collection().await,
    }
}

/// The namespace of the objects themselves: cluster-wide ones have none, whatever the path says.
fn scope(call: &Call<'_>) -> String {
    if call.resource.namespaced {
        call.target.namespace.clone()
    } else {
        String::new()
    }
}

fn resource_needs_namespace(call: &Call<'_>, verb: &str) -> bool {
    call.resource.namespaced
        && call.target.namespace.is_empty()
        && !matches!(verb, "list" | "watch" | "deletecollection")
}

impl<'a> Call<'a> {
    pub fn options(&self) -> ApiResult<WriteOptions> {
        WriteOptions::from_query(&self.request.query, self.request.header(header::USER_AGENT))
    }

    pub fn writer(&self, options: WriteOptions) -> Writer<'a> {
        Writer {
            server: self.server,
            user: self.request.user.clone(),
            options,
            warnings: &self.request.warnings,
        }
    }

    pub fn answer(&self, code: StatusCode, object: &Stored) -> Answer {
        let include = self.request.query.text("includeObject");
        shape::object(&self.resource, self.form, include, code, object)
    }

    /// The object in the body.
    pub async fn object(&self, options: &mut WriteOptions) -> ApiResult<Value> {
        let bytes = self.request.read_body().await?;
        let (mut object, duplicates) =
            machinery::parse(&self.resource, self.request.content_type(), &bytes)?;
        crate::body::check_type(&self.resource, &mut object)?;
        options.duplicates = duplicates;
        Ok(object)
    }

    async fn create(&self) -> ApiResult<Answer> {
        let target = self.target;
        if !target.name.is_empty() {
            return Err(ApiError::method_not_allowed(
                &target.group,
                &target.plural,
                "create",
            ));
        }
        let mut options = self.options()?;
        let object = self.object(&mut options).await?;
        if self.resource.is_virtual() {
            if self.form.shape != negotiate::Shape::Plain {
                // An answer that is no object with metadata has no rows.
                return Err(ApiError::not_acceptable(negotiate::MEDIA));
            }
            let reviewed = crate::review::answer(self, object).await?;
            return Ok(self.answer(StatusCode::CREATED, &Stored::of(reviewed, 0)));
        }
        let created = self
            .writer(options)
            .create(&self.resource, &scope(self), object)
            .await?;
        Ok(self.answer(StatusCode::CREATED, &created))
    }

    /// Replaces an object or one of its halves.
    pub async fn update(&self, subresource: &str) -> ApiResult<Answer> {
        let target = self.target;
        let mut options = self.options()?;
        let object = self.object(&mut options).await?;
        let name = api::meta::name(&object);
        if name.is_empty() {
            return Err(ApiError::bad_request("name must be provided"));
        }
        if name != target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        let namespace = scope(self);
        let writer = self.writer(options);
        let result = writer
            .update(
                &self.resource,
                &namespace,
                &target.name,
                subresource,
                &|_| Ok(object.clone()),
            )
            .await;
        match result {
            Err(e)
                if e.code == 404
                    && subresource.is_empty()
                    && creatable_by_update(&self.resource) =>
            {
                let mut object = object.clone();
                api::meta::unset(&mut object, "resourceVersion");
                let created = writer.create(&self.resource, &namespace, object).await?;
                Ok(self.answer(StatusCode::CREATED, &created))
            }
            other => Ok(self.answer(StatusCode::OK, &*other?)),
        }
    }

    async fn delete_options(&self) -> ApiResult<DeleteOptions> {
        let bytes = self.request.read_body().await?;
        let body = if bytes.iter().all(u8::is_ascii_whitespace) {
            Value::Null
        } else {
            crate::body::parse(self.request.content_type(), &bytes, "DeleteOptions")?
        };
        DeleteOptions::read(&body, &self.request.query)
    }

    async fn delete(&self) -> ApiResult<Answer> {
        let options = self.delete_options().await?;
        let writer = self.writer(WriteOptions::default());
        let r = &self.resource;
        let deleted = writer
            .delete(r, &scope(self), &self.target.name, &options)
            .await?;
        let shown = !deleted.gone
            || matches!(
                r.plural.as_str(),
                "pods" | "serviceaccounts" | "podtemplates" | "resourcequotas"
            ) && r.group.is_empty();
        if shown {
            return Ok(self.answer(StatusCode::OK, &deleted.object));
        }
        let status = api::status::deleted(
            &r.group,
            &r.plural,
            &self.target.name,
            api::meta::uid(deleted.object.value()),
        );
        Ok(json_answer(StatusCode::OK, &status))
    }

    async fn delete_collection(&self) -> ApiResult<Answer> {
        let options = self.delete_options().await?;
        let filter = Filter::from_query(&self.request.query, &self.resource)?;
        let r = &self.resource;
        let namespace = scope(self);
        let prefix = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let (items, revision) = self.server.storage.cache().list(&r.table, &prefix);
        let writer = self.writer(WriteOptions::default());
        let mut gone = Vec::new();
        for (_, item) in items {
            if !shape::passes(&filter, &self.resource, &item) {
                continue;
            }
            let ns = api::meta::namespace(item.value()).to_owned();
            let name = api::meta::name(item.value()).to_owned();
            match writer.delete(r, &ns, &name, &options).await {
                Ok(deleted) => gone.push(deleted.object),
                Err(e) if e.code == 404 => {}
                Err(e) => return Err(e),
            }
        }
        let page = Page {
            resource: r,
            items: gone,
            revision,
            continue_token: String::new(),
            remaining: None,
        };
        Ok(page.answer(self.form, self.request.query.text("includeObject")))
    }
}

/// Kinds that a PUT may bring into being.
fn creatable_by_update(r: &Resource) -> bool {
    matches!(
        (r.group.as_str(), r.plural.as_str()),
        ("rbac.authorization.k8s.io", _)
            | ("coordination.k8s.io", "leases")
            | ("", "endpoints" | "limitranges" | "events")
    )
}

/// Does a method read only?
pub(crate) fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
