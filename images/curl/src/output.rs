//! What is printed after a transfer (`-w`).

use std::time::Duration;

/// What is known about a finished transfer.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub status: u16,
    pub url: String,
    pub method: String,
    pub content_type: String,
    pub remote: String,
    pub size: usize,
    pub headers_size: usize,
    pub redirects: usize,
    pub resolved: Duration,
    pub connected: Duration,
    pub secured: Duration,
    pub first_byte: Duration,
    pub total: Duration,
    pub code: u8,
}

/// Fills in curl's `%{variables}` and escapes.
pub fn write_out(format: &str, facts: &Facts) -> String {
    let seconds = |duration: Duration| format!("{:.6}", duration.as_secs_f64());
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(end) = rest.strip_prefix("%{").and_then(|rest| rest.find('}')) {
            let (remote_ip, remote_port) = facts.remote.rsplit_once(':').unwrap_or_default();
            match &rest[2..2 + end] {
                "http_code" | "response_code" => out.push_str(&format!("{:03}", facts.status)),
                "url" | "url_effective" => out.push_str(&facts.url),
                "method" => out.push_str(&facts.method),
                "content_type" => out.push_str(&facts.content_type),
                "remote_ip" => out.push_str(remote_ip),
                "remote_port" => out.push_str(remote_port),
                "size_download" => out.push_str(&facts.size.to_string()),
                "size_header" => out.push_str(&facts.headers_size.to_string()),
                "num_redirects" => out.push_str(&facts.redirects.to_string()),
                "time_namelookup" => out.push_str(&seconds(facts.resolved)),
                "time_connect" => out.push_str(&seconds(facts.connected)),
                "time_appconnect" => out.push_str(&seconds(facts.secured)),
                "time_pretransfer" => out.push_str(&seconds(facts.connected.max(facts.secured))),
                "time_starttransfer" => out.push_str(&seconds(facts.first_byte)),
                "time_redirect" => out.push_str(&seconds(Duration::ZERO)),
                "time_total" => out.push_str(&seconds(facts.total)),
                "exitcode" => out.push_str(&facts.code.to_string()),
                "scheme" => out.push_str(facts.url.split("://").next().unwrap_or_default()),
                other => out.push_str(&format!("%{{{other}}}")),
            }
            rest = &rest[3 + end..];
            continue;
        }
        let (text, used) = match rest.get(..2) {
            Some("%%") => ("%", 2),
            Some("\\n") => ("\n", 2),
            Some("\\t") => ("\t", 2),
            Some("\\r") => ("\r", 2),
            Some("\\\\") => ("\\", 2),
            _ => (&rest[..1], 1),
        };
        out.push_str(text);
        rest = &rest[used..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_escapes() {
        let facts = Facts {
            status: 200,
            total: Duration::from_millis(1500),
            ..Facts::default()
        };
        assert_eq!(write_out("%{http_code}\\n", &facts), "200\n");
        assert_eq!(
            write_out("t=%{time_total}s 100%%", &facts),
            "t=1.500000s 100%"
        );
        assert_eq!(write_out("%{http_code}", &Facts::default()), "000");
        assert_eq!(write_out("%{unknown} 5%", &facts), "%{unknown} 5%");
    }
}
