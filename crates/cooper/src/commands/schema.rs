//! `cooper schema`: the JSON Schemas of task files and of stored tasks' documents.

use clap::Args;

use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct SchemaArgs {
    /// That of a document of `cooper task apply`, in place of that of a task file
    #[arg(long)]
    stored_tasks: bool,
}

pub(crate) fn run(args: &SchemaArgs) -> Result<Exit, Stop> {
    match args.stored_tasks {
        true => output::json(&cooper_api::openapi::stored_task_schema())?,
        false => output::json(&cooper_spec::task::schema())?,
    }
    Ok(Exit::Success)
}
