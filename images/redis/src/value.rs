//! The five kinds of values.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

/// What a key holds. Collections are never empty: the last element takes the key along.
#[derive(Clone, Debug)]
pub enum Value {
    /// Bytes, numbers included.
    Text(Vec<u8>),
    /// A list.
    List(VecDeque<Bytes>),
    /// A hash, in order of insertion.
    Hash(IndexMap<Bytes, Bytes>),
    /// A set.
    Set(IndexSet<Bytes>),
    /// A sorted set.
    Sorted(Sorted),
}

impl Value {
    /// The name `TYPE` gives.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::List(_) => "list",
            Value::Hash(_) => "hash",
            Value::Set(_) => "set",
            Value::Sorted(_) => "zset",
        }
    }

    /// Whether the key must go.
    #[must_use]
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Value::Text(_) => false,
            Value::List(list) => list.is_empty(),
            Value::Hash(hash) => hash.is_empty(),
            Value::Set(set) => set.is_empty(),
            Value::Sorted(sorted) => sorted.is_empty(),
        }
    }

    /// The request that makes `key` hold this value (the append-only file's rewrite).
    #[must_use]
    pub fn rebuild(&self, key: &Bytes) -> Vec<Vec<Bytes>> {
        // In pieces, so that no request of the file is enormous.
        const PIECE: usize = 64;
        let pieces = |name: &'static [u8], items: Vec<Vec<Bytes>>| {
            items
                .chunks(PIECE)
                .map(|piece| {
                    [Bytes::from_static(name), key.clone()]
                        .into_iter()
                        .chain(piece.iter().flatten().cloned())
                        .collect()
                })
                .collect()
        };
        match self {
            Value::Text(text) => vec![vec![
                Bytes::from_static(b"SET"),
                key.clone(),
                Bytes::copy_from_slice(text),
            ]],
            Value::List(list) => pieces(
                b"RPUSH",
                list.iter().map(|item| vec![item.clone()]).collect(),
            ),
            Value::Set(set) => pieces(b"SADD", set.iter().map(|item| vec![item.clone()]).collect()),
            Value::Hash(hash) => pieces(
                b"HSET",
                hash.iter()
                    .map(|(field, value)| vec![field.clone(), value.clone()])
                    .collect(),
            ),
            Value::Sorted(sorted) => pieces(
                b"ZADD",
                sorted
                    .iter()
                    .map(|(score, member)| {
                        vec![crate::number::format_double(score).into(), member.clone()]
                    })
                    .collect(),
            ),
        }
    }
}

/// Members ordered by score, then by bytes.
#[derive(Clone, Debug, Default)]
pub struct Sorted {
    scores: HashMap<Bytes, f64>,
    order: BTreeSet<Ranked>,
}

#[derive(Clone, Debug, PartialEq)]
struct Ranked(f64, Bytes);

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .total_cmp(&other.0)
            .then_with(|| self.1.cmp(&other.1))
    }
}

impl Sorted {
    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The score of `member`.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Sets the score of `member`, which was what is returned.
    pub fn insert(&mut self, member: Bytes, score: f64) -> Option<f64> {
        // One zero only: -0 and 0 are the same score.
        let score = if score == 0.0 { 0.0 } else { score };
        let before = self.scores.insert(member.clone(), score);
        if let Some(before) = before {
            self.order.remove(&Ranked(before, member.clone()));
        }
        self.order.insert(Ranked(score, member));
        before
    }

    /// Takes `member` out; whether it was there.
    pub fn remove(&mut self, member: &Bytes) -> bool {
        match self.scores.remove(member) {
            Some(score) => self.order.remove(&Ranked(score, member.clone())),
            None => false,
        }
    }

    /// Position from the lowest score.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        self.scores.get(member)?;
        self.order.iter().position(|ranked| ranked.1 == member)
    }

    /// Scores and members from the lowest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (f64, &Bytes)> {
        self.order.iter().map(|ranked| (ranked.0, &ranked.1))
    }
}
