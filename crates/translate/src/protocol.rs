//! The protocol of a port, from `appProtocol`, the port's name or its number.

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// To be found out from the first bytes.
    Auto,
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    HttpProxy,
    Https,
    Tls,
    Tcp,
    Mongo,
    Redis,
    MySql,
    Udp,
}

/// How a listener treats a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Http,
    Tcp,
    Auto,
}

impl Protocol {
    /// By its Istio name, in any case; unknown names are [`Protocol::Auto`].
    pub(crate) fn parse(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http_proxy" => Self::HttpProxy,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            "udp" => Self::Udp,
            _ => Self::Auto,
        }
    }

    /// Of a Kubernetes service port. `appProtocol` wins over the name; some numbers are known to speak first.
    pub(crate) fn of_service_port(
        number: u32,
        name: &str,
        transport: &str,
        app_protocol: Option<&str>,
    ) -> Self {
        if transport == "UDP" {
            return Self::Udp;
        }
        let name = match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(name) => name,
            None => name,
        };
        if name.len() >= 8 && name[..8].eq_ignore_ascii_case("grpc-web") {
            return Self::GrpcWeb;
        }
        let prefix = name.split('-').next().unwrap_or_default();
        match Self::parse(prefix) {
            Self::Auto if matches!(number, 25 | 53 | 3306 | 27017) => Self::Tcp,
            protocol => protocol,
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy => Class::Http,
            Self::Auto => Class::Auto,
            _ => Class::Tcp,
        }
    }

    pub(crate) fn is_http(self) -> bool {
        self.class() == Class::Http
    }

    /// HTTP, or perhaps HTTP.
    pub(crate) fn is_http_or_auto(self) -> bool {
        self.class() != Class::Tcp
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    pub(crate) fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ports() {
        for (number, name, app, want) in [
            (80, "http", None, Protocol::Http),
            (80, "HTTP-web", None, Protocol::Http),
            (80, "web", None, Protocol::Auto),
            (80, "", None, Protocol::Auto),
            (3306, "", None, Protocol::Tcp),
            (80, "grpc-webui", None, Protocol::GrpcWeb),
            (80, "grpc-x", None, Protocol::Grpc),
            (80, "https2", None, Protocol::Auto),
            (80, "tcp-redis", None, Protocol::Tcp),
            (80, "http", Some("kubernetes.io/h2c"), Protocol::Http2),
            (80, "http", Some("unknown"), Protocol::Auto),
        ] {
            assert_eq!(
                Protocol::of_service_port(number, name, "TCP", app),
                want,
                "{name:?} {app:?}"
            );
        }
    }
}
