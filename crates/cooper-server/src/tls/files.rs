//! A certificate and a key in PEM files that somebody else writes, and replaces when they see fit.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::{TlsError, provider};

/// The largest file that is read, in bytes: chains are a few KiB.
const MAX_FILE: u64 = 1 << 20;

/// The files, and what was in them.
pub(super) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// What is shown now, or was found to be no good.
    known: Option<Content>,
    /// What was found to be no good once: perhaps one of two files had been written.
    doubtful: Option<Content>,
    /// It was told that the files can't be read, and they can't since.
    told: bool,
}

#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl CertificateFiles {
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, known: None, doubtful: None, told: false }
    }

    /// Reads what is there now.
    pub(super) fn read(&mut self) -> Result<CertifiedKey, TlsError> {
        let content = self.content()?;
        let pair = self.pair(&content)?;
        self.known = Some(content);
        Ok(pair)
    }

    /// Reads what is there if it is something else than at the last time. What is no good is told once, and only when it
    /// stays: whoever replaces two files can't replace both at once.
    pub(super) fn read_if_changed(&mut self) -> Result<Option<CertifiedKey>, TlsError> {
        let content = match self.content() {
            Ok(content) => content,
            // As the one above, and a file that is missing for long is missed at the next start.
            Err(TlsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(_) if self.told => return Ok(None),
            Err(error) => {
                self.told = true;
                return Err(error);
            }
        };
        self.told = false;
        if self.known.as_ref() == Some(&content) {
            return Ok(None);
        }
        match self.pair(&content) {
            Ok(pair) => {
                (self.known, self.doubtful) = (Some(content), None);
                Ok(Some(pair))
            }
            Err(error) if self.doubtful.as_ref() == Some(&content) => {
                (self.known, self.doubtful) = (Some(content), None);
                Err(error)
            }
            Err(_) => {
                self.doubtful = Some(content);
                Ok(None)
            }
        }
    }

    fn content(&self) -> Result<Content, TlsError> {
        Ok(Content { certificate: read(&self.certificate)?, key: Zeroizing::new(read(&self.key)?) })
    }

    fn pair(&self, content: &Content) -> Result<CertifiedKey, TlsError> {
        let wrong = |path: &Path, wanted| TlsError::Content { path: path.to_owned(), wanted };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| wrong(&self.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| wrong(&self.key, "private key"))?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, as texts.
    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        (params.self_signed(&key).expect("certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn a_new_pair_is_taken_and_half_a_pair_is_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
        let mut files = CertificateFiles::new(path("cert"), path("key"));
        assert!(matches!(files.read(), Err(TlsError::File { .. })));
        let (old, new) = (pair(), pair());
        write("cert", &old.0);
        write("key", &new.1);
        assert!(matches!(files.read(), Err(TlsError::Pair { .. })), "not each other's");
        write("key", "nothing");
        assert!(matches!(files.read(), Err(TlsError::Content { wanted: "private key", .. })));
        write("key", &old.1);
        let first = files.read().expect("a pair");
        assert!(files.read_if_changed().expect("nothing wrong").is_none());

        write("cert", &new.0);
        assert!(files.read_if_changed().expect("the key may still come").is_none());
        write("key", &new.1);
        let second = files.read_if_changed().expect("a pair").expect("a new one");
        assert_ne!(first.cert, second.cert);

        write("cert", "broken");
        assert!(files.read_if_changed().expect("may be half written").is_none());
        assert!(files.read_if_changed().is_err(), "it stays broken");
        assert!(files.read_if_changed().expect("told once").is_none());
        std::fs::remove_file(path("cert")).expect("removed");
        assert!(files.read_if_changed().expect("may come back").is_none());
        std::fs::create_dir(path("cert")).expect("a folder in its place");
        assert!(matches!(files.read_if_changed(), Err(TlsError::File { .. })), "it can't be read");
        assert!(files.read_if_changed().expect("told once").is_none());
        std::fs::remove_dir(path("cert")).expect("removed");
        write("cert", &new.0);
        assert!(files.read_if_changed().expect("good again").is_some());
    }
}
