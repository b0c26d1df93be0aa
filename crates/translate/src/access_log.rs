//! Access logs of filter chains and listeners.

use crate::Snapshot;
use crate::context::ListenerClass;
use crate::proto::json_struct;
use crate::telemetry::{AccessLogSpec, Telemetry};
use api::istio::{AccessLogEncoding, ExtensionProvider, FileAccessLogProvider};
use serde_json::{Map, Value, json};
use xds::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, access_log,
    access_log_filter::FilterSpecifier, extension_filter,
};
use xds::envoy::config::core::v3::{
    DataSource, GrpcService, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig,
    data_source, grpc_service, substitution_format_string::Format,
};
use xds::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use xds::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::opentelemetry::proto::common::v1 as otel;

const TEXT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

const JSON_FORMAT: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// Filter state about the two sides, for access log services.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];

/// Filter state that Istio's filters leave about the two sides.
const OTEL_FILTER_STATE: [&str; 6] = [
    "upstream_peer",
    "downstream_peer",
    "wasm.upstream_peer",
    "wasm.upstream_peer_id",
    "wasm.downstream_peer",
    "wasm.downstream_peer_id",
];

/// A log and what it needs to know to become one of a listener.
#[derive(Debug, Clone)]
struct Log {
    log: AccessLog,
    filter: Option<AccessLogFilter>,
}

/// Where a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Http,
    Tcp,
    /// Connections without a filter chain.
    Listener,
}

/// The logs of a proxy, by class of listener.
#[derive(Debug, Default)]
pub(crate) struct AccessLogs {
    outbound: Vec<Log>,
    inbound: Vec<Log>,
    gateway: Vec<Log>,
    /// Classes for which the mesh configuration speaks and wants its log service (`enableEnvoyAccessLogService`), too.
    mesh_service: Vec<ListenerClass>,
    listener_logs: bool,
}

impl AccessLogs {
    pub(crate) fn new(snapshot: &Snapshot, telemetry: &Telemetry<'_>) -> Self {
        let mut out = Self {
            listener_logs: !snapshot.mesh.disable_envoy_listener_log,
            ..Self::default()
        };
        for class in [
            ListenerClass::SidecarOutbound,
            ListenerClass::SidecarInbound,
            ListenerClass::Gateway,
        ] {
            let known: Vec<(Log, AccessLogSpec<'_>)> = telemetry
                .access_logs(class)
                .into_iter()
                .filter_map(|spec| Some((provider_log(snapshot, spec.provider)?, spec)))
                .collect();
            let logs = if known.is_empty() {
                if snapshot.mesh.enable_envoy_access_log_service {
                    out.mesh_service.push(class);
                }
                mesh_file(snapshot).into_iter().collect()
            } else {
                known
                    .into_iter()
                    .filter(|(_, spec)| !spec.disabled)
                    .map(|(log, spec)| filtered(log, spec.filter))
                    .collect()
            };
            match class {
                ListenerClass::SidecarOutbound => out.outbound = logs,
                ListenerClass::SidecarInbound => out.inbound = logs,
                ListenerClass::Gateway => out.gateway = logs,
            }
        }
        out
    }

    fn of(&self, class: ListenerClass) -> &[Log] {
        match class {
            ListenerClass::SidecarOutbound => &self.outbound,
            ListenerClass::SidecarInbound => &self.inbound,
            ListenerClass::Gateway => &self.gateway,
        }
    }

    fn service(&self, class: ListenerClass, place: Place) -> Option<AccessLog> {
        self.mesh_service
            .contains(&class)
            .then(|| mesh_service(place))
    }

    /// Logs of requests.
    pub(crate) fn http(&self, class: ListenerClass) -> Vec<AccessLog> {
        self.chain(class, Place::Http)
    }

    /// Logs of connections.
    pub(crate) fn tcp(&self, class: ListenerClass) -> Vec<AccessLog> {
        self.chain(class, Place::Tcp)
    }

    fn chain(&self, class: ListenerClass, place: Place) -> Vec<AccessLog> {
        let own = self.of(class).iter();
        own.map(|log| with_filter(log, log.filter.clone()))
            .chain(self.service(class, place))
            .collect()
    }

    /// Logs of connections for which a listener has no filter chain.
    pub(crate) fn listener(&self, class: ListenerClass) -> Vec<AccessLog> {
        if !self.listener_logs {
            return Vec::new();
        }
        let own = self.of(class).iter();
        own.map(|log| {
            let filter = match &log.filter {
                None => no_chain(),
                Some(own) => AccessLogFilter {
                    filter_specifier: Some(FilterSpecifier::AndFilter(AndFilter {
                        filters: vec![no_chain(), own.clone()],
                    })),
                },
            };
            with_filter(log, Some(filter))
        })
        .chain(self.service(class, Place::Listener))
        .collect()
    }
}

/// There was no filter chain for a connection.
fn no_chain() -> AccessLogFilter {
    AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    }
}

