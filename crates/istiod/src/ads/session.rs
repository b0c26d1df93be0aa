//! One proxy's conversation: requests and new configuration in, responses out. Pure; the two variants
//! of the protocol are thin shells around it (`super::stream`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use translate::ProxyInfo;
use xds::prost_types::Any;
use xds::type_url;

use super::subscription::{Ask, Reaction, Resources, Subscription, Update};

/// The resource types of a proxy in the order in which they are pushed: a cluster before its endpoints,
/// both before the listeners and routes that lead there, so that nothing points at what is not there yet.
pub const PUSH_ORDER: [&str; 6] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::SECRET,
    type_url::EXTENSION_CONFIG,
];

/// Which variant of the protocol a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Incremental: changes only.
    Delta,
    /// State of the world: whole lists.
    StateOfTheWorld,
}

/// One version of everything a proxy can be sent.
pub trait World: Send + Sync + 'static {
    /// Grows with every change; part of versions and nonces.
    fn version(&self) -> u64;
    /// How a proxy's resources were made, to go on from there.
    type Built: Send;
    /// All resources for a proxy, by type.
    fn generate(&self, proxy: &ProxyInfo) -> (Self::Built, Generated);
    /// Brings resources made by an earlier version up to this one.
    fn update(
        &self,
        proxy: &ProxyInfo,
        built: &mut Self::Built,
        generated: &mut Generated,
    ) -> Changes;
    /// A secret for a proxy that may have it.
    fn secret(&self, proxy: &ProxyInfo, name: &str) -> Option<Any>;
}

/// Resources by type URL, without those that are made by name (secrets).
pub type Generated = BTreeMap<&'static str, Resources>;

/// What an update touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Any resource can be different.
    Everything,
    /// Nothing but these, by type and name.
    Only(BTreeMap<&'static str, BTreeSet<String>>),
}

/// A response to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Type of the resources.
    pub type_url: String,
    /// Version of the configuration.
    pub version: String,
    /// What the client answers with.
    pub nonce: String,
    /// The resources.
    pub update: Update,
}

/// How far a proxy is with one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeStatus {
    /// Type URL.
    pub type_url: String,
    /// Nonce last sent.
    pub sent: String,
    /// Nonce last acknowledged.
    pub acked: String,
    /// Why the last response was refused, if it was.
    pub refused: Option<String>,
}

/// One proxy's conversation.
pub struct Session<W: World> {
    variant: Variant,
    proxy: Arc<ProxyInfo>,
    world: Arc<W>,
    generated: Option<(W::Built, Generated)>,
    subscriptions: BTreeMap<String, Subscription>,
    refused: BTreeMap<String, String>,
    responses: u64,
}

impl<W: World> Session<W> {
    /// A new conversation with a proxy.
    pub fn new(variant: Variant, proxy: ProxyInfo, world: Arc<W>) -> Self {
        Self {
            variant,
            proxy: Arc::new(proxy),
            world,
            generated: None,
            subscriptions: BTreeMap::new(),
            refused: BTreeMap::new(),
            responses: 0,
        }
    }

    /// Who it is.
    pub fn proxy(&self) -> &Arc<ProxyInfo> {
        &self.proxy
    }

    /// The configuration it is sent from.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// How far the proxy is.
    pub fn status(&self) -> Vec<TypeStatus> {
        self.subscriptions
            .iter()
            .map(|(type_url, subscription)| {
                let (sent, acked) = subscription.nonces();
                TypeStatus {
                    type_url: type_url.clone(),
                    sent: sent.to_owned(),
                    acked: acked.to_owned(),
                    refused: self.refused.get(type_url).cloned(),
                }
            })
            .collect()
    }

    /// Takes a request for one type.
    pub fn on_request(&mut self, type_url: &str, ask: &Ask) -> Vec<Response> {
        let wildcard_type = matches!(type_url, type_url::CLUSTER | type_url::LISTENER);
        let first = !self.subscriptions.contains_key(type_url);
        let subscription = self.subscriptions.entry(type_url.to_owned()).or_default();
        let reaction = match self.variant {
            Variant::Delta => subscription.on_delta(ask, wildcard_type),
            Variant::StateOfTheWorld => subscription.on_sotw(ask, wildcard_type),
        };
        match reaction {
            Reaction::Nothing => {
                if !ask.nonce.is_empty() {
                    self.refused.remove(type_url);
                }
                Vec::new()
            }
            Reaction::Refused(reason) => {
                self.refused.insert(type_url.to_owned(), reason);
                Vec::new()
            }
            // An answer is owed even if nothing exists: the client waits for it.
            Reaction::Respond => self.respond(type_url, true, first, None),
        }
    }

