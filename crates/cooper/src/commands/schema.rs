//! `cooper schema`: the JSON Schema of task files.

use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;

pub(crate) fn run() -> Result<Exit, Stop> {
    output::json(&cooper_spec::task::schema())?;
    Ok(Exit::Success)
}
