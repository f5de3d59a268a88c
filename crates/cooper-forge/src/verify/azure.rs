//! Azure DevOps' service hooks: Basic credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::token::is_one_of;
use super::{Signed, Unsigned};

/// The password is one of the secrets. The user name may be any: the form at Azure DevOps asks for one.
pub(super) fn basic(delivery: &Signed<'_>) -> Result<(), Unsigned> {
    const HEADER: &str = "Authorization";
    const FORM: &str = "Basic BASE64 OF USER:SECRET";
    let malformed = Unsigned::Malformed { header: HEADER, form: FORM };
    let text = delivery.header(HEADER, FORM)?;
    let Some((scheme, encoded)) = text.split_once(' ') else { return Err(malformed) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed);
    }
    let Ok(pair) = STANDARD.decode(encoded.trim()) else { return Err(malformed) };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return Err(malformed) };
    match is_one_of(delivery.secrets, &pair[colon + 1..]) {
        true => Ok(()),
        false => Err(Unsigned::Mismatch { header: HEADER }),
    }
}
