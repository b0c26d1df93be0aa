//! Key sets of RequestAuthentications that name them by URI: fetched here, so that proxies get them inline.
//!
//! Until a key set is there, proxies get one whose private key nobody has: tokens of that issuer are refused, never
//! let through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::clusters::Clusters;

/// A key set is fetched anew after this.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// The pauses after failures grow from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Longer key sets are refused.
const MAX_BYTES: usize = 1024 * 1024;
/// Certificates of authorities that servers of key sets are trusted by: the machine's, and one's own.
const ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/cacerts/extra.pem"];

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// At this URI.
    Uri(String),
    /// Where the OpenID configuration of this issuer says.
    Issuer(String),
}

impl Source {
    /// The name by which the translator asks.
    fn key(&self) -> &str {
        match self {
            Self::Uri(text) | Self::Issuer(text) => text,
        }
    }
}

/// What rules need: rules with an inline key set need nothing.
fn sources<'a>(policies: impl Iterator<Item = &'a Value>) -> BTreeSet<Source> {
    policies
        .filter_map(|policy| policy["spec"]["jwtRules"].as_array())
        .flatten()
        .filter_map(|rule| {
            let text = |names: [&str; 2]| {
                names
                    .iter()
                    .find_map(|name| rule[*name].as_str())
                    .filter(|text| !text.is_empty())
            };
            if text(["jwks", "jwks"]).is_some() {
                return None;
            }
            match text(["jwksUri", "jwks_uri"]) {
                Some(uri) => Some(Source::Uri(uri.to_owned())),
                None => text(["issuer", "issuer"]).map(|issuer| Source::Issuer(issuer.to_owned())),
            }
        })
        .collect()
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    RETRY
        .0
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(RETRY.1)
}

struct Entry {
    keys: Option<String>,
    due: Instant,
    failures: u32,
}

/// All key sets that were fetched.
#[derive(Default)]
pub struct KeySets {
    entries: Mutex<BTreeMap<Source, Entry>>,
}

impl KeySets {
    /// What is known now, by URI or issuer.
    pub fn known(&self) -> BTreeMap<String, String> {
        let entries = self.entries.lock();
        let one = |(source, entry): (&Source, &Entry)| {
            Some((source.key().to_owned(), entry.keys.clone()?))
        };
        entries.iter().filter_map(one).collect()
    }

    /// Forgets what nobody wants any more; what is to be fetched now.
    fn due(&self, wanted: &BTreeSet<Source>, now: Instant) -> Vec<Source> {
        let mut entries = self.entries.lock();
        entries.retain(|source, _| wanted.contains(source));
        wanted
            .iter()
            .filter(|source| entries.get(source).is_none_or(|entry| entry.due <= now))
            .cloned()
            .collect()
    }

