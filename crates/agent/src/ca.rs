//! The certificate of the workload: requested from istiod, renewed before it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::KeyPair;
use rand::Rng;
use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use xds::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, Secret, SubjectAltNameMatcher,
    TlsCertificate, UpstreamTlsContext, secret,
};
use xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use xds::istio::v1::auth::IstioCertificateRequest;
use xds::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use crate::Environment;
use proxy::tls::client::ClientContext;
use proxy::tls::secrets::Secrets;
use proxy::xds_client::Target;
use proxy::xds_client::channel::{TargetAddress, describe};

/// How long a certificate shall last.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The share of its life after which it is renewed, and how much chance moves that.
const GRACE: f64 = 0.5;
const JITTER: f64 = 0.01;

/// A connection to istiod at this `host:port`, with the workload's certificate once there is one.
///
/// # Errors
/// While the root certificate is not there, or when the address is none.
pub fn istiod(
    environment: &Environment,
    address: &str,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<Target, String> {
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .ok_or_else(|| format!("{address:?} is not host:port"))?;
    let root = environment.root_file.to_string_lossy().into_owned();
    let name = StringMatcher {
        match_pattern: Some(MatchPattern::Exact(host.to_owned())),
        ..Default::default()
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(DataSource {
            specifier: Some(Specifier::Filename(root)),
            ..Default::default()
        }),
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: SanType::Dns as i32,
            matcher: Some(name),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut common = CommonTlsContext {
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    if secrets.get("default").is_some() {
        common.tls_certificate_sds_secret_configs = vec![SdsSecretConfig {
            name: "default".into(),
            sds_config: None,
        }];
    }
    let message = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: host.to_owned(),
        ..Default::default()
    };
    let tls = ClientContext::new(&message, secrets.clone()).map_err(|error| error.to_string())?;
    Ok(Target {
        address: TargetAddress::Host(host.to_owned(), port),
        tls: Some(Arc::new(tls)),
        authority: format!("{host}:{port}"),
        mark,
        token_file: Some(environment.token_file.clone()),
    })
}

/// Takes a secret with its version in use, or says why it cannot be used.
pub type Taker = Box<dyn Fn(Secret, &str) -> Result<(), String> + Send + Sync>;

/// Gets certificates for as long as the proxy lives. `secrets` is where `take` puts them.
pub async fn keep(
    environment: Arc<Environment>,
    secrets: Arc<Secrets>,
    take: Taker,
    mark: Option<u32>,
) {
    let mut delay = Duration::from_millis(25);
    let mut reported = String::new();
    loop {
        match request(&environment, &secrets, &take, mark).await {
            Ok(life) => {
                delay = Duration::from_millis(25);
                let share = GRACE + rand::rng().random_range(-JITTER..JITTER);
                let renew = life.mul_f64(1.0 - share).max(Duration::from_secs(1));
                tracing::info!(
                    "certificate for {} lasts {}s, renewed in {}s",
                    environment.spiffe_id(),
                    life.as_secs(),
                    renew.as_secs()
                );
                tokio::time::sleep(renew).await;
            }
            Err(error) => {
                if error != reported {
                    tracing::warn!(
                        "no certificate from {} yet: {error}",
                        environment.ca_address
                    );
                    reported = error;
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(1));
            }
        }
    }
}

/// Gets one certificate, takes it in use and says how long it lasts.
async fn request(
    environment: &Environment,
    secrets: &Arc<Secrets>,
    take: &Taker,
    mark: Option<u32>,
) -> Result<Duration, String> {
    let target = istiod(environment, &environment.ca_address, secrets, mark)?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let csr =
        pki::csr::create(&key, &[environment.spiffe_id()]).map_err(|error| error.to_string())?;
    let channel = target.connect().await?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr,
        validity_duration: LIFETIME.as_secs() as i64,
        metadata: None,
    });
    let token = target
        .token()
        .ok_or_else(|| format!("no token at {}", environment.token_file.display()))?;
    request.metadata_mut().insert("authorization", token);
    if let Some(cluster) = environment
        .variables
        .get("ISTIO_META_CLUSTER_ID")
        .and_then(|id| id.parse().ok())
    {
        request.metadata_mut().insert("clusterid", cluster);
    }
    request.set_timeout(Duration::from_secs(10));
    let chain = IstioCertificateServiceClient::new(channel)
        .create_certificate(request)
        .await
        .map_err(|status| match std::error::Error::source(&status) {
            Some(source) => format!(
                "{}: {}: {}",
                status.code(),
                status.message(),
                describe(source)
            ),
            None => format!("{}: {}", status.code(), status.message()),
        })?
        .into_inner()
        .cert_chain;
    // Leaf first, the root last.
    let (root, chain) = match chain.as_slice() {
        [] => return Err("istiod answered without a certificate".into()),
        [only] => (None, only.clone()),
        [leaf @ .., root] => (Some(root.clone()), leaf.concat()),
    };
    let inline = |text: String| DataSource {
        specifier: Some(Specifier::InlineBytes(text.into_bytes().into())),
        ..Default::default()
    };
    let leaf = pki::pem::certificates(&chain, "certificate").map_err(|error| error.to_string())?;
    let leaf = leaf
        .first()
        .ok_or("istiod answered without a certificate")?;
    let identity = pki::peer_identity(leaf).map_err(|error| error.to_string())?;
    let version = identity.serial.clone();
    if let Some(root) = root {
        let trust = CertificateValidationContext {
            trusted_ca: Some(inline(root)),
            ..Default::default()
        };
        let secret = Secret {
            name: "ROOTCA".into(),
            r#type: Some(secret::Type::ValidationContext(trust)),
        };
        take(secret, &version)?;
    }
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key.to_pem())),
        ..Default::default()
    };
    let secret = Secret {
        name: "default".into(),
        r#type: Some(secret::Type::TlsCertificate(certificate)),
    };
    take(secret, &version)?;
    Ok(identity
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default())
}
