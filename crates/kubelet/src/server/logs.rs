//! `/containerLogs`.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{Shared, query_flag, query_values};
use crate::clock;
use crate::logs::ReadOptions;
use crate::pod_sync::roles;

/// Reads `kubectl logs`' parameters.
fn options(query: &str, now: clock::Millis) -> Result<ReadOptions, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        match query_values(query, name).pop() {
            Some(text) if !text.is_empty() => text.parse().map(Some).map_err(|_| {
                format!("invalid value {text:?} for {name}: must be a whole number, 0 or more")
            }),
            _ => Ok(None),
        }
    };
    let since_time = match query_values(query, "sinceTime").pop() {
        Some(text) if !text.is_empty() => Some(clock::parse(&text).ok_or_else(|| {
            format!("invalid value {text:?} for sinceTime: must be an RFC 3339 time")
        })?),
        _ => None,
    };
    let since_seconds =
        number("sinceSeconds")?.map(|seconds| now.saturating_sub(seconds.saturating_mul(1000)));
    Ok(ReadOptions {
        follow: query_flag(query, "follow"),
        tail: number("tailLines")?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        since: since_seconds.or(since_time),
        timestamps: query_flag(query, "timestamps"),
        previous: query_flag(query, "previous"),
        limit_bytes: number("limitBytes")?,
    })
}

pub(super) async fn container_logs(
    State(engine): Shared,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text).into_response();
    let options = match options(&query.unwrap_or_default(), clock::now()) {
        Ok(options) => options,
        Err(problem) => return bad(problem),
    };
    let Some(handle) = engine.find(&namespace, &name) else {
        return (StatusCode::NOT_FOUND, format!("pod {name:?} not found")).into_response();
    };
    let pod = handle.pod.read().clone();
    if !roles(&pod).any(|(_, known)| known.name == container) {
        return (
            StatusCode::NOT_FOUND,
            format!("container {container:?} not found in pod {name:?}"),
        )
            .into_response();
    }
    if !options.previous
        && let Some(reason) = waiting(&handle.status.read(), &container)
    {
        return bad(format!(
            "container {container:?} in pod {name:?} is waiting to start: {reason}"
        ));
    }
    match engine.logs.read(&handle.uid, &name, &container, options) {
        Ok(chunks) => {
            let stream = ReceiverStream::new(chunks).map(Ok::<_, std::convert::Infallible>);
            (
                [(header::CONTENT_TYPE, "text/plain")],
                Body::from_stream(stream),
            )
                .into_response()
        }
        Err(problem) => bad(problem.to_string()),
    }
}

/// Why a container that never ran has no log yet.
fn waiting(status: &serde_json::Value, container: &str) -> Option<String> {
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let status = statuses
        .iter()
        .filter_map(|field| status[*field].as_array())
        .flatten()
        .find(|status| status["name"] == container)?;
    let never_ran = status["containerID"].as_str().is_none_or(str::is_empty);
    let reason = status["state"]["waiting"]["reason"].as_str()?;
    let text = match reason {
        "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    never_ran.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_kubectl_logs() {
        let seen = options(
            "follow=true&tailLines=5&sinceSeconds=10&timestamps=true&limitBytes=9",
            100_000,
        )
        .unwrap();
        let expected = ReadOptions {
            follow: true,
            tail: Some(5),
            since: Some(90_000),
            timestamps: true,
            previous: false,
            limit_bytes: Some(9),
        };
        assert_eq!(seen, expected);
        assert_eq!(
            options("sinceTime=1970-01-01T00:00:07Z", 0).unwrap().since,
            Some(7_000)
        );
        assert!(
            options("tailLines=-1", 0)
                .unwrap_err()
                .contains("tailLines")
        );
        assert!(options("sinceTime=x", 0).unwrap_err().contains("RFC 3339"));
    }
}
