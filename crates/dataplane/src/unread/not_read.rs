//! The list of what is not carried out.

/// Fields that change what happens and are not carried out, by message. Not among them are those that only bound
/// memory, order writes or spread load (`max_outbound_frames`, `tcp_backlog_size`, `drain_timeout`, …), those
/// about health checks and about hosts that a filter chose (`override_host_status`), which are refused themselves, and what the compilers of the messages refuse with more words.
pub(super) const NOT_READ: &[(&str, &str)] = &[
    (
        "envoy.config.cluster.v3.Cluster",
        "transport_socket_matcher stats_matcher per_connection_buffer_high_watermark_timeout health_checks \
         dns_failure_refresh_rate dns_resolvers use_tcp_for_dns_lookups dns_resolution_config \
         protocol_selection close_connections_on_host_health_failure lrs_server \
         lrs_report_endpoint_metrics track_timeout_budgets upstream_config track_cluster_stats preconnect_policy \
         queuing_policies",
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "close_connections_on_host_set_change",
    ),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig",
        "hash_balance_factor",
    ),
    (
        "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig",
        "metadata_key",
    ),
    (
        "envoy.config.cluster.v3.UpstreamConnectionOptions",
        "set_local_interface_name_on_upstream_connections",
    ),
    (
        "envoy.config.cluster.v3.CircuitBreakers",
        "per_host_thresholds",
    ),
    (
        "envoy.config.cluster.v3.OutlierDetection",
        "enforcing_local_origin_success_rate enforcing_failure_percentage_local_origin monitors \
         detect_degraded_hosts",
    ),
    (
        "envoy.config.core.v3.BindConfig",
        "freebind socket_options extra_source_addresses additional_source_addresses local_address_selector",
    ),
    (
        "envoy.config.core.v3.SocketAddress",
        "resolver_name network_namespace_filepath",
    ),
    (
        "envoy.config.core.v3.HttpProtocolOptions",
        "max_connection_duration_jitter max_response_headers_kb",
    ),
    (
        "envoy.config.core.v3.Http1ProtocolOptions",
        "override_stream_error_on_invalid_http_message send_fully_qualified_url ignore_http_11_upgrade",
    ),
    (
        "envoy.config.core.v3.Http2ProtocolOptions",
        "allow_metadata stream_error_on_invalid_http_messaging override_stream_error_on_invalid_http_message \
         custom_settings_parameters max_header_field_size_kb disallow_obs_text",
    ),
    (
        "envoy.config.core.v3.KeepaliveSettings",
        "connection_idle_interval",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "http_filters header_validation_config outlier_detection request_mirror_policies hash_policy retry_policy",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        "http3_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        "http3_protocol_options",
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig",
        "http3_protocol_options alternate_protocols_cache_options",
    ),
    (
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "locality_lb_config enable_full_scan selection_method",
    ),
    (
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        "locality_lb_config",
    ),
    (
        "envoy.extensions.load_balancing_policies.random.v3.Random",
        "locality_lb_config",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "allow_renegotiation",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_sni session_ticket_keys session_ticket_keys_sds_secret_config ocsp_staple_policy \
         prefer_client_ciphers",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        "tls_certificate_provider_instance custom_tls_certificate_selector tls_certificate_certificate_provider \
         tls_certificate_certificate_provider_instance validation_context_certificate_provider \
         validation_context_certificate_provider_instance custom_handshaker key_log",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        "validation_context_certificate_provider validation_context_certificate_provider_instance",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        "signature_algorithms compliance_policies",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        "pkcs12 watched_directory private_key_provider password ocsp_staple signed_certificate_timestamp \
         tls_params",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "ca_certificate_provider_instance watched_directory require_signed_certificate_timestamp crl \
         allow_expired_certificate trust_chain_verification custom_validator_config only_verify_leaf_cert_crl max_verify_depth",
    ),
    (
        "envoy.config.route.v3.RouteConfiguration",
        "vhds internal_only_headers route_specifiers",
    ),
    (
        "envoy.config.route.v3.VirtualHost",
        "virtual_clusters cors retry_policy_typed_config hedge_policy include_is_timeout_retry_header \
         route_specifiers",
    ),
    ("envoy.config.route.v3.Route", "route_specifiers"),
    (
        "envoy.config.route.v3.RouteAction",
        "flush_timeout retry_policy_typed_config hedge_policy cors internal_redirect_action \
         max_internal_redirects",
    ),
    (
        "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig",
        "proxy_protocol_config allow_post",
    ),
    (
        "envoy.config.route.v3.RouteAction.HashPolicy.Cookie",
        "attributes",
    ),
    (
        "envoy.config.route.v3.RetryPolicy",
        "retry_options_predicates refresh_cluster_on_retry",
    ),
    (
        "envoy.config.route.v3.RateLimit",
        "disable_key x_ratelimit_option",
    ),
    ("envoy.config.route.v3.Tracing", "upstream_operation"),
    (
        "envoy.config.listener.v3.Listener",
        "stats_matcher fcds_config filter_chain_matcher per_connection_buffer_high_watermark_timeout \
         freebind socket_options tcp_fast_open_queue_length udp_listener_config api_listener enable_mptcp \
         internal_listener tcp_keepalive",
    ),
    (
        "envoy.config.listener.v3.AdditionalAddress",
        "socket_options tcp_keepalive",
    ),
    ("envoy.config.listener.v3.FilterChain", "use_proxy_proto"),
    (
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "enable_ja3_fingerprinting enable_ja4_fingerprinting close_connection_on_client_hello_parsing_errors",
    ),
    (
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "rules pass_through_tlvs disallowed_versions tlv_location",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "add_user_agent http1_safe_max_connection_duration http3_protocol_options scheme_header_transformation \
         stream_flush_timeout drain_timeout_jitter access_log_flush_interval flush_access_log_on_new_request \
         access_log_options forward_client_cert_matcher represent_ipv4_remote_address_as_ipv4_mapped_ipv6 \
         stream_error_on_invalid_http_message path_normalization_options proxy_status_config \
         typed_header_validation_config forward_proto_config",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        "filters",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        "unix_sockets",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        "chain format",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "verbose upstream_operation",
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "on_demand downstream_idle_timeout upstream_idle_timeout backoff_options \
         max_downstream_connection_duration_jitter_percentage access_log_flush_interval \
         flush_access_log_on_connected access_log_options proxy_protocol_tlvs proxy_protocol_tlv_merge_policy \
         upstream_connect_mode max_early_data_bytes check_drain_close",
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig",
        "post_path request_id_extension request_id_header request_id_metadata_key",
    ),
    (
        "envoy.extensions.filters.network.rbac.v3.RBAC",
        "enforcement_type delay_deny",
    ),
    (
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "runtime_enabled",
    ),
    (
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        "runtime_enabled",
    ),
    (
        "envoy.extensions.filters.http.router.v3.Router",
        "upstream_log upstream_log_options strict_check_headers respect_expected_rq_timeout \
         upstream_http_filters reject_connect_request_early_data",
    ),
    (
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules_stat_prefix track_per_rule_stats",
    ),
    ("envoy.config.rbac.v3.RBAC", "audit_logging_options"),
    ("envoy.config.rbac.v3.Policy", "cel_config"),
    (
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "validate_mutations route_typed_metadata_context_namespaces emit_filter_state_stats \
         max_denied_response_body_bytes enforce_response_header_limits",
    ),
    (
        "envoy.config.core.v3.GrpcService.EnvoyGrpc",
        "max_receive_message_length",
    ),
    (
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "runtime_enabled choose_first",
    ),
    (
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "shadow_enabled",
    ),
];

/// Fields without which traffic flows all the same: header names keep their meaning in any case, and connections are
/// redirected where they would be taken transparently. They are told in the log.
pub(super) const IGNORED: &[(&str, &str)] = &[
    (
        "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat",
        "stateful_formatter",
    ),
    ("envoy.config.listener.v3.Listener", "transparent"),
];