/// The log service of the mesh configuration. Its cluster is one of the bootstrap.
fn mesh_service(place: Place) -> AccessLog {
    let name = match place {
        Place::Http => "http_envoy_accesslog",
        Place::Tcp => "tcp_envoy_accesslog",
        Place::Listener => "listener_envoy_accesslog",
    };
    let grpc = grpc_service::EnvoyGrpc {
        cluster_name: "envoy_accesslog_service".to_owned(),
        ..Default::default()
    };
    let common_config = Some(common_config(
        grpc,
        name,
        OTEL_FILTER_STATE.map(str::to_owned).to_vec(),
    ));
    if place == Place::Http {
        let config = HttpGrpcAccessLogConfig {
            common_config,
            ..Default::default()
        };
        return log("envoy.access_loggers.http_grpc", xds::any::pack(&config));
    }
    let config = TcpGrpcAccessLogConfig { common_config };
    AccessLog {
        filter: (place == Place::Listener).then(no_chain),
        ..log("envoy.tcp_grpc_access_log", xds::any::pack(&config))
    }
}

fn with_filter(log: &Log, filter: Option<AccessLogFilter>) -> AccessLog {
    AccessLog {
        filter,
        ..log.log.clone()
    }
}

fn log(name: &str, config: xds::prost_types::Any) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// The log file of the mesh configuration.
fn mesh_file(snapshot: &Snapshot) -> Option<Log> {
    let mesh = &snapshot.mesh;
    if mesh.access_log_file.is_empty() {
        return None;
    }
    Some(file(&mesh.access_log_file, mesh_format(snapshot)))
}

/// The format that the mesh says.
fn mesh_format(snapshot: &Snapshot) -> SubstitutionFormatString {
    let mesh = &snapshot.mesh;
    match mesh.access_log_encoding {
        AccessLogEncoding::Text if mesh.access_log_format.is_empty() => text_format(TEXT_FORMAT),
        AccessLogEncoding::Text => text_format(&with_newline(&mesh.access_log_format)),
        AccessLogEncoding::Json => {
            let custom = serde_json::from_str::<Map<String, Value>>(&mesh.access_log_format).ok();
            json_format(&custom.unwrap_or_else(default_json))
        }
    }
}

fn with_newline(format: &str) -> String {
    if format.ends_with('\n') {
        format.to_owned()
    } else {
        format!("{format}\n")
    }
}

fn default_json() -> Map<String, Value> {
    JSON_FORMAT
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect()
}

fn text_format(format: &str) -> SubstitutionFormatString {
    let source = DataSource {
        specifier: Some(data_source::Specifier::InlineString(format.to_owned())),
        ..Default::default()
    };
    SubstitutionFormatString {
        format: Some(Format::TextFormatSource(source)),
        formatters: formatters(format),
        ..Default::default()
    }
}

fn json_format(fields: &Map<String, Value>) -> SubstitutionFormatString {
    let texts: Vec<&str> = fields.values().filter_map(Value::as_str).collect();
    SubstitutionFormatString {
        format: Some(Format::JsonFormat(json_struct(fields))),
        json_format_options: Some(JsonFormatOptions::default()),
        formatters: formatters(&texts.join("\n")),
        ..Default::default()
    }
}

/// Commands that need an extension of their own.
fn formatters(format: &str) -> Vec<TypedExtensionConfig> {
    if !format.contains("%REQ_WITHOUT_QUERY") {
        return Vec::new();
    }
    vec![TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".to_owned(),
        typed_config: Some(xds::any::pack(
            &xds::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery {},
        )),
    }]
}

fn file(path: &str, format: SubstitutionFormatString) -> Log {
    let config = FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    Log {
        log: log("envoy.access_loggers.file", xds::any::pack(&config)),
        filter: None,
    }
}

fn filtered(mut log: Log, expression: Option<&str>) -> Log {
    let Some(expression) = expression else {
        return log;
    };
    let cel = ExpressionFilter {
        expression: expression.to_owned(),
        ..Default::default()
    };
    log.filter = Some(AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(xds::any::pack(
                &cel,
            ))),
        })),
    });
    log
}

