//! HTTP rules of a VirtualService.

use crate::message::Message;
use crate::names;
use crate::problem::{Found, Validation, join, one};
use crate::virtual_service::{destination, destinations, gateway_names, push_listed};
use crate::{headers, names::regex};
use api::field::quote;
use api::go::strconv::format_float;
use api::istio::GRPC_STATUSES;

pub(crate) fn validate(route: Message<'_>, delegate: bool, converted: bool) -> Validation {
    let mut v = Validation::default();
    v.errors(conflicts(route, delegate));
    v.errors(matches(route));
    v.errors(headers::operations(route.sub("headers")));
    v.errors(cors(route.get("corsPolicy")));
    v.errors(fault(route.get("fault")));
    mirror_shares(route, &mut v);
    v.errors(destination(route.get("mirror")));
    v.errors(mirrors(route));
    v.errors(redirect(route));
    v.add(direct_response(route.get("directResponse")));
    v.errors(retries(route.get("retries")));
    v.errors(rewrite(route.get("rewrite")));
    v.errors(one_authority(route));
    v.errors(destinations(route, converted, |entry| {
        headers::operations(entry.sub("headers"))
    }));
    v.errors(names::duration(route, "timeout"));
    v
}

/// What excludes each other.
fn conflicts(route: Message<'_>, delegate: bool) -> Found {
    let mut errors = None;
    let mut fail = |text: &str| join(&mut errors, one(text));
    let routes = !route.list("route").is_empty();
    if !delegate && route.has("delegate") {
        let name = route.text("name");
        if route.has("redirect") {
            fail(&format!("root HTTP route {name} must not specify redirect"));
        }
        if routes {
            fail(&format!("root HTTP route {name} must not specify route"));
        }
        return errors;
    }
    if route.has("delegate") {
        fail("delegate HTTP route cannot contain delegate");
    }
    let (redirect, direct) = (route.has("redirect"), route.has("directResponse"));
    if redirect || direct {
        let what = if redirect {
            "redirect"
        } else {
            "direct_response"
        };
        if routes {
            fail(&format!("HTTP route cannot contain both route and {what}"));
        }
        if route.has("fault") {
            fail(&format!("HTTP route cannot contain both fault and {what}"));
        }
        if route.has("rewrite") {
            fail(&format!(
                "HTTP route rule cannot contain both rewrite and {what}"
            ));
        }
        if redirect && direct {
            fail("HTTP route rule cannot contain both direct_response and redirect");
        }
    } else if !routes {
        fail("HTTP route, redirect or direct_response is required");
    }
    if route.has("mirror") && !route.list("mirrors").is_empty() {
        fail("HTTP route cannot contain both mirror and mirrors");
    }
    errors
}

/// The regular expression of a match, if it is one.
fn match_regex(matched: Message<'_>, place: &str) -> Found {
    let expression = matched.maybe_text("regex")?;
    if expression.is_empty() {
        return one(format!(
            "{}: regex string match should not be empty",
            quote(place)
        ));
    }
    regex(expression, place)
}

fn string_match(matched: Message<'_>, place: &str) -> Found {
    if matched.maybe_text("prefix") == Some("") {
        return one(format!(
            "{}: prefix string match should not be empty",
            quote(place)
        ));
    }
    match_regex(matched, place)
}

fn matches(route: Message<'_>) -> Found {
    let mut errors = None;
    for matched in route.messages("match") {
        for (name, header) in matched.entries("headers") {
            join(&mut errors, headers::match_name(name));
            join(&mut errors, string_match(header, "headers"));
        }
        for (name, header) in matched.entries("withoutHeaders") {
            join(&mut errors, headers::match_name(name));
            // `*` is no expression here: it means that the header is there.
            if header.text("regex") != "*" {
                join(&mut errors, string_match(header, "withoutHeaders"));
            }
        }
        // The prefix of a path may be empty.
        join(&mut errors, match_regex(matched.sub("uri"), "uri"));
        for field in ["scheme", "method", "authority"] {
            join(&mut errors, string_match(matched.sub(field), field));
        }
        for (_, parameter) in matched.entries("queryParams") {
            join(&mut errors, string_match(parameter, "queryParams"));
        }
    }
    for matched in route.messages("match") {
        let port = matched.int("port");
        if port != 0 {
            join(&mut errors, names::port(port));
        }
        join(&mut errors, names::labels(matched, "sourceLabels"));
        join(
            &mut errors,
            gateway_names(&matched.texts("gateways"), false).error,
        );
        let namespace = matched.text("sourceNamespace");
        if !namespace.is_empty() && !names::is_dns_label(namespace) {
            join(
                &mut errors,
                one(format!("sourceNamespace match {namespace} is invalid")),
            );
        }
    }
    errors
}

