//! A task as JSON, for programs: steps in file order with their ids, types, dependencies and every effective property,
//! by the names that they have in the file.

use cooper_types::{ImageRef, Platform};
use serde_json::{Map, Value, json};

use super::build_line::{BuildContext, BuildLine, BuildSecret, BuildSecretSource};
use super::cmd_line::CmdLine;
use super::keys;
use super::model::{Cache, DEFAULT_NETWORK, StepNetwork, Task, TaskStep, TaskWork};

impl Task {
    /// The task as JSON. What runs nowhere in particular runs on `platform`. It holds the values of secrets, but for those
    /// in volumes' files.
    pub fn to_json(&self, platform: &Platform) -> Value {
        let networks = self.networks.iter().map(|network| {
            json!({
                "name": network.name,
                "driver": network.driver,
                "ipv6": network.ipv6,
                "skipCreation": network.skip_creation,
                "isDefault": network.is_default,
            })
        });
        let volumes = self
            .volumes
            .iter()
            .map(|volume| json!({ "name": volume.name, "secret": volume.files.keys().collect::<Vec<_>>() }));
        let secrets = self.secrets.iter().map(
            |secret| json!({ "id": secret.id, "keyvault": secret.keyvault.to_string(), "clientID": secret.client_id }),
        );
        json!({
            "version": self.version.as_str(),
            "steps": self.steps.iter().map(|step| self.step_json(step, platform)).collect::<Vec<_>>(),
            "networks": networks.collect::<Vec<_>>(),
            "volumes": volumes.collect::<Vec<_>>(),
            "secrets": secrets.collect::<Vec<_>>(),
        })
    }

    fn step_json(&self, step: &TaskStep, platform: &Platform) -> Value {
        let kind = step.work.kind();
        let depends: Vec<&str> = step.after.iter().map(|index| self.steps[*index].id.as_str()).collect();
        let mut shown = Map::new();
        shown.insert("id".to_owned(), json!(step.id));
        shown.insert("type".to_owned(), json!(kind));
        shown.insert("dependsOn".to_owned(), json!(depends));
        for key in keys::STEP.keys.iter().filter(|key| key.steps.contains(&kind)) {
            if let Some(value) = self.property(step, key.name, platform) {
                shown.insert(key.name.to_owned(), value);
            }
        }
        match &step.work {
            TaskWork::Build(line) => shown.insert("buildOptions".to_owned(), build_json(line)),
            TaskWork::Cmd(line) => shown.insert("cmdOptions".to_owned(), cmd_json(line)),
            TaskWork::Push(_) => None,
        };
        Value::Object(shown)
    }

    /// A property of a step, but for its work and its environment, that the same step of another reading of the file does
    /// not share.
    pub(crate) fn other_setting(&self, other: &Self, step: usize) -> Option<&'static str> {
        let (own, others) = (&self.steps[step], &other.steps[step]);
        let settings = keys::STEP.keys.iter().map(|key| key.name);
        let settings = settings.filter(|name| !["cmd", "build", "push", "env"].contains(name));
        let differs = |name: &&str| match *name {
            "cache" => own.cache != others.cache,
            name => {
                let value = |task: &Self, step: &TaskStep| task.property(step, name, &Platform::LINUX_AMD64);
                value(self, own) != value(other, others)
            }
        };
        settings.into_iter().find(differs)
    }

    /// The value of a property by its name.
    fn property(&self, step: &TaskStep, name: &str, platform: &Platform) -> Option<Value> {
        let seconds = |duration: std::time::Duration| json!(duration.as_secs());
        let platforms = match step.platforms.as_slice() {
            [] => vec![platform.clone()],
            platforms => platforms.to_vec(),
        };
        Some(match name {
            "cmd" => match &step.work {
                TaskWork::Cmd(line) => json!(line.text()),
                _ => return None,
            },
            "build" => match &step.work {
                TaskWork::Build(line) => json!(line.text()),
                _ => return None,
            },
            "push" => match &step.work {
                TaskWork::Push(images) => json!(images),
                _ => return None,
            },
            "when" if step.after.is_empty() => json!(["-"]),
            "when" => json!(step.after.iter().map(|index| self.steps[*index].id.as_str()).collect::<Vec<_>>()),
            "timeout" => seconds(step.timeout),
            "startDelay" => seconds(step.start_delay),
            "retries" => json!(step.retries),
            "retryDelay" => seconds(step.retry_delay),
            "retryOnErrors" => json!(step.retry_on_errors),
            "repeat" => json!(step.repeat),
            "ignoreErrors" => json!(step.ignore_errors),
            "keep" => json!(step.keep),
            "detach" => json!(step.detach),
            "privileged" => json!(step.privileged),
            "user" => json!(step.user),
            "network" => json!(match &step.network {
                StepNetwork::Run => DEFAULT_NETWORK,
                StepNetwork::Named(name) => name,
                StepNetwork::Bridge => "bridge",
            }),
            "isolation" => json!(step.isolation.map(super::Isolation::as_str)),
            "cpus" => json!(step.cpus),
            "entryPoint" => json!(step.entry_point),
            "env" => json!(step.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()),
            "expose" => json!(step.expose),
            "ports" => json!(step.ports),
            "volumeMounts" => {
                let mount = |mount: &super::VolumeMount| json!({ "name": self.volumes[mount.volume].name, "mountPath": mount.mount_path });
                Value::Array(step.volume_mounts.iter().map(mount).collect())
            }
            "workingDirectory" => json!(step.working_directory),
            "disableWorkingDirectoryOverride" => json!(step.disable_working_directory_override),
            "pull" => json!(step.pull),
            "cmdDownloadRetries" => json!(step.cmd_download_retries),
            "cmdDownloadRetryDelay" => seconds(step.cmd_download_retry_delay),
            "cache" => json!(if step.cache == Cache::Disabled { "disabled" } else { "enabled" }),
            "platform" => match platforms.as_slice() {
                [one] => json!(one),
                _ => return None,
            },
            "platforms" => json!(platforms),
            "outputs" => json!(step.outputs),
            _ => return None,
        })
    }
}

