//! A task file's objects outside of its steps: version, secrets, networks, volumes, and what all steps share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use cooper_types::SecretBytes;

use crate::secret_place::SecretPlace;

use super::across;
use super::environment;
use super::fields::{Fields, Report, Told, clip};
use super::inputs::{TaskInputs, WantedSecret};
use super::keys;
use super::limits;
use super::model::{DEFAULT_NETWORK, StepNetwork, Task, TaskNetwork, TaskVersion, TaskVolume};
use super::nearest::nearest;
use super::order;
use super::step;
use super::yaml::{At, Kind, Node};

/// How long a step may take that says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest timeout of a run.
pub(super) const LONGEST_RUN: u64 = 28_800;
/// The most characters that agents take for the name of a network, and of a volume.
const MAX_NETWORK_NAME: usize = 64;
const MAX_VOLUME_NAME: usize = 57;

/// What a step's reading needs of all else.
pub(super) struct Shared<'i> {
    pub(super) inputs: &'i TaskInputs,
    /// What a `cmd` may begin with in place of an image.
    pub(super) aliases: &'i BTreeMap<String, String>,
    pub(super) version: TaskVersion,
    pub(super) timeout: Duration,
    pub(super) working_directory: Option<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) volumes: Vec<String>,
    pub(super) networks: Vec<String>,
    pub(super) network: StepNetwork,
}

/// Reads a whole task, and where each of its steps says what it does. There is one if the report has no faults.
pub(super) fn task(
    root: Option<&Node>,
    inputs: &TaskInputs,
    aliases: &BTreeMap<String, String>,
    report: &mut Report<'_>,
) -> Option<(Task, Vec<At>)> {
    let nothing = Task {
        version: TaskVersion::V1_0_0,
        steps: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
        secrets: Vec::new(),
    };
    let Some(root) = root.filter(|root| !root.is_null()) else {
        let start = At { line: 1, column: 1, length: 1 };
        report.warn(start, "the file says nothing", "a run of it does nothing and succeeds; name `steps`");
        return Some((nothing, Vec::new()));
    };
    let fields = Fields::read(root, &keys::TASK, report)?;
    let version = version(&fields, report)?;
    if fields.node("alias").is_some() {
        let help = match version.has_aliases() {
            false => "write `version: v1.1.0`",
            true => "begin it with `alias:` at the beginning of a line",
        };
        report.warn(fields.at("alias"), "`alias` has no effect here", help);
    }
    let secrets = secrets(&fields, report);
    let networks = networks(&fields, report);
    let volumes = volumes(&fields, report);
    let environment = environment::of_task(&fields, inputs, report);
    let mut shared = Shared {
        inputs,
        aliases,
        version,
        timeout: seconds(&fields, "stepTimeout", report).unwrap_or(DEFAULT_TIMEOUT),
        working_directory: fields.text("workingDirectory", report).map(|told| told.value),
        environment,
        volumes: volumes.iter().map(|volume| volume.name.clone()).collect(),
        networks: networks.iter().map(|network| network.name.clone()).collect(),
        network: default_network(&networks),
    };
    shared.working_directory = shared.working_directory.or_else(|| inputs.working_directory.clone());
    let read = limits::limited(&fields, "steps", fields.maps("steps", report), limits::STEPS, report);
    limits::check_environment(&shared.environment, read.len(), fields.at("env"), report);
    let ids = order::ids(&read, report);
    let mut steps = Vec::new();
    for (index, fields) in read.iter().enumerate() {
        let after = order::after(index, fields, &ids, report);
        if let Some(step) = step::read(fields, &ids[index], after, &shared, report) {
            steps.push(step);
        }
    }
    if fields.node("steps").is_none() {
        let way_out = match is_stored_task(root) {
            true => "a file of stored tasks is for `cooper task apply`; a task file names `steps`",
            false => "a run of it does nothing and succeeds; name `steps`",
        };
        report.warn(fields.at, "the file has no steps", way_out);
    }
    if !report.faults.is_empty() {
        return None;
    }
    across::warn(&steps, &read, &inputs.run.platform, report);
    limits::check_images(&steps, fields.at("steps"), report);
    let places = steps.iter().zip(&read).map(|(step, fields)| step::place(step, fields)).collect();
    Some((Task { version, steps, networks, volumes, secrets }, places))
}

