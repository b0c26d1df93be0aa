//! The tracing block of HTTP connection managers.

use crate::context::{Context, ListenerClass};
use crate::proto::{duration, percent, seconds};
use crate::registry::canonical_name;
use api::istio::{CustomTag, OpenTelemetryProvider, OtlpHttp, ProviderHttpHeader};
use std::collections::BTreeMap;
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, HttpUri, TypedExtensionConfig, grpc_service,
    http_uri,
};
use xds::envoy::config::trace::v3 as trace;
use xds::envoy::extensions::tracers::opentelemetry::resource_detectors::v3 as detectors;
use xds::envoy::extensions::tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use xds::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_key, metadata_kind};
use xds::envoy::r#type::tracing::v3 as tags;

/// The block, and whether request ids carry the decision; without a block they do.
pub(crate) fn block(context: &Context<'_>, class: ListenerClass) -> (Option<Tracing>, bool) {
    let spec = context.telemetry.tracing(class);
    let by_request_id = spec.use_request_id.unwrap_or(true);
    if context.snapshot.mesh.enable_tracing == Some(false) && !spec.configured || spec.disabled {
        return (None, true);
    }
    let own = context.proxy_config.tracing.as_ref();
    let configured = own
        .and_then(|own| own.sampling)
        .filter(|sampling| *sampling != 0.0)
        .map(|sampling| if sampling > 100.0 { 1.0 } else { sampling });
    let sampling = spec
        .sampling
        .or(configured)
        .unwrap_or(context.snapshot.trace_sampling);
    let mut out = Tracing {
        client_sampling: Some(percent(100.0)),
        random_sampling: Some(percent(sampling)),
        overall_sampling: Some(percent(100.0)),
        no_context_propagation: spec.no_context_propagation.unwrap_or(false),
        ..Default::default()
    };
    if let Some(length) = own
        .map(|own| own.max_path_tag_length)
        .filter(|length| *length != 0)
    {
        out.max_path_tag_length = Some(length);
    }
    if spec.configured {
        let Some(provider) = spec.provider else {
            return (None, true);
        };
        let Some((config, max_length)) = provider_config(context, provider) else {
            return (None, true);
        };
        out.provider = Some(config);
        if let Some(length) = max_length.filter(|length| *length != 0) {
            out.max_path_tag_length = Some(length);
        }
        let sampler = |otel: &OpenTelemetryProvider| otel.dynatrace_sampler.is_some();
        if provider.opentelemetry.as_ref().is_some_and(sampler) {
            // Every span reaches the sampler, which decides.
            out.random_sampling = Some(percent(100.0));
        }
        if class == ListenerClass::Gateway || provider.skywalking.is_some() {
            out.spawn_upstream_span = Some(true);
        }
    }
    let istio_tags = spec
        .istio_tags
        .or(own.and_then(|own| own.enable_istio_tags))
        .unwrap_or(true);
    let custom = spec.tags.or(own.map(|own| &own.custom_tags));
    out.custom_tags = custom_tags(context, istio_tags, custom);
    (Some(out), by_request_id)
}

fn custom_tags(
    context: &Context<'_>,
    istio_tags: bool,
    custom: Option<&BTreeMap<String, CustomTag>>,
) -> Vec<tags::CustomTag> {
    let mut out: Vec<(String, tags::custom_tag::Type)> = Vec::new();
    let literal = |value: &str| {
        tags::custom_tag::Type::Literal(tags::custom_tag::Literal {
            value: value.to_owned(),
        })
    };
    if istio_tags {
        let proxy = context.proxy;
        let label = |name: &str| proxy.label(&format!("service.istio.io/{name}"));
        for (tag, value, without) in [
            ("canonical_revision", label("canonical-revision"), "latest"),
            ("canonical_service", label("canonical-name"), "unknown"),
            ("mesh_id", &proxy.mesh_id, "unknown"),
            ("namespace", &proxy.namespace, "default"),
            ("cluster_id", &proxy.cluster, "unknown"),
        ] {
            let value = if value.is_empty() { without } else { value };
            out.push((format!("istio.{tag}"), literal(value)));
        }
        for action in ["allow", "deny"] {
            for (part, key) in [
                ("name", "shadow_effective_policy_id"),
                ("result", "shadow_engine_result"),
            ] {
                let path = format!("istio_dry_run_{action}_{key}");
                let tag = format!("istio.authorization.dry_run.{action}_policy.{part}");
                out.push((tag, rbac_metadata(&path)));
            }
        }
    }
    for (name, tag) in custom.into_iter().flatten() {
        let kind = if let Some(tag) = &tag.literal {
            literal(&tag.value)
        } else if let Some(tag) = &tag.environment {
            tags::custom_tag::Type::Environment(tags::custom_tag::Environment {
                name: tag.name.clone(),
                default_value: tag.default_value.clone(),
            })
        } else if let Some(tag) = &tag.header {
            tags::custom_tag::Type::RequestHeader(tags::custom_tag::Header {
                name: tag.name.clone(),
                default_value: tag.default_value.clone(),
            })
        } else if let Some(tag) = &tag.formatter {
            tags::custom_tag::Type::Value(tag.value.clone())
        } else {
            continue;
        };
        out.push((name.clone(), kind));
    }
    // A tag of the same name as one of Istio's own comes after it.
    out.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.into_iter()
        .map(|(tag, kind)| tags::CustomTag {
            tag,
            r#type: Some(kind),
        })
        .collect()
}

