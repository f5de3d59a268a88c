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
    /// It is a CA's own, which is for signing others.
    Ca,
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
                    // The library behind has no error of its own type for it.
                    CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => Self::Ca,
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
            Self::Ca => {
                "give the server a certificate that is no CA's: `openssl req -x509` makes one with \
                 -addext basicConstraints=critical,CA:FALSE, and --ca-file takes that one"
            }
            Self::Untrusted => {
                "name the certificate of the server's CA with --ca-file; `cooper serve --tls-self-signed` keeps it as \
                 tls/ca.pem in its data directory"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::UnixTime;

    use super::*;

    /// What is wrong with a certificate that signs itself and is the only one that is believed.
    fn fault(is_ca: IsCa, shown_as: &'static str) -> Option<CertificateFault> {
        let mut params = CertificateParams::new(vec!["build.example.com".to_owned()]).expect("a name");
        params.is_ca = is_ca;
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let trust = Trust::only(&certificate.pem()).expect("trust");
        let mut roots = RootCertStore::empty();
        roots.add(trust.certificates().expect("named")[0].clone()).expect("a root");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("verifier");
        let name = shown_as.try_into().expect("a name");
        // In the year 2033; such certificates are made for longer.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(2_000_000_000));
        let verified = verifier.verify_server_cert(certificate.der(), &[], &name, &[], now);
        // As it comes out of a connection.
        verified.err().and_then(|error| CertificateFault::of(&std::io::Error::other(error)))
    }

    #[test]
    fn a_certificate_that_signs_itself_will_do_unless_it_is_a_cas() {
        let name = "build.example.com";
        // As `openssl req -x509` makes it by itself.
        let found = fault(IsCa::Ca(BasicConstraints::Unconstrained), name);
        assert_eq!(found, Some(CertificateFault::Ca));
        assert!(CertificateFault::Ca.way_out().contains("CA:FALSE"));
        assert_eq!(fault(IsCa::ExplicitNoCa, name), None);
        assert_eq!(fault(IsCa::NoCa, name), None);
        assert_eq!(fault(IsCa::NoCa, "other.example.com"), Some(CertificateFault::Name));
    }
}
