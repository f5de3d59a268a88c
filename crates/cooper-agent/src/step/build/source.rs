//! Where a build's files come from: the attempt's context, the workspace as it is, or as it was at first.

use cooper_api::agent::{BuildContextOrder, BuildOrder};
use cooper_ports::context_tree::ContextTree;

use crate::step::dockerfile::shortest;
use crate::step::{Attempt, Ended, Surroundings};

/// A build's files.
pub(super) struct BuildSource {
    pub(super) context: ContextTree,
    /// Where the Dockerfile is read from, if it lies outside of the context.
    pub(super) dockerfile_tree: Option<ContextTree>,
    /// The Dockerfile's path there.
    pub(super) dockerfile: String,
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
                return Ok(BuildSource { context, dockerfile_tree: None, dockerfile });
            }
            BuildContextOrder::Workspace(folder) => folder,
            BuildContextOrder::Remote(source) => {
                let reason = format!("context `{source}`: this agent does not fetch contexts of single steps yet");
                return Err(Ended::Failed { exit_code: None, reason });
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
                    return Ok(BuildSource { context: tree, dockerfile_tree: None, dockerfile });
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
            Some(dockerfile) => BuildSource { context, dockerfile_tree: Some(whole), dockerfile },
            None => BuildSource { context, dockerfile_tree: None, dockerfile: inside(&order.dockerfile, &folder) },
        })
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
