//! What a route does: headers, redirects, direct answers, mirrors.

use crate::proto::millionths;
use api::istio::{
    HeaderOperations, Headers, HttpDirectResponse, HttpMirrorPolicy, HttpRedirect, HttpRoute,
    Percent, RedirectPortSelection,
};
use xds::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, data_source,
    header_value_option::HeaderAppendAction,
};
use xds::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, redirect_action, route_action::RequestMirrorPolicy,
};
use xds::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

/// Header changes in Envoy's form.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeaderChanges {
    pub(crate) request_add: Vec<HeaderValueOption>,
    pub(crate) request_remove: Vec<String>,
    pub(crate) response_add: Vec<HeaderValueOption>,
    pub(crate) response_remove: Vec<String>,
    /// The authority that a request header change asks for.
    pub(crate) authority: Option<String>,
}

/// Reads header changes. The authority is no header for Envoy.
pub(crate) fn header_changes(headers: Option<&Headers>) -> HeaderChanges {
    let Some(headers) = headers else {
        return HeaderChanges::default();
    };
    let empty = HeaderOperations::default();
    let request = headers.request.as_ref().unwrap_or(&empty);
    let response = headers.response.as_ref().unwrap_or(&empty);
    let is_authority =
        |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    // An empty one asks for nothing.
    let authority = request
        .set
        .iter()
        .chain(&request.add)
        .find(|(name, value)| is_authority(name) && !value.is_empty())
        .map(|(_, value)| value.clone());
    HeaderChanges {
        request_add: additions(request),
        request_remove: removals(request),
        response_add: additions(response),
        response_remove: removals(response),
        authority,
    }
}

fn internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn removals(operations: &HeaderOperations) -> Vec<String> {
    operations
        .remove
        .iter()
        .filter(|name| !internal(name))
        .cloned()
        .collect()
}

fn additions(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let option = |name: &String, value: &String, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.clone(),
            value: value.clone(),
            ..Default::default()
        }),
        append_action: action as i32,
        ..Default::default()
    };
    let sets = operations
        .set
        .iter()
        .map(|entry| (entry, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let adds = operations
        .add
        .iter()
        .map(|entry| (entry, HeaderAppendAction::AppendIfExistsOrAdd));
    sets.chain(adds)
        .filter(|((name, _), _)| !internal(name))
        .map(|((name, value), action)| option(name, value, action))
        .collect()
}

/// A redirect; `None` if its status code is none that Envoy knows.
pub(crate) fn redirect(redirect: &HttpRedirect, port: u32, tls: bool) -> Option<RedirectAction> {
    use redirect_action::RedirectResponseCode as Code;
    let code = match redirect.redirect_code {
        0 | 301 => Code::MovedPermanently,
        302 => Code::Found,
        303 => Code::SeeOther,
        307 => Code::TemporaryRedirect,
        308 => Code::PermanentRedirect,
        _ => return None,
    };
    let mut out = RedirectAction {
        host_redirect: redirect.authority.clone(),
        response_code: code as i32,
        path_rewrite_specifier: Some(match &redirect.prefix_rewrite {
            Some(prefix) if redirect.uri.is_empty() => {
                redirect_action::PathRewriteSpecifier::PrefixRewrite(prefix.clone())
            }
            _ => redirect_action::PathRewriteSpecifier::PathRedirect(redirect.uri.clone()),
        }),
        ..Default::default()
    };
    if !redirect.scheme.is_empty() {
        out.scheme_rewrite_specifier = Some(
            redirect_action::SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.clone()),
        );
    }
    let from_request = redirect.derive_port == Some(RedirectPortSelection::FromRequestPort);
    if let Some(port) = redirect.port.or(from_request.then_some(port)) {
        // The usual port of the scheme is left out.
        let scheme = match redirect.scheme.as_str() {
            "" if tls => "https",
            "" => "http",
            scheme => scheme,
        };
        let usual = matches!((scheme, port), ("http", 80) | ("https", 443));
        out.port_redirect = if usual { 0 } else { port };
    }
    Some(out)
}

/// An answer made by the proxy.
pub(crate) fn direct_response(response: &HttpDirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().and_then(|body| {
        let specifier = match (&body.string, &body.bytes) {
            (Some(text), _) => data_source::Specifier::InlineString(text.clone()),
            (None, Some(encoded)) => {
                data_source::Specifier::InlineBytes(base64_decode(encoded)?.into())
            }
            (None, None) => return None,
        };
        Some(DataSource {
            specifier: Some(specifier),
            ..Default::default()
        })
    });
    DirectResponseAction {
        status: response.status,
        body,
        ..Default::default()
    }
}

/// Standard or URL-safe base64, with or without padding, as protobuf's JSON takes it.
pub(crate) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
        }
    }
    Some(out)
}

/// Mirrors of a rule, each with its share; a share of zero is no mirror.
pub(crate) fn mirrors(
    rule: &HttpRoute,
    cluster_of: impl Fn(&api::istio::Destination) -> String,
) -> Vec<RequestMirrorPolicy> {
    let mut out = Vec::new();
    if let Some(destination) = &rule.mirror {
        let share = match (&rule.mirror_percentage, rule.mirror_percent) {
            (Some(percentage), _) => share_of(percentage),
            (None, Some(0)) => None,
            (None, Some(percent)) => Some(hundredths(percent)),
            (None, None) => Some(hundredths(100)),
        };
        out.extend(share.map(|share| mirror(cluster_of(destination), share)));
    }
    for HttpMirrorPolicy {
        destination,
        percentage,
    } in &rule.mirrors
    {
        let share = percentage.as_ref().map_or(Some(hundredths(100)), share_of);
        out.extend(share.map(|share| mirror(cluster_of(destination), share)));
    }
    out
}

fn hundredths(percent: u32) -> FractionalPercent {
    FractionalPercent {
        numerator: percent,
        denominator: DenominatorType::Hundred as i32,
    }
}

fn share_of(percentage: &Percent) -> Option<FractionalPercent> {
    (percentage.value > 0.0).then(|| millionths(percentage.value))
}

fn mirror(cluster: String, share: FractionalPercent) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(share),
            ..Default::default()
        }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    }
}
