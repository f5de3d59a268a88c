//! A step: its properties with their defaults, checked (contract §1.4, §1.5).

mod mounts;
mod platforms;
mod ports;
mod text;

use std::time::Duration;

use cooper_types::{ImageRef, StepId};

use super::build_line;
use super::cmd_line;
use super::fields::{Fields, Report, Told, clip};
use super::model::{Isolation, TaskStep, TaskWork};
use super::read::{LONGEST_RUN, Shared, count, network, seconds};
use super::words::unquoted;
use super::yaml::{At, Kind};
use super::{cache, environment, keys, limits, paths};
use text::Line;
pub(super) use text::alias_of;

const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Reads a step. What is wrong with it is reported, and there may be none.
pub(super) fn read(
    fields: &Fields<'_>,
    id: &Told<String>,
    after: Vec<usize>,
    shared: &Shared<'_>,
    report: &mut Report<'_>,
) -> Option<TaskStep> {
    let kind = kind(fields, id, report)?;
    without_effect(fields, kind, report);
    let mut platforms = platforms::named(fields, kind, report);
    let windows = platforms.first().unwrap_or(&shared.inputs.run.platform).os() == "windows";
    let mut env = match kind {
        "push" => Vec::new(),
        _ => environment::of_step(fields, &shared.environment, windows, report),
    };
    let isolation = fields.choice("isolation", report).map(|told| told.value);
    if let Some(text) = isolation.filter(|text| kind == "cmd" && !windows && *text != "default") {
        let message = format!("`isolation` of a step is `{text}`, and the step runs on Linux");
        report.fault(fields.at("isolation"), message, "leave it out: only containers of Windows are kept apart so");
    }
    let mut directory = fields.text("workingDirectory", report).map(|told| told.value);
    let mut override_directory = !fields.flag("disableWorkingDirectoryOverride", report);
    // What can't be read here is told together with what is wrong elsewhere in the step.
    let work = 'work: {
        let line = match kind {
            "build" => fields.text("build", report).map(Line::of),
            "cmd" => fields.text("cmd", report).map(|told| text::with_alias(told, shared, report)),
            _ => break 'work Some(TaskWork::Push(pushed(fields, report))),
        };
        let Some(line) = line else { break 'work None };
        let Some(found) = text::split(&line, kind, windows, report) else { break 'work None };
        if kind == "build" {
            let read = build_line::read(&found.words, &env);
            line.notes(&found, read.notes, report);
            platforms = platforms::same(platforms, &read.line.platforms, line.told.at, report);
            if let Some(text) = read.isolation {
                isolation_of_build(&text, line.told.at, report);
            }
            Some(TaskWork::Build(read.line))
        } else {
            let read = cmd_line::read(&found.words);
            line.notes(&found, read.notes, report);
            for (name, value) in read.env {
                env.retain(|(before, _)| *before != name);
                env.push((name, value));
            }
            if let Some(path) = read.working_directory {
                // As with docker, the later flag wins.
                (directory, override_directory) = (Some(path), true);
            }
            read.line.map(TaskWork::Cmd)
        }
    };
    let timeout = seconds(fields, "timeout", report).unwrap_or(shared.timeout);
    if timeout.as_secs() > LONGEST_RUN {
        let message = format!("step `{}` may take {} s", clip(&id.value), timeout.as_secs());
        report.warn(fields.at("timeout"), message, format!("its run ends after at most {LONGEST_RUN} s"));
    }
    let cache = cache::of_step(fields, work.as_ref(), &platforms, id, shared, report);
    let default = std::slice::from_ref(&shared.inputs.run.platform);
    let mut runs_on = if platforms.is_empty() { default } else { &platforms }.iter();
    let on_windows = runs_on.find(|platform| platform.os() == "windows");
    let volume_mounts = mounts::read(fields, kind, on_windows, shared, report);
    let network = match fields.text("network", report) {
        Some(told) if kind == "cmd" => network(&told, shared, report),
        _ => shared.network.clone(),
    };
    if kind == "cmd" {
        ports::without_effect(fields, &network, shared, report);
    }
    let directory = directory.as_deref().or(shared.working_directory.as_deref());
    Some(TaskStep {
        after,
        platforms,
        timeout,
        start_delay: seconds(fields, "startDelay", report).unwrap_or_default(),
        retries: times(fields, "retries", report),
        retry_delay: seconds(fields, "retryDelay", report).unwrap_or(DEFAULT_RETRY_DELAY),
        retry_on_errors: fields.texts("retryOnErrors", report).into_iter().map(|told| told.value).collect(),
        repeat: times(fields, "repeat", report),
        ignore_errors: fields.flag("ignoreErrors", report),
        keep: fields.flag("keep", report),
        detach: fields.flag("detach", report),
        privileged: fields.flag("privileged", report),
        user: fields.text("user", report).map(|told| unquoted(&told.value, windows)),
        network,
        isolation: isolation.map(|text| match text {
            "process" => Isolation::Process,
            "hyperv" => Isolation::Hyperv,
            _ => Isolation::Default,
        }),
        cpus: cpus(fields, report),
        entry_point: fields.text("entryPoint", report).map(|told| unquoted(&told.value, windows)),
        env,
        expose: ports::exposed(fields, report),
        ports: ports::published(fields, report),
        volume_mounts,
        working_directory: paths::working_directory(directory, windows),
        disable_working_directory_override: !override_directory,
        pull: fields.flag("pull", report),
        cmd_download_retries: times(fields, "cmdDownloadRetries", report),
        cmd_download_retry_delay: seconds(fields, "cmdDownloadRetryDelay", report).unwrap_or_default(),
        cache,
        outputs: fields.texts("outputs", report).into_iter().map(|told| told.value).collect(),
        // What isn't there has been told of, as has all that was read before.
        id: StepId::parse(&id.value).ok()?,
        work: work?,
    })
}

/// Where a step says what it does: its text, the image that it pushes, or the key of several.
pub(super) fn place(step: &TaskStep, fields: &Fields<'_>) -> At {
    let kind = step.work.kind();
    match fields.node(kind).map(|node| (node.at, &node.kind)) {
        Some((_, Kind::List(items))) if items.len() == 1 => items[0].at,
        Some((at, Kind::Scalar { .. })) => at,
        Some((_, Kind::List(_) | Kind::Map(_))) | None => fields.at(kind),
    }
}

/// `--isolation` of a build's text.
fn isolation_of_build(text: &str, at: At, report: &mut Report<'_>) {
    match ["default", "process", "hyperv"].iter().any(|known| known.eq_ignore_ascii_case(text)) {
        true => report.warn(at, "flag `--isolation` has no effect on a build", "images of Windows are not built here"),
        false => {
            let message = format!("flag `--isolation` is `{}`", clip(text));
            report.fault(at, message, "write default, process or hyperv");
        }
    }
}

/// Which of `build`, `cmd` and `push` a step has.
fn kind(fields: &Fields<'_>, id: &Told<String>, report: &mut Report<'_>) -> Option<&'static str> {
    let mut kinds = Vec::new();
    // An empty text and an empty list count as absent.
    let before = report.faults.len();
    if fields.text("build", report).is_some_and(|told| !told.value.trim().is_empty()) {
        kinds.push("build");
    }
    if fields.text("cmd", report).is_some_and(|told| !told.value.trim().is_empty()) {
        kinds.push("cmd");
    }
    if !fields.list("push", report).is_empty() {
        kinds.push("push");
    }
    let shown = clip(&id.value);
    match kinds.as_slice() {
        [kind] => Some(kind),
        [] if report.faults.len() > before => None,
        [] => {
            report.fault(fields.at, format!("step `{shown}` has no `cmd`, `build` or `push`"), "give it one of them");
            None
        }
        [.., last] => {
            let message = format!("step `{shown}` has {}", kinds.join(" and "));
            report.fault(fields.at(last), message, "a step does one thing: make a step of each");
            None
        }
    }
}

