//! `cooper lint`: all that is wrong with a task file, or what it means.

use clap::Args;
use cooper_spec::task::Fault;
use serde_json::json;

use crate::cli::OutputForm;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;
use crate::task::{TaskFileArgs, masked_json, show_warnings};

#[derive(Args, Debug)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    task: TaskFileArgs,
    /// The form of the result; as json, it holds every effective property
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(crate) fn run(args: &LintArgs) -> Result<Exit, Stop> {
    let Some((inputs, mut loaded)) = args.task.load()? else { return Ok(Exit::Usage) };
    // The file is one; whether it can be run is for the server to say, which knows its registry's name.
    if let Err(faults) = args.task.check_plan(&inputs, &loaded) {
        let refused = faults
            .faults
            .into_iter()
            .map(|fault| Fault { message: format!("a run is refused: {}", fault.message), ..fault });
        let refused: Vec<Fault> = refused.collect();
        show_warnings(&refused);
        if faults.more > 0 {
            output::note(&format!("warning: and {} more", faults.more));
        }
        loaded.warnings.extend(refused);
    }
    match args.output {
        OutputForm::Json => {
            let mut shown = loaded.task.to_json(&inputs.run.platform);
            masked_json(&mut shown, &inputs);
            let warnings = loaded.warnings.iter().map(|fault| {
                let place = fault.place.as_deref();
                json!({
                    "file": place.map(|place| &place.file),
                    "line": place.map(|place| place.line),
                    "column": place.map(|place| place.column),
                    "message": fault.message,
                    "help": fault.help,
                })
            });
            shown["warnings"] = warnings.collect();
            output::json(&shown)?;
        }
        OutputForm::Text => {
            let count = |number: usize, one: &str| match number {
                1 => format!("1 {one}"),
                number => format!("{number} {one}s"),
            };
            let steps = count(loaded.task.steps.len(), "step");
            let warnings = count(loaded.warnings.len(), "warning");
            output::line(&format!("{}: {steps}, no errors, {warnings}", inputs.file.name))?;
        }
    }
    Ok(Exit::Success)
}
