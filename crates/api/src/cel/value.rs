//! Values.

use crate::go::url::Url;
use crate::quantity::Quantity;
use indexmap::IndexMap;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;
use time::OffsetDateTime;

/// Keys of maps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// true or false.
    Bool(bool),
    /// A whole number; unsigned ones are the same key.
    Int(i128),
    /// A text.
    String(Arc<str>),
}

/// A map; objects are maps by the names of their fields.
pub type Map = IndexMap<Key, Value>;

/// How two lists are compared, and what their sum is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    /// In order.
    #[default]
    Atomic,
    /// Without order (`x-kubernetes-list-type: set`).
    Set,
    /// By keys, without order (`x-kubernetes-list-type: map`).
    Map(Vec<Arc<str>>),
}

/// A value of the language.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names are those of the types
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<Vec<Value>>, Arc<ListKind>),
    Map(Arc<Map>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(OffsetDateTime),
    Type(Arc<str>),
    Optional(Option<Arc<Value>>),
    Url(Arc<Url>),
    Quantity(Quantity),
    Ip(IpAddr),
    /// Address and length of the prefix.
    Cidr(IpAddr, u8),
    /// One of Kubernetes' formats of names.
    Format(&'static str),
}

impl Value {
    /// A list compared in order.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items), Arc::default())
    }

    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(..) => "list",
            Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Url(_) => "kubernetes.URL",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// The value as a key of a map.
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(b) => Key::Bool(*b),
            Self::Int(i) => Key::Int((*i).into()),
            Self::Uint(u) => Key::Int((*u).into()),
            Self::Double(d) if d.fract() == 0.0 => Key::Int(*d as i128),
            Self::String(s) => Key::String(s.clone()),
            _ => return None,
        })
    }

    /// The value that stands for absence of one: 0, "", false, empty.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(i) => *i == 0,
            Self::Uint(u) => *u == 0,
            Self::Double(d) => *d == 0.0,
            Self::String(s) => s.is_empty(),
            Self::Bytes(b) => b.is_empty(),
            Self::List(l, _) => l.is_empty(),
            Self::Map(m) => m.is_empty(),
            Self::Duration(d) => *d == 0,
            Self::Optional(o) => o.is_none(),
            _ => false,
        }
    }

    /// Order, where the two have one. Numbers of different types compare by what they are.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        use Value::*;
        match (self, other) {
            (Bool(a), Bool(b)) => Some(a.cmp(b)),
            (Int(a), Int(b)) => Some(a.cmp(b)),
            (Uint(a), Uint(b)) => Some(a.cmp(b)),
            (Int(a), Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Uint(a), Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Double(a), Double(b)) => a.partial_cmp(b),
            (Double(a), Int(b)) => a.partial_cmp(&(*b as f64)),
            (Int(a), Double(b)) => (*a as f64).partial_cmp(b),
            (Double(a), Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Uint(a), Double(b)) => (*a as f64).partial_cmp(b),
            (String(a), String(b)) => Some(a.cmp(b)),
            (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
            (Duration(a), Duration(b)) => Some(a.cmp(b)),
            (Timestamp(a), Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        use Value::*;
        match (self, other) {
            (Null, Null) => true,
            (List(a, kind), List(b, _)) => match &**kind {
                ListKind::Atomic => a == b,
                // Both have no duplicates.
                _ => a.len() == b.len() && a.iter().all(|x| b.contains(x)),
            },
            (Map(a), Map(b)) => a == b,
            (Type(a), Type(b)) => a == b,
            (Optional(a), Optional(b)) => a == b,
            (Url(a), Url(b)) => a == b,
            (Quantity(a), Quantity(b)) => a == b,
            (Ip(a), Ip(b)) => a == b,
            (Cidr(a, n), Cidr(b, m)) => a == b && n == m,
            (Format(a), Format(b)) => a == b,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }
}
