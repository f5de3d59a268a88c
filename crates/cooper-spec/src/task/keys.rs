//! The keys of a task file: one table that the reader, its warnings and the JSON Schema share.

use super::nearest::nearest;

/// What stands behind a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A text; numbers and booleans count as the text that was written.
    Text,
    /// One of a few texts, in any letter case.
    Choice(&'static [&'static str]),
    /// A whole number, the least of which is given.
    Number(i64),
    /// A boolean, YAML 1.1's spellings included.
    Flag,
    /// A list of texts.
    Texts,
    /// A list of whole numbers.
    Numbers,
    /// A list of maps.
    Maps(&'static Table),
    /// A map of texts to texts.
    TextMap,
    /// One map.
    Map(&'static Table),
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// Whether the object is nothing without it.
    pub(super) required: bool,
    /// For which steps it counts; empty where that is no question.
    pub(super) steps: &'static [&'static str],
    /// What an editor shows.
    pub(super) about: &'static str,
}

/// The keys of one kind of object.
#[derive(Debug)]
pub(super) struct Table {
    /// What the object is called, with its article.
    pub(super) object: &'static str,
    pub(super) keys: &'static [Key],
    /// What people write instead, and what they mean.
    pub(super) mistaken: &'static [(&'static str, &'static str)],
}

impl Table {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that somebody may have meant: one of the same letters, one that people write otherwise, one that is much
    /// like either, or the only one that begins so.
    pub(super) fn meant(&self, text: &str) -> Option<&'static str> {
        // What nobody would write for a name costs nothing.
        let wanted: String = text.chars().take(65).filter(|c| !matches!(c, '_' | '-' | ' ')).collect();
        let names = || self.keys.iter().map(|key| (key.name, key.name)).chain(self.mistaken.iter().copied());
        let same = names().find(|(written, _)| written.eq_ignore_ascii_case(&wanted)).map(|(_, meant)| meant);
        let near = || {
            let near = nearest(&wanted, names().map(|(written, _)| written))?;
            names().find(|(written, _)| *written == near).map(|(_, meant)| meant)
        };
        same.or_else(near).or_else(|| self.begins(&wanted.to_lowercase()))
    }

    /// The one key that a text begins, or that begins a text.
    fn begins(&self, text: &str) -> Option<&'static str> {
        let long = |text: &str| text.len() >= 3;
        let begins = |key: &&Key| {
            let name = key.name.to_lowercase();
            long(text) && name.starts_with(text) || long(&name) && text.starts_with(&name)
        };
        let mut found = self.keys.iter().filter(begins);
        found.next().filter(|_| found.next().is_none()).map(|key| key.name)
    }
}

const fn key(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, required: false, steps: &[], about }
}

const fn required(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, required: true, steps: &[], about }
}

const fn of(steps: &'static [&'static str], name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, required: false, steps, about }
}

const ALL: &[&str] = &["build", "cmd", "push"];
const CONTAINERS: &[&str] = &["build", "cmd"];
const CMD: &[&str] = &["cmd"];
const BUILD: &[&str] = &["build"];
const NONE: &[&str] = &["no"];

/// The whole file.
pub(super) static TASK: Table = Table {
    object: "a task",
    keys: &[
        key("version", Form::Text, "Version of the language: v1.0.0 (if none is named), or v1.1.0 with aliases."),
        key("alias", Form::Map(&ALIAS), "Names that stand for texts, from v1.1.0 on."),
        key(
            "stepTimeout",
            Form::Number(i64::MIN),
            "Seconds that each step may take which says nothing itself; 600 if absent.",
        ),
        key("env", Form::Texts, "NAME=VALUE for every step that does not set the name itself."),
        key(
            "workingDirectory",
            Form::Text,
            "Where steps start that say nothing themselves; relative to the workspace.",
        ),
        key("secrets", Form::Maps(&SECRET), "Secrets, which templates know as `.Secrets.ID`."),
        key("networks", Form::Maps(&NETWORK), "Networks; the run has one of its own if none is declared."),
        key("volumes", Form::Maps(&VOLUME), "Volumes of secret files, which steps mount."),
        key("steps", Form::Maps(&STEP), "What is done."),
    ],
    mistaken: &[
        ("stepTimeouts", "stepTimeout"),
        ("timeout", "stepTimeout"),
        ("secret", "secrets"),
        ("network", "networks"),
        ("volume", "volumes"),
        ("environment", "env"),
        ("envVars", "env"),
        ("variables", "env"),
        ("aliases", "alias"),
        ("tasks", "steps"),
        ("jobs", "steps"),
    ],
};

