//! Environment variables that name the services a container may use.

/// What the variables need to know of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEnv {
    /// Name of the service.
    pub name: String,
    /// Namespace of the service.
    pub namespace: String,
    /// Its cluster IP; headless services have no variables.
    pub cluster_ip: String,
    /// Ports as (name, port, protocol).
    pub ports: Vec<(String, u16, String)>,
}

impl ServiceEnv {
    /// Reads a `v1/Service`; `None` for headless, external-name and not yet allocated ones.
    pub fn from_service(service: &serde_json::Value) -> Option<Self> {
        let spec = &service["spec"];
        let cluster_ip = spec["clusterIP"]
            .as_str()
            .filter(|ip| !ip.is_empty() && *ip != "None")?;
        let ports = spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| {
                Some((
                    port["name"].as_str().unwrap_or_default().to_owned(),
                    u16::try_from(port["port"].as_u64()?).ok()?,
                    port["protocol"].as_str().unwrap_or("TCP").to_owned(),
                ))
            })
            .collect();
        Some(Self {
            name: service["metadata"]["name"].as_str()?.to_owned(),
            namespace: service["metadata"]["namespace"].as_str()?.to_owned(),
            cluster_ip: cluster_ip.to_owned(),
            ports,
        })
    }
}

/// The variables of the services of `namespace` (only when `links`, the pod's `enableServiceLinks`)
/// and of `default/kubernetes`, in Docker's link format, sorted by service name.
pub fn service_variables(
    services: &[ServiceEnv],
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut chosen: Vec<&ServiceEnv> = services
        .iter()
        .filter(|service| {
            !service.ports.is_empty()
                && ((service.namespace == "default" && service.name == "kubernetes")
                    || (links && service.namespace == namespace))
        })
        .collect();
    // The namespace's own "kubernetes" service, were there one, comes last and wins.
    chosen.sort_by_key(|service| (service.name.as_str(), service.namespace == namespace));
    let mut variables = Vec::new();
    for service in chosen {
        let prefix = service.name.to_ascii_uppercase().replace('-', "_");
        let ip = &service.cluster_ip;
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.clone()
        };
        let mut set = |name: String, value: String| variables.push((name, value));
        set(format!("{prefix}_SERVICE_HOST"), ip.clone());
        set(
            format!("{prefix}_SERVICE_PORT"),
            service.ports[0].1.to_string(),
        );
        for (name, port, _) in service.ports.iter().filter(|(name, ..)| !name.is_empty()) {
            let name = name.to_ascii_uppercase().replace('-', "_");
            set(format!("{prefix}_SERVICE_PORT_{name}"), port.to_string());
        }
        for (index, (_, port, protocol)) in service.ports.iter().enumerate() {
            let lower = protocol.to_ascii_lowercase();
            let url = format!("{lower}://{host}:{port}");
            if index == 0 {
                set(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
            set(base.clone(), url);
            set(format!("{base}_PROTO"), lower);
            set(format!("{base}_PORT"), port.to_string());
            set(format!("{base}_ADDR"), ip.clone());
        }
    }
    variables
}
