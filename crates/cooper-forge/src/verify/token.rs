//! GitLab's token: the secret itself in a header.

use subtle::ConstantTimeEq as _;

use super::{Signed, Unsigned};

/// `X-Gitlab-Token` is one of the secrets.
pub(super) fn gitlab(delivery: &Signed<'_>) -> Result<(), Unsigned> {
    const HEADER: &str = "X-Gitlab-Token";
    let token = delivery.header(HEADER, "THE SECRET")?;
    match is_one_of(delivery.secrets, token.as_bytes()) {
        true => Ok(()),
        false => Err(Unsigned::Mismatch { header: HEADER }),
    }
}

/// Whether this is one of the secrets. Only their lengths can be learnt from the time it takes.
pub(super) fn is_one_of(secrets: &[&[u8]], given: &[u8]) -> bool {
    secrets.iter().fold(false, |found, secret| bool::from(secret.ct_eq(given)) | found)
}