/// The log of a provider; `None` for providers of other things, and where the service is not known.
fn provider_log(snapshot: &Snapshot, provider: &ExtensionProvider) -> Option<Log> {
    if let Some(settings) = &provider.envoy_file_access_log {
        return Some(provider_file(snapshot, &provider.name, settings));
    }
    if let Some(als) = &provider.envoy_http_als {
        let common = grpc_config(
            snapshot,
            &als.service,
            als.port,
            &als.log_name,
            "http_envoy_accesslog",
            &als.filter_state_objects_to_log,
        )?;
        let config = HttpGrpcAccessLogConfig {
            common_config: Some(common),
            additional_request_headers_to_log: als.additional_request_headers_to_log.clone(),
            additional_response_headers_to_log: als.additional_response_headers_to_log.clone(),
            additional_response_trailers_to_log: als.additional_response_trailers_to_log.clone(),
        };
        let log = log("envoy.access_loggers.http_grpc", xds::any::pack(&config));
        return Some(Log { log, filter: None });
    }
    if let Some(als) = &provider.envoy_tcp_als {
        let common = grpc_config(
            snapshot,
            &als.service,
            als.port,
            &als.log_name,
            "tcp_envoy_accesslog",
            &als.filter_state_objects_to_log,
        )?;
        let config = TcpGrpcAccessLogConfig {
            common_config: Some(common),
        };
        let log = log("envoy.tcp_grpc_access_log", xds::any::pack(&config));
        return Some(Log { log, filter: None });
    }
    if let Some(als) = &provider.envoy_otel_als {
        let common = grpc_config(
            snapshot,
            &als.service,
            als.port,
            &als.log_name,
            "otel_envoy_accesslog",
            &OTEL_FILTER_STATE.map(str::to_owned),
        )?;
        let format = als.log_format.as_ref();
        let body = format
            .map(|format| format.text.clone())
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| TEXT_FORMAT.to_owned());
        let string = |text: String| otel::AnyValue {
            value: Some(otel::any_value::Value::StringValue(text)),
        };
        let labels = format.map(|format| &format.labels);
        let values = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let value = Some(string(value.as_str().unwrap_or_default().to_owned()));
                (
                    key,
                    otel::KeyValue {
                        key: key.clone(),
                        value,
                        ..Default::default()
                    },
                )
            })
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_values()
            .collect::<Vec<_>>();
        let texts = labels.into_iter().flat_map(|labels| labels.values());
        let mut texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
        texts.push(&body);
        let formatters = formatters(&texts.join("\n"));
        #[allow(deprecated)] // istiod still writes common_config
        let config = OpenTelemetryAccessLogConfig {
            common_config: Some(common),
            disable_builtin_labels: true,
            body: Some(string(body)),
            attributes: (!values.is_empty()).then_some(otel::KeyValueList { values }),
            formatters,
            ..Default::default()
        };
        let log = log(
            "envoy.access_loggers.open_telemetry",
            xds::any::pack(&config),
        );
        return Some(Log { log, filter: None });
    }
    None
}

fn provider_file(snapshot: &Snapshot, name: &str, settings: &FileAccessLogProvider) -> Log {
    let mut format = match &settings.log_format {
        Some(format) => match (&format.labels, &format.text) {
            (Some(labels), _) if labels.is_empty() => json_format(&default_json()),
            (Some(labels), _) => json_format(labels),
            (None, Some(text)) if !text.is_empty() => text_format(&with_newline(text)),
            _ => text_format(TEXT_FORMAT),
        },
        // The provider that is always there.
        None if name == "envoy" && !settings.omit_empty_values => mesh_format(snapshot),
        None => text_format(TEXT_FORMAT),
    };
    format.omit_empty_values = settings.omit_empty_values;
    let path = if settings.path.is_empty() {
        "/dev/stdout"
    } else {
        &settings.path
    };
    file(path, format)
}

fn grpc_config(
    snapshot: &Snapshot,
    service: &str,
    port: u32,
    log_name: &str,
    default_name: &str,
    filter_state: &[String],
) -> Option<CommonGrpcAccessLogConfig> {
    let (cluster, authority) = crate::telemetry::provider_cluster(snapshot, service, port)?;
    let grpc = grpc_service::EnvoyGrpc {
        cluster_name: cluster,
        authority,
        ..Default::default()
    };
    let log_name = if log_name.is_empty() {
        default_name
    } else {
        log_name
    };
    let filter_state = if filter_state.is_empty() {
        PEERS.map(str::to_owned).to_vec()
    } else {
        filter_state.to_vec()
    };
    Some(common_config(grpc, log_name, filter_state))
}

fn common_config(
    grpc: grpc_service::EnvoyGrpc,
    log_name: &str,
    filter_state: Vec<String>,
) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }),
        transport_api_version: xds::envoy::config::core::v3::ApiVersion::V3 as i32,
        filter_state_objects_to_log: filter_state,
        ..Default::default()
    }
}
