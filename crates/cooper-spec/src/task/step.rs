//! A step: its properties with their defaults, checked (contract §1.4, §1.5).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use cooper_types::{Platform, StepId};

use super::build_line;
use super::cmd_line;
use super::fields::{Fields, Report, Told, clip};
use super::flags::Note;
use super::model::{Cache, Isolation, TaskStep, TaskWork, VolumeMount};
use super::nearest::nearest;
use super::read::{LONGEST_RUN, Shared, count, network, seconds};
use super::words::{self, Misread, Rules, Words, unquoted};
use super::yaml::At;
use super::{cache, environment, keys, limits, paths};

/// How many ports one entry of `expose` names.
const MOST_EXPOSED: u16 = 4096;
/// How many ports one entry of `ports` names: each costs the engine a process.
const MOST_PUBLISHED: u16 = 256;
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(5);
/// ACR's own image aliases: without one of the operator's they mean images of Docker Hub.
const IMAGE_ALIASES: &[&str] = &["acr", "az", "bash", "curl", "cssc"];

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
    let mut platforms = platforms(fields, kind, report);
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
            "cmd" => fields.text("cmd", report).map(|told| with_alias(told, shared, report)),
            _ => break 'work Some(TaskWork::Push(pushed(fields, report))),
        };
        let Some(line) = line else { break 'work None };
        let Some(found) = split(&line, kind, windows, report) else { break 'work None };
        if kind == "build" {
            let read = build_line::read(&found.words, &env);
            line.notes(&found, read.notes, report);
            platforms = same_platforms(platforms, &read.line.platforms, line.told.at, report);
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
    let cache = cache(fields, work.as_ref(), &platforms, id, shared, report);
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
        network: match fields.text("network", report) {
            Some(told) if kind == "cmd" => network(&told, shared, report),
            _ => shared.network.clone(),
        },
        isolation: isolation.map(|text| match text {
            "process" => Isolation::Process,
            "hyperv" => Isolation::Hyperv,
            _ => Isolation::Default,
        }),
        cpus: cpus(fields, report),
        entry_point: fields.text("entryPoint", report).map(|told| unquoted(&told.value, windows)),
        env,
        expose: ports(
            fields,
            "expose",
            is_exposed,
            "write PORT, PORT-PORT or PORT/udp; a range has at most 4096 ports",
            report,
        ),
        ports: ports(
            fields,
            "ports",
            is_published,
            "write \"PORT:PORT\", ADDRESS:PORT:PORT/udp, or ranges of the same length, of at most 256 ports",
            report,
        ),
        volume_mounts: mounts(fields, kind, windows, shared, report),
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

/// The text of a `build` or a `cmd`, and the text that is read in its place.
struct Line {
    told: Told<String>,
    /// What is read: the text, with what an alias stands for at its beginning.
    read: String,
    /// How many bytes of the text and of what is read the alias is, and what it stands for.
    alias: (usize, usize),
}

impl Line {
    fn of(told: Told<String>) -> Self {
        Self { read: told.value.clone(), told, alias: (0, 0) }
    }

    /// The place in the file of some bytes of what is read.
    fn at(&self, place: &Range<usize>, report: &Report<'_>) -> At {
        let (name, value) = self.alias;
        let own = |byte: usize| if byte < value { byte.min(name) } else { byte - value + name };
        let part = match place.start < value {
            true => 0..own(place.end).max(name),
            false => own(place.start)..own(place.end),
        };
        report.within(&self.told, part)
    }

    fn notes(&self, found: &Words, notes: Vec<Note>, report: &mut Report<'_>) {
        for note in notes {
            let at = note.word.and_then(|word| found.places.get(word)).map(|place| self.at(place, report));
            tell(at.unwrap_or(self.told.at), note, report);
        }
    }
}

/// Splits a step's text into words.
fn split(line: &Line, kind: &str, windows: bool, report: &mut Report<'_>) -> Option<Words> {
    if let Some(byte) = line.read.find('\0') {
        let at = line.at(&(byte..byte + 1), report);
        report.fault(at, format!("`{kind}` holds a NUL character"), "take it away");
        return None;
    }
    match words::split(&line.read, Rules { windows, lines_go_on: kind == "build" }) {
        Ok(found) => {
            if let (Some(first), Some(place)) = (found.left.first(), &found.first_left) {
                let message = format!("`{first}` in `{kind}` is not replaced");
                let help = match kind {
                    "cmd" => {
                        "ACR's agent would replace it; here it reaches the container as it is: write it in single quotes"
                    }
                    _ => "ACR's agent would replace it; here it stays as it is: write the value, or a template",
                };
                report.warn(line.at(place, report), message, help);
            }
            Some(found)
        }
        Err(Misread { error, at }) => {
            report.fault(line.at(&at, report), format!("`{kind}` can't be read: {error}"), error.help());
            None
        }
    }
}

fn tell(at: At, note: Note, report: &mut Report<'_>) {
    match note.fault {
        true => report.fault(at, note.message, note.help),
        false => report.warn(at, note.message, note.help),
    }
}

/// A `cmd` whose first word is an alias has what it stands for instead.
fn with_alias(told: Told<String>, shared: &Shared<'_>, report: &mut Report<'_>) -> Line {
    if !shared.version.has_aliases() {
        return Line::of(told);
    }
    if let Some((name, value)) = alias_of(&told.value, shared.aliases) {
        let blanks = told.value.len() - told.value.trim_start().len();
        let read = told.value.replacen(name, value, 1);
        return Line { alias: (blanks + name.len(), blanks + value.len()), read, told };
    }
    let first = first_word(&told.value);
    if IMAGE_ALIASES.contains(&first) {
        let message = format!("`{first}` is ACR's alias of an image, and this server has none of that name");
        report.warn(told.at, message, format!("the image `{first}` is taken; name the image that is meant"));
    }
    Line::of(told)
}

/// The alias that a `cmd` begins with, and what it stands for.
pub(super) fn alias_of<'t>(cmd: &'t str, aliases: &'t BTreeMap<String, String>) -> Option<(&'t str, &'t str)> {
    let (name, value) = aliases.get_key_value(first_word(cmd))?;
    Some((name, value))
}

fn first_word(text: &str) -> &str {
    let text = text.trim();
    &text[..text.find([' ', '\t', '\n']).unwrap_or(text.len())]
}

fn pushed(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<cooper_types::ImageRef> {
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
            Err(note) => tell(told.at, note, report),
        }
    }
    images
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

fn platforms(fields: &Fields<'_>, kind: &str, report: &mut Report<'_>) -> Vec<Platform> {
    let one = fields.text("platform", report);
    let many = fields.texts("platforms", report);
    if let (Some(one), false) = (&one, many.is_empty()) {
        report.fault(one.at, "a step has `platform` and `platforms`", "name all under `platforms`");
    }
    if kind != "build" && many.len() > 1 {
        let message = format!("a {kind} step has {} platforms", many.len());
        report.fault(
            fields.at("platforms"),
            message,
            "only a build has several: write a step with `platform` for each",
        );
    }
    let mut platforms = Vec::new();
    for told in one.into_iter().chain(many) {
        match Platform::parse(&told.value) {
            Ok(platform) if platform.os() == "windows" && platform.architecture() != "amd64" => {
                report.fault(told.at, format!("platform `{platform}` is not one"), "of Windows there is windows/amd64");
            }
            Ok(platform) if platforms.contains(&platform) => {
                report.warn(told.at, format!("platform `{platform}` is there twice"), "once is enough");
            }
            Ok(platform) => platforms.push(platform),
            Err(error) => report.fault(told.at, error.to_string(), "write for example linux/arm64"),
        }
    }
    platforms
}

/// The platforms of a build: of its property, or else of its text.
fn same_platforms(step: Vec<Platform>, line: &[Platform], at: At, report: &mut Report<'_>) -> Vec<Platform> {
    let differ = !step.is_empty() && !line.is_empty() && {
        let set = |platforms: &[Platform]| platforms.iter().cloned().collect::<BTreeSet<_>>();
        set(&step) != set(line)
    };
    if differ {
        report.fault(at, "the build's text has other platforms than its step", "name them under `platforms` alone");
    }
    if step.is_empty() { line.to_vec() } else { step }
}

fn mounts(
    fields: &Fields<'_>,
    kind: &str,
    windows: bool,
    shared: &Shared<'_>,
    report: &mut Report<'_>,
) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    if kind == "push" && fields.node("volumeMounts").is_some() {
        report.fault(
            fields.at("volumeMounts"),
            "a push step has `volumeMounts`",
            "a push runs nothing that could read them",
        );
        return mounts;
    }
    for fields in fields.maps("volumeMounts", report) {
        let (Some(name), Some(path)) = (fields.text("name", report), fields.text("mountPath", report)) else {
            report.fault(fields.at, "a mount needs `name` and `mountPath`", "name a volume and a directory");
            continue;
        };
        let Some(volume) = shared.volumes.iter().position(|volume| *volume == name.value) else {
            let message = format!("volume `{}` is not declared", clip(&name.value));
            let help = match nearest(&name.value, shared.volumes.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it under `volumes`".to_owned(),
            };
            report.fault(name.at, message, help);
            continue;
        };
        let Some(mount_path) = paths::mount_path(&path.value, windows) else {
            let message = format!("mountPath `{}` is not one", clip(&path.value));
            let example = if windows { r"c:\keys" } else { "/run/keys" };
            report.fault(path.at, message, format!("write the absolute path of a directory, such as {example}"));
            continue;
        };
        if mounts.iter().any(|before| paths::same(&before.mount_path, &mount_path, windows)) {
            let message = format!("mountPath `{}` is there twice", clip(&path.value));
            report.fault(path.at, message, "give each mount a directory of its own");
            continue;
        }
        mounts.push(VolumeMount { volume, mount_path });
    }
    mounts
}

fn ports(
    fields: &Fields<'_>,
    name: &'static str,
    valid: fn(&str) -> bool,
    help: &'static str,
    report: &mut Report<'_>,
) -> Vec<String> {
    let mut ports = Vec::new();
    for told in fields.texts(name, report) {
        if !valid(&told.value) {
            report.fault(told.at, format!("entry `{}` of `{name}` is no port", clip(&told.value)), help);
        }
        ports.push(told.value);
    }
    ports
}

/// `PORT[-PORT][/PROTOCOL]`
fn is_exposed(text: &str) -> bool {
    exposed(text).is_some_and(|count| count <= MOST_EXPOSED)
}

/// How many ports `PORT[-PORT][/PROTOCOL]` names.
fn exposed(text: &str) -> Option<u16> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = ["tcp", "udp", "sctp"].contains(&protocol.to_ascii_lowercase().as_str());
    range_of(range).filter(|_| known)
}

