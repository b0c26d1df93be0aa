//! Kernel parameters that pods may set.

use k8s_openapi::api::core::v1::Pod;

/// Parameters that touch nothing but the pod's own namespaces and cannot take anything from others.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The parameters a pod wants, by their names with dots.
pub fn wanted(pod: &Pod) -> Vec<(String, String)> {
    let context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    context
        .into_iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
        .collect()
}

/// The first parameter a pod wants and may not set. A pod on the node's network sets none of the network.
pub fn forbidden(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let on_host = spec.host_network == Some(true);
    wanted(pod)
        .into_iter()
        .map(|(name, _)| name)
        .find(|name| !SAFE.contains(&name.as_str()) || on_host && name.starts_with("net."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_stays_in_the_pod_is_allowed() {
        let pod = |name: &str, host: bool| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "hostNetwork": host,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}))
            .expect("a pod")
        };
        assert_eq!(forbidden(&pod("kernel/shm_rmid_forced", true)), None);
        assert_eq!(
            forbidden(&pod("kernel.msgmax", false)).as_deref(),
            Some("kernel.msgmax")
        );
        assert_eq!(forbidden(&pod("net.ipv4.tcp_syncookies", false)), None);
        assert!(forbidden(&pod("net.ipv4.tcp_syncookies", true)).is_some());
    }
}
