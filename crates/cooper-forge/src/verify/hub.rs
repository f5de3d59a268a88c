//! HMAC-SHA256 over the body in hexadecimal digits: GitHub, Gitea and Forgejo, Bitbucket.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Signed, Unsigned};

/// `sha256=` and the digits. A `sha1=` is refused: who can choose a body can make two with one of those.
pub(super) fn prefixed(delivery: &Signed<'_>, header: &'static str) -> Result<(), Unsigned> {
    const FORM: &str = "sha256=64 HEXADECIMAL DIGITS";
    let text = delivery.header(header, FORM)?;
    let digits = text.strip_prefix("sha256=").ok_or(Unsigned::Malformed { header, form: FORM })?;
    check(delivery, header, FORM, digits)
}

/// Forgejo's own header, else Gitea's, else GitHub's. The first that is there is the one that counts: a wrong one is
/// not made good by another.
pub(super) fn gitea(delivery: &Signed<'_>) -> Result<(), Unsigned> {
    const FORM: &str = "64 HEXADECIMAL DIGITS";
    for header in ["X-Forgejo-Signature", "X-Gitea-Signature"] {
        if delivery.has(header) {
            let digits = delivery.header(header, FORM)?;
            return check(delivery, header, FORM, digits);
        }
    }
    if delivery.has("X-Hub-Signature-256") {
        return prefixed(delivery, "X-Hub-Signature-256");
    }
    Err(Unsigned::Missing { header: "X-Gitea-Signature" })
}

fn check(delivery: &Signed<'_>, header: &'static str, form: &'static str, digits: &str) -> Result<(), Unsigned> {
    let given = bytes_of(digits).ok_or(Unsigned::Malformed { header, form })?;
    match is_made_with_one(delivery.secrets, &[delivery.body], &given) {
        true => Ok(()),
        false => Err(Unsigned::Mismatch { header }),
    }
}

/// Whether one of the secrets made this signature of these parts, one after another.
pub(super) fn is_made_with_one(secrets: &[&[u8]], parts: &[&[u8]], given: &[u8]) -> bool {
    secrets.iter().any(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac.verify_slice(given).is_ok()
    })
}

/// Sixty-four hexadecimal digits as bytes.
pub(super) fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}