/// How many ports `PORT[-PORT]` names.
fn range_of(text: &str) -> Option<u16> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then(|| last - first + 1)
}

/// `[[ADDRESS:][PORT[-PORT]]:]PORT[-PORT][/PROTOCOL]`, with as many ports on one side as on the other.
fn is_published(text: &str) -> bool {
    let (host, container) = text.rsplit_once(':').map_or((None, text), |(host, container)| (Some(host), container));
    let Some(count) = exposed(container).filter(|count| *count <= MOST_PUBLISHED) else { return false };
    let Some(host) = host else { return true };
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) => (address, port),
        None => ("", host),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address_fits = address.is_empty() || bare.parse::<std::net::IpAddr>().is_ok();
    // Nothing between two colons means any port of the machine.
    let port_fits = range_of(port) == Some(count) || port.is_empty() && !address.is_empty();
    address_fits && port_fits
}

fn cache(
    fields: &Fields<'_>,
    work: Option<&TaskWork>,
    platforms: &[Platform],
    id: &Told<String>,
    shared: &Shared<'_>,
    report: &mut Report<'_>,
) -> Cache {
    let told = fields.choice("cache", report);
    let (Some(told), Some(TaskWork::Build(line))) = (told, work) else { return Cache::Disabled };
    if told.value == "disabled" {
        return Cache::Disabled;
    }
    let run = &shared.inputs.run;
    if platforms.first().unwrap_or(&run.platform).os() == "windows" {
        report.warn(told.at, "`cache` has no effect on Windows", "builds there have the engine's cache alone");
        return Cache::Disabled;
    }
    match cache::name(&line.images, &run.registry, &run.task_name, &id.value) {
        Ok(Some(name)) => Cache::Enabled(Some(name)),
        Ok(None) => {
            let message = format!("the cache of step `{}` has no name", clip(&id.value));
            report.warn(told.at, message, "give the image a tag with `-t`: the cache is kept beside it");
            Cache::Enabled(None)
        }
        Err(tag) => {
            let message = format!("the cache's tag `{}` is not one", clip(&tag));
            report.warn(told.at, message, "the build goes on without; give the step a shorter id");
            Cache::Enabled(None)
        }
    }
}
