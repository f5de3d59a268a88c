//! Which files of a source a task file takes aliases from: known once the source is there, and wanted before it is gone.

use std::collections::BTreeMap;

use cooper_api::agent::{PrepareOrder, TaskOrder};
use cooper_source::{Found, FurtherFiles};
use cooper_spec::source::RemoteSource;
use cooper_spec::task::{self, AliasSource};
use cooper_spec::task_request::Fetched;
use cooper_spec::template::RunVariables;
use cooper_types::{RegistryName, RunId, SecretString};

/// The most files that a task file's aliases come from.
const MAX_FILES: usize = 64;
/// Stands for values that are not known here. A path that depends on a secret is none that could be told.
const SECRET: &str = "secret";

/// Names the files from which an order's task file takes aliases.
pub(super) fn named_by(order: &PrepareOrder, run: RunId, registry: &RegistryName) -> FurtherFiles {
    let Some(task) = order.task.clone() else { return FurtherFiles::default() };
    let (source, registry) = (order.source.clone(), registry.clone());
    FurtherFiles::named_by(move |found, files| {
        let known = |name: &String| task.request.alias_files.contains_key(name) || files.contains_key(name);
        let mut names = names(&task, &source, run, &registry, found, files).unwrap_or_default();
        // What came with the request is known, and what begins at a root leads out of the source.
        names.retain(|name| !known(name) && !name.starts_with('/'));
        names.truncate(MAX_FILES);
        names
    })
}

/// What is wrong with a task file is told when it is planned, with what is not known here.
fn names(
    task: &TaskOrder,
    source: &RemoteSource,
    run: RunId,
    registry: &RegistryName,
    found: &Found,
    files: &BTreeMap<String, Vec<u8>>,
) -> Option<Vec<String>> {
    let tag = found.reference.as_ref().and_then(|name| name.strip_prefix("refs/tags/"));
    let variables = RunVariables {
        commit: found.commit.clone().unwrap_or_default(),
        branch: found.branch.clone().unwrap_or_default(),
        git_tag: tag.unwrap_or_default().to_owned(),
        repository: source.repository().map(ToString::to_string).unwrap_or_default(),
        ..RunVariables::quick_build(run, registry, &task.request.platform, task.created)
    };
    // The server plans with the same.
    let variables = task.known.over(variables);
    let texts = files.iter().filter_map(|(name, bytes)| Some((name.clone(), String::from_utf8(bytes.clone()).ok()?)));
    let secret = task.request.set.iter().filter(|set| set.value.is_none());
    let fetched = Fetched {
        files: texts.collect(),
        set_secrets: secret.map(|set| (set.name.clone(), SecretString::new(SECRET.to_owned()))).collect(),
        ..Fetched::default()
    };
    let inputs = task.request.inputs(variables, &fetched).ok()?;
    let sources = task::alias_sources(&inputs).ok()?;
    let files = sources.into_iter().filter_map(|source| match source {
        AliasSource::File(path) => Some(path),
        AliasSource::Url(_) => None,
    });
    Some(files.collect())
}

#[cfg(test)]
mod tests {
    use cooper_engine::run::KnownVariables;
    use cooper_spec::task_request::{RequestedValue, TaskRequest, TaskText};
    use cooper_types::{Platform, Timestamp};

    use super::*;

    #[test]
    fn aliases_are_named_by_what_the_source_is() {
        let request = TaskRequest {
            file: TaskText::InSource("acr-task.yaml".to_owned()),
            fallbacks: Vec::new(),
            values: Some(TaskText::InSource("v.yaml".to_owned())),
            set: vec![RequestedValue { name: "key".to_owned(), value: None }],
            alias_files: BTreeMap::from([("sent.yaml".to_owned(), String::new())]),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        };
        let mut task = TaskOrder { request, created: Timestamp::from_micros(0), known: KnownVariables::default() };
        let text = "version: v1.1.0\nalias:\n  src:\n    - '{{.Values.dir}}/{{.Run.Branch}}.yaml'\n    - https://h/x\n    - \
                    sent.yaml\nsteps: []\n";
        let files = BTreeMap::from([
            ("acr-task.yaml".to_owned(), text.as_bytes().to_vec()),
            ("v.yaml".to_owned(), b"dir: aliases\n".to_vec()),
        ]);
        let source = RemoteSource::parse("https://git.example/app.git").expect("a source");
        let registry = RegistryName::parse("localhost:5000").expect("valid");
        let found = Found { branch: Some("main".to_owned()), ..Found::default() };
        let of = |task: &TaskOrder, found: &Found, files: &BTreeMap<String, Vec<u8>>| {
            names(task, &source, RunId::from_number(1), &registry, found, files)
        };
        assert_eq!(of(&task, &found, &files), Some(vec!["aliases/main.yaml".to_owned(), "sent.yaml".to_owned()]));
        assert_eq!(of(&task, &found, &BTreeMap::new()), None, "the planning says what is missing");
        // A rerun, and an event's run, fetch a commit by its id: that is on no branch.
        let commit = Found { commit: Some("1".repeat(40)), ..Found::default() };
        task.known.branch = Some("release".to_owned());
        assert_eq!(of(&task, &commit, &files), Some(vec!["aliases/release.yaml".to_owned(), "sent.yaml".to_owned()]));
    }
}
