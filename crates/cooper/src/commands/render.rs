//! `cooper render`: a task file after aliases and templates, as its steps will run it.

use clap::Args;
use cooper_spec::task;
use serde_json::json;

use crate::cli::OutputForm;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;
use crate::task::{TaskFileArgs, masked, show_faults, show_warnings};

#[derive(Args, Debug)]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    task: TaskFileArgs,
    /// The form of the result; as json, it is an object with the text
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(crate) fn run(args: &RenderArgs) -> Result<Exit, Stop> {
    let mut inputs = args.task.inputs()?;
    match args.task.complete(&mut inputs).and_then(|()| task::render_text(&inputs)) {
        Ok(rendered) => {
            show_warnings(&rendered.warnings);
            let text = masked(&rendered.text, &inputs);
            match args.output {
                OutputForm::Json => output::json(&json!({ "rendered": text }))?,
                OutputForm::Text => output::data(format!("{}\n", text.trim_end_matches('\n')).as_bytes())?,
            }
            // It was asked for to see what its templates make of it, and they may make no task.
            if let Err(faults) = task::load(&inputs) {
                let count = faults.faults.len() + faults.more;
                let what = if count == 1 { "1 error".to_owned() } else { format!("{count} errors") };
                output::note(&format!("warning: this is no task that could run: `cooper lint` tells its {what}"));
            }
            Ok(Exit::Success)
        }
        Err(faults) => {
            show_faults(&faults);
            Ok(Exit::Usage)
        }
    }
}