/// Whether a file looks like one of tasks as a server stores them, rather than like what one of them runs.
fn is_stored_task(root: &Node) -> bool {
    let Kind::Map(entries) = &root.kind else { return false };
    entries.iter().any(|(key, _)| matches!(&key.kind, Kind::Scalar { text, .. } if text == "step"))
}

fn version(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<TaskVersion> {
    let told = fields.text("version", report);
    let text = told.as_ref().map_or("", |told| told.value.as_str());
    let version = TaskVersion::parse(text);
    if let (None, Some(told)) = (version, told) {
        let message = format!("version `{}` is not known", clip(&told.value));
        let help = match TaskVersion::parse(&format!("v{}", told.value)) {
            Some(version) => format!("did you mean `{}`?", version.as_str()),
            None => "known are v1.0.0 and v1.1.0".to_owned(),
        };
        report.fault(told.at, message, help);
    }
    version
}

/// A count of seconds; nothing, zero and less are nothing.
pub(super) fn seconds(fields: &Fields<'_>, name: &'static str, report: &mut Report<'_>) -> Option<Duration> {
    let told = count(fields, name, report)?;
    (told.value > 0).then(|| Duration::from_secs(told.value.unsigned_abs()))
}

/// A number that is not absurd.
pub(super) fn count(fields: &Fields<'_>, name: &'static str, report: &mut Report<'_>) -> Option<Told<i64>> {
    const MOST: i64 = 1_000_000_000;
    let told = fields.number(name, report)?;
    if told.value > MOST {
        report.fault(told.at, format!("`{name}` is {}", told.value), format!("write {MOST} or less"));
        return None;
    }
    Some(told)
}

/// The `secrets` of a file.
pub(super) fn secrets(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<WantedSecret> {
    let mut secrets: Vec<WantedSecret> = Vec::new();
    for fields in limits::limited(fields, "secrets", fields.maps("secrets", report), limits::SECRETS, report) {
        let id = fields.text("id", report);
        let keyvault = fields.text("keyvault", report);
        let client = fields.text("clientID", report);
        let Some(id) = id else {
            report.fault(fields.at, "a secret has no id", "write `id: NAME`, which templates know as `.Secrets.NAME`");
            continue;
        };
        if id.value.chars().any(char::is_whitespace) {
            let message = format!("secret id `{}` holds a blank", clip(&id.value));
            report.fault(id.at, message, "write letters, digits, `-` and `_`");
            continue;
        }
        if secrets.iter().any(|before| before.id == id.value) {
            report.fault(
                id.at,
                format!("secret id `{}` is there twice", clip(&id.value)),
                "give each an id of its own",
            );
            continue;
        }
        if let Some(client) = &client
            && !is_uuid(&client.value)
        {
            let message = format!("clientID `{}` of secret `{}` is no UUID", clip(&client.value), clip(&id.value));
            report.fault(
                client.at,
                message,
                "write the identity's client id, such as 6f1a2b3c-0000-4000-8000-000000000000",
            );
            continue;
        }
        let Some(keyvault) = keyvault else {
            let message = format!("secret `{}` says nowhere where it is kept", clip(&id.value));
            let help = "write `keyvault: https://VAULT/secrets/NAME`, or cooper://NAME for the server's own store";
            report.fault(id.at, message, help);
            continue;
        };
        match SecretPlace::parse(&keyvault.value) {
            Ok(keyvault) => {
                let client_id = client.map(|client| client.value);
                secrets.push(WantedSecret { id: id.value, keyvault, client_id });
            }
            Err(error) => {
                let message = format!("keyvault of secret `{}` is not one", clip(&id.value));
                report.fault(keyvault.at, message, error.to_string());
            }
        }
    }
    secrets
}

fn is_uuid(text: &str) -> bool {
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn networks(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<TaskNetwork> {
    let mut networks: Vec<TaskNetwork> = Vec::new();
    for fields in limits::limited(fields, "networks", fields.maps("networks", report), limits::NETWORKS, report) {
        let Some(name) = fields.text("name", report) else {
            report.fault(fields.at, "a network has no name", "write `name: NAME`");
            continue;
        };
        if !is_engine_name(&name.value) {
            let message = format!("network name `{}` is not one", clip(&name.value));
            let help = format!(
                "write letters, digits, `-`, `_` and `.`, {MAX_NETWORK_NAME} at most, and begin with a letter or digit"
            );
            report.fault(name.at, message, help);
        }
        if networks.iter().any(|before| before.name == name.value) {
            let message = format!("network `{}` is there twice", clip(&name.value));
            report.fault(name.at, message, "give each a name of its own");
        }
        networks.push(TaskNetwork {
            name: name.value,
            driver: fields.text("driver", report).map(|told| told.value),
            ipv6: fields.flag("ipv6", report),
            skip_creation: fields.flag("skipCreation", report),
            is_default: fields.flag("isDefault", report),
        });
    }
    networks
}

/// The names that agents take for networks.
fn is_engine_name(text: &str) -> bool {
    text.len() <= MAX_NETWORK_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The network of steps that name none.
fn default_network(networks: &[TaskNetwork]) -> StepNetwork {
    match networks.iter().rfind(|network| network.is_default) {
        Some(network) => StepNetwork::Named(network.name.clone()),
        None if networks.is_empty() => StepNetwork::Run,
        None => StepNetwork::Bridge,
    }
}

/// A network by the name that a step gives it.
pub(super) fn network(name: &Told<String>, shared: &Shared<'_>, report: &mut Report<'_>) -> StepNetwork {
    if name.value == DEFAULT_NETWORK && shared.networks.is_empty() {
        return StepNetwork::Run;
    }
    if !shared.networks.contains(&name.value) {
        match name.value.as_str() {
            // An engine has them always.
            "none" | "default" | "bridge" | "nat" => return StepNetwork::Named(name.value.clone()),
            "host" => {
                let help = "an agent gives it where its operator lists it (`--allow-network host`)";
                report.warn(name.at, "network `host` is the machine's own", help);
                return StepNetwork::Named(name.value.clone());
            }
            _ => {}
        }
        let known = shared.networks.iter().map(String::as_str);
        let help = match nearest(&name.value, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "declare it under `networks`, with `skipCreation: true` if the agent's engine has it already".to_owned()
            }
        };
        report.warn(name.at, format!("network `{}` is not declared", clip(&name.value)), help);
    }
    StepNetwork::Named(name.value.clone())
}

fn volumes(fields: &Fields<'_>, report: &mut Report<'_>) -> Vec<TaskVolume> {
    let mut volumes: Vec<TaskVolume> = Vec::new();
    for fields in limits::limited(fields, "volumes", fields.maps("volumes", report), limits::VOLUMES, report) {
        let Some(name) = fields.text("name", report) else {
            report.fault(fields.at, "a volume has no name", "write `name: NAME`");
            continue;
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.value.chars().all(allowed) || name.value.len() > MAX_VOLUME_NAME {
            let message = format!("volume name `{}` is not one", clip(&name.value));
            let help = format!("write letters, digits, `-` and `_`, {MAX_VOLUME_NAME} at most");
            report.fault(name.at, message, help);
        }
        if volumes.iter().any(|before| before.name == name.value) {
            let message = format!("volume `{}` is there twice", clip(&name.value));
            report.fault(name.at, message, "give each a name of its own");
        }
        let files = files(&name.value, &fields, report);
        volumes.push(TaskVolume { name: name.value, files });
    }
    volumes
}

fn files(volume: &str, fields: &Fields<'_>, report: &mut Report<'_>) -> BTreeMap<String, SecretBytes> {
    let volume = clip(volume);
    let mut files = BTreeMap::new();
    let pairs = fields.text_map("secret", report);
    if fields.node("secret").is_none() || pairs.as_ref().is_some_and(Vec::is_empty) {
        let message = format!("volume `{volume}` has no files");
        report.fault(fields.at, message, "write `secret:` with a line `FILE: BASE64` for each file");
    }
    let mut seen = BTreeSet::new();
    for (name, value) in limits::limited(fields, "secret", pairs.unwrap_or_default(), limits::FILES, report) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let named = !name.value.is_empty() && name.value.chars().all(allowed) && name.value.len() <= 255;
        if !named || matches!(name.value.as_str(), "." | "..") {
            let message = format!("file name `{}` of volume `{volume}` is not one", clip(&name.value));
            report.fault(name.at, message, "write letters, digits, `-`, `_` and `.`");
            continue;
        }
        seen.insert(name.value.clone());
        let packed: String = value.value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match base64::engine::general_purpose::STANDARD.decode(packed) {
            Ok(bytes) => {
                files.insert(name.value, SecretBytes::new(bytes));
            }
            // What stands there is a secret: nothing of it may be said.
            Err(_) => {
                let message = format!("file `{}` of volume `{volume}` is not base64", clip(&name.value));
                report.fault(value.at, message, "write `{{ .Secrets.ID | b64enc }}` for a text");
            }
        }
    }
    files
}
