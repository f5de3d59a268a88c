//! `cooper openapi`: the document, without a server.

use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;

pub(crate) fn run() -> Result<Exit, Stop> {
    output::data(cooper_api::openapi::document_json().as_bytes())?;
    Ok(Exit::Success)
}
