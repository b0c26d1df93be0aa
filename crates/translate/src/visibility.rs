//! `exportTo`: which namespaces see an object.

/// The namespaces that see an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Visibility {
    /// All.
    #[default]
    Public,
    /// Only its own.
    Private,
    /// None.
    Nowhere,
    /// These.
    Namespaces(Vec<String>),
}

impl Visibility {
    /// From `exportTo` of an object in `namespace`; empty means `default`.
    pub(crate) fn new(export_to: &[String], namespace: &str, default: &[String]) -> Self {
        let list = if export_to.is_empty() {
            default
        } else {
            export_to
        };
        if list.is_empty() || list.iter().any(|entry| entry == "*") {
            return Self::Public;
        }
        if list.iter().any(|entry| entry == "~") {
            return Self::Nowhere;
        }
        let mut names: Vec<String> = list
            .iter()
            .map(|entry| {
                if entry == "." {
                    namespace.to_owned()
                } else {
                    entry.clone()
                }
            })
            .collect();
        names.sort();
        names.dedup();
        if names == [namespace] {
            Self::Private
        } else {
            Self::Namespaces(names)
        }
    }

    /// Whether a client in `client` sees an object in `owner`.
    pub(crate) fn allows(&self, owner: &str, client: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Private => owner == client,
            Self::Nowhere => false,
            Self::Namespaces(names) => names.iter().any(|name| name == client),
        }
    }
}
