//! Which form of an answer the client asked for.

use api::status::StatusError;

use crate::error::ApiResult;

/// What answers can be encoded in.
pub(crate) const MEDIA: &[&str] = &["application/json", "application/yaml"];

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// `as=Table`: rows for people.
    Table,
    /// `as=PartialObjectMetadata[List]`: metadata only.
    Metadata,
}

/// The encoding of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// The answer's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Shape,
    pub encoding: Encoding,
}

/// One media range of an `Accept` header.
#[derive(Debug, PartialEq)]
pub(crate) struct MediaRange<'a> {
    pub media: &'a str,
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(k, _)| *k == name)
            .map(|(_, v)| *v)
    }
}

/// The media ranges of a header in the client's order.
pub(crate) fn media_ranges(accept: &str) -> Vec<MediaRange<'_>> {
    accept
        .split(',')
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().filter(|m| !m.is_empty())?;
            let parameters = parts.filter_map(|p| p.split_once('=')).collect();
            Some(MediaRange { media, parameters })
        })
        .collect()
}

/// Chooses the first form of an `Accept` header that can be served.
pub(crate) fn form(accept: &str) -> ApiResult<Form> {
    let plain = Form {
        shape: Shape::Plain,
        encoding: Encoding::Json,
    };
    if accept.trim().is_empty() {
        return Ok(plain);
    }
    for range in media_ranges(accept) {
        let encoding = match range.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        let shape = match (range.get("as"), range.get("g"), range.get("v")) {
            (None, ..) => Shape::Plain,
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Shape::Table,
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1" | "v1beta1"),
            ) => Shape::Metadata,
            _ => continue,
        };
        return Ok(Form { shape, encoding });
    }
    Err(StatusError::not_acceptable(MEDIA))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_tables() {
        let f = form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json").unwrap();
        assert_eq!(f.shape, Shape::Table);
    }

    #[test]
    fn protobuf_first_and_json_second_gets_json() {
        let f = form("application/vnd.kubernetes.protobuf,application/json").unwrap();
        assert_eq!((f.shape, f.encoding), (Shape::Plain, Encoding::Json));
        assert_eq!(form("text/html").unwrap_err().code, 406);
        assert_eq!(form("application/yaml").unwrap().encoding, Encoding::Yaml);
        assert_eq!(form("").unwrap().encoding, Encoding::Json);
    }
}
