//! The statistics of clusters, HTTP connection managers, listeners, TCP proxies and the server, by Envoy's names.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;

use super::{Counter, Gauge, Group, Histogram, Value};

/// Counts by status code and by class. Memory for a class only when it occurs.
#[derive(Default)]
pub struct Codes {
    classes: [Counter; 5],
    codes: [OnceLock<Box<[Counter; 100]>>; 5],
    all: Counter,
}

impl Codes {
    /// Counts one status code.
    pub fn count(&self, status: u16) {
        self.all.inc();
        let class = (usize::from(status) / 100).wrapping_sub(1);
        if let (Some(counter), Some(codes)) = (self.classes.get(class), self.codes.get(class)) {
            counter.inc();
            codes.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())))
                [usize::from(status % 100)]
            .inc();
        }
    }

    fn visit(&self, prefix: &str, each: bool, see: &mut dyn FnMut(&str, Value<'_>)) {
        // As in Envoy, a connection manager shows all classes from the start, a cluster only how many there were at all.
        if each && self.all.get() == 0 {
            if prefix == "upstream_rq_" {
                see("upstream_rq_completed", Value::Counter(0));
            }
            return;
        }
        see(
            &format!("{prefix}completed"),
            Value::Counter(self.all.get()),
        );
        for (class, counter) in self.classes.iter().enumerate() {
            if each && counter.get() == 0 {
                continue;
            }
            see(
                &format!("{prefix}{}xx", class + 1),
                Value::Counter(counter.get()),
            );
            if !each {
                continue;
            }
            for (rest, code) in self.codes[class]
                .get()
                .into_iter()
                .flat_map(|codes| codes.iter().enumerate())
            {
                if code.get() > 0 {
                    see(
                        &format!("{prefix}{}{rest:02}", class + 1),
                        Value::Counter(code.get()),
                    );
                }
            }
        }
    }

    fn reset(&self) {
        self.all.reset();
        for (class, codes) in self.classes.iter().zip(&self.codes) {
            class.reset();
            for code in codes.get().into_iter().flat_map(|codes| codes.iter()) {
                code.reset();
            }
        }
    }
}