fn cors(policy: Option<Message<'_>>) -> Found {
    const METHODS: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
    ];
    let policy = policy?;
    let mut errors = None;
    for origin in policy.messages("allowOrigins") {
        let empty = ["exact", "prefix", "regex"]
            .into_iter()
            .all(|kind| origin.text(kind).is_empty());
        join(
            &mut errors,
            if empty {
                one("'' is not a valid match type for CORS allow origins")
            } else {
                match_regex(origin, "corsPolicy.allowOrigins")
            },
        );
    }
    for method in policy.texts("allowMethods") {
        if !METHODS.contains(&method) {
            join(
                &mut errors,
                one(format!("{} is not a supported HTTP method", quote(method))),
            );
        }
    }
    for field in ["allowHeaders", "exposeHeaders"] {
        for name in policy.texts(field) {
            join(&mut errors, headers::cors_name(name));
        }
    }
    if let Some(age) = policy.duration("maxAge") {
        join(&mut errors, names::duration(policy, "maxAge"));
        if age % 1_000_000_000 > 0 {
            push_listed(
                &mut errors,
                "max_age duration is accurate only to seconds precision",
            );
        }
    }
    errors
}

fn percentage(message: Message<'_>) -> Found {
    let value = message.get("percentage")?.number("value");
    if (0.0..=100.0).contains(&value) && !(value > 0.0 && value < 0.0001) {
        return None;
    }
    one(format!(
        "percentage {} is neither 0.0, nor in range [0.0001, 100.0]",
        format_float(value)
    ))
}

fn http_status(status: i64) -> Found {
    if (200..=600).contains(&status) {
        None
    } else {
        one(format!("HTTP status {status} is not in range 200-599"))
    }
}

/// The warning of an abort without an error is not heard.
fn fault(fault: Option<Message<'_>>) -> Found {
    let fault = fault?;
    let mut errors = None;
    if !fault.has("abort") && !fault.has("delay") {
        push_listed(
            &mut errors,
            "HTTP fault injection must have an abort and/or a delay",
        );
    }
    if let Some(abort) = fault.get("abort") {
        join(&mut errors, percentage(abort));
        if let Some(status) = abort.maybe_text("grpcStatus") {
            if !GRPC_STATUSES.contains(&status) {
                join(
                    &mut errors,
                    one(format!(
                        "gRPC status {} is not supported. See https://github.com/grpc/grpc/blob/master/doc/statuscodes.md for a list of supported codes, for example 'NOT_FOUND'",
                        quote(status)
                    )),
                );
            }
        } else if abort.has("http2Error") {
            join(
                &mut errors,
                one("HTTP/2 abort fault injection not supported yet"),
            );
        } else if let Some(status) = abort.maybe_int("httpStatus") {
            join(&mut errors, http_status(status));
        }
    }
    if let Some(delay) = fault.get("delay") {
        join(&mut errors, percentage(delay));
        if delay.has("fixedDelay") {
            join(&mut errors, names::duration(delay, "fixedDelay"));
        } else if delay.has("exponentialDelay") {
            join(&mut errors, names::duration(delay, "exponentialDelay"));
            push_listed(&mut errors, "exponentialDelay not supported yet");
        }
    }
    errors
}

fn share(what: &str, value: f64, v: &mut Found) {
    if value > 100.0 {
        join(
            v,
            one(format!(
                "{what} must have a max value of 100 (it has {value:.6})"
            )),
        );
    }
    if value < 0.0 {
        join(
            v,
            one(format!(
                "{what} must have a min value of 0 (it has {value:.6})"
            )),
        );
    }
}

fn mirror_shares(route: Message<'_>, v: &mut Validation) {
    if let Some(percent) = route.maybe_int("mirrorPercent") {
        if percent > 100 {
            v.fail(format!(
                "mirror_percent must have a max value of 100 (it has {percent})"
            ));
        }
        v.warn("using deprecated setting \"mirrorPercent\", use \"mirrorPercentage\" instead");
    }
    if let Some(percentage) = route.get("mirrorPercentage") {
        share(
            "mirror_percentage",
            percentage.number("value"),
            &mut v.error,
        );
    }
}

fn mirrors(route: Message<'_>) -> Found {
    let mut errors = None;
    for mirror in route.messages("mirrors") {
        let Some(to) = mirror.get("destination") else {
            join(&mut errors, one("destination is required for mirrors"));
            continue;
        };
        join(&mut errors, destination(Some(to)));
        if let Some(percentage) = mirror.get("percentage") {
            share("mirror percentage", percentage.number("value"), &mut errors);
        }
    }
    // All mirrors of a rule are one text.
    errors.and_then(|problem| one(problem.to_string()))
}

