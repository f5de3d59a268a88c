//! Content digests in OCI's text form, and the hasher that makes them while bytes stream past.

use sha2::Digest as _;
use std::fmt;

use crate::parsed::text_form;

/// The algorithms that OCI registers and that this product accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestAlgorithm {
    /// `sha256`, 64 hexadecimal digits.
    Sha256,
    /// `sha512`, 128 hexadecimal digits.
    Sha512,
}

impl DigestAlgorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A content digest such as `sha256:e3b0…`, lower-case, of a known algorithm and the right length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    text: Box<str>,
}

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// The part before the colon is missing or unknown.
    #[error("digest `{0}` does not start with `sha256:` or `sha512:`")]
    Algorithm(String),
    /// The part after the colon is not the algorithm's number of lower-case hexadecimal digits.
    #[error("digest `{0}` does not hold {1} lower-case hexadecimal digits")]
    Hex(String, usize),
}

impl Digest {
    /// Parses `algorithm:hex` (OCI image-spec, descriptor digests).
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let algorithm = match text.split_once(':') {
            Some(("sha256", _)) => DigestAlgorithm::Sha256,
            Some(("sha512", _)) => DigestAlgorithm::Sha512,
            _ => return Err(DigestError::Algorithm(clip(text))),
        };
        let hex = &text[algorithm.name().len() + 1..];
        let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_len() || !is_hex {
            return Err(DigestError::Hex(clip(text), algorithm.hex_len()));
        }
        Ok(Self { algorithm, text: text.into() })
    }

    /// The sha256 digest of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which algorithm made it.
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Hashes a stream of bytes into a [`Digest`].
#[derive(Clone)]
pub struct Hasher(HasherState);

#[derive(Clone)]
enum HasherState {
    Sha256(Box<sha2::Sha256>),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// An empty hasher.
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        Self(match algorithm {
            DigestAlgorithm::Sha256 => HasherState::Sha256(Box::default()),
            DigestAlgorithm::Sha512 => HasherState::Sha512(Box::default()),
        })
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HasherState::Sha256(state) => state.update(bytes),
            HasherState::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            HasherState::Sha256(state) => (DigestAlgorithm::Sha256, state.finalize().to_vec()),
            HasherState::Sha512(state) => (DigestAlgorithm::Sha512, state.finalize().to_vec()),
        };
        let mut text = String::with_capacity(algorithm.name().len() + 1 + bytes.len() * 2);
        text.push_str(algorithm.name());
        text.push(':');
        for byte in bytes {
            use fmt::Write as _;
            write!(text, "{byte:02x}").expect("writing to a String does not fail");
        }
        Digest { algorithm, text: text.into() }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

text_form!(Digest, DigestError);

/// Hostile input must not fill an error message.
fn clip(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").as_str(), empty);
        assert_eq!(Digest::parse(empty).expect("valid").hex().len(), 64);
        let sha512 = Hasher::new(DigestAlgorithm::Sha512).finish();
        assert_eq!(Digest::parse(sha512.as_str()), Ok(sha512));
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for text in ["", "sha256", "sha256:", "md5:00", "sha256:baddigest", &format!("sha256:{}", "A".repeat(64))] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }
}
