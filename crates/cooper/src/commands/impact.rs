//! `cooper impact`: what a new image would rebuild.

use clap::Args;
use cooper_api::rest::{ImpactRefusal, ImpactTask, ImpactView};
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
    notes(impact).iter().for_each(|note| output::note(note));
    Ok(())
}

/// What is to be said beside the table.
fn notes(impact: &ImpactView) -> Vec<String> {
    let mut notes = Vec::new();
    if !impact.unknown.is_empty() {
        let names: Vec<&str> = impact.unknown.iter().map(TaskName::as_str).collect();
        let more = if impact.unknown_more { " and others" } else { "" };
        notes.push(format!(
            "Not known yet: {}{more}. What a task stands on is known when a run of it has succeeded that built what its base \
             images would have built: its Dockerfile alone does not tell, nor do runs of tags, pull requests and other branches, \
             or with other arguments. `cooper task run` makes such a run.",
            names.join(", ")
        ));
    }
    notes.extend(impact.unreadable.iter().map(|task| {
        format!(
            "Task {task} stands on it and can't be read by the server, whose log says why: it would not be built, and what \
             stands on what it makes is not known."
        )
    }));
    notes.extend(impact.cuts.iter().map(|cut| format!("Cut: {cut}.")));
    let refused = |refusal: &ImpactRefusal| {
        format!("Task {} stands on {} and would not start: {}.", refusal.task, refusal.image, refusal.rule)
    };
    notes.extend(impact.refused.iter().map(refused));
    notes
}

fn row(task: &ImpactTask) -> [String; 4] {
    let after: Vec<&str> = task.after.iter().map(TaskName::as_str).collect();
    [task.level.to_string(), task.task.to_string(), after.join(" "), task.images.join(" ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_built_is_named_with_its_reason() {
        let task = |name: &str| TaskName::parse(name).expect("valid");
        let refused =
            ImpactRefusal { task: task("quiet"), image: "base:1".to_owned(), rule: "it is disabled".to_owned() };
        let impact = ImpactView {
            images: vec!["base:1".to_owned()],
            tasks: Vec::new(),
            cuts: vec!["a stands on b".to_owned()],
            refused: vec![refused],
            unknown: vec![task("fresh"), task("other")],
            unknown_more: true,
            unreadable: vec!["newer".to_owned()],
        };
        let notes = notes(&impact);
        let begin = [
            "Not known yet: fresh, other and others. ",
            "Task newer stands on it and can't be read",
            "Cut: a",
            "Task quiet",
        ];
        assert_eq!(notes.len(), begin.len());
        for (note, begin) in notes.iter().zip(begin) {
            assert!(note.starts_with(begin), "{note}");
        }
    }
}
