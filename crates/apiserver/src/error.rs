//! Refusals, and how failures of the store become them.

pub(crate) use api::status::StatusError as ApiError;

use crate::storage::WriteError;

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A write that did not happen, for the object it was about.
pub(crate) fn from_write(e: WriteError, group: &str, plural: &str, name: &str) -> ApiError {
    match e {
        WriteError::Exists => ApiError::already_exists(group, plural, name),
        WriteError::Missing => ApiError::not_found(group, plural, name),
        WriteError::Changed => ApiError::modified(group, plural, name),
        WriteError::Disk(why) => {
            ApiError::internal(format!("the object could not be written: {why}"))
        }
    }
}
