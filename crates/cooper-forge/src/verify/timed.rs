//! Signatures with a time in them, so that an old delivery can't be sent again: GitLab's newer form, and our own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_types::Timestamp;

use super::hub::{bytes_of, is_made_with_one};
use super::{MAX_AGE, Signed, Unsigned};

/// The most signatures that are looked at in one header.
const MAX_SIGNATURES: usize = 8;

/// Standard Webhooks: `v1,BASE64`, several with blanks between, over `id.timestamp.body`. The key is what the secret
/// encodes after `whsec_`; a secret that encodes nothing is taken as it is.
pub(super) fn standard(delivery: &Signed<'_>, now: Timestamp) -> Result<(), Unsigned> {
    const HEADER: &str = "webhook-signature";
    const FORM: &str = "v1,BASE64";
    let signatures = delivery.header(HEADER, FORM)?;
    let id = delivery.header("webhook-id", "AN ID")?;
    let time = time_of(delivery, "webhook-timestamp")?;
    let keys: Vec<Vec<u8>> = delivery.secrets.iter().map(|secret| standard_key(secret)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).filter(|key| !key.is_empty()).collect();
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", delivery.body];
    let mut given = Vec::new();
    for signature in signatures.split_ascii_whitespace().take(MAX_SIGNATURES) {
        // Other versions are other algorithms, which may stand beside this one.
        if let Some(encoded) = signature.strip_prefix("v1,") {
            given.push(STANDARD.decode(encoded).map_err(|_| Unsigned::Malformed { header: HEADER, form: FORM })?);
        }
    }
    if given.is_empty() {
        return Err(Unsigned::Malformed { header: HEADER, form: FORM });
    }
    if !given.iter().any(|given| is_made_with_one(&keys, &parts, given)) {
        return Err(Unsigned::Mismatch { header: HEADER });
    }
    check_age("webhook-timestamp", time, now)
}

/// `v1=DIGITS` over `timestamp.body`.
pub(super) fn generic(delivery: &Signed<'_>, now: Timestamp) -> Result<(), Unsigned> {
    const HEADER: &str = "Cooper-Signature";
    const FORM: &str = "v1=64 HEXADECIMAL DIGITS";
    let malformed = Unsigned::Malformed { header: HEADER, form: FORM };
    let signature = delivery.header(HEADER, FORM)?;
    let time = time_of(delivery, "Cooper-Timestamp")?;
    let Some(given) = signature.strip_prefix("v1=").and_then(bytes_of) else { return Err(malformed) };
    if !is_made_with_one(delivery.secrets, &[time.as_bytes(), b".", delivery.body], &given) {
        return Err(Unsigned::Mismatch { header: HEADER });
    }
    check_age("Cooper-Timestamp", time, now)
}

fn standard_key(secret: &[u8]) -> Vec<u8> {
    match secret.strip_prefix(b"whsec_") {
        Some(encoded) => STANDARD.decode(encoded).unwrap_or_else(|_| secret.to_vec()),
        None => secret.to_vec(),
    }
}

/// The header's text, which is a number of seconds: what was signed is the text.
fn time_of<'a>(delivery: &Signed<'a>, header: &'static str) -> Result<&'a str, Unsigned> {
    const FORM: &str = "SECONDS SINCE 1970";
    let text = delivery.header(header, FORM)?;
    match text.len() <= 12 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(text),
        false => Err(Unsigned::Malformed { header, form: FORM }),
    }
}

fn check_age(header: &'static str, seconds: &str, now: Timestamp) -> Result<(), Unsigned> {
    let seconds: i64 = seconds.parse().expect("it has at most twelve digits");
    let apart = now.as_micros().abs_diff(seconds * 1_000_000);
    match u128::from(apart) <= MAX_AGE.as_micros() {
        true => Ok(()),
        false => Err(Unsigned::Stale { header }),
    }
}
