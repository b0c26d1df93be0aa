//! The admin interface: Envoy's endpoints, texts and JSON.

mod clusters;
mod dump;
mod help;
mod logging;
mod runtime_values;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::core::v3::address::Address;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;

use crate::server::Proxy;
use crate::stats::render::{self, Query};
use crate::web::{self, Answer, Request};

/// Opens the socket of the admin interface, if the bootstrap asks for one.
///
/// # Errors
/// When its address is taken or no address.
pub fn bind(bootstrap: &Bootstrap) -> Result<Option<std::net::TcpListener>, String> {
    let Some(Address::SocketAddress(socket)) = bootstrap
        .admin
        .as_ref()
        .and_then(|admin| admin.address.as_ref())
        .and_then(|address| address.address.as_ref())
    else {
        return Ok(None);
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => port as u16,
        _ => 0,
    };
    let ip = socket
        .address
        .parse()
        .map_err(|_| format!("admin: {:?} is not an IP address", socket.address))?;
    let address = SocketAddr::new(ip, port);
    crate::listener::bind(address, 128)
        .map(Some)
        .map_err(|error| format!("admin: cannot bind {address}: {error}"))
}

/// Serves it.
///
/// # Errors
/// When the socket cannot be used.
pub fn serve(proxy: Arc<Proxy>, listener: std::net::TcpListener) -> Result<(), String> {
    let stop = proxy.stop.clone();
    let admin = Arc::new(Admin {
        loggers: Mutex::default(),
        proxy,
    });
    web::serve(listener, stop, move |request| {
        let admin = admin.clone();
        async move { admin.answer(&request) }
    })
    .map_err(|error| format!("admin: {error}"))
}

struct Admin {
    proxy: Arc<Proxy>,
    loggers: Mutex<logging::Loggers>,
}

