//! Compiling connection managers.

use std::time::Duration;

use xds::envoy::config::core::v3::HttpProtocolOptions;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager as config,
};

use super::{
    CertificateDetail, EscapedSlashes, ForwardClientCert, HttpConn, ServerHeader, Underscores,
};
use crate::address::Cidr;
use crate::cluster::duration;
use crate::error::ConfigError;

fn config_underscores(action: i32) -> Underscores {
    use xds::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction as Action;
    match Action::try_from(action) {
        Ok(Action::RejectRequest) => Underscores::Reject,
        Ok(Action::DropHeader) => Underscores::Drop,
        _ => Underscores::Allow,
    }
}

impl HttpConn {
    /// Compiles the settings.
    pub fn compile(hcm: &HttpConnectionManager) -> Result<Self, ConfigError> {
        use config::{
            ForwardClientCertDetails as Forward, PathWithEscapedSlashesAction as Slashes,
            ServerHeaderTransformation as Server,
        };
        let default = HttpProtocolOptions::default();
        let common = hcm
            .common_http_protocol_options
            .as_ref()
            .unwrap_or(&default);
        let limit = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        if !hcm.original_ip_detection_extensions.is_empty() {
            return Err(ConfigError::new(
                "original_ip_detection_extensions",
                "are not supported; use xff_num_trusted_hops",
            ));
        }
        if !hcm.early_header_mutation_extensions.is_empty() {
            return Err(ConfigError::new(
                "early_header_mutation_extensions",
                "are not supported",
            ));
        }
        let internal = hcm
            .internal_address_config
            .iter()
            .flat_map(|internal| &internal.cidr_ranges)
            .map(Cidr::compile);
        let details = hcm
            .set_current_client_cert_details
            .as_ref()
            .map_or(Vec::new(), |details| {
                [
                    (details.cert, CertificateDetail::Cert),
                    (details.subject.unwrap_or(false), CertificateDetail::Subject),
                    (details.uri, CertificateDetail::Uri),
                    (details.dns, CertificateDetail::Dns),
                    (details.issuer, CertificateDetail::Issuer),
                ]
                .into_iter()
                .filter_map(|(wanted, detail)| wanted.then_some(detail))
                .collect()
            });
        Ok(Self {
            node_address: None,
            underscores: config_underscores(common.headers_with_underscores_action),
            stat_prefix: hcm.stat_prefix.clone(),
            server_name: if hcm.server_name.is_empty() {
                "envoy".to_owned()
            } else {
                hcm.server_name.clone()
            },
            server_header: match Server::try_from(hcm.server_header_transformation) {
                Ok(Server::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
                Ok(Server::PassThrough) => ServerHeader::PassThrough,
                _ => ServerHeader::Overwrite,
            },
            use_remote_address: hcm.use_remote_address.unwrap_or(false),
            trusted_hops: hcm.xff_num_trusted_hops,
            skip_xff_append: hcm.skip_xff_append,
            append_forwarded_port: hcm.append_x_forwarded_port,
            normalize_path: hcm.normalize_path.unwrap_or(false),
            merge_slashes: hcm.merge_slashes,
            escaped_slashes: match Slashes::try_from(hcm.path_with_escaped_slashes_action) {
                Ok(Slashes::RejectRequest) => EscapedSlashes::Reject,
                Ok(Slashes::UnescapeAndRedirect) => EscapedSlashes::Redirect,
                Ok(Slashes::UnescapeAndForward) => EscapedSlashes::Forward,
                _ => EscapedSlashes::Keep,
            },
            forward_client_cert: match Forward::try_from(hcm.forward_client_cert_details) {
                Ok(Forward::ForwardOnly) => ForwardClientCert::ForwardOnly,
                Ok(Forward::AppendForward) => ForwardClientCert::AppendForward,
                Ok(Forward::SanitizeSet) => ForwardClientCert::SanitizeSet,
                Ok(Forward::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
                _ => ForwardClientCert::Sanitize,
            },
            generate_request_id: hcm.generate_request_id.unwrap_or(true),
            preserve_external_request_id: hcm.preserve_external_request_id,
            request_id_in_response: hcm.always_set_request_id_in_response,
            via: hcm.via.clone(),
            stream_idle_timeout: limit(Some(
                duration(hcm.stream_idle_timeout.as_ref()).unwrap_or(Duration::from_secs(300)),
            )),
            request_timeout: limit(duration(hcm.request_timeout.as_ref())),
            request_headers_timeout: limit(duration(hcm.request_headers_timeout.as_ref())),
            delayed_close_timeout: duration(hcm.delayed_close_timeout.as_ref())
                .unwrap_or(Duration::from_secs(1)),
            idle_timeout: limit(Some(
                duration(common.idle_timeout.as_ref()).unwrap_or(Duration::from_secs(3600)),
            )),
            max_connection_duration: limit(duration(common.max_connection_duration.as_ref())),
            max_stream_duration: limit(duration(common.max_stream_duration.as_ref())),
            max_requests_per_connection: common
                .max_requests_per_connection
                .filter(|max| *max > 0)
                .map(u64::from),
            max_request_headers_kb: hcm.max_request_headers_kb.unwrap_or(60),
            max_headers_count: common.max_headers_count.unwrap_or(100),
            accept_http10: hcm
                .http_protocol_options
                .as_ref()
                .is_some_and(|http1| http1.accept_http_10),
            proxy_100_continue: hcm.proxy_100_continue,
            upgrades: hcm
                .upgrade_configs
                .iter()
                .filter(|upgrade| upgrade.enabled.unwrap_or(true))
                .map(|upgrade| upgrade.upgrade_type.to_ascii_lowercase())
                .collect(),
            strip_any_port: matches!(
                hcm.strip_port_mode,
                Some(config::StripPortMode::StripAnyHostPort(true))
            ),
            strip_matching_port: hcm.strip_matching_host_port,
            strip_trailing_dot: hcm.strip_trailing_host_dot,
            internal: internal
                .collect::<Result<_, _>>()
                .map_err(|e| e.within("internal_address_config"))?,
            certificate_details: details,
        })
    }
}
