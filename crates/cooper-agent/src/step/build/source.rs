//! Where a build's files come from: the attempt's context, the workspace as it is, or as it was at first.

use std::fs::File;

use cooper_api::agent::{BuildContextOrder, BuildOrder, PrepareOrder, RegistryAccess};
use cooper_ports::context_tree::ContextTree;
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_types::Digest;

use crate::step::dockerfile::shortest;
use crate::step::{Attempt, Ended, Surroundings};

/// A build's files.
pub(super) struct BuildSource {
    pub(super) context: ContextTree,
    /// Where the Dockerfile is read from, if it lies outside of the context.
    pub(super) dockerfile_tree: Option<ContextTree>,
    /// The Dockerfile's path there.
    pub(super) dockerfile: String,
    /// What the context was found to be, where it was fetched for this build alone.
    pub(super) found: Option<SourcePin>,
}

impl Attempt<'_> {
    pub(super) async fn build_source(
        &self,
        order: &BuildOrder,
        around: &Surroundings<'_>,
    ) -> Result<BuildSource, Ended> {
        let folder = match &order.context {
            BuildContextOrder::Fetched => {
                let context = self.context().await?;
                // A path from the workspace's root: the context is what lies there.
                let dockerfile = order.dockerfile.trim_start_matches('/').to_owned();
                return Ok(BuildSource { context, dockerfile_tree: None, dockerfile, found: None });
            }
            BuildContextOrder::Workspace(folder) => folder,
            BuildContextOrder::Remote { source, digest } => {
                return Box::pin(self.remote_context(order, source, digest.as_ref(), around)).await;
            }
        };
        let missing =
            || Ended::Failed { exit_code: None, reason: format!("folder `{folder}` is not in the workspace") };
        let folder = match folder.as_str() {
            "" | "." | "./" => String::new(),
            folder => shortest(folder).ok_or_else(missing)?,
        };
        let outside = from_root(&order.dockerfile, &folder);
        let whole = match (self.shared.is_changed(), around.environment.has_context) {
            (true, _) => {
                let placement = self.open(around.environment, around.registry).await?;
                // Only what is needed: a workspace can be much larger than one of its contexts.
                let asked = if outside.is_some() { "" } else { &folder };
                let tree = self.workspace_folder(&placement, asked).await?;
                if outside.is_none() {
                    let dockerfile = inside(&order.dockerfile, &folder);
                    return Ok(BuildSource { context: tree, dockerfile_tree: None, dockerfile, found: None });
                }
                tree
            }
            (false, true) => self.workspace_context().await?,
            (false, false) => {
                return Err(Ended::Failed {
                    exit_code: None,
                    reason: "the workspace is empty: give the run a source, or make files in an earlier step"
                        .to_owned(),
                });
            }
        };
        let context = whole.folder(&folder).ok_or_else(missing)?;
        Ok(match outside {
            Some(dockerfile) => BuildSource { context, dockerfile_tree: Some(whole), dockerfile, found: None },
            None => {
                let dockerfile = inside(&order.dockerfile, &folder);
                BuildSource { context, dockerfile_tree: None, dockerfile, found: None }
            }
        })
    }
}

impl Attempt<'_> {
    /// A source that is fetched for this build alone, and has to have a digest if there is one `expected`.
    async fn remote_context(
        &self,
        order: &BuildOrder,
        source: &str,
        expected: Option<&Digest>,
        around: &Surroundings<'_>,
    ) -> Result<BuildSource, Ended> {
        let fail = |reason: String| Ended::Failed { exit_code: None, reason };
        let source = RemoteSource::parse(source).map_err(|error| fail(format!("context can't be fetched: {error}")))?;
        let order = PrepareOrder {
            source,
            dockerfile: Some(order.dockerfile.clone()),
            files: Vec::new(),
            task_file: None,
            definition: None,
            task: None,
            allowed_networks: order.allowed_networks.clone(),
            max_bytes: u64::MAX,
        };
        let registry = RegistryAccess {
            name: around.registry.clone(),
            username: around.credential.username.clone(),
            password: around.credential.password.clone(),
        };
        let (_scratch, packed) = self.fetched(&order, &registry, around.logins.hosts()).await?;
        let found = packed.commit.map(SourcePin::Commit).or_else(|| packed.pinned.map(SourcePin::Digest));
        let what = match &found {
            Some(SourcePin::Commit(commit)) => format!(" at commit {commit}"),
            Some(SourcePin::Digest(digest)) => format!(", {digest}"),
            None => String::new(),
        };
        let shown = order.source.shown();
        self.log.service(&format!("Context: {shown}{what}")).await;
        if let Some(expected) = expected
            && found.as_ref().and_then(SourcePin::digest) != Some(expected)
        {
            return Err(fail(format!(
                "context {shown} was {expected} in the run that is repeated and is another one now: rerun it with \
                 --fresh to take what is there"
            )));
        }
        let archive = File::open(&packed.archive).map_err(|error| Ended::lost("context can't be read back", &error))?;
        let context = self.unpacked(archive).await?;
        let dockerfile = packed.dockerfile.or(order.dockerfile).unwrap_or_default();
        Ok(BuildSource { context, dockerfile_tree: None, dockerfile, found })
    }
}

/// A Dockerfile that is named from the workspace's root and lies outside of a folder: its path from there.
fn from_root(dockerfile: &str, folder: &str) -> Option<String> {
    let path = dockerfile.strip_prefix('/')?;
    let path = shortest(path).unwrap_or_else(|| path.to_owned());
    (!is_below(&path, folder)).then_some(path)
}

/// The path of a Dockerfile that lies inside a folder from there.
fn inside(dockerfile: &str, folder: &str) -> String {
    let Some(path) = dockerfile.strip_prefix('/') else { return dockerfile.to_owned() };
    let path = shortest(path).unwrap_or_else(|| path.to_owned());
    match path.strip_prefix(folder) {
        Some(rest) if is_below(&path, folder) => rest.trim_start_matches('/').to_owned(),
        _ => path,
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_is_named_from_the_context_or_from_the_root() {
        let check = |dockerfile: &str, folder: &str, outside: Option<&str>, inner: &str| {
            assert_eq!(from_root(dockerfile, folder).as_deref(), outside, "{dockerfile} {folder}");
            if outside.is_none() {
                assert_eq!(inside(dockerfile, folder), inner, "{dockerfile} {folder}");
            }
        };
        check("Dockerfile", "", None, "Dockerfile");
        check("a/D", "src", None, "a/D");
        check("/a/D", "", None, "a/D");
        check("/src/a/./D", "src", None, "a/D");
        check("/src2/D", "src", Some("src2/D"), "");
        check("/D", "src", Some("D"), "");
    }
}
