//! Whose certificates are believed: those that the system trusts, or those of CAs that the user names, and then no others.

use std::error::Error;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    named: Option<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    pem: Arc<str>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// Why there is no one to believe.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The text holds something else.
    #[error("no certificate in PEM form was found")]
    NoCertificate,
    /// A certificate can't be believed in.
    #[error("certificate can't be used as a CA's")]
    Certificate(#[source] rustls::Error),
    /// The system has none.
    #[error("the system's root certificates can't be used")]
    System(#[source] rustls::Error),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is for other names.
    Name,
    /// Nobody who is believed has signed it, or its time is over or has not come.
    Untrusted,
}

impl Trust {
    /// Believes the CAs of this text, which holds their certificates in PEM form, and nobody else.
    pub fn only(pem: &str) -> Result<Self, TrustError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates = certificates.ok().filter(|found| !found.is_empty()).ok_or(TrustError::NoCertificate)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(TrustError::Certificate)?;
        }
        Ok(Self { named: Some(Named { pem: pem.into(), certificates: certificates.into() }) })
    }

    /// The text that it was made from, if CAs were named.
    pub fn pem(&self) -> Option<&str> {
        self.named.as_ref().map(|named| &*named.pem)
    }

    /// The CAs, if some were named.
    pub(crate) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.named.as_ref().map(|named| &*named.certificates)
    }

    /// A client's side of TLS that believes accordingly, and offers these protocols.
    pub fn client_config(&self, protocols: &[&str]) -> Result<ClientConfig, TrustError> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring knows the cipher suites of TLS 1.2 and 1.3");
        let mut config = match self.certificates() {
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(TrustError::Certificate)?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            None => {
                let verifier = Verifier::new(provider).map_err(TrustError::System)?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

impl CertificateFault {
    /// Finds out whether an error, or what caused it, is a certificate that is not believed.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(rustls::Error::InvalidCertificate(fault)) = error.downcast_ref() {
                return Some(match fault {
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
                    _ => Self::Untrusted,
                });
            }
            // An I/O error names as its source what is behind the error inside.
            cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inside) => Some(inside),
                None => error.source(),
            };
        }
        None
    }

    /// What a user can do about it.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::Name => {
                "use a name that the server's certificate has, or start the server with --tls-name and the name that is used"
            }
            Self::Untrusted => {
                "name the certificate of the server's CA with --ca-file; `cooper serve --tls-self-signed` keeps it as \
                 tls/ca.pem in its data directory"
            }
        }
    }
}