impl Admin {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.as_str();
        if help::changes_something(path) && request.method != Method::POST {
            return Answer::text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {} not allowed, POST required.", request.method),
            );
        }
        let shared = &self.proxy.shared;
        match path {
            "/" | "/help" => Answer::ok(help::text()),
            "/ready" => {
                let state = shared.state();
                let status = if state == "LIVE" {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                Answer::text(status, format!("{state}\n"))
            }
            "/stats" | "/stats/prometheus" => self.stats(request),
            "/clusters" => {
                if request.param("format") == Some("json") {
                    Answer::json(&clusters::json(&self.proxy))
                } else {
                    Answer::ok(clusters::text(&self.proxy))
                }
            }
            "/config_dump" => dump::answer(&self.proxy, request),
            "/listeners" => self.listeners(request),
            "/server_info" => Answer::json(&self.server_info()),
            "/certs" => Answer::json(&dump::certificates(&self.proxy)),
            "/memory" => Answer::json(&memory()),
            "/runtime" => Answer::json(&runtime_values::entries(
                self.proxy.bootstrap.read().layered_runtime.as_ref(),
            )),
            "/contention" => Answer::ok(
                "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.",
            ),
            "/init_dump" => Answer::json(&json!({})),
            "/hot_restart_version" => Answer::ok("disabled\n"),
            "/logging" => self.logging(request),
            "/reset_counters" => {
                shared.stats.reset();
                Answer::ok("OK\n")
            }
            "/reopen_logs" => {
                shared.sinks.flush();
                Answer::ok("OK\n")
            }
            "/healthcheck/fail" => {
                shared.health_failed.store(true, Ordering::Relaxed);
                Answer::ok("OK\n")
            }
            "/healthcheck/ok" => {
                shared.health_failed.store(false, Ordering::Relaxed);
                Answer::ok("OK\n")
            }
            "/drain_listeners" => self.drain_listeners(request),
            "/quitquitquit" => {
                let stop = self.proxy.stop.clone();
                // The answer leaves first.
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    stop.cancel();
                });
                Answer::ok("OK\n")
            }
            "/runtime_modify" => Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "No admin layer specified: nothing here reads runtime values\n",
            ),
            _ => Answer::text(
                StatusCode::NOT_FOUND,
                format!("invalid path. {}", help::text()),
            ),
        }
    }

    fn drain_listeners(&self, request: &Request) -> Answer {
        let has = |name: &str| request.query.iter().any(|(key, _)| key == name);
        let (inbound_only, skip_exit) = (has("inboundonly"), has("skip_exit"));
        let manager = self.proxy.manager.clone();
        // `skip_exit` alone is graceful, too.
        if !has("graceful") && !skip_exit {
            manager.stop_listeners(inbound_only);
        } else if self.proxy.drain(inbound_only) && !skip_exit {
            let time = self.proxy.shared.drain_policy.time;
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                manager.stop_listeners(inbound_only);
            });
        }
        Answer::ok("OK\n")
    }

    fn stats(&self, request: &Request) -> Answer {
        let filter = match request
            .param("filter")
            .filter(|filter| !filter.is_empty())
            .map(dataplane::re2::compile)
        {
            Some(Err(error)) => {
                return Answer::text(
                    StatusCode::BAD_REQUEST,
                    format!("Invalid re2 regex: {error}\n"),
                );
            }
            Some(Ok(filter)) => Some(filter),
            None => None,
        };
        let query = Query {
            filter,
            used_only: request.flag("usedonly")
                || request
                    .query
                    .iter()
                    .any(|(name, value)| name == "usedonly" && value.is_empty()),
            kind: request.param("type").map(str::to_owned),
        };
        let shared = &self.proxy.shared;
        shared.server.uptime.set(shared.started.elapsed().as_secs());
        shared
            .server
            .total_connections
            .set(self.proxy.active_connections());
        shared
            .server
            .state
            .set(u64::from(shared.state.load(Ordering::Relaxed)));
        let stats = &shared.stats;
        match request.param("format") {
            _ if request.path == "/stats/prometheus" => self.prometheus(&query),
            Some("prometheus") => self.prometheus(&query),
            Some("json") => Answer::json(&render::json(stats, self.proxy.tags(), &query)),
            None | Some("text" | "html") => {
                Answer::ok(render::text(stats, self.proxy.tags(), &query))
            }
            Some(_) => Answer::text(
                StatusCode::BAD_REQUEST,
                "usage: /stats?format=(html|active-html|json|prometheus|prometheusprotobuf|text)\n\n",
            ),
        }
    }

    fn prometheus(&self, query: &Query) -> Answer {
        Answer::ok(render::prometheus(
            &self.proxy.shared.stats,
            self.proxy.tags(),
            query,
        ))
    }

    fn listeners(&self, request: &Request) -> Answer {
        let all = self.proxy.manager.with_state(|state| {
            state
                .listeners
                .values()
                .filter(|listener| listener.bind)
                .map(|listener| {
                    let address =
                        self.proxy
                            .manager_address(&listener.name, listener.address, state);
                    (listener.name.clone(), address)
                })
                .collect::<Vec<_>>()
        });
        if request.param("format") == Some("json") {
            let statuses: Vec<Value> = all
                .iter()
                .map(|(name, address)| {
                    json!({"name": name, "local_address": {"socket_address":
                        {"address": address.ip().to_string(), "port_value": address.port()}}})
                })
                .collect();
            return Answer::json(&json!({ "listener_statuses": statuses }));
        }
        let lines: Vec<String> = all
            .iter()
            .map(|(name, address)| format!("{name}::{address}\n"))
            .collect();
        Answer::ok(lines.concat())
    }

    fn server_info(&self) -> Value {
        let shared = &self.proxy.shared;
        let uptime = format!("{}s", shared.started.elapsed().as_secs());
        json!({
            "version": format!("0000000000000000000000000000000000000000/{}/Clean/RELEASE/theater", ENVOY_VERSION),
            "state": shared.state(),
            "hot_restart_version": "disabled",
            "command_line_options": {
                "concurrency": shared.concurrency,
                "mode": "Serve",
                "log_level": "warning",
                "drain_time": format!("{}s", shared.drain_policy.time.as_secs()),
                "drain_strategy": if shared.drain_policy.gradual { "Gradual" } else { "Immediate" },
                "disable_hot_restart": true,
            },
            "node": node(&shared.node),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
        })
    }

    fn logging(&self, request: &Request) -> Answer {
        let mut loggers = self.loggers.lock();
        match loggers.change(&request.query) {
            Ok(()) => Answer::ok(loggers.text()),
            Err(error) => Answer::text(
                StatusCode::BAD_REQUEST,
                format!("error: {error}\n{}", loggers.text()),
            ),
        }
    }
}

/// The version of Envoy whose behaviour is kept.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The node without going through the descriptors of all messages, which would stay in memory.
fn node(node: &xds::envoy::config::core::v3::Node) -> Value {
    let metadata = node
        .metadata
        .as_ref()
        .map(dataplane::matching::struct_to_json);
    let mut out =
        json!({"id": node.id, "cluster": node.cluster, "metadata": metadata.unwrap_or_default()});
    if let Some(locality) = &node.locality {
        let mut fields = serde_json::Map::new();
        for (name, value) in [
            ("region", &locality.region),
            ("zone", &locality.zone),
            ("sub_zone", &locality.sub_zone),
        ] {
            if !value.is_empty() {
                fields.insert(name.into(), value.as_str().into());
            }
        }
        out["locality"] = fields.into();
    }
    out
}

fn memory() -> Value {
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * 4096);
    json!({
        "allocated": resident.to_string(),
        "heap_size": resident.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident.to_string(),
    })
}