    /// Takes a new version of the configuration.
    pub fn on_world(&mut self, world: Arc<W>) -> Vec<Response> {
        self.world = world;
        let changes = match &mut self.generated {
            Some((built, generated)) => self.world.update(&self.proxy, built, generated),
            None => Changes::Everything,
        };
        let mut responses = Vec::new();
        for type_url in PUSH_ORDER {
            if !self.subscriptions.contains_key(type_url) {
                continue;
            }
            match &changes {
                // Secrets are made by name and can change by themselves.
                Changes::Only(names) if type_url != type_url::SECRET => {
                    let nothing = BTreeSet::new();
                    let names = names.get(type_url).unwrap_or(&nothing);
                    responses.extend(self.respond(type_url, false, false, Some(names)));
                }
                _ => responses.extend(self.respond(type_url, false, false, None)),
            }
        }
        responses
    }

    /// `only`: nothing else can have changed since the last response.
    fn respond(
        &mut self,
        type_url: &str,
        owed: bool,
        first: bool,
        only: Option<&BTreeSet<String>>,
    ) -> Vec<Response> {
        let made_by_name;
        let current = if type_url == type_url::SECRET {
            made_by_name = self.secrets();
            &made_by_name
        } else {
            let (world, proxy) = (&self.world, &self.proxy);
            let (_, generated) = self.generated.get_or_insert_with(|| world.generate(proxy));
            static NOTHING: Resources = Resources::new();
            generated.get(type_url).unwrap_or(&NOTHING)
        };
        let Some(subscription) = self.subscriptions.get_mut(type_url) else {
            return Vec::new();
        };
        if only.is_some_and(BTreeSet::is_empty) && !subscription.is_forced() {
            return Vec::new();
        }
        let update = if self.variant == Variant::StateOfTheWorld && subscription.is_wildcard() {
            subscription.everything(current).map(|resources| Update {
                resources,
                removed: Vec::new(),
            })
        } else {
            let update = subscription.update(current, only, |name| empty(type_url, name));
            (owed || !update.is_empty()).then_some(update)
        };
        let Some(update) = update else {
            return Vec::new();
        };
        self.responses += 1;
        let version = self.world.version().to_string();
        let nonce = format!("{version}-{}", self.responses);
        subscription.sending(&nonce);
        let changed: Vec<String> = update
            .resources
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let mut responses = vec![Response {
            type_url: type_url.to_owned(),
            version,
            nonce,
            update,
        }];
        // A cluster that is new or changed warms until its endpoints arrive, even those it had.
        if type_url == type_url::CLUSTER
            && let Some(endpoints) = self.subscriptions.get_mut(type_url::ENDPOINT)
        {
            endpoints.force(changed);
            // In a push of everything, endpoints follow anyway.
            if owed && first {
                responses.extend(self.respond(type_url::ENDPOINT, false, false, None));
            }
        }
        responses
    }

    fn secrets(&self) -> Resources {
        self.subscriptions
            .get(type_url::SECRET)
            .into_iter()
            .flat_map(Subscription::names)
            .filter_map(|name| {
                self.world
                    .secret(&self.proxy, name)
                    .map(|secret| (name.to_owned(), secret))
            })
            .collect()
    }
}

