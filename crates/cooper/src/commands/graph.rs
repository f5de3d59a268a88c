//! `cooper graph`: which steps of a task file wait for which.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use cooper_spec::task::{Task, TaskStep};

use crate::cli::OutputForm;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;
use crate::task::{TaskFileArgs, masked_json};

#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    task: TaskFileArgs,
    /// The form of the picture
    #[arg(long, value_enum, default_value_t)]
    format: GraphFormat,
    /// The form of the result; as json, it holds every effective property
    #[arg(long, short, value_enum, default_value_t, conflicts_with = "format")]
    output: OutputForm,
}

/// The forms of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum GraphFormat {
    // A tree in plain text.
    #[default]
    Text,
    // A flowchart of Mermaid, which Markdown shows.
    Mermaid,
    // Graphviz.
    Dot,
}

pub(crate) fn run(args: &GraphArgs) -> Result<Exit, Stop> {
    let Some((inputs, loaded)) = args.task.load()? else { return Ok(Exit::Usage) };
    match (args.output, args.format) {
        (OutputForm::Json, _) => {
            let mut shown = loaded.task.to_json(&inputs.run.platform);
            masked_json(&mut shown, &inputs);
            output::json(&shown)?;
        }
        (OutputForm::Text, GraphFormat::Text) => output::data(tree(&loaded.task).as_bytes())?,
        (OutputForm::Text, GraphFormat::Mermaid) => output::data(mermaid(&loaded.task).as_bytes())?,
        (OutputForm::Text, GraphFormat::Dot) => output::data(dot(&loaded.task).as_bytes())?,
    }
    Ok(Exit::Success)
}

/// A step in a few words: its type, and where it runs if it says so.
fn words(step: &TaskStep) -> String {
    let platforms: Vec<String> = step.platforms.iter().map(ToString::to_string).collect();
    match platforms.as_slice() {
        [] => step.work.kind().to_owned(),
        platforms => format!("{}, {}", step.work.kind(), platforms.join(" ")),
    }
}

/// Each step under the last of those that it waits for; the others are named.
fn tree(task: &Task) -> String {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); task.steps.len()];
    let mut roots = Vec::new();
    for (index, step) in task.steps.iter().enumerate() {
        match step.after.last() {
            Some(parent) => children[*parent].push(index),
            None => roots.push(index),
        }
    }
    let mut text = String::new();
    // Steps to write: index, the text before their sign, and whether they are the last of their parent; none is above roots.
    let mut open: Vec<(usize, String, Option<bool>)> =
        roots.into_iter().rev().map(|index| (index, String::new(), None)).collect();
    while let Some((index, before, last)) = open.pop() {
        let step = &task.steps[index];
        let (sign, below) = match last {
            None => ("", ""),
            Some(true) => ("└── ", "    "),
            Some(false) => ("├── ", "│   "),
        };
        let others: Vec<&str> =
            step.after.iter().rev().skip(1).rev().map(|other| task.steps[*other].id.as_str()).collect();
        let also = if others.is_empty() { String::new() } else { format!("  also after {}", others.join(", ")) };
        let _ = writeln!(text, "{before}{sign}{} ({}){also}", step.id, words(step));
        let below = format!("{before}{below}");
        for (place, child) in children[index].iter().enumerate().rev() {
            open.push((*child, below.clone(), Some(place + 1 == children[index].len())));
        }
    }
    text
}

fn mermaid(task: &Task) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (index, step) in task.steps.iter().enumerate() {
        let _ = writeln!(text, "  s{index}[\"{}<br/>{}\"]", step.id, words(step));
    }
    for (from, to) in edges(task) {
        let _ = writeln!(text, "  s{from} --> s{to}");
    }
    text
}

fn dot(task: &Task) -> String {
    let mut text = "digraph task {\n  node [shape=box];\n".to_owned();
    for step in &task.steps {
        let _ = writeln!(text, "  \"{0}\" [label=\"{0}\\n{1}\"];", step.id, words(step));
    }
    for (from, to) in edges(task) {
        let _ = writeln!(text, "  \"{}\" -> \"{}\";", task.steps[from].id, task.steps[to].id);
    }
    text + "}\n"
}

/// Pairs of a step and one that waits for it.
fn edges(task: &Task) -> impl Iterator<Item = (usize, usize)> {
    let of =
        |(index, step): (usize, &TaskStep)| step.after.iter().map(move |parent| (*parent, index)).collect::<Vec<_>>();
    task.steps.iter().enumerate().flat_map(of)
}
