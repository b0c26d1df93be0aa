//! Patches of all four kinds.

use api::patch::PatchKind;
use api::prune::FieldValidation;
use http::StatusCode;
use serde_json::Value;

use super::Call;
use crate::error::{ApiError, ApiResult};
use crate::http_types::Answer;
use crate::machinery;
use crate::state::now;

impl Call<'_> {
    /// The patch in the body and its kind.
    pub async fn read_patch(&self) -> ApiResult<(PatchKind, Value)> {
        let content_type = self.request.header(http::header::CONTENT_TYPE);
        let kind = PatchKind::from_content_type(content_type, self.resource.custom.is_none())?;
        let bytes = self.request.read_body().await?;
        let patch = match kind {
            PatchKind::Apply => {
                let validation = self.options()?.field_validation;
                let (patch, twice) = applied(&bytes).map_err(|why| {
                    let strict = match validation {
                        FieldValidation::Strict => "strict ",
                        _ => "",
                    };
                    ApiError::bad_request(format!(
                        "error {strict}decoding YAML: error converting YAML to JSON: {why}"
                    ))
                })?;
                match validation {
                    FieldValidation::Strict if !twice.is_empty() => {
                        return Err(ApiError::bad_request(format!(
                            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
                            twice.join("\n  ")
                        )));
                    }
                    FieldValidation::Warn => self.request.warnings.lock().extend(twice),
                    _ => {}
                }
                patch
            }
            _ => serde_json::from_slice(&bytes)
                .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?,
        };
        if matches!(kind, PatchKind::Merge | PatchKind::Strategic) {
            api::patch::must_be_object(kind, &patch)?;
        }
        Ok((kind, patch))
    }

    /// Patches an object or one of its halves.
    pub async fn patch(&self, subresource: &str) -> ApiResult<Answer> {
        let (kind, patch) = self.read_patch().await?;
        let namespace = super::scope(self);
        let name = &self.target.name;
        let mut options = self.options()?;
        options.patch = Some((kind, patch.clone()));
        if kind != PatchKind::Apply {
            let writer = self.writer(options);
            let edit = |old: &Value| machinery::patched(&self.resource, kind, old, &patch);
            let edit = |old: &Value| {
                let new = edit(old)?;
                check_identity(old, &new)?;
                Ok(new)
            };
            let new = writer
                .update(&self.resource, &namespace, name, subresource, &edit)
                .await?;
            return Ok(self.answer(StatusCode::OK, &new));
        }
        if self.request.query.text("fieldManager").is_empty() {
            return Err(ApiError::new(
                422,
                "Invalid",
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        options.apply = true;
        let mut wanted = patch;
        crate::body::check_type(&self.resource, &mut wanted)?;
        if api::meta::name(&wanted).is_empty() {
            api::meta::set(&mut wanted, "name", name.clone());
        }
        if api::meta::name(&wanted) != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                api::meta::name(&wanted)
            )));
        }
        if !wanted["metadata"]["managedFields"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        machinery::declared(&self.resource, &namespace, &wanted)?;
        let writer = self.writer(options);
        let at = now();
        for _ in 0..8 {
            let exists = self
                .server
                .storage
                .cache()
                .get(&self.resource.key(&namespace, name))
                .is_some();
            if exists {
                let edit = |old: &Value| {
                    machinery::applied(
                        &self.resource,
                        Some(old),
                        &wanted,
                        &writer.options,
                        subresource,
                        &at,
                    )
                };
                match writer
                    .update(&self.resource, &namespace, name, subresource, &edit)
                    .await
                {
                    Err(e) if e.code == 404 => continue,
                    other => return Ok(self.answer(StatusCode::OK, &*other?)),
                }
            }
            if !subresource.is_empty() {
                return Err(self.resource.not_found(name));
            }
            let object =
                machinery::applied(&self.resource, None, &wanted, &writer.options, "", &at)?;
            match writer.create(&self.resource, &namespace, object).await {
                Err(e) if e.reason == "AlreadyExists" => {}
                other => return Ok(self.answer(StatusCode::CREATED, &*other?)),
            }
        }
        Err(ApiError::modified(
            &self.resource.group,
            &self.resource.plural,
            name,
        ))
    }
}

/// An applied configuration, and what is said of the keys that it has twice. Most are JSON, which is YAML and quicker read as what it is.
fn applied(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    if bytes.first() == Some(&b'{')
        && let Ok((value, twice)) = api::prune::json(bytes)
        && twice.is_empty()
    {
        return Ok((value, Vec::new()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("yaml: {e}"))?;
    api::go::yaml::read(text).map_err(|e| e.to_string())
}

/// A patch cannot turn an object into another one.
fn check_identity(old: &Value, new: &Value) -> ApiResult<()> {
    let (was, is) = (api::meta::name(old), api::meta::name(new));
    if was != is {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({is}) does not match the name on the URL ({was})"
        )));
    }
    Ok(())
}
