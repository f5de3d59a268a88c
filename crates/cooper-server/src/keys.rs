//! The server's key: one secret in a 0600 file or from the environment, and the keys that are derived from it, each for one purpose.
//!
//! Whoever has the file can read the run secrets in the database and make registry tokens; it is backed up with them.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use zeroize::Zeroizing;

use cooper_types::{Digest, DigestAlgorithm, Hasher, PrincipalName, RunId, SecretBytes, SecretString};

/// Where the key is in the data directory.
pub(crate) const KEY_FILE: &str = "key";
/// Length of the key and of everything derived from it, in bytes.
const KEY_BYTES: usize = 32;
/// Length of XChaCha20's nonce, in bytes: long enough to be random.
const NONCE_BYTES: usize = 24;

/// The server's key.
pub(crate) struct ServerKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read or made.
    #[error("key file `{path}` can't be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("key file `{0}` does not hold 64 hexadecimal digits; restore it from a backup")]
    Content(PathBuf),
    /// What the environment gives is something else.
    #[error("COOPER_SECRET_KEY does not hold 64 hexadecimal digits")]
    Given,
    /// File and environment have one each.
    #[error(
        "key file `{0}` and COOPER_SECRET_KEY hold different keys: what is stored opens with one of them, so take the \
         other away"
    )]
    Two(PathBuf),
    /// Others may read the file.
    #[error("key file `{0}` may be read by others: run `chmod 600` on it")]
    Permissions(PathBuf),
}

/// A sealed value does not open: it was made with another key, or for another purpose.
#[derive(Debug, thiserror::Error)]
#[error("secret `{0}` does not open with this server's key")]
pub(crate) struct UnsealError(String);

/// Writes a file that its owner alone may read: aside, and under its name when it is whole. A crash leaves none or a
/// good one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    write_whole(path, content, 0o600)
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

impl ServerKey {
    /// The key that the environment gives, if it does; else that of the key file, which is made if it is not there.
    pub(crate) fn open(path: &Path, given: Option<&SecretString>) -> Result<Self, KeyError> {
        let Some(given) = given else { return Self::load_or_create(path) };
        let given = unhex(given.expose().trim()).map(Self).ok_or(KeyError::Given)?;
        // A key that is not the file's would open nothing of what is stored, and seal what that one can't open.
        if path.exists() && Self::load_or_create(path)?.0 != given.0 {
            return Err(KeyError::Two(path.to_owned()));
        }
        Ok(given)
    }

