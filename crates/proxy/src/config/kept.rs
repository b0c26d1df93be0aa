//! A message of the configuration that is in use, kept for dumps and for comparing it with the next one.

use std::marker::PhantomData;

use bytes::Bytes;
use xds::Wire;
use xds::wire::next_field;

/// A message in its encoding. Read into fields and strings of their own it takes five to twenty times as much memory, for as long as
/// the configuration is in use.
#[derive(Clone)]
pub struct Kept<M> {
    bytes: Bytes,
    kind: PhantomData<fn() -> M>,
}

impl<M: Wire + PartialEq> Kept<M> {
    /// Keeps a message that did not come encoded.
    pub fn of(message: &M) -> Self {
        Self::encoded(message.to_wire())
    }

    /// Keeps what was read from these bytes.
    pub fn encoded(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            kind: PhantomData,
        }
    }

    /// The encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message, read anew.
    pub fn read(&self) -> M {
        M::from_wire(&self.bytes).unwrap_or_default()
    }

    /// Whether it is the same message; two encodings of one may differ in the order of what has none.
    pub fn is(&self, other: &Self, message: &M) -> bool {
        self.bytes == other.bytes || self.read() == *message
    }
}

/// The values of a field of messages, bytes or strings, wherever it occurs in a message.
pub fn values(message: &Bytes, field: u32) -> Vec<Bytes> {
    let mut found = Vec::new();
    let mut rest = &message[..];
    while let Some(Ok((number, value))) = (!rest.is_empty()).then(|| next_field(&mut rest)) {
        found.extend(
            value
                .filter(|_| number == field)
                .map(|value| message.slice_ref(value)),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds::envoy::config::bootstrap::v3::{Bootstrap, bootstrap::StaticResources};
    use xds::envoy::config::cluster::v3::Cluster;

    #[test]
    fn what_is_in_a_bootstrap_is_found_in_its_encoding() {
        let named = |name: &str| Cluster {
            name: name.into(),
            ..Cluster::default()
        };
        let bootstrap = Bootstrap {
            static_resources: Some(StaticResources {
                clusters: vec![named("a"), named("b")],
                ..StaticResources::default()
            }),
            ..Bootstrap::default()
        };
        let kept = Kept::of(&bootstrap);
        let resources = values(kept.bytes(), 2);
        let [resources] = &resources[..] else {
            panic!("{resources:?}");
        };
        let clusters: Vec<Cluster> = values(resources, 2)
            .into_iter()
            .map(|bytes| Kept::encoded(bytes).read())
            .collect();
        assert_eq!(clusters, [named("a"), named("b")]);
        assert!(values(resources, 1).is_empty());
        assert!(
            kept.is(&Kept::encoded(Bytes::new()), &bootstrap),
            "compared as messages"
        );
        assert!(!kept.is(&Kept::encoded(Bytes::new()), &Bootstrap::default()));
        assert!(
            values(&Bytes::from_static(&[0x12, 0x7f, 1]), 2).is_empty(),
            "cut off"
        );
    }
}