fn build_json(line: &BuildLine) -> Value {
    let pairs = |pairs: &[(String, String)]| -> Vec<String> {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    json!({
        "tags": line.images,
        "file": line.dockerfile,
        "target": line.target,
        "context": line.context.as_str(),
        "contextType": match line.context {
            BuildContext::Local(_) => "local",
            BuildContext::Git(_) => "git",
            BuildContext::Tarball(_) => "tarball",
            BuildContext::Oci(_) => "oci",
        },
        "buildArgs": pairs(&line.arguments),
        "labels": pairs(&line.labels),
        "noCache": line.no_cache,
        "pull": line.pull,
        "platforms": line.platforms,
        "network": line.network,
        "addHosts": line.add_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect::<Vec<_>>(),
        "secrets": line.secrets.iter().map(BuildSecret::text).collect::<Vec<_>>(),
        "cacheFrom": line.cache_from,
        "cacheTo": line.cache_to,
    })
}

fn cmd_json(line: &CmdLine) -> Value {
    json!({ "image": line.image, "args": line.words, "tty": line.tty, "interactive": line.interactive })
}

impl BuildSecret {
    fn text(&self) -> String {
        match &self.source {
            BuildSecretSource::File(path) => format!("id={},src={path}", self.id),
            BuildSecretSource::Env(name) => format!("id={},env={name}", self.id),
        }
    }
}

impl CmdLine {
    /// The line as it could be written in a file.
    fn text(&self) -> String {
        let options = [(self.tty, "-t"), (self.interactive, "-i")];
        let options = options.iter().filter(|(given, _)| *given).map(|(_, text)| (*text).to_owned());
        let words = std::iter::once(self.image.to_string()).chain(self.words.iter().cloned());
        options.chain(words).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }
}

impl BuildLine {
    /// The line as it could be written in a file.
    fn text(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        self.images.iter().map(ImageRef::to_string).for_each(|image| flag("-t", image));
        self.dockerfile.iter().for_each(|path| flag("-f", path.clone()));
        self.target.iter().for_each(|stage| flag("--target", stage.clone()));
        self.arguments.iter().for_each(|(name, value)| flag("--build-arg", format!("{name}={value}")));
        self.labels.iter().for_each(|(name, value)| flag("--label", format!("{name}={value}")));
        self.network.iter().for_each(|network| flag("--network", network.clone()));
        self.add_hosts.iter().for_each(|(name, address)| flag("--add-host", format!("{name}:{address}")));
        self.secrets.iter().for_each(|secret| flag("--secret", secret.text()));
        self.cache_from.iter().for_each(|from| flag("--cache-from", from.clone()));
        self.cache_to.iter().for_each(|to| flag("--cache-to", to.clone()));
        words.extend(
            [(self.no_cache, "--no-cache"), (self.pull, "--pull")].iter().filter(|it| it.0).map(|it| it.1.to_owned()),
        );
        words.push(self.context.as_str().to_owned());
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    match word {
        "" => "''".to_owned(),
        word if word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
