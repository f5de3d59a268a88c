//! `cooper impact`: what a new image would rebuild.

use clap::Args;
use cooper_api::rest::{ImpactTask, ImpactView};
use cooper_types::TaskName;

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::{output, table};

#[derive(Args, Debug)]
pub(crate) struct ImpactArgs {
    /// The image, such as base:1 or registry.example.com/base:1; one without a registry may be the server's or Docker Hub's
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &ImpactArgs, environment: &Environment) -> Result<Exit, Stop> {
    let impact = args.server.connect(environment)?.get_impact(&args.image).await?;
    match args.output {
        OutputForm::Json => output::json(&impact)?,
        OutputForm::Text => show(&impact)?,
    }
    Ok(Exit::Success)
}

fn show(impact: &ImpactView) -> Result<(), Stop> {
    if impact.tasks.is_empty() {
        output::note(&format!("No task would be built for a new {}.", impact.images.join(" or ")));
    } else {
        let rows: Vec<[String; 4]> = impact.tasks.iter().map(row).collect();
        output::line(&table::table(["LEVEL", "TASK", "AFTER", "STANDS ON"], &rows))?;
    }
    if !impact.unknown.is_empty() {
        let names: Vec<&str> = impact.unknown.iter().map(TaskName::as_str).collect();
        let more = if impact.unknown_more { " and others" } else { "" };
        output::note(&format!(
            "Not known yet: {}{more}. What a task stands on is known when a run of it has succeeded that built what its base \
             images would have built: its Dockerfile alone does not tell, nor do runs of tags, pull requests and other branches, \
             or with other arguments. `cooper task run` makes such a run.",
            names.join(", ")
        ));
    }
    for cut in &impact.cuts {
        output::note(&format!("Cut: {cut}."));
    }
    for refusal in &impact.refused {
        output::note(&format!(
            "Task {} stands on {} and would not start: {}.",
            refusal.task, refusal.image, refusal.rule
        ));
    }
    Ok(())
}

fn row(task: &ImpactTask) -> [String; 4] {
    let after: Vec<&str> = task.after.iter().map(TaskName::as_str).collect();
    [task.level.to_string(), task.task.to_string(), after.join(" "), task.images.join(" ")]
}