/// The resource for a name that does not exist, for types where a proxy waits for an answer.
fn empty(type_url: &str, name: &str) -> Option<Any> {
    use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use xds::envoy::config::route::v3::RouteConfiguration;
    match type_url {
        type_url::ENDPOINT => Some(xds::any::pack(&ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            ..Default::default()
        })),
        type_url::ROUTE => Some(xds::any::pack(&RouteConfiguration {
            name: name.to_owned(),
            ..Default::default()
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use translate::Locality;

    struct Fixed(u64, Vec<(&'static str, &'static str, &'static str)>);

    impl World for Fixed {
        fn version(&self) -> u64 {
            self.0
        }
        type Built = ();
        fn update(&self, proxy: &ProxyInfo, (): &mut (), generated: &mut Generated) -> Changes {
            let before = std::mem::replace(generated, self.generate(proxy).1);
            let mut changed: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
            for (type_url, resources) in &*generated {
                for (name, resource) in resources {
                    if before.get(type_url).and_then(|known| known.get(name)) != Some(resource) {
                        changed.entry(type_url).or_default().insert(name.clone());
                    }
                }
            }
            for (type_url, resources) in before {
                for name in resources.into_keys() {
                    if !generated
                        .get(type_url)
                        .is_some_and(|now| now.contains_key(&name))
                    {
                        changed.entry(type_url).or_default().insert(name);
                    }
                }
            }
            Changes::Only(changed)
        }
        fn generate(&self, _proxy: &ProxyInfo) -> ((), Generated) {
            let mut generated = Generated::new();
            for (type_url, name, value) in &self.1 {
                generated.entry(type_url).or_default().insert(
                    (*name).to_owned(),
                    Any {
                        type_url: (*type_url).to_owned(),
                        value: value.as_bytes().to_vec(),
                    },
                );
            }
            ((), generated)
        }
        fn secret(&self, proxy: &ProxyInfo, name: &str) -> Option<Any> {
            (proxy.is_router() && name == "kubernetes://tls").then(Any::default)
        }
    }

    fn session(variant: Variant, world: Fixed) -> Session<Fixed> {
        let proxy = ProxyInfo::from_node(
            "sidecar~10.0.0.1~a.b~b.svc.cluster.local",
            &json!({}),
            Locality::default(),
        )
        .unwrap();
        Session::new(variant, proxy, Arc::new(world))
    }

    fn ask(names: &[&str]) -> Ask {
        Ask {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Ask::default()
        }
    }

    fn summary(responses: &[Response]) -> Vec<(&str, usize)> {
        responses
            .iter()
            .map(|response| {
                (
                    type_url::short_name(&response.type_url),
                    response.update.resources.len(),
                )
            })
            .collect()
    }

    #[test]
    fn a_push_sends_only_what_changed_and_clusters_come_with_their_endpoints() {
        let mut session = session(
            Variant::Delta,
            Fixed(
                1,
                vec![
                    (type_url::CLUSTER, "c", "1"),
                    (type_url::ENDPOINT, "c", "1"),
                ],
            ),
        );
        let first = session.on_request(type_url::CLUSTER, &ask(&[]));
        assert_eq!(summary(&first), [("cds", 1)]);
        assert_eq!(
            summary(&session.on_request(type_url::ENDPOINT, &ask(&["c"]))),
            [("eds", 1)]
        );
        assert_eq!(
            summary(&session.on_request(type_url::LISTENER, &ask(&[]))),
            [("lds", 0)]
        );
        // Nothing changed.
        let same = Fixed(
            2,
            vec![
                (type_url::CLUSTER, "c", "1"),
                (type_url::ENDPOINT, "c", "1"),
            ],
        );
        assert!(session.on_world(Arc::new(same)).is_empty());
        // Only endpoints changed.
        let endpoints = Fixed(
            3,
            vec![
                (type_url::CLUSTER, "c", "1"),
                (type_url::ENDPOINT, "c", "2"),
            ],
        );
        assert_eq!(
            summary(&session.on_world(Arc::new(endpoints))),
            [("eds", 1)]
        );
        // The cluster changed: its endpoints come again.
        let cluster = Fixed(
            4,
            vec![
                (type_url::CLUSTER, "c", "2"),
                (type_url::ENDPOINT, "c", "2"),
            ],
        );
        assert_eq!(
            summary(&session.on_world(Arc::new(cluster))),
            [("cds", 1), ("eds", 1)]
        );
    }

    #[test]
    fn what_is_gone_is_removed_by_an_update_too() {
        let mut session = session(
            Variant::Delta,
            Fixed(
                1,
                vec![(type_url::CLUSTER, "a", "1"), (type_url::CLUSTER, "b", "1")],
            ),
        );
        session.on_request(type_url::CLUSTER, &ask(&[]));
        let fewer = Fixed(2, vec![(type_url::CLUSTER, "b", "1")]);
        let responses = session.on_world(Arc::new(fewer));
        assert_eq!(summary(&responses), [("cds", 0)]);
        assert_eq!(responses[0].update.removed, ["a"]);
    }

    #[test]
    fn unknown_routes_get_an_empty_answer_and_secrets_only_those_who_may() {
        let mut session = session(Variant::Delta, Fixed(1, Vec::new()));
        assert_eq!(
            summary(&session.on_request(type_url::ROUTE, &ask(&["8081"]))),
            [("rds", 1)]
        );
        assert_eq!(
            summary(&session.on_request(type_url::SECRET, &ask(&["kubernetes://tls"]))),
            [("sds", 0)]
        );
    }

    #[test]
    fn a_refusal_is_remembered_until_something_is_accepted() {
        let mut session = session(
            Variant::Delta,
            Fixed(1, vec![(type_url::CLUSTER, "c", "1")]),
        );
        let nonce = session.on_request(type_url::CLUSTER, &ask(&[]))[0]
            .nonce
            .clone();
        let answer = |error: Option<&str>| Ask {
            nonce: nonce.clone(),
            error: error.map(Into::into),
            ..Ask::default()
        };
        session.on_request(type_url::CLUSTER, &answer(Some("bad")));
        assert_eq!(session.status()[0].refused.as_deref(), Some("bad"));
        session.on_request(type_url::CLUSTER, &answer(None));
        assert_eq!(session.status()[0].refused, None);
        assert_eq!(session.status()[0].acked, nonce);
    }
}