/// The first mistake of a redirect.
fn redirect(route: Message<'_>) -> Found {
    let redirect = route.get("redirect")?;
    let set = |field: &str| !redirect.text(field).is_empty();
    if set("uri") && set("prefixRewrite") {
        return one("redirect may only specify one of uri or prefix_rewrite");
    }
    if set("prefixRewrite")
        && route
            .messages("match")
            .filter_map(|m| m.get("uri"))
            .any(|uri| !uri.has("prefix"))
    {
        return one("redirect prefix_rewrite requires all URI matches to use prefix match type");
    }
    let port = redirect.has("port") || redirect.has("derivePort");
    if !port
        && !["uri", "prefixRewrite", "authority", "scheme"]
            .into_iter()
            .any(set)
    {
        return one("redirect must specify URI, authority, scheme, or port");
    }
    let code = redirect.int("redirectCode");
    if code != 0 && !(300..=399).contains(&code) {
        return one(format!("{code} is not a valid redirect code, must be 3xx"));
    }
    if !matches!(redirect.text("scheme"), "" | "http" | "https") {
        return one("invalid redirect scheme, must be \"http\" or \"https\"");
    }
    match redirect.int("port") {
        0 => None,
        port => names::port(port),
    }
}

fn direct_response(response: Option<Message<'_>>) -> Validation {
    const LARGE: &str = "large direct_responses may impact control plane performance";
    let mut v = Validation::default();
    let Some(response) = response else { return v };
    let body = response.sub("body");
    let size = match body.maybe_text("string") {
        Some(text) => text.len(),
        // Three bytes from four characters.
        None => {
            let text = body.text("bytes");
            text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count()
        }
    };
    if size > 1024 * 1024 {
        v.fail(format!("{LARGE}, must be less than 1MB"));
    } else if size > 100 * 1024 {
        v.warn(LARGE);
    }
    v.errors(http_status(response.int("status")));
    v
}

fn retries(retries: Option<Message<'_>>) -> Found {
    const CONDITIONS: [&str; 16] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let retries = retries?;
    let mut errors = None;
    let attempts = retries.int("attempts");
    if attempts < 0 {
        push_listed(&mut errors, "attempts cannot be negative");
    }
    let conditions = retries.text("retryOn");
    if attempts == 0
        && (retries.has("perTryTimeout")
            || !conditions.is_empty()
            || retries.has("retryRemoteLocalities"))
    {
        join(
            &mut errors,
            one("http retry policy configured when attempts are set to 0 (disabled)"),
        );
    }
    join(&mut errors, names::duration(retries, "perTryTimeout"));
    if !conditions.is_empty() {
        for condition in conditions.split(',') {
            if !is_status(condition) && !CONDITIONS.contains(&condition) {
                join(
                    &mut errors,
                    one(format!(
                        "{} is not a valid retryOn policy",
                        quote(condition)
                    )),
                );
            }
        }
    }
    join(&mut errors, names::duration(retries, "backoff"));
    errors
}

/// A status code that has a name.
fn is_status(text: &str) -> bool {
    matches!(
        api::go::strconv::atoi(text),
        Ok(
            100..=103
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=418
            | 421..=426
            | 428
            | 429
            | 431
            | 451
            | 500..=508
            | 510
            | 511,
        )
    )
}

/// The first mistake of a rewrite.
fn rewrite(rewrite: Option<Message<'_>>) -> Found {
    let rewrite = rewrite?;
    let by_regex = rewrite.get("uriRegexRewrite");
    let uri = !rewrite.text("uri").is_empty();
    if uri && by_regex.is_some() {
        return one("rewrite may only contain one of URI or UriRegexRewrite");
    }
    if !uri && by_regex.is_none() && rewrite.text("authority").is_empty() {
        return one(
            "rewrite must specify at least one of URI, UriRegexRewrite, or authority. Only one of URI or UriRegexRewrite may be specified",
        );
    }
    let by_regex = by_regex?;
    let (pattern, replacement) = (by_regex.text("match"), by_regex.text("rewrite"));
    let problem = if pattern.is_empty() || replacement.is_empty() {
        "UriRegexRewrite requires both Rewrite and Match fields to be specified".to_string()
    } else {
        regex(pattern, "HTTPRewrite.UriRegexRewrite.Match")?.to_string()
    };
    one(format!("UriRegexRewrite has errors\n{problem}"))
}

/// The authority is changed in one place only.
fn one_authority(route: Message<'_>) -> Found {
    let mut current = route.sub("rewrite").text("authority");
    let request = route.sub("headers").sub("request");
    for field in ["set", "add"] {
        for (name, value) in request.entries(field) {
            if !headers::is_authority(name) {
                continue;
            }
            let value = value.own_text();
            if !current.is_empty() {
                return one(format!(
                    "authority header cannot be set multiple times: have {}, attempting to set {}",
                    quote(current),
                    quote(value)
                ));
            }
            current = value;
        }
    }
    None
}
