//! `basic_auth`: user names and passwords, as Apache's htpasswd writes them with `-s`.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dataplane::local_reply::{self, LocalReply};
use dataplane::{RequestHead, ResponseFlags};
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use ring::digest;
use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds::envoy::extensions::filters::http::basic_auth::v3 as config;

use super::FilterContext;
use crate::stats::groups::BasicAuthStats;

/// The filter, compiled.
pub struct BasicAuth {
    users: Users,
    forward: Option<HeaderName>,
    header: HeaderName,
    allow_missing: bool,
    /// The user is told to other filters.
    pub metadata: bool,
    stats: Arc<BasicAuthStats>,
}

/// The digests of the passwords, by user.
pub struct Users(HashMap<String, Vec<u8>>);

/// What becomes of a request.
pub enum Outcome {
    /// It goes on, by this user.
    User(String),
    /// It goes on without a user.
    Nobody,
    /// It does not.
    Denied(LocalReply, HeaderMap),
}

impl Users {
    /// Reads a list of users.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn compile(source: Option<&DataSource>) -> Result<Self, String> {
        let text = match source.and_then(|source| source.specifier.as_ref()) {
            Some(Specifier::InlineString(text)) => text.clone(),
            Some(Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Specifier::Filename(path)) => std::fs::read_to_string(path)
                .map_err(|error| format!("users.filename: {path}: {error}"))?,
            Some(Specifier::EnvironmentVariable(name)) => std::env::var(name)
                .map_err(|_| format!("users.environment_variable: {name} is not set"))?,
            None => return Err("users: is missing".into()),
        };
        let mut users = HashMap::new();
        // Envoy's words, which tell people what to write.
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, hash) = line
                .split_once(':')
                .ok_or("basic auth: invalid htpasswd format, username:password is expected")?;
            if name.is_empty() || hash.is_empty() {
                return Err("basic auth: empty user name or password".into());
            }
            let digest = hash
                .strip_prefix("{SHA}")
                .ok_or("basic auth: unsupported htpasswd format: please use {SHA}")?;
            let digest = BASE64
                .decode(digest)
                .ok()
                .filter(|digest| digest.len() == 20)
                .ok_or("basic auth: invalid htpasswd format, invalid SHA hash length")?;
            if users.insert(name.to_owned(), digest).is_some() {
                return Err("basic auth: duplicate users".into());
            }
        }
        Ok(Self(users))
    }

    fn knows(&self, user: &str, password: &str) -> bool {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        // What the time of this tells about the digest is of no use: nobody can choose digests.
        self.0.get(user).is_some_and(|own| own == digest.as_ref())
    }
}

impl BasicAuth {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(
        config: &config::BasicAuth,
        context: &FilterContext<'_>,
    ) -> Result<Self, String> {
        let name = |name: &str, field: &str| {
            HeaderName::try_from(name)
                .map_err(|_| format!("{field}: {name:?} is not the name of a header"))
        };
        let forward = match config.forward_username_header.as_str() {
            "" => None,
            own => Some(name(own, "forward_username_header")?),
        };
        Ok(Self {
            users: Users::compile(config.users.as_ref())?,
            forward,
            header: match config.authentication_header.as_str() {
                "" => header::AUTHORIZATION,
                own => name(own, "authentication_header")?,
            },
            allow_missing: config.allow_missing,
            metadata: config.emit_dynamic_metadata,
            stats: context
                .shared
                .stats
                .group(&format!("http.{}.basic_auth", context.stat_prefix)),
        })
    }

    /// Looks at a request. `users` are those of its route.
    pub fn check(&self, head: &RequestHead<'_>, users: Option<&Users>) -> Outcome {
        let outcome = self.decide(head, users.unwrap_or(&self.users));
        match &outcome {
            Outcome::Denied(..) => self.stats.denied.inc(),
            Outcome::User(_) => self.stats.allowed.inc(),
            Outcome::Nobody => {}
        }
        outcome
    }

    fn decide(&self, head: &RequestHead<'_>, users: &Users) -> Outcome {
        let Some(said) = head
            .header(self.header.as_str())
            .filter(|said| !said.is_empty())
        else {
            if self.allow_missing {
                return Outcome::Nobody;
            }
            let body = "User authentication failed. Missing username and password.";
            return denied(head, body, "no_credential_for_basic_auth");
        };
        // In this spelling only, as Envoy.
        let Some(credentials) = said.strip_prefix("Basic ") else {
            if self.allow_missing {
                return Outcome::Nobody;
            }
            let body = "User authentication failed. Expected 'Basic' authentication scheme.";
            return denied(head, body, "invalid_scheme_for_basic_auth");
        };
        let decoded = BASE64.decode(credentials.trim()).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded);
        let Some((user, password)) = decoded.split_once(':') else {
            let body = "User authentication failed. Invalid basic credential format.";
            return denied(head, body, "invalid_format_for_basic_auth");
        };
        if !users.knows(user, password) {
            let body = "User authentication failed. Invalid username/password combination.";
            return denied(head, body, "invalid_credential_for_basic_auth");
        }
        Outcome::User(user.to_owned())
    }

    /// Tells the upstream who asks.
    pub fn forward(&self, headers: &mut HeaderMap, user: &str) {
        if let (Some(name), Ok(value)) = (&self.forward, HeaderValue::try_from(user)) {
            headers.insert(name.clone(), value);
        }
    }
}

fn denied(head: &RequestHead<'_>, body: &'static str, details: &'static str) -> Outcome {
    let (scheme, authority, path) = (head.scheme, head.authority, head.path);
    let realm = format!("Basic realm=\"{scheme}://{authority}{path}\"");
    let mut headers = HeaderMap::new();
    if let Ok(realm) = HeaderValue::try_from(realm) {
        headers.insert(header::WWW_AUTHENTICATE, realm);
    }
    let reply = LocalReply {
        status: 401,
        body: body.into(),
        flags: ResponseFlags::NONE,
        details: details.into(),
        ..local_reply::ROUTE_NOT_FOUND
    };
    Outcome::Denied(reply, headers)
}
