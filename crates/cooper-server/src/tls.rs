//! The server's side of TLS: which certificate it shows, and how that one is replaced while connections go on.
//!
//! Where a certificate comes from is [`files`]' and [`authority`]'s affair; bytes on connections are
//! [`listen`](crate::listen)'s.

mod authority;
mod files;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cooper_types::RegistryName;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::problem::chain;
use crate::settings::{TlsName, TlsSettings};
use authority::Authority;
use files::CertificateFiles;

/// How often files are looked at.
const FILES_PERIOD: Duration = Duration::from_secs(2);
/// How often a certificate of our own is made anew: far more often than it would have to be.
const OWN_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("TLS file `{path}` can't be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("TLS file `{path}` holds no {wanted} in PEM form")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// Certificate and key don't fit each other, or are of a kind that is not known.
    #[error("certificate `{certificate}` can't be used with key `{key}`")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The CA of our own can't sign.
    #[error("no certificate can be made with the CA in `{folder}`; remove that folder to make a new one")]
    Authority {
        /// The CA's folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A server's TLS.
pub(crate) struct ServerTls {
    source: Source,
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

enum Source {
    Files(CertificateFiles),
    Own(Box<Authority>),
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ServerTls {
    /// Reads or makes the certificate. `data` is where a CA of our own is; the server is reached by `host`, if it
    /// listens on one address only, and by its registry's name.
    pub(crate) fn open(
        settings: &TlsSettings,
        data: &Path,
        host: Option<TlsName>,
        registry: &RegistryName,
    ) -> Result<Self, TlsError> {
        let (source, first) = match settings {
            TlsSettings::Files { certificate, key } => {
                let mut files = CertificateFiles::new(certificate.clone(), key.clone());
                let first = files.read()?;
                (Source::Files(files), first)
            }
            TlsSettings::SelfSigned { names } => {
                let own = authority::usual_names().into_iter().chain(host).chain(registry_host(registry));
                let authority = Authority::open(&data.join("tls"), own.chain(names.iter().cloned()).collect())?;
                tracing::info!("{}", authority.how_to_trust(registry));
                let first = authority.issue()?;
                (Source::Own(Box::new(authority)), first)
            }
        };
        let shown = Arc::new(Shown(RwLock::new(Arc::new(first))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring knows the cipher suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { source, shown, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// What makes a connection a secure one.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Keeps the certificate good until `stop` fires: looks for new files, or makes a new certificate in good time, and
    /// at once on `nudge`. What is not good changes nothing.
    pub(crate) async fn keep(mut self, nudge: Arc<Notify>, stop: CancellationToken) {
        loop {
            let period = match self.source {
                Source::Files(_) => FILES_PERIOD,
                Source::Own(_) => OWN_PERIOD,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = nudge.notified() => {}
                () = tokio::time::sleep(period) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                let news = self.source.look();
                (self, news)
            });
            let Ok((back, news)) = looked.await else {
                tracing::error!("the look for a new certificate panicked: the one that is there stays");
                return;
            };
            self = back;
            match news {
                Ok(None) => {}
                Ok(Some(new)) => {
                    tracing::info!("new connections get a new certificate");
                    *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "the new certificate can't be used: the old one stays");
                }
            }
        }
    }
}

impl Source {
    /// A certificate to show from now on, if there is a new one.
    fn look(&mut self) -> Result<Option<CertifiedKey>, TlsError> {
        match self {
            Self::Files(files) => files.read_if_changed(),
            Self::Own(authority) => authority.issue().map(Some),
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The one provider of cryptography in the whole tree.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The host in a registry's name.
fn registry_host(registry: &RegistryName) -> Option<TlsName> {
    let text = registry.as_str();
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => text.split(':').next(),
    };
    TlsName::parse(host?).ok()
}
