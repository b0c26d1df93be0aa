//! Commands that talk to the API server with the pod's own token.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::flags::{Flag, Flags};
use crate::server::{self, log};

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the API server is reached from a pod.
struct Api {
    host: String,
    port: u16,
    tls: tokio_rustls::TlsConnector,
}

impl Api {
    fn in_cluster() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("unable to load in-cluster configuration, {name} must be defined")
            })
        };
        let mut roots = rustls::RootCertStore::empty();
        let authority = std::fs::read(format!("{ACCOUNT}/ca.crt")).context("ca.crt")?;
        for certificate in CertificateDer::pem_slice_iter(&authority) {
            roots.add(certificate?)?;
        }
        let config = rustls::ClientConfig::builder_with_provider(server::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            host: variable("KUBERNETES_SERVICE_HOST")?,
            port: variable("KUBERNETES_SERVICE_PORT")?.parse()?,
            tls: Arc::new(config).into(),
        })
    }

    /// GET of a path of `host`, with the token of the service account.
    async fn get(&self, host: &str, port: u16, path: &str) -> Result<(StatusCode, Bytes)> {
        // Read each time: tokens are rotated.
        let token = std::fs::read_to_string(format!("{ACCOUNT}/token")).context("token")?;
        let stream = TcpStream::connect((host, port)).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.tls.connect(name, stream).await?;
        server::request(stream, host, path, Some(token.trim())).await
    }
}

/// Asks for `/healthz` every `--poll-interval` seconds.
pub(crate) fn poll(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &[Flag::Value("poll-interval", "30")])?;
    let interval = Duration::from_secs(flags.get("poll-interval")?);
    server::block_on(async move {
        let api = Api::in_cluster()?;
        log("started");
        loop {
            tokio::time::sleep(interval).await;
            log("calling /healthz");
            let token = std::fs::read_to_string(format!("{ACCOUNT}/token")).unwrap_or_default();
            let hash = ring::digest::digest(
                &ring::digest::SHA256,
                format!("salt|Bearer {}", token.trim()).as_bytes(),
            );
            log(&format!("authz_header={}", URL_SAFE_NO_PAD.encode(hash)));
            match api.get(&api.host, api.port, "/healthz").await {
                Ok((StatusCode::OK, _)) => {}
                Ok((status, body)) => log(&format!(
                    "status=failed\nerror checking /healthz: {status}\n{}",
                    String::from_utf8_lossy(&body)
                )),
                Err(error) => log(&format!(
                    "status=failed\nerror checking /healthz: {error:#}"
                )),
            }
        }
    })
}

/// Verifies a mounted token with nothing but what the issuer publishes.
pub(crate) fn issuer_discovery(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[Flag::Value("token-path", ""), Flag::Value("audience", "")],
    )?;
    let path = flags.text("token-path");
    let token = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let audience = flags.text("audience").to_owned();
    log("OK: Got token");
    log("validating with in-cluster discovery");
    server::block_on(async move {
        let api = Api::in_cluster()?;
        let token = token.trim();
        let claims = part(token, 1)?;
        let issuer = claims["iss"].as_str().context("the token has no issuer")?;
        log(&format!("OK: got issuer {issuer}"));
        let configuration =
            fetch(&api, &format!("{issuer}/.well-known/openid-configuration")).await?;
        if configuration["issuer"] != issuer {
            bail!(
                "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {}",
                configuration["issuer"]
            );
        }
        log(&format!(
            "OK: Constructed OIDC provider for issuer {issuer}"
        ));
        let keys = configuration["jwks_uri"].as_str().context("no jwks_uri")?;
        let keys = fetch(&api, keys).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        verify(token, &keys, &audience, now)?;
        log("OK: Validated signature on JWT");
        log("OK: Got valid claims from token!");
        Ok(())
    })
}

async fn fetch(api: &Api, url: &str) -> Result<Value> {
    let rest = url
        .strip_prefix("https://")
        .with_context(|| format!("{url}: not an https URL"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, 443),
    };
    let (status, body) = api
        .get(host, port, path)
        .await
        .with_context(|| url.to_owned())?;
    if status != StatusCode::OK {
        bail!("{url}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}

fn part(token: &str, index: usize) -> Result<Value> {
    let part = token.split('.').nth(index).context("the token is no JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

/// Signature, audience and time of a token.
fn verify(token: &str, keys: &Value, audience: &str, now: u64) -> Result<()> {
    let header = part(token, 0)?;
    let key = keys["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|key| header["kid"].is_null() || key["kid"] == header["kid"])
        .context("no published key has the token's kid")?;
    let (signed, signature) = token.rsplit_once('.').context("the token is no JWT")?;
    let signature = URL_SAFE_NO_PAD.decode(signature)?;
    let field = |name: &str| -> Result<Vec<u8>> {
        Ok(URL_SAFE_NO_PAD.decode(
            key[name]
                .as_str()
                .with_context(|| format!("the key has no {name}"))?,
        )?)
    };
    let verified = match header["alg"].as_str() {
        Some("ES256") => {
            let point = [vec![4], field("x")?, field("y")?].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), &signature)
        }
        Some("RS256") => RsaPublicKeyComponents {
            n: field("n")?,
            e: field("e")?,
        }
        .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature),
        other => bail!("oidc: id token signed with unsupported algorithm, got {other:?}"),
    };
    if verified.is_err() {
        bail!("failed to verify signature");
    }
    let claims = part(token, 1)?;
    let for_us = match &claims["aud"] {
        Value::Array(list) => list.iter().any(|a| a == audience),
        one => one == audience,
    };
    if !for_us {
        bail!("oidc: expected audience {audience:?} got {}", claims["aud"]);
    }
    if claims["exp"].as_u64().is_none_or(|expires| expires < now) {
        bail!("oidc: token is expired");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    #[test]
    fn a_token_is_verified_with_published_keys() {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let point = key.public_key().as_ref();
        let b64 = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
        let keys = serde_json::json!({"keys": [{"kid": "k", "x": b64(&point[1..33]), "y": b64(&point[33..])}]});
        let signed = format!(
            "{}.{}",
            b64(br#"{"alg":"ES256","kid":"k"}"#),
            b64(br#"{"aud":["me"],"exp":100}"#)
        );
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", b64(signature.as_ref()));
        verify(&token, &keys, "me", 99).unwrap();
        assert!(verify(&token, &keys, "you", 99).is_err());
        assert!(verify(&token, &keys, "me", 101).is_err());
        let forged = token.replacen('.', ".A", 1);
        assert!(verify(&forged, &keys, "me", 99).is_err());
    }
}
