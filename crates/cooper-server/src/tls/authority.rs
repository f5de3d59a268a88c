//! A certificate authority of the server's own, for those who have none. The CA's key and certificate are in the data
//! directory, and what trusts the CA trusts the server for years. The server's certificates are made at each start and
//! each day, and their keys are in memory only.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cooper_types::RegistryName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::{TlsError, provider};
use crate::keys::{write_private, write_whole};
use crate::settings::TlsName;

/// How long the CA's certificate is good.
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a certificate of the server is good: a client that slept for a month meets a newer one anyway.
const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The CA, and for what it makes certificates.
pub(super) struct Authority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    names: Vec<TlsName>,
}

impl Authority {
    /// Opens the CA in a folder, or makes one.
    pub(super) fn open(folder: &Path, mut names: Vec<TlsName>) -> Result<Self, TlsError> {
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.text()));
        let (key_file, certificate_file) = (folder.join("ca.key"), folder.join("ca.pem"));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        let failed = |source: BoxError| TlsError::Authority { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(file(folder))?;
        let key = match std::fs::read_to_string(&key_file) {
            Ok(text) => KeyPair::from_pem(&text).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(|error| failed(error.into()))?;
                write_private(&key_file, key.serialize_pem().as_bytes()).map_err(file(&key_file))?;
                key
            }
            Err(error) => return Err(file(&key_file)(error)),
        };
        let params = ca_params(&key);
        let certificate = match std::fs::read(&certificate_file) {
            Ok(text) => CertificateDer::from_pem_slice(&text).map_err(|error| failed(error.into()))?,
            // Made after the key: a crash in between leaves a key, and the certificate follows now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = params.self_signed(&key).map_err(|error| failed(error.into()))?;
                write_whole(&certificate_file, made.pem().as_bytes(), 0o644).map_err(file(&certificate_file))?;
                made.der().clone()
            }
            Err(error) => return Err(file(&certificate_file)(error)),
        };
        Ok(Self { folder: folder.to_owned(), certificate, issuer: Issuer::new(params, key), names })
    }

    /// Makes a new certificate of the server.
    pub(super) fn issue(&self) -> Result<CertifiedKey, TlsError> {
        self.try_issue().map_err(|source| TlsError::Authority { folder: self.folder.clone(), source })
    }

    fn try_issue(&self) -> Result<CertifiedKey, BoxError> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = self.names.iter().map(TlsName::text).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Cooperage server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(LEAF_LIFETIME);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        self.check(&chain)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }

    /// Whether who trusts the CA's certificate trusts this one: files may have been exchanged.
    fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), BoxError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let builder = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider());
        let name = self.names.first().ok_or("the server has no name")?.text();
        let name = rustls::pki_types::ServerName::try_from(name)?;
        use rustls::client::danger::ServerCertVerifier as _;
        let now = UnixTime::since_unix_epoch(wall_clock().duration_since(SystemTime::UNIX_EPOCH)?);
        builder.build()?.verify_server_cert(&chain[0], &chain[1..], &name, &[], now)?;
        Ok(())
    }

    /// What a user has to do.
    pub(super) fn how_to_trust(&self, registry: &RegistryName) -> String {
        let file = self.folder.join("ca.pem");
        let file = file.display();
        let names = self.names.iter().map(TlsName::text).collect::<Vec<_>>().join(", ");
        format!(
            "this server's certificate is made by its own CA, for {names}. To trust it, copy {file} and give it to \
             `cooper login URL --ca-file FILE`, to `cooper agent --ca-file FILE`, and to Docker as \
             /etc/docker/certs.d/{registry}/ca.crt (not needed on this machine for a registry called localhost)"
        )
    }
}

/// The CA's names and rights. The name comes from the key, so that it is the same at each start.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let digest = cooper_types::Digest::sha256(key.public_key_raw()).to_string();
    let id: String = digest.chars().skip("sha256:".len()).take(12).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Cooperage CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_LIFETIME);
    params
}

fn validity<T: From<SystemTime>>(lifetime: Duration) -> (T, T) {
    let now = wall_clock();
    ((now - BACKDATED).into(), (now + lifetime).into())
}

#[expect(clippy::disallowed_methods, reason = "others judge a certificate by their wall clocks")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// What every server on a machine is reached by, from there.
pub(super) fn usual_names() -> Vec<TlsName> {
    ["localhost", "127.0.0.1", "::1"].map(|name| TlsName::parse(name).expect("a constant name is one")).to_vec()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_ca_stays_and_certificates_come_and_go() {
        let folder = tempfile::tempdir().expect("folder");
        let names = || vec![TlsName::parse("localhost").expect("name"), TlsName::parse("10.1.2.3").expect("name")];
        let open = || Authority::open(&folder.path().join("tls"), names());
        let first = open().expect("made");
        let leaf = first.issue().expect("issued");
        let mode = std::fs::metadata(folder.path().join("tls/ca.key")).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = open().expect("opened");
        assert_eq!(first.certificate, again.certificate);
        let newer = again.issue().expect("issued by the same CA");
        assert_ne!(leaf.cert[0], newer.cert[0]);
        let registry = RegistryName::parse("localhost:5000").expect("name");
        let text = again.how_to_trust(&registry);
        assert!(text.contains("10.1.2.3") && text.contains("/etc/docker/certs.d/localhost:5000/ca.crt"), "{text}");

        let other = tempfile::tempdir().expect("folder");
        Authority::open(&other.path().join("tls"), names()).expect("made");
        std::fs::copy(other.path().join("tls/ca.pem"), folder.path().join("tls/ca.pem")).expect("copied");
        let error = open().expect("opened").issue().expect_err("not the key's certificate");
        assert!(error.to_string().contains("remove that folder"), "{error}");
    }
}
