//! WorkloadGroup.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Problem, Validation, join, one};
use crate::{headers, names};

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let error = if !spec.has("template") {
        one("template is required")
    } else if let Some(problem) = names::labels(spec.sub("metadata"), "labels") {
        one(format!("invalid labels: {problem}"))
    } else {
        probe(spec.get("probe"))
    };
    Validation {
        error,
        warning: None,
    }
}

fn probe(probe: Option<Message<'_>>) -> Found {
    let probe = probe?;
    let mut errors = None;
    for field in [
        "periodSeconds",
        "initialDelaySeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if probe.int(field) < 0 {
            join(&mut errors, one(format!("{field} must be non-negative")));
        }
    }
    if let Some(http) = probe.get("httpGet") {
        join(&mut errors, names::port(http.int("port")));
        if !matches!(http.text("scheme"), "" | "HTTP" | "HTTPS") {
            join(
                &mut errors,
                one("httpGet.scheme must be one of \"HTTPS\", \"HTTP\""),
            );
        }
        for header in http.messages("httpHeaders") {
            join(&mut errors, headers::probe_name(header.text("name")));
        }
    } else if let Some(tcp) = probe.get("tcpSocket") {
        join(&mut errors, names::port(tcp.int("port")));
    } else if let Some(exec) = probe.get("exec") {
        if exec.list("command").is_empty() {
            join(&mut errors, one("exec.command is required"));
        }
    } else {
        let method = if probe.has("grpc") {
            "*v1alpha3.ReadinessProbe_Grpc"
        } else {
            "<nil>"
        };
        join(
            &mut errors,
            Some(Problem::One(format!(
                "unknown health check method {method}"
            ))),
        );
    }
    errors
}