/// Tells of properties that do nothing on such a step.
fn without_effect(fields: &Fields<'_>, kind: &'static str, report: &mut Report<'_>) {
    for (name, at) in fields.keys() {
        let Some(key) = keys::STEP.key(name) else { continue };
        let own = ["build", "cmd", "push"].contains(&name);
        // A push step with mounts is an error of its own, and so are platforms elsewhere than on a build.
        let told_elsewhere = name == "volumeMounts" || name == "platforms";
        if key.steps.contains(&kind) || own || told_elsewhere {
            continue;
        }
        let help = match key.steps {
            ["no"] if name == "outputs" => "the key is reserved for a later version".to_owned(),
            ["no"] => "ACR reads it and never uses it".to_owned(),
            steps => format!("it counts for {} steps", steps.join(" and ")),
        };
        report.warn(at, format!("`{name}` has no effect on a {kind} step"), help);
    }
}

fn times(fields: &Fields<'_>, name: &'static str, report: &mut Report<'_>) -> u32 {
    count(fields, name, report).and_then(|told| u32::try_from(told.value).ok()).unwrap_or(0)
}

fn cpus(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<String> {
    let told = fields.text("cpus", report)?;
    // The engine counts in billionths.
    let form = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        digits(whole) && digits(part) && part.len() <= 9
    };
    let number = told.value.parse::<f64>().ok().filter(|number| *number > 0.0 && *number < 100_000.0);
    if number.is_none() || !form(&told.value) {
        let message = format!("`cpus` is `{}`", clip(&told.value));
        report.fault(told.at, message, "write a number above 0, such as 1.5, with at most 9 digits after the point");
    }
    Some(told.value)
}

fn pushed(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<ImageRef> {
    let mut images = Vec::new();
    for told in fields.texts("push", report) {
        match build_line::image(&unquoted(told.value.trim(), false)) {
            Ok(image) if images.contains(&image) => {}
            Ok(_) if images.len() == limits::IMAGES => {
                let message = format!("a push step has more than {} images", limits::IMAGES);
                report.fault(told.at, message, "write several push steps");
                break;
            }
            Ok(image) => images.push(image),
            Err(note) => text::tell(told.at, note, report),
        }
    }
    images
}
