//! The host-facing ports: which are opened, and what the domain is called then.

use std::io;
use std::net::TcpListener;

use super::relay::bind_loopback;

/// The ports people expect the web on.
const WEB: [u16; 2] = [80, 443];

/// Ports of the courses that lead to the entry too: the first is the entry's own where the web's
/// ports may not be opened.
const COURSE: [u16; 2] = [8080, 30080];

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `--port`: the one port of the entry.
    pub entry: Option<u16>,
    /// `--api-port`: the first API server's port; the others follow.
    pub api: Option<u16>,
}

/// The opened entry.
#[derive(Debug)]
pub struct Entry {
    /// All listeners; every one understands HTTP and HTTPS.
    pub listeners: Vec<TcpListener>,
    /// `localhost`, with the port where it is not the web's.
    pub domain: String,
    /// Ports that were not available, with the reason.
    pub skipped: Vec<(u16, io::Error)>,
}

/// A port that had to be opened and could not.
#[derive(Debug)]
pub struct Taken {
    /// The port.
    pub port: u16,
    /// The option that chooses another one.
    pub option: &'static str,
    /// Why.
    pub error: io::Error,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::language::port_taken(
            self.port,
            self.option,
            &self.error,
        ))
    }
}

impl std::error::Error for Taken {}

/// Opens the entry's ports: what was asked for, else 80 and 443, else 8080, else any free one.
///
/// # Errors
/// When the port that was asked for is taken, or no port at all can be opened.
pub fn open_entry(wishes: Wishes) -> Result<Entry, Taken> {
    let mut skipped = Vec::new();
    let mut listeners = Vec::new();
    let domain = if let Some(port) = wishes.entry {
        listeners = bind_loopback(port).map_err(|error| Taken {
            port,
            option: "--port",
            error,
        })?;
        with_port(&listeners)
    } else {
        match open_all(&WEB) {
            Ok(web) => {
                listeners.extend(web);
                "localhost".to_owned()
            }
            Err((port, error)) => {
                skipped.push((port, error));
                listeners = bind_loopback(COURSE[0])
                    .or_else(|_| bind_loopback(0))
                    .map_err(|error| Taken {
                        port: COURSE[0],
                        option: "--port",
                        error,
                    })?;
                with_port(&listeners)
            }
        }
    };
    let open: Vec<u16> = listeners.iter().filter_map(port_of).collect();
    for port in COURSE {
        // With a port of the user's own choice there may be another theater: nothing else is taken.
        if wishes.entry.is_some() || open.contains(&port) {
            continue;
        }
        match bind_loopback(port) {
            Ok(more) => listeners.extend(more),
            Err(error) => skipped.push((port, error)),
        }
    }
    Ok(Entry {
        listeners,
        domain,
        skipped,
    })
}

/// Opens the API servers' ports: consecutive ones from 6443 or the port that was asked for; where
/// 6443 is taken and nobody asked for it, any free ones.
///
/// # Errors
/// When a port that was asked for is taken.
pub fn open_apis(wishes: Wishes, count: u16) -> Result<Vec<Vec<TcpListener>>, Taken> {
    const FIRST: u16 = 6443;
    let first = wishes.api.unwrap_or(FIRST);
    (0..count)
        .map(|offset| {
            let port = if first == 0 { 0 } else { first + offset };
            match bind_loopback(port) {
                Err(_) if wishes.api.is_none() => bind_loopback(0),
                other => other,
            }
            .map_err(|error| Taken {
                port,
                option: "--api-port",
                error,
            })
        })
        .collect()
}

fn open_all(ports: &[u16]) -> Result<Vec<TcpListener>, (u16, io::Error)> {
    let mut listeners = Vec::new();
    for &port in ports {
        listeners.extend(bind_loopback(port).map_err(|error| (port, error))?);
    }
    Ok(listeners)
}

/// The port a listener is bound to.
pub fn port_of(listener: &TcpListener) -> Option<u16> {
    listener.local_addr().ok().map(|address| address.port())
}

fn with_port(listeners: &[TcpListener]) -> String {
    let port = listeners.first().and_then(port_of).unwrap_or_default();
    match port {
        80 | 443 => "localhost".into(),
        port => format!("localhost:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_port_that_is_taken_is_an_error_with_the_remedy() {
        let taken = bind_loopback(0).unwrap();
        let port = port_of(&taken[0]).unwrap();
        let error = open_entry(Wishes {
            entry: Some(port),
            ..Wishes::default()
        })
        .unwrap_err();
        assert_eq!((error.port, error.option), (port, "--port"));
        assert!(error.to_string().contains("--port"), "seen {error}");
    }

    #[test]
    fn a_chosen_port_becomes_part_of_the_domain_and_nothing_else_is_opened() {
        let entry = open_entry(Wishes {
            entry: Some(0),
            ..Wishes::default()
        })
        .unwrap();
        let port = port_of(&entry.listeners[0]).unwrap();
        assert_eq!(entry.domain, format!("localhost:{port}"));
        assert!(entry.listeners.iter().all(|l| port_of(l) == Some(port)));
    }

    #[test]
    fn api_servers_get_a_port_each() {
        let wishes = Wishes {
            api: Some(0),
            ..Wishes::default()
        };
        let apis = open_apis(wishes, 2).unwrap();
        assert_ne!(port_of(&apis[0][0]), port_of(&apis[1][0]));
    }
}
