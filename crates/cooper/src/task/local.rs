//! A task that this machine sends along with its request: read, checked as far as that goes without the server, complete
//! with the files that its aliases name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cooper_spec::task::{self, AliasSource, NamedText, TaskInputs};
use cooper_spec::template::RunVariables;
use cooper_types::{Platform, RegistryName, RunId, Timestamp};

use super::{files, planned, read_alias_files, read_values, stand_in_for_secrets};
use crate::fault::Fault;

/// What the registry is called as long as nobody has asked the server.
pub(super) const SOME_REGISTRY: &str = "localhost:5000";

/// A task as it is sent.
#[derive(Debug)]
pub(crate) struct LocalTask {
    pub(crate) file: NamedText,
    pub(crate) values: Option<NamedText>,
    /// What the file takes aliases from, by the paths that it names.
    pub(crate) alias_files: BTreeMap<String, String>,
}

impl LocalTask {
    /// The task of one container, as `az acr run --cmd` makes it: it works where its image says.
    pub(crate) fn of_command(command: &str, timeout: u32) -> Self {
        let quoted = serde_json::Value::from(command);
        let text = format!(
            "version: v1.1.0\nsteps:\n  - cmd: {quoted}\n    disableWorkingDirectoryOverride: true\n    timeout: {timeout}\n"
        );
        Self { file: NamedText { name: "--cmd".to_owned(), text }, values: None, alias_files: BTreeMap::new() }
    }

    /// Reads the task file, or the standard input for `-`, and the values file.
    pub(crate) fn read(file: &str, values: Option<&str>) -> Result<Self, Fault> {
        let text = files::read_or_stdin(file, "task file")?;
        let values = match values {
            None => None,
            Some(path) => Some(NamedText { name: path.to_owned(), text: files::read(Path::new(path), "values file")? }),
        };
        Ok(Self { file: NamedText { name: file.to_owned(), text }, values, alias_files: BTreeMap::new() })
    }

    /// Reads the alias files and looks for what is wrong, before anything is sent: the warnings, or the faults. Alias files
    /// lie in the source's folder, else beside the task file. Steps run on `platform` where they name none, or else on Linux.
    pub(crate) fn check(
        &mut self,
        folder: Option<&Path>,
        platform: Option<&Platform>,
        set: &[String],
        set_secret: &[String],
        image_aliases: BTreeMap<String, String>,
    ) -> Result<Result<Vec<task::Fault>, task::Faults>, Fault> {
        let beside = Path::new(&self.file.name).parent().map(PathBuf::from).unwrap_or_default();
        let folder = folder.map_or(beside, Path::to_owned);
        let registry = RegistryName::parse(SOME_REGISTRY).expect("a constant that is one");
        let created = Timestamp::from_micros(946_684_800_000_000);
        let platform = platform.unwrap_or(&Platform::LINUX_AMD64);
        let run = RunVariables::quick_build(RunId::from_number(1), &registry, platform, created);
        let mut inputs = TaskInputs {
            values: self.values.clone(),
            set: read_values(set, set_secret)?,
            image_aliases,
            ..TaskInputs::new(self.file.clone(), run)
        };
        let read = read_alias_files(&mut inputs, &folder).and_then(|()| {
            let sources = task::alias_sources(&inputs)?;
            if sources.iter().any(|source| matches!(source, AliasSource::Url(_))) {
                // The server fetches what is behind URLs, and says what is wrong then.
                return Ok(None);
            }
            stand_in_for_secrets(&mut inputs)?;
            let loaded = task::load(&inputs)?;
            planned::check(&inputs, &loaded.task, false)
                .map_err(|faults| task::Faults { warnings: loaded.warnings.clone(), ..faults })?;
            Ok(Some(loaded))
        });
        self.alias_files = std::mem::take(&mut inputs.alias_sources);
        Ok(read.map(|loaded| loaded.map(|loaded| loaded.warnings).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_task_of_one_step_whatever_stands_in_it() {
        for command in ["busybox echo hi", "busybox sh -c 'echo \"a: b\" #c'", "busybox echo 'x\ty'"] {
            let checked = LocalTask::of_command(command, 60).check(None, None, &[], &[], BTreeMap::new());
            assert!(checked.expect("no fault of ours").is_ok(), "{command}");
        }
    }

    #[test]
    fn what_a_server_would_refuse_is_told_before_anything_is_sent() {
        let text = "steps:\n- push: [a]\n";
        let file = NamedText { name: "t.yaml".to_owned(), text: text.to_owned() };
        let mut task = LocalTask { file, values: None, alias_files: BTreeMap::new() };
        let faults = task.check(None, None, &[], &[], BTreeMap::new()).expect("no fault of ours").expect_err("refused");
        assert!(faults.to_string().starts_with("t.yaml:2:10: step acb_step_0: no step before it builds"), "{faults}");
    }

    #[test]
    fn a_file_is_checked_for_the_platform_that_it_runs_on() {
        let of = |text: &str| LocalTask {
            file: NamedText { name: "t.yaml".to_owned(), text: text.to_owned() },
            values: None,
            alias_files: BTreeMap::new(),
        };
        let check = |text: &str, platform: Option<&str>| {
            let platform = platform.map(|text| Platform::parse(text).expect("a platform"));
            of(text).check(None, platform.as_ref(), &[], &[], BTreeMap::new()).expect("no fault of ours").is_ok()
        };
        let arm = "steps:\n- cmd: img {{if ne .Run.Architecture \"arm64\"}}{{fail \"arm only\"}}{{end}}\n";
        assert!(check(arm, Some("linux/arm64")) && !check(arm, Some("linux/amd64")) && !check(arm, None));
        let windows = "steps:\n- cmd: 'img c:\\data'\n  isolation: process\n";
        assert!(check(windows, Some("windows/amd64")) && !check(windows, None));
    }
}