    /// Reads the key file, or makes it with a random key. One process at a time: the data directory is locked.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        match std::fs::File::open(path) {
            Ok(mut file) => {
                if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
                    return Err(KeyError::Permissions(path.to_owned()));
                }
                let mut text = Zeroizing::new(String::new());
                file.read_to_string(&mut text).map_err(failed)?;
                unhex(text.trim()).map(Self).ok_or_else(|| KeyError::Content(path.to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
        write_private(path, Zeroizing::new(hex(&key[..])).as_bytes())?;
        Ok(Self(key))
    }

    /// The key for one purpose.
    fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut mac =
            <Hmac<sha2::Sha256> as hmac::Mac>::new_from_slice(&self.0[..]).expect("HMAC takes keys of any length");
        mac.update(b"cooper/1/");
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// The key that signs the registry's tokens.
    pub(crate) fn registry_signing(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        self.derive("registry-tokens")
    }

    /// The end of the path at which other registries tell of pushes.
    pub(crate) fn registry_hook(&self) -> String {
        hex(&self.derive("registry-hook")[..16])
    }

    /// The end of the path of a run's page.
    pub(crate) fn run_page(&self, run: RunId) -> String {
        hex(&self.derive(&format!("run-page/{run}"))[..16])
    }

    /// Under which an engine keeps a principal's contexts between builds. It can't be guessed or chosen, so nobody
    /// reads another's cached files.
    pub(crate) fn context_sharing(&self, principal: &PrincipalName) -> String {
        hex(&self.derive(&format!("context-sharing/{principal}"))[..16])
    }

    /// A name of this server that no other has, and that tells nothing of the key.
    pub(crate) fn identity(&self) -> String {
        hex(&self.derive("identity")[..16])
    }

    /// What the notifications of a task's runs are signed with. Another principal's task of the same name has another.
    pub(crate) fn update_trigger_secret(&self, task: &str, principal: &PrincipalName) -> String {
        hex(&self.derive(&format!("update-trigger/{task}/{principal}"))[..])
    }

    /// A digest of a request, for telling whether two are the same. It is keyed: requests hold secrets, and a plain
    /// hash in the database could be tried against guesses.
    pub(crate) fn request_digest(&self, request: &[u8]) -> Digest {
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
        hasher.update(&self.derive("request-digests")[..]);
        hasher.update(request);
        hasher.finish()
    }

    /// A text that differs when the value at a place does. It is keyed: a plain hash of a short secret could be tried
    /// against guesses.
    pub(crate) fn fingerprint(&self, place: &str, value: &str) -> String {
        let purpose = Zeroizing::new(format!("secret-fingerprints/{place}/{value}"));
        hex(&self.derive(&purpose)[..8])
    }

    /// Encrypts a secret. The kind and name are bound to it.
    pub(crate) fn seal(&self, purpose: &str, value: &SecretBytes) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new(self.derive("run-secrets")[..].into());
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: value.expose(), aad: purpose.as_bytes() };
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("XChaCha20-Poly1305 encrypts anything shorter than 256 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// Decrypts what [`Self::seal`] made for the same purpose.
    pub(crate) fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<SecretBytes, UnsealError> {
        let failed = || UnsealError(purpose.to_owned());
        let (nonce, rest) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(failed)?;
        let cipher = XChaCha20Poly1305::new(self.derive("run-secrets")[..].into());
        let payload = Payload { msg: rest, aad: purpose.as_bytes() };
        cipher.decrypt(XNonce::from_slice(nonce), payload).map(SecretBytes::new).map_err(|_| failed())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    if text.len() != KEY_BYTES * 2 || !text.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_to_its_owner() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("key");
        std::fs::write(directory.path().join("key.new"), "a crash left this").expect("write");
        let first = ServerKey::load_or_create(&path).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        assert!(!directory.path().join("key.new").exists());
        let second = ServerKey::load_or_create(&path).expect("read");
        assert_eq!(first.0, second.0);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(ServerKey::load_or_create(&path), Err(KeyError::Permissions(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::fs::write(&path, "short").expect("write");
        assert!(matches!(ServerKey::load_or_create(&path), Err(KeyError::Content(_))));
    }

    #[test]
    fn a_key_from_the_environment_needs_no_file_and_fits_the_one_that_is_there() {
        let directory = tempfile::tempdir().expect("temp dir");
        let path = directory.path().join("key");
        let given = |digit: &str| SecretString::new(digit.repeat(KEY_BYTES * 2));
        let key = ServerKey::open(&path, Some(&given("a"))).expect("given");
        assert!(!path.exists());
        write_private(&path, hex(&key.0[..]).as_bytes()).expect("written");
        assert_eq!(ServerKey::open(&path, Some(&given("A"))).expect("the same").0, key.0);
        assert!(matches!(ServerKey::open(&path, Some(&given("b"))), Err(KeyError::Two(_))));
        assert!(matches!(ServerKey::open(&path, Some(&given("x"))), Err(KeyError::Given)));
        assert_eq!(ServerKey::open(&path, None).expect("the file's").0, key.0);
        assert_ne!(key.fingerprint("env://A", "one"), key.fingerprint("env://A", "two"));
        assert_ne!(key.fingerprint("env://A", "one"), key.fingerprint("env://B", "one"));
    }

    #[test]
    fn a_sealed_secret_opens_for_its_purpose_only() {
        let key = ServerKey(Zeroizing::new([7; KEY_BYTES]));
        let value = SecretBytes::new(b"hunter2".to_vec());
        let sealed = key.seal("build/npm", &value);
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(key.unseal("build/npm", &sealed).expect("opens"), value);
        assert!(key.unseal("build/other", &sealed).is_err());
        assert!(ServerKey(Zeroizing::new([8; KEY_BYTES])).unseal("build/npm", &sealed).is_err());
        assert!(key.unseal("build/npm", &sealed[..10]).is_err());
        assert_ne!(sealed, key.seal("build/npm", &value), "nonces are random");
    }
}
