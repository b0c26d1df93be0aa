//! Listeners come, warm, change, drain and go, and their sockets with them.

use std::net::SocketAddr;
use std::sync::Arc;

use runtime::CancellationToken;
use xds::envoy::config::listener::v3::Listener as ListenerMessage;

use super::super::kept::Kept;
use super::super::listener::Listener;
use super::{Manager, Refused, Socket, State, decode};
use crate::stats::Gauge;
use crate::stats::groups::ListenerManagerStats;
use crate::xds_client::ads::Received;

impl Manager {
    pub(super) fn add_listener(
        &self,
        state: &mut State,
        message: &ListenerMessage,
        kept: Kept<ListenerMessage>,
        version: &str,
        fixed: bool,
    ) -> Result<(), String> {
        let stopped = match state.stopped {
            Some(inbound_only) => !inbound_only || message.traffic_direction == 1,
            None => false,
        };
        if stopped {
            return Ok(());
        }
        let name = message.name.clone();
        let current = state
            .warming_listeners
            .get(&name)
            .or_else(|| state.listeners.get(&name));
        if let Some(current) = current {
            if current.message.is(&kept, message) {
                return Ok(());
            }
            self.listeners.listener_modified.inc();
        } else {
            self.listeners.listener_added.inc();
        }
        // Log files are flushed by tasks of the main runtime, whoever brings the configuration.
        let _entered = self.runtime.enter();
        let active = state.listeners.get(&name).map(|listener| &**listener);
        let listener = Listener::compile(message, kept, version, &self.shared, fixed, active)?;
        for routes in listener.inline_routes() {
            // Routes in a listener may only name clusters that exist, unless they say otherwise.
            if !routes.validate_clusters {
                continue;
            }
            let known = |name: &str| {
                state.clusters.contains_key(name) || state.warming_clusters.contains_key(name)
            };
            if let Some(name) = routes.table.clusters().find(|name| !known(name)) {
                return Err(format!("route: unknown cluster '{name}'"));
            }
        }
        if listener.bind {
            for address in
                std::iter::once(listener.address).chain(listener.additional.iter().copied())
            {
                self.open(state, &name, address)?;
            }
        }
        state.refused_listeners.remove(&name);
        state.warming_listeners.insert(name, listener);
        Ok(())
    }

    /// Opens a socket, once; workers find out what to do with a connection when it comes.
    fn open(&self, state: &mut State, name: &str, address: SocketAddr) -> Result<(), String> {
        let key = (name.to_owned(), address);
        // Without workers there is nobody to serve: the configuration is only looked at.
        if self.workers.is_empty() || state.sockets.contains_key(&key) {
            return Ok(());
        }
        let _entered = self.runtime.enter();
        let socket = crate::listener::bind(address, 1024).map_err(|error| {
            self.listeners.listener_create_failure.inc();
            let text = error.to_string();
            format!(
                "cannot bind '{address}': {}",
                text.split(" (os error").next().unwrap_or_default()
            )
        })?;
        self.listeners.listener_create_success.inc();
        let local = socket.local_addr().unwrap_or(address);
        if address.port() == 0 {
            tracing::info!("listener {name} is on {local}");
        }
        let stop = CancellationToken::new();
        for worker in &self.workers {
            let (name, stop, shared) = (name.to_owned(), stop.clone(), self.shared.clone());
            let Ok(socket) = socket.try_clone() else {
                continue;
            };
            worker.run(move |worker| {
                tokio::task::spawn_local(crate::listener::accept(
                    worker, shared, name, socket, stop,
                ));
            });
        }
        state.sockets.insert(
            key,
            Socket {
                address: local,
                stop,
            },
        );
        Ok(())
    }

    /// Takes no new connections any more, on inbound listeners or on all, those that come later included.
    pub fn stop_listeners(&self, inbound_only: bool) {
        let mut state = self.state.lock();
        state.stopped = Some(inbound_only && state.stopped != Some(false));
        for ((name, _), socket) in &state.sockets {
            let inbound = || {
                state
                    .listeners
                    .get(name)
                    .is_some_and(|on| on.direction == 1)
            };
            if (!inbound_only || inbound()) && !socket.stop.is_cancelled() {
                socket.stop.cancel();
                self.listeners.listener_stopped.inc();
            }
        }
    }