    /// Takes what came; whether it is another key set than before.
    fn take(&self, source: Source, result: Result<String, String>, now: Instant) -> bool {
        let mut entries = self.entries.lock();
        let entry = entries.entry(source).or_insert(Entry {
            keys: None,
            due: now,
            failures: 0,
        });
        match result {
            Ok(keys) => {
                entry.failures = 0;
                entry.due = now + REFRESH;
                let other = entry.keys.as_ref() != Some(&keys);
                entry.keys = Some(keys);
                other
            }
            // The old set stays in use: a server that is away must not lock everybody out.
            Err(_) => {
                entry.failures += 1;
                entry.due = now + pause(entry.failures);
                false
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.entries.lock().values().map(|entry| entry.due).min()
    }
}

/// Keeps the key sets of all RequestAuthentications, and says when one has changed.
pub async fn follow(clusters: Arc<Clusters>) {
    let sets = clusters.key_sets();
    let mut changes = clusters.changes();
    let tls = Arc::new(trust());
    loop {
        changes.mark_unchanged();
        let policies = clusters.request_authentications();
        let wanted = sources(policies.iter().map(|policy| &**policy));
        let mut fetches = tokio::task::JoinSet::new();
        for source in sets.due(&wanted, Instant::now()) {
            let tls = tls.clone();
            fetches.spawn(async move {
                let result = fetch(&source, &tls).await;
                (source, result)
            });
        }
        let mut changed = false;
        while let Some(done) = fetches.join_next().await {
            let Ok((source, result)) = done else { continue };
            if let Err(error) = &result {
                tracing::warn!(
                    "RequestAuthentication: the key set of {} cannot be fetched, its tokens are refused: {error}",
                    source.key()
                );
            }
            changed |= sets.take(source, result, Instant::now());
        }
        if changed {
            clusters.touch();
        }
        let wait = async {
            match sets.next() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => {}
            more = changes.changed() => if more.is_err() { return },
        }
    }
}

/// The authorities that are there.
fn trust() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for path in ROOTS {
        if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
            roots.add_parsable_certificates(certificates.flatten());
        }
    }
    ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn fetch(source: &Source, tls: &Arc<ClientConfig>) -> Result<String, String> {
    let uri = match source {
        Source::Uri(uri) => uri.clone(),
        Source::Issuer(issuer) => {
            let well_known = format!(
                "{}/.well-known/openid-configuration",
                issuer.trim_end_matches('/')
            );
            let text = get(&well_known, tls).await?;
            let found: Value = serde_json::from_str(&text)
                .map_err(|error| format!("{well_known} is no JSON: {error}"))?;
            found["jwks_uri"]
                .as_str()
                .ok_or_else(|| format!("{well_known} has no jwks_uri"))?
                .to_owned()
        }
    };
    let text = get(&uri, tls).await?;
    let keys: Value =
        serde_json::from_str(&text).map_err(|error| format!("{uri} is no JSON: {error}"))?;
    if !keys["keys"].is_array() {
        return Err(format!("{uri} is no key set: it has no \"keys\""));
    }
    Ok(text)
}

async fn get(uri: &str, tls: &Arc<ClientConfig>) -> Result<String, String> {
    let mut uri = uri.to_owned();
    for _ in 0..=REDIRECTS {
        match tokio::time::timeout(TIMEOUT, once(&uri, tls)).await {
            Err(_) => return Err(format!("{uri}: no answer within {TIMEOUT:?}")),
            Ok(Err(error)) => return Err(format!("{uri}: {error}")),
            Ok(Ok(Step::Text(text))) => return Ok(text),
            Ok(Ok(Step::Elsewhere(next))) => uri = next,
        }
    }
    Err(format!("{uri}: more than {REDIRECTS} redirects"))
}

enum Step {
    Text(String),
    Elsewhere(String),
}

async fn once(text: &str, tls: &Arc<ClientConfig>) -> Result<Step, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("is no URI: {error}"))?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("must begin with http:// or https://".into()),
    };
    let host = uri.host().ok_or("has no host")?;
    let plain_host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((plain_host, port))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(
            header::HOST,
            uri.authority().map_or(host, |authority| authority.as_str()),
        )
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = if secure {
        let name =
            ServerName::try_from(plain_host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls.clone())
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await?
    } else {
        exchange(TokioIo::new(stream), request).await?
    };
    let status = response.status();
    if status.is_redirection()
        && let Some(location) = response.headers().get(header::LOCATION)
    {
        let location = location.to_str().map_err(|error| error.to_string())?;
        return Ok(Step::Elsewhere(if location.starts_with('/') {
            let scheme = if secure { "https" } else { "http" };
            format!("{scheme}://{host}:{port}{location}")
        } else {
            location.to_owned()
        }));
    }
    if status != StatusCode::OK {
        return Err(format!("status {status}"));
    }
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    String::from_utf8(body.into())
        .map(Step::Text)
        .map_err(|error| error.to_string())
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the answer; what goes wrong with it is seen there.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn only_rules_without_inline_keys_need_fetching() {
        let policy = json!({"spec": {"jwtRules": [
            {"issuer": "a", "jwksUri": "http://a/keys"},
            {"issuer": "b", "jwks": "{}"},
            {"issuer": "https://c"},
        ]}});
        let found = sources([&policy].into_iter());
        assert_eq!(
            found,
            BTreeSet::from([
                Source::Uri("http://a/keys".into()),
                Source::Issuer("https://c".into())
            ])
        );
    }

    #[test]
    fn a_server_that_goes_away_leaves_its_keys_behind() {
        let sets = KeySets::default();
        let source = Source::Uri("u".into());
        let wanted = BTreeSet::from([source.clone()]);
        let start = Instant::now();
        assert_eq!(sets.due(&wanted, start), std::slice::from_ref(&source));
        assert!(sets.take(source.clone(), Ok("one".into()), start));
        assert!(sets.due(&wanted, start + REFRESH / 2).is_empty());
        let later = start + REFRESH;
        assert_eq!(sets.due(&wanted, later), std::slice::from_ref(&source));
        assert!(!sets.take(source.clone(), Err("away".into()), later));
        assert_eq!(sets.known()["u"], "one");
        assert!(sets.due(&wanted, later).is_empty(), "not at once again");
        assert_eq!(sets.due(&wanted, later + pause(1)), [source]);
        assert!(sets.due(&BTreeSet::new(), later).is_empty() && sets.known().is_empty());
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(4), Duration::from_secs(8));
        assert_eq!(pause(40), Duration::from_secs(60));
    }

    /// Answers each request with the next of these.
    async fn serve(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}")
    }

    fn answer(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn keys_are_found_through_the_issuer_and_redirects() {
        let tls = Arc::new(trust());
        let keys = serve(vec![answer(r#"{"keys": []}"#)]).await;
        let issuer = serve(vec![answer(
            &json!({ "jwks_uri": format!("{keys}/jwks") }).to_string(),
        )])
        .await;
        assert_eq!(
            fetch(&Source::Issuer(issuer), &tls).await.as_deref(),
            Ok(r#"{"keys": []}"#)
        );
        let keys = serve(vec![answer(r#"{"keys": [1]}"#)]).await;
        let moved = serve(vec![format!(
            "HTTP/1.1 302 Found\r\nlocation: {keys}/\r\ncontent-length: 0\r\n\r\n"
        )])
        .await;
        assert_eq!(
            fetch(&Source::Uri(moved), &tls).await.as_deref(),
            Ok(r#"{"keys": [1]}"#)
        );
        let page = serve(vec![answer("{}")]).await;
        let error = fetch(&Source::Uri(page), &tls).await.expect_err("refused");
        assert!(error.ends_with("it has no \"keys\""), "{error}");
    }
}