fn rbac_metadata(path: &str) -> tags::custom_tag::Type {
    tags::custom_tag::Type::Metadata(tags::custom_tag::Metadata {
        kind: Some(MetadataKind {
            kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})),
        }),
        metadata_key: Some(MetadataKey {
            key: "envoy.filters.http.rbac".to_owned(),
            path: vec![metadata_key::PathSegment {
                segment: Some(metadata_key::path_segment::Segment::Key(path.to_owned())),
            }],
        }),
        ..Default::default()
    })
}

/// The tracer of a provider and its longest tag; `None` if its service is unknown or it is of another kind.
fn provider_config(
    context: &Context<'_>,
    provider: &api::istio::ExtensionProvider,
) -> Option<(trace::tracing::Http, Option<u32>)> {
    let http = |name: &str, config: xds::prost_types::Any| trace::tracing::Http {
        name: name.to_owned(),
        config_type: Some(trace::tracing::http::ConfigType::TypedConfig(config)),
    };
    let cluster = |service: &str, port: u32| {
        crate::telemetry::provider_cluster(context.snapshot, service, port)
    };
    if let Some(zipkin) = &provider.zipkin {
        let (cluster, host) = cluster(&zipkin.service, zipkin.port)?;
        let path = if zipkin.path.is_empty() {
            "/api/v2/spans"
        } else {
            &zipkin.path
        };
        #[allow(deprecated)] // Envoy still wants the version of the endpoint
        let config = trace::ZipkinConfig {
            collector_endpoint_version: trace::zipkin_config::CollectorEndpointVersion::HttpJson
                as i32,
            trace_id_128bit: !zipkin.enable_64bit_trace_id,
            shared_span_context: Some(false),
            collector_service: Some(xds::envoy::config::core::v3::HttpService {
                http_uri: Some(HttpUri {
                    uri: format!("http://{host}{path}"),
                    timeout: Some(zipkin.timeout.map_or(seconds(5), duration)),
                    http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster)),
                }),
                request_headers_to_add: headers(&zipkin.headers),
                ..Default::default()
            }),
            trace_context_option: if zipkin.trace_context_option == "USE_B3_WITH_W3C_PROPAGATION" {
                trace::zipkin_config::TraceContextOption::UseB3WithW3cPropagation
            } else {
                trace::zipkin_config::TraceContextOption::UseB3
            } as i32,
            ..Default::default()
        };
        return Some((
            http("envoy.tracers.zipkin", xds::any::pack(&config)),
            zipkin.max_tag_length,
        ));
    }
    if let Some(otel) = &provider.opentelemetry {
        let config = open_telemetry(context, otel)?;
        return Some((
            http("envoy.tracers.opentelemetry", xds::any::pack(&config)),
            otel.max_tag_length,
        ));
    }
    let settings = provider.datadog.as_ref().or(provider.skywalking.as_ref())?;
    let port = settings.get("port").and_then(|port| port.as_u64());
    let service = settings.get("service").and_then(|name| name.as_str());
    let (cluster, host) = cluster(service.unwrap_or_default(), port.unwrap_or_default() as u32)?;
    if provider.datadog.is_some() {
        let config = trace::DatadogConfig {
            collector_cluster: cluster,
            collector_hostname: host,
            service_name: service_name(context),
            ..Default::default()
        };
        let length = settings
            .get("maxTagLength")
            .and_then(|length| length.as_u64())
            .map(|length| length as u32);
        return Some((
            http("envoy.tracers.datadog", xds::any::pack(&config)),
            length,
        ));
    }
    let config = trace::SkyWalkingConfig {
        grpc_service: Some(GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(
                grpc_service::EnvoyGrpc {
                    cluster_name: cluster,
                    authority: host,
                    ..Default::default()
                },
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    Some((
        http("envoy.tracers.skywalking", xds::any::pack(&config)),
        None,
    ))
}

fn open_telemetry(
    context: &Context<'_>,
    otel: &OpenTelemetryProvider,
) -> Option<trace::OpenTelemetryConfig> {
    let cluster = |service: &str, port: u32| {
        crate::telemetry::provider_cluster(context.snapshot, service, port)
    };
    let to = cluster(&otel.service, otel.port)?;
    let conventions = otel.service_attribute_enrichment == "OTEL_SEMANTIC_CONVENTIONS";
    let mut config = trace::OpenTelemetryConfig {
        service_name: if conventions {
            conventional_name(context)
        } else {
            service_name(context)
        },
        ..Default::default()
    };
    match &otel.http {
        Some(settings) => {
            config.http_service = Some(http_service(&to, &settings.path, settings));
        }
        None => {
            let (cluster_name, authority) = to.clone();
            let grpc = grpc_service::EnvoyGrpc {
                cluster_name,
                authority,
                ..Default::default()
            };
            let settings = otel.grpc.as_ref();
            let metadata = settings.into_iter().flat_map(|own| &own.initial_metadata);
            config.grpc_service = Some(GrpcService {
                timeout: settings.and_then(|own| own.timeout).map(duration),
                initial_metadata: metadata.map(header).collect(),
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
                ..Default::default()
            });
        }
    }
    let detectors = otel.resource_detectors.as_ref();
    let detector = |name: &str, config| TypedExtensionConfig {
        name: format!("envoy.tracers.opentelemetry.resource_detectors.{name}"),
        typed_config: Some(config),
    };
    let named = detectors.is_some_and(|own| own.environment.is_some());
    let environment = || {
        let config = detectors::EnvironmentResourceDetectorConfig {};
        detector("environment", xds::any::pack(&config))
    };
    if named {
        config.resource_detectors.push(environment());
    }
    if detectors.is_some_and(|own| own.dynatrace.is_some()) {
        let own = detectors::DynatraceResourceDetectorConfig {};
        let own = detector("dynatrace", xds::any::pack(&own));
        config.resource_detectors.push(own);
    }
    if conventions && !named {
        config.resource_detectors.push(environment());
    }
    if let Some(sampler) = &otel.dynatrace_sampler {
        let http_service = match &sampler.http_service {
            Some(api) => {
                let settings = api.http.clone().unwrap_or_default();
                let to = cluster(&api.service, api.port)?;
                http_service(&to, &settings.path, &settings)
            }
            None => http_service(&to, "api/v2/samplingConfiguration", otel.http.as_ref()?),
        };
        let own = DynatraceSamplerConfig {
            tenant: sampler.tenant.clone(),
            cluster_id: sampler.cluster_id,
            root_spans_per_minute: sampler.root_spans_per_minute,
            http_service: Some(http_service),
        };
        config.sampler = Some(TypedExtensionConfig {
            name: "envoy.tracers.opentelemetry.samplers.dynatrace".to_owned(),
            typed_config: Some(xds::any::pack(&own)),
        });
    }
    Some(config)
}

fn http_service(
    (cluster, host): &(String, String),
    path: &str,
    settings: &OtlpHttp,
) -> xds::envoy::config::core::v3::HttpService {
    xds::envoy::config::core::v3::HttpService {
        http_uri: Some(HttpUri {
            uri: joined(host, path),
            timeout: settings.timeout.map(duration),
            http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster.clone())),
        }),
        request_headers_to_add: headers(&settings.headers),
        ..Default::default()
    }
}

