//! Who may open a stream or ask for a certificate: the peer of a mutual TLS connection with a mesh
//! certificate, or the bearer of a service-account token. On the plaintext port nobody is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kube_client::Client;
use parking_lot::Mutex;
use tonic::{Request, Status};

use crate::identity::{Caller, review};

/// How long a reviewed token is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(30);

/// Tokens remembered at most.
const REMEMBERED: usize = 4096;

/// What a connection proved by itself; an extension of every request on it.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Plaintext, without any proof.
    Plaintext,
    /// TLS; the identity of the client's certificate, if it presented one.
    Tls(Option<Caller>),
}

/// Decides who is calling.
pub struct Authenticator {
    /// The clusters that can vouch for tokens.
    clients: ArcSwap<Vec<Client>>,
    reviewed: Mutex<HashMap<String, (Caller, Instant)>>,
}

impl Authenticator {
    /// Tokens are reviewed by the clusters behind `clients`.
    #[must_use]
    pub fn new(clients: Vec<Client>) -> Self {
        Self {
            clients: ArcSwap::from_pointee(clients),
            reviewed: Mutex::new(HashMap::new()),
        }
    }

    /// The clusters have changed.
    pub fn set_clients(&self, clients: Vec<Client>) {
        self.clients.store(Arc::new(clients));
    }

    /// Who sends this request; `None` on the plaintext port.
    ///
    /// # Errors
    /// UNAUTHENTICATED when nobody vouches for the caller.
    pub async fn authenticate<T>(&self, request: &Request<T>) -> Result<Option<Caller>, Status> {
        match request.extensions().get::<Transport>() {
            Some(Transport::Tls(Some(caller))) => return Ok(Some(caller.clone())),
            Some(Transport::Plaintext) => return Ok(None),
            _ => {}
        }
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| {
                Status::unauthenticated("present a mesh certificate or a service-account token")
            })?;
        let known = self.reviewed.lock().get(token).cloned();
        if let Some((caller, at)) = known
            && at.elapsed() < BELIEVED
        {
            return Ok(Some(caller));
        }
        let caller = review(&self.clients.load(), token)
            .await
            .map_err(Status::unauthenticated)?;
        let mut reviewed = self.reviewed.lock();
        if reviewed.len() >= REMEMBERED {
            reviewed.retain(|_, (_, at)| at.elapsed() < BELIEVED);
        }
        if reviewed.len() < REMEMBERED {
            reviewed.insert(token.to_owned(), (caller.clone(), Instant::now()));
        }
        Ok(Some(caller))
    }
}