macro_rules! group {
    ($(#[$doc:meta])* $name:ident {
        counters { $($counter:ident $(= $counter_name:literal)?),* $(,)? }
        gauges { $($gauge:ident $(= $gauge_name:literal)?),* $(,)? }
        histograms { $($histogram:ident),* $(,)? }
        $(codes { $($codes:ident $prefix:literal $completed:literal),* $(,)? })?
        $(groups { $($inner:ident $inner_prefix:literal : $inner_type:ty),* $(,)? })?
    }) => {
        $(#[$doc])*
        #[allow(missing_docs)]
        #[derive(Default)]
        pub struct $name {
            $(pub $counter: Counter,)*
            $(pub $gauge: Gauge,)*
            $(pub $histogram: Histogram,)*
            $($(pub $codes: Codes,)*)?
            $($(pub $inner: $inner_type,)*)?
        }

        impl Group for $name {
            fn visit(&self, see: &mut dyn FnMut(&str, Value<'_>)) {
                $(see(group!(@name $counter $($counter_name)?), Value::Counter(self.$counter.get()));)*
                $(see(group!(@name $gauge $($gauge_name)?), Value::Gauge(self.$gauge.get(), self.$gauge.used()));)*
                $(see(stringify!($histogram), Value::Histogram(&self.$histogram));)*
                $($(self.$codes.visit($prefix, $completed, see);)*)?
                $($(self.$inner.visit(&mut |name, value| see(&format!(concat!($inner_prefix, "{}"), name), value));)*)?
                let _ = see;
            }
            fn reset(&self) {
                $(self.$counter.reset();)*
                $(self.$histogram.reset();)*
                $($(self.$codes.reset();)*)?
                $($(self.$inner.reset();)*)?
            }
            fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
                self
            }
        }
    };
    (@name $field:ident $name:literal) => { $name };
    (@name $field:ident) => { stringify!($field) };
}

/// Statistics that take memory only once something is counted. A mesh has many clusters that a proxy never sends to.
pub struct Deferred<T>(OnceLock<Box<T>>);

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> Deref for Deferred<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

impl<T: Group + Default> Deferred<T> {
    /// What was counted, if anything was.
    pub fn counted(&self) -> Option<&T> {
        self.0.get().map(|stats| &**stats)
    }

    fn visit(&self, see: &mut dyn FnMut(&str, Value<'_>)) {
        match self.counted() {
            Some(stats) => stats.visit(see),
            None => T::default().visit(see),
        }
    }

    fn reset(&self) {
        if let Some(stats) = self.counted() {
            stats.reset();
        }
    }
}

/// `cluster.<name>.*`
#[derive(Default)]
pub struct ClusterStats {
    /// What changes with the configuration.
    pub config: ClusterConfigStats,
    /// What changes with traffic.
    traffic: Deferred<ClusterTrafficStats>,
    outlier: OnceLock<Deferred<OutlierStats>>,
}

impl ClusterStats {
    /// Those of outlier detection: shown from now on.
    pub fn outlier(&self) -> &Deferred<OutlierStats> {
        self.outlier.get_or_init(Deferred::default)
    }
}

impl Deref for ClusterStats {
    type Target = ClusterTrafficStats;

    #[inline]
    fn deref(&self) -> &ClusterTrafficStats {
        &self.traffic
    }
}

impl Group for ClusterStats {
    fn visit(&self, see: &mut dyn FnMut(&str, Value<'_>)) {
        self.config.visit(see);
        self.traffic.visit(see);
        if let Some(outlier) = self.outlier.get() {
            outlier.visit(&mut |name, value| see(&format!("outlier_detection.{name}"), value));
        }
    }

    fn reset(&self) {
        self.config.reset();
        self.traffic.reset();
        if let Some(outlier) = self.outlier.get() {
            outlier.reset();
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

group! {
    /// `cluster.<name>.*` of the configuration and of the members
    ClusterConfigStats {
        counters {
            membership_change, update_attempt, update_success, update_failure, update_empty, update_no_rebuild,
            assignment_stale, assignment_timeout_received, assignment_use_cached,
            lb_subsets_created, lb_subsets_removed,
        }
        gauges {
            membership_total, membership_healthy, membership_degraded, membership_excluded, max_host_weight, version,
            warming_state, lb_subsets_active,
        }
        histograms {}
    }
}

group! {
    /// `cluster.<name>.*` of requests and connections
    ClusterTrafficStats {
        counters {
            upstream_rq_total, upstream_rq_pending_total, upstream_rq_pending_overflow, upstream_rq_pending_failure_eject,
            upstream_rq_cancelled, upstream_rq_timeout, upstream_rq_per_try_timeout, upstream_rq_per_try_idle_timeout, upstream_rq_rx_reset,
            upstream_rq_tx_reset, upstream_rq_retry, upstream_rq_retry_success, upstream_rq_retry_overflow,
            upstream_rq_retry_limit_exceeded, upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited, upstream_rq_maintenance_mode, upstream_rq_max_duration_reached,
            upstream_rq_active_overflow, upstream_rq_dropped_overload,
            upstream_cx_total, upstream_cx_http1_total, upstream_cx_http2_total, upstream_cx_connect_fail,
            upstream_cx_connect_timeout, upstream_cx_connect_attempts_exceeded, upstream_cx_overflow,
            upstream_cx_pool_overflow, upstream_cx_destroy, upstream_cx_destroy_local, upstream_cx_destroy_remote,
            upstream_cx_destroy_with_active_rq, upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote_with_active_rq, upstream_cx_close_notify, upstream_cx_rx_bytes_total,
            upstream_cx_tx_bytes_total, upstream_cx_none_healthy, upstream_cx_protocol_error, upstream_cx_max_requests,
            upstream_cx_idle_timeout, upstream_cx_max_duration_reached, bind_errors, original_dst_host_invalid,
            retry_or_shadow_abandoned, lb_healthy_panic, lb_local_cluster_not_ok, lb_recalculate_zone_structures,
            lb_subsets_fallback, lb_subsets_fallback_panic, lb_subsets_selected,
            lb_zone_cluster_too_small, lb_zone_no_capacity_left, lb_zone_number_differs, lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone, lb_zone_routing_sampled,
            upstream_internal_redirect_failed_total, upstream_internal_redirect_succeeded_total,
            upstream_flow_control_backed_up_total, upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total, upstream_flow_control_resumed_reading_total,
            upstream_http3_broken, upstream_cx_http3_total,
            ssl_handshake = "ssl.handshake", ssl_connection_error = "ssl.connection_error",
            ssl_session_reused = "ssl.session_reused", ssl_no_certificate = "ssl.no_certificate",
            ssl_fail_verify_error = "ssl.fail_verify_error", ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert",
            ssl_fail_verify_san = "ssl.fail_verify_san",
            ssl_fail_verify_cert_hash = "ssl.fail_verify_cert_hash",
        }
        gauges {
            upstream_rq_active, upstream_rq_pending_active, upstream_cx_active, upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            cb_default_cx_open = "circuit_breakers.default.cx_open",
            cb_default_cx_pool_open = "circuit_breakers.default.cx_pool_open",
            cb_default_rq_open = "circuit_breakers.default.rq_open",
            cb_default_rq_pending_open = "circuit_breakers.default.rq_pending_open",
            cb_default_rq_retry_open = "circuit_breakers.default.rq_retry_open",
            cb_high_cx_open = "circuit_breakers.high.cx_open",
            cb_high_cx_pool_open = "circuit_breakers.high.cx_pool_open",
            cb_high_rq_open = "circuit_breakers.high.rq_open",
            cb_high_rq_pending_open = "circuit_breakers.high.rq_pending_open",
            cb_high_rq_retry_open = "circuit_breakers.high.rq_retry_open",
        }
        histograms { upstream_rq_time, upstream_cx_connect_ms, upstream_cx_length_ms }
        codes {
            upstream_rq_codes "upstream_rq_" true, external_codes "external.upstream_rq_" true,
            retry_codes "retry.upstream_rq_" true,
        }
    }
}

group! {
    /// `cluster.<name>.outlier_detection.*`
    OutlierStats {
        counters {
            ejections_enforced_total, ejections_overflow, ejections_total, ejections_consecutive_5xx,
            ejections_detected_consecutive_5xx, ejections_enforced_consecutive_5xx, ejections_success_rate,
            ejections_detected_success_rate, ejections_enforced_success_rate,
            ejections_detected_consecutive_gateway_failure, ejections_enforced_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure, ejections_enforced_consecutive_local_origin_failure,
            ejections_detected_local_origin_success_rate, ejections_enforced_local_origin_success_rate,
            ejections_detected_failure_percentage, ejections_enforced_failure_percentage,
            ejections_detected_local_origin_failure_percentage, ejections_enforced_local_origin_failure_percentage,
        }
        gauges { ejections_active }
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.*`
    HttpStats {
        counters {
            downstream_rq_total, downstream_rq_http1_total, downstream_rq_http2_total, downstream_rq_http3_total,
            downstream_rq_timeout, downstream_rq_header_timeout, downstream_rq_idle_timeout,
            downstream_rq_max_duration_reached, downstream_rq_too_large, downstream_rq_rx_reset,
            downstream_rq_tx_reset, downstream_rq_non_relative_path, downstream_rq_ws_on_non_ws_route,
            downstream_rq_response_before_rq_complete, downstream_rq_overload_close, downstream_rq_drain_close = "downstream_cx_drain_close",
            downstream_rq_failed_path_normalization, downstream_rq_redirected_with_normalized_path,
            downstream_rq_rejected_via_ip_detection, downstream_rq_too_many_premature_resets,
            downstream_cx_total, downstream_cx_http1_total, downstream_cx_http2_total, downstream_cx_http3_total,
            downstream_cx_ssl_total, downstream_cx_upgrades_total, downstream_cx_destroy, downstream_cx_destroy_local,
            downstream_cx_destroy_remote, downstream_cx_destroy_active_rq, downstream_cx_destroy_local_active_rq,
            downstream_cx_destroy_remote_active_rq, downstream_cx_protocol_error, downstream_cx_idle_timeout,
            downstream_cx_max_duration_reached, downstream_cx_max_requests_reached, downstream_cx_overload_disable_keepalive,
            downstream_cx_delayed_close_timeout, downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total,
            no_route, no_cluster, rq_total, rq_direct_response, rq_redirect, rq_retry_skipped_request_not_complete,
            rq_reset_after_downstream_response_started, rs_too_large, passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_unsafe_scheme, passthrough_internal_redirect_too_many_redirects,
            passthrough_internal_redirect_no_route, passthrough_internal_redirect_predicate,
            rq_overload_local_reply, client_request_attempts = "rq_retry_attempts",
            fault_aborts_injected = "fault.aborts_injected", fault_delays_injected = "fault.delays_injected",
            fault_faults_overflow = "fault.faults_overflow", fault_response_rl_injected = "fault.response_rl_injected",
            cors_origin_valid = "cors.origin_valid", cors_origin_invalid = "cors.origin_invalid",
            rbac_allowed = "rbac.allowed", rbac_denied = "rbac.denied", rbac_shadow_allowed = "rbac.shadow_allowed",
            rbac_shadow_denied = "rbac.shadow_denied",
            tracing_random_sampling = "tracing.random_sampling", tracing_not_traceable = "tracing.not_traceable",
            tracing_client_enabled = "tracing.client_enabled", tracing_health_check = "tracing.health_check",
            tracing_service_forced = "tracing.service_forced",
        }
        gauges {
            downstream_rq_active, downstream_cx_active, downstream_cx_http1_active, downstream_cx_http2_active,
            downstream_cx_http3_active, downstream_cx_ssl_active, downstream_cx_upgrades_active,
            downstream_cx_rx_bytes_buffered, downstream_cx_tx_bytes_buffered, fault_active_faults = "fault.active_faults",
        }
        histograms { downstream_rq_time, downstream_cx_length_ms }
        codes { downstream_rq_codes "downstream_rq_" false }
    }
}

group! {
    /// `tracing.zipkin.*` and `tracing.opentelemetry.*`
    TracerStats {
        counters {
            spans_sent, timer_flushed, reports_sent, reports_dropped, reports_skipped_no_cluster,
        }
        gauges {}
        histograms {}
    }
}

group! {
    /// `access_logs.grpc_access_log.*` and `access_logs.open_telemetry_access_log.*`
    AccessLogStats {
        counters { logs_written, logs_dropped }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.csrf.*`
    CsrfStats {
        counters { missing_source_origin, request_invalid, request_valid }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.basic_auth.*`
    BasicAuthStats {
        counters { allowed, denied }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.decompressor.<library>.gzip.<direction>.*`
    DecompressorStats {
        counters { decompressed, not_decompressed, total_compressed_bytes, total_uncompressed_bytes }
        gauges {}
        histograms {}
    }
}

group! {
    /// `<stat_prefix>.http_bandwidth_limit.*`
    BandwidthStats {
        counters { request_enabled, response_enabled }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.lua.*`
    LuaStats {
        counters { errors, executions }
        gauges {}
        histograms {}
    }
}

group! {
    /// `connection_limit.<stat_prefix>.*`
    ConnectionLimitStats {
        counters { limited_connections }
        gauges { active_connections }
        histograms {}
    }
}

group! {
    /// `local_rate_limit.<stat_prefix>.*`
    NetworkRateLimitStats {
        counters { rate_limited }
        gauges {}
        histograms {}
    }
}

group! {
    /// `ext_authz.<stat_prefix>.*` of connections
    NetworkExtAuthzStats {
        counters { total, ok, denied, error, failure_mode_allowed, cx_closed, disabled }
        gauges { active }
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.jwt_authn.*`
    JwtStats {
        counters {
            allowed, denied, cors_preflight_bypassed, jwks_fetch_success, jwks_fetch_failed, jwt_cache_hit, jwt_cache_miss,
        }
        gauges {}
        histograms {}
    }
}

group! {
    /// `<stat_prefix>.http_local_rate_limit.*`
    LocalRateLimitStats {
        counters { enabled, enforced, rate_limited, ok }
        gauges {}
        histograms {}
    }
}

group! {
    /// `cluster.<name>.ratelimit.*`
    RateLimitStats {
        counters { ok, error, over_limit, failure_mode_allowed }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http1.*` and `http2.*`: what the codecs found.
    CodecStats {
        counters { dropped_headers_with_underscores, requests_rejected_with_underscores_in_headers }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.ext_authz.*` and `cluster.<name>.ext_authz.*`
    ExtAuthzStats {
        counters { ok, denied, error, timeout, disabled, failure_mode_allowed, invalid, ignored_dynamic_metadata }
        gauges {}
        histograms {}
    }
}

group! {
    /// `http.<stat_prefix>.compressor.<library>.gzip.*`
    CompressorStats {
        counters { compressed, not_compressed, no_accept_header, header_compressor_used }
        gauges {}
        histograms {}
    }
}

group! {
    /// `listener.<address>.*`
    ListenerStats {
        counters {
            downstream_cx_total, downstream_cx_destroy, downstream_cx_overflow, downstream_cx_overload_reject,
            downstream_global_cx_overflow, downstream_listener_filter_error, downstream_listener_filter_remote_close,
            downstream_pre_cx_timeout, no_filter_chain_match, connections_accepted_per_socket_event,
            ssl_handshake = "ssl.handshake", ssl_connection_error = "ssl.connection_error",
            ssl_no_certificate = "ssl.no_certificate", ssl_session_reused = "ssl.session_reused",
            ssl_fail_verify_error = "ssl.fail_verify_error", ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert",
            ssl_fail_verify_san = "ssl.fail_verify_san",
            ssl_fail_verify_cert_hash = "ssl.fail_verify_cert_hash",
        }
        gauges { downstream_cx_active, downstream_pre_cx_active, downstream_listener_filter_active = "downstream_listener_filter_active" }
        histograms { downstream_cx_length_ms }
    }
}

group! {
    /// `listener.<address>.http.<stat_prefix>.*`
    ListenerHttpStats {
        counters {}
        gauges {}
        histograms {}
        codes { downstream_rq_codes "downstream_rq_" false }
    }
}

group! {
    /// `tcp.<stat_prefix>.*`
    TcpStats {
        counters {
            downstream_cx_total, downstream_cx_no_route, downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total, idle_timeout,
            max_downstream_connection_duration, upstream_flush_total, rbac_allowed = "rbac.allowed",
            rbac_denied = "rbac.denied",
        }
        gauges { downstream_cx_rx_bytes_buffered, downstream_cx_tx_bytes_buffered, upstream_flush_active }
        histograms {}
    }
}

group! {
    /// `server.*`
    ServerStats {
        counters { envoy_bug_failures, debug_assertion_failures, dynamic_unknown_fields, static_unknown_fields, wip_protos, dropped_stat_flushes, worker_0_watchdog_miss = "worker_0.watchdog_miss" }
        gauges {
            concurrency, days_until_first_cert_expiring, hot_restart_epoch, live, memory_allocated, memory_heap_size,
            memory_physical_size, parent_connections, seconds_until_first_ocsp_response_expiring, state, stats_recent_lookups,
            total_connections, uptime, version,
        }
        histograms { initialization_time_ms }
    }
}

group! {
    /// `cluster_manager.*`
    ClusterManagerStats {
        counters {
            cluster_added, cluster_modified, cluster_removed, cluster_updated, cluster_updated_via_merge,
            update_merge_cancelled, update_out_of_merge_window,
            cds_update_attempt = "cds.update_attempt", cds_update_success = "cds.update_success",
            cds_update_rejected = "cds.update_rejected", cds_update_failure = "cds.update_failure",
            cds_init_fetch_timeout = "cds.init_fetch_timeout",
        }
        gauges { active_clusters, warming_clusters, cds_version = "cds.version", cds_update_time = "cds.update_time" }
        histograms { }
    }
}

group! {
    /// `listener_manager.*`
    ListenerManagerStats {
        counters {
            listener_added, listener_modified, listener_removed, listener_stopped, listener_create_success,
            listener_create_failure, listener_in_place_updated,
            lds_update_attempt = "lds.update_attempt", lds_update_success = "lds.update_success",
            lds_update_rejected = "lds.update_rejected", lds_update_failure = "lds.update_failure",
            lds_init_fetch_timeout = "lds.init_fetch_timeout",
        }
        gauges {
            total_listeners_active, total_listeners_draining, total_listeners_warming, total_filter_chains_draining,
            workers_started, lds_version = "lds.version", lds_update_time = "lds.update_time",
        }
        histograms { }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stats: &ClusterStats) -> Vec<String> {
        let mut names = Vec::new();
        stats.visit(&mut |name, _| names.push(name.to_owned()));
        names
    }

    #[test]
    fn what_was_never_counted_is_shown_and_takes_no_memory() {
        let stats = ClusterStats::default();
        let shown = names(&stats);
        assert!(shown.contains(&"upstream_cx_total".to_owned()), "{shown:?}");
        assert!(shown.contains(&"membership_total".to_owned()), "{shown:?}");
        stats.reset();
        assert!(stats.traffic.counted().is_none());
        stats.upstream_cx_total.inc();
        assert_eq!(stats.traffic.counted().unwrap().upstream_cx_total.get(), 1);
        assert_eq!(names(&stats), shown, "counting changes values only");
        stats.reset();
        assert_eq!(stats.upstream_cx_total.get(), 0);
    }

    #[test]
    fn outlier_detection_is_shown_where_there_is_some() {
        let stats = ClusterStats::default();
        let ejections = "outlier_detection.ejections_total".to_owned();
        assert!(!names(&stats).contains(&ejections));
        stats.outlier();
        assert!(names(&stats).contains(&ejections));
        assert!(stats.outlier().counted().is_none());
    }
}