/// The alias block.
pub(super) static ALIAS: Table = Table {
    object: "an alias block",
    keys: &[
        key("src", Form::Texts, "Files and http(s) URLs with more aliases, as flat YAML maps; later ones win."),
        key("values", Form::TextMap, "Aliases: names of letters and digits, and what they stand for."),
        key("directive", Form::Text, "The character before an alias; `$` if absent."),
    ],
    mistaken: &[("sources", "src"), ("source", "src"), ("value", "values")],
};

/// A step.
pub(super) static STEP: Table = Table {
    object: "a step",
    keys: &[
        of(ALL, "id", Form::Text, "Its name: for `when`, and as a host name for other steps; `acb_step_N` if absent."),
        of(CMD, "cmd", Form::Text, "Runs a container: an image and the words for its program."),
        of(BUILD, "build", Form::Text, "Builds an image: the arguments of `docker build`."),
        of(&["push"], "push", Form::Texts, "Pushes images."),
        of(
            ALL,
            "when",
            Form::Texts,
            "Ids of the steps above that it waits for; `-` for none; the step just above if absent.",
        ),
        of(
            ALL,
            "timeout",
            Form::Number(i64::MIN),
            "Seconds that all its tries may take together; the task's `stepTimeout` if absent.",
        ),
        of(ALL, "startDelay", Form::Number(i64::MIN), "Seconds before it begins."),
        of(CONTAINERS, "retries", Form::Number(0), "Tries after the first one that fails."),
        of(CONTAINERS, "retryDelay", Form::Number(i64::MIN), "Seconds between two tries; 5 if absent."),
        of(
            CONTAINERS,
            "retryOnErrors",
            Form::Texts,
            "Texts of which a failed try's output must hold one for another try.",
        ),
        of(CONTAINERS, "repeat", Form::Number(0), "Rounds after the first, failed or not."),
        of(ALL, "ignoreErrors", Form::Flag, "Whether its failure counts as success."),
        of(CMD, "keep", Form::Flag, "Whether its container stays until the run ends."),
        of(CMD, "detach", Form::Flag, "Whether it succeeds as soon as its container has started."),
        of(
            CMD,
            "privileged",
            Form::Flag,
            "Whether its container has all privileges; the agent's operator must allow it.",
        ),
        of(CMD, "user", Form::Text, "The container's user."),
        of(CMD, "network", Form::Text, "The network that its container is in."),
        of(CMD, "isolation", Form::Choice(&["default", "process", "hyperv"]), "How a Windows container is kept apart."),
        of(CMD, "cpus", Form::Text, "How many CPUs the container may use, such as 1.5."),
        of(CMD, "entryPoint", Form::Text, "The program that replaces the image's own."),
        of(CONTAINERS, "env", Form::Texts, "NAME=VALUE."),
        of(CMD, "expose", Form::Texts, "Ports that are open to its network."),
        of(CMD, "ports", Form::Texts, "Ports that are opened on the agent's machine, such as 8080:80."),
        of(CONTAINERS, "volumeMounts", Form::Maps(&MOUNT), "Volumes, and where they are mounted."),
        of(CONTAINERS, "workingDirectory", Form::Text, "Where it starts; relative to the workspace."),
        of(CMD, "disableWorkingDirectoryOverride", Form::Flag, "Whether the image's own directory counts."),
        of(CMD, "pull", Form::Flag, "Whether the image is pulled even if the engine has it."),
        of(CMD, "cmdDownloadRetries", Form::Number(0), "Tries of that pull after the first."),
        of(CMD, "cmdDownloadRetryDelay", Form::Number(i64::MIN), "Seconds between two of them."),
        of(
            BUILD,
            "cache",
            Form::Choice(&["enabled", "disabled"]),
            "Whether the build's cache is kept in the registry.",
        ),
        of(ALL, "platform", Form::Text, "Where it runs, such as linux/arm64; the run's platform if absent."),
        of(BUILD, "platforms", Form::Texts, "What an image is built for; the push makes one index of all."),
        of(NONE, "outputs", Form::Texts, "Reserved."),
        of(NONE, "exitedWith", Form::Numbers, "Has never had an effect."),
        of(NONE, "exitedWithout", Form::Numbers, "Has never had an effect."),
    ],
    mistaken: &[
        ("downloadRetries", "cmdDownloadRetries"),
        ("downloadRetryDelay", "cmdDownloadRetryDelay"),
        ("volumeMount", "volumeMounts"),
        ("volumes", "volumeMounts"),
        ("entrypoint", "entryPoint"),
        ("workdir", "workingDirectory"),
        ("dependsOn", "when"),
        ("needs", "when"),
        ("name", "id"),
        ("command", "cmd"),
        ("run", "cmd"),
        ("image", "cmd"),
        ("environment", "env"),
        ("envVars", "env"),
        ("variables", "env"),
        ("depends", "when"),
        ("after", "when"),
        ("retry", "retries"),
        ("mounts", "volumeMounts"),
        ("directory", "workingDirectory"),
        ("delay", "startDelay"),
        ("continueOnError", "ignoreErrors"),
        ("allowFailure", "ignoreErrors"),
    ],
};