/// A host and a path with one slash between them, and none twice.
fn joined(host: &str, path: &str) -> String {
    let mut out = host.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        out.push('/');
        out.push_str(part);
    }
    if path.ends_with('/') {
        out.push('/');
    }
    out
}

/// Headers that are sent to a provider. Those with values from the environment are empty.
fn headers(headers: &[ProviderHttpHeader]) -> Vec<HeaderValueOption> {
    headers
        .iter()
        .map(|own| HeaderValueOption {
            header: Some(header(own)),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
            ..Default::default()
        })
        .collect()
}

fn header(own: &ProviderHttpHeader) -> HeaderValue {
    HeaderValue {
        key: own.name.clone(),
        value: own.value.clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// `<canonical service>.<namespace>`, the name of the proxy's own spans.
fn service_name(context: &Context<'_>) -> String {
    let proxy = context.proxy;
    format!(
        "{}.{}",
        canonical_name(&proxy.labels, &proxy.workload),
        proxy.namespace
    )
}

/// The name of the proxy's own spans by OpenTelemetry's conventions for Kubernetes.
fn conventional_name(context: &Context<'_>) -> String {
    let proxy = context.proxy;
    let annotation = proxy.metadata["ANNOTATIONS"]["resource.opentelemetry.io/service.name"]
        .as_str()
        .unwrap_or_default();
    let containers = proxy.metadata_text("APP_CONTAINERS");
    [
        annotation,
        proxy.label("app.kubernetes.io/instance"),
        proxy.label("app.kubernetes.io/name"),
        &proxy.workload,
        &proxy.name,
        if containers.contains(',') {
            ""
        } else {
            containers
        },
    ]
    .into_iter()
    .find(|name| !name.is_empty())
    .unwrap_or("unknown_service")
    .to_owned()
}
