//! `cooper version`.

use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;

pub(crate) fn run() -> Result<Exit, Stop> {
    output::line(concat!("cooper ", env!("CARGO_PKG_VERSION")))?;
    Ok(Exit::Success)
}
