//! Headers of a delivery: one value each, as text.

use http::HeaderMap;

/// Why a header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It comes twice: who checks one and who reads the other would see different requests.
    Doubled,
    /// It is no visible ASCII.
    NoText,
}

/// The header's text; nothing if it is missing. Names in any case are one header.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, HeaderFault> {
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(HeaderFault::Doubled);
    }
    first.to_str().map(|text| Some(text.trim())).map_err(|_| HeaderFault::NoText)
}
