//! The certificate authority over gRPC (`istio.v1.auth.IstioCertificateService`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};
use xds::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use xds::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use crate::authenticate::Authenticator;
use crate::ca::CertificateAuthority;

/// The service.
#[derive(Clone)]
pub struct CaService {
    authority: Arc<CertificateAuthority>,
    authenticator: Arc<Authenticator>,
}

impl CaService {
    /// A service that signs with `authority` for whom `authenticator` knows.
    #[must_use]
    pub fn new(authority: Arc<CertificateAuthority>, authenticator: Arc<Authenticator>) -> Self {
        Self {
            authority,
            authenticator,
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CaService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = self
            .authenticator
            .authenticate(&request)
            .await?
            .ok_or_else(|| {
                Status::unauthenticated("certificates are only given out on the TLS port")
            })?;
        let request = request.into_inner();
        let asked = u64::try_from(request.validity_duration)
            .ok()
            .map(Duration::from_secs);
        let cert_chain = self
            .authority
            .sign(&request.csr, &caller, asked, SystemTime::now())
            .map_err(|error| Status::invalid_argument(format!("csr: {error}")))?;
        tracing::info!(
            namespace = caller.namespace,
            service_account = caller.service_account,
            "certificate signed"
        );
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