    pub(super) fn remove_listener(&self, state: &mut State, name: &str) {
        if state
            .listeners
            .get(name)
            .is_some_and(|listener| listener.fixed)
        {
            return;
        }
        state.refused_listeners.remove(name);
        state.warming_listeners.remove(name);
        if let Some(listener) = state.listeners.remove(name) {
            self.drain(&listener, None);
            self.listeners.listener_removed.inc();
        }
        close_sockets(state, name, &[]);
    }

    /// Lets the connections of a listener drain that is replaced or removed; where only filter chains changed `in_place`, those of
    /// the chains that are gone, which are asked to close whatever the policy.
    fn drain(&self, old: &Listener, in_place: Option<&Listener>) {
        let mut chains = 0;
        for chain in old.all_chains() {
            let stays =
                in_place.is_some_and(|new| new.all_chains().any(|kept| Arc::ptr_eq(kept, chain)));
            if !stays {
                chain.drain.begin(in_place.is_some());
                chains += 1;
            }
        }
        let stats = self.listeners.clone();
        let draining: fn(&ListenerManagerStats) -> &Gauge = match in_place {
            Some(_) => {
                stats.listener_in_place_updated.inc();
                |stats| &stats.total_filter_chains_draining
            }
            None => {
                chains = 1;
                |stats| &stats.total_listeners_draining
            }
        };
        (0..chains).for_each(|_| draining(&stats).inc());
        let time = self.shared.drain_policy.time;
        self.runtime.spawn(async move {
            tokio::time::sleep(time).await;
            (0..chains).for_each(|_| draining(&stats).dec());
        });
    }

    /// Brings listeners into use that have what they wait for.
    pub(super) fn warm(&self, state: &mut State) {
        let ready: Vec<String> = state
            .warming_listeners
            .iter()
            .filter(|(_, listener)| {
                listener
                    .route_names()
                    .all(|name| state.routes.contains_key(name))
                    && listener
                        .extension_names()
                        .all(|name| self.shared.extensions.read().contains_key(name))
                    && listener
                        .secret_names()
                        .all(|name| self.shared.secrets.get(name).is_some())
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some(listener) = state.warming_listeners.remove(&name) else {
                continue;
            };
            let addresses: Vec<SocketAddr> = if listener.bind {
                std::iter::once(listener.address)
                    .chain(listener.additional.iter().copied())
                    .collect()
            } else {
                Vec::new()
            };
            if let Some(old) = state.listeners.insert(name.clone(), listener.clone()) {
                self.drain(&old, Some(&*listener).filter(|new| new.in_place));
            }
            close_sockets(state, &name, &addresses);
        }
    }

    pub(super) fn apply_listeners(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        self.listeners.lds_update_attempt.inc();
        // Removals first: a listener may take over the address of one that goes.
        for name in removed {
            self.remove_listener(state, &name);
        }
        for resource in updated {
            let outcome = decode(resource.body).and_then(|(message, kept)| {
                self.add_listener(state, &message, kept, &resource.version, false)
            });
            if let Err(error) = outcome {
                refused.push(format!("{}: {error}", resource.name));
                let entry = Refused::now(error, resource.version);
                state.refused_listeners.insert(resource.name, entry);
            }
        }
        state.listeners_came = true;
        self.warm(state);
        if refused.is_empty() {
            self.listeners.lds_update_success.inc();
            Ok(())
        } else {
            self.listeners.lds_update_rejected.inc();
            Err(format!(
                "Error adding/updating listener(s) {}",
                refused.join(", ")
            ))
        }
    }
}

fn close_sockets(state: &mut State, name: &str, keep: &[SocketAddr]) {
    state.sockets.retain(|(listener, address), socket| {
        let close = listener == name && !keep.contains(address);
        if close {
            socket.stop.cancel();
        }
        !close
    });
}