/// An entry of `secrets`.
pub(super) static SECRET: Table = Table {
    object: "a secret",
    keys: &[
        required("id", Form::Text, "Its name in templates: `.Secrets.ID`."),
        required(
            "keyvault",
            Form::Text,
            "Where it is kept: https://VAULT/secrets/NAME[/VERSION], cooper://NAME[/VERSION] or env://NAME.",
        ),
        key("clientID", Form::Text, "The identity to ask with, a UUID."),
    ],
    mistaken: &[("name", "id"), ("clientId", "clientID"), ("keyVault", "keyvault")],
};

/// An entry of `networks`.
pub(super) static NETWORK: Table = Table {
    object: "a network",
    keys: &[
        required("name", Form::Text, "Its name, for `network` of a step."),
        key("driver", Form::Text, "The engine's driver; its default if absent."),
        key("ipv6", Form::Flag, "Whether it has IPv6."),
        key("skipCreation", Form::Flag, "Whether it exists already, and stays."),
        key("isDefault", Form::Flag, "Whether steps are in it that name no network."),
    ],
    mistaken: &[("default", "isDefault")],
};

/// An entry of `volumes`.
pub(super) static VOLUME: Table = Table {
    object: "a volume",
    keys: &[
        required("name", Form::Text, "Its name, for `volumeMounts` of a step."),
        required("secret", Form::TextMap, "Its files: names, and what they hold in base64."),
    ],
    mistaken: &[("secrets", "secret"), ("id", "name")],
};

/// An entry of `volumeMounts`.
pub(super) static MOUNT: Table = Table {
    object: "a mount",
    keys: &[
        required("name", Form::Text, "The volume's name."),
        required("mountPath", Form::Text, "The directory in the container."),
    ],
    mistaken: &[("path", "mountPath"), ("mountpath", "mountPath"), ("volume", "name")],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_taken_for_what_was_meant() {
        let table = [
            ("enviroment", Some("env")),
            ("environment", Some("env")),
            ("Environments", Some("env")),
            ("envs", Some("env")),
            ("env_vars", Some("env")),
            ("timeOut", Some("timeout")),
            ("dependsOn", Some("when")),
            ("depends_on", Some("when")),
            ("dependson", Some("when")),
            ("working_directory", Some("workingDirectory")),
            ("working-dir", Some("workingDirectory")),
            ("workingDirectroy", Some("workingDirectory")),
            ("retry", Some("retries")),
            ("retires", Some("retries")),
            ("repeatCount", Some("repeat")),
            ("ignoreError", Some("ignoreErrors")),
            ("entrypoint", Some("entryPoint")),
            ("download", None),
            ("zzz", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(STEP.meant(text), expected, "{text}");
        }
        assert_eq!((TASK.meant("stepTimeOut"), TASK.meant("Environment")), (Some("stepTimeout"), Some("env")));
        assert_eq!(STEP.meant(&"e".repeat(1 << 20)), None);
    }
}
