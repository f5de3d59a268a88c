//! Where things are: the workspace, its target directory, cargo, and the process's environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// The checkout that this program was built from.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this package is a member of.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // Cargo sets it for `cargo run`; the path that was compiled in serves a binary that is started by hand.
        let manifest = environment("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest)
            .ancestors()
            .nth(2)
            .with_context(|| format!("{} is not crates/xtask of a workspace", Path::new(&manifest).display()))?
            .to_path_buf();
        let target = environment("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root, target })
    }

    /// A path inside the checkout.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A path inside the build directory.
    pub(crate) fn target(&self, relative: &str) -> PathBuf {
        self.target.join(relative)
    }

    /// The product's binary of a profile's directory (`debug`, `release`).
    pub(crate) fn cooper(&self, profile: &str) -> PathBuf {
        self.target.join(profile).join("cooper")
    }

    /// Cargo with these arguments, run at the root.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut cargo = Command::new(environment("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(arguments).current_dir(&self.root);
        // Cargo told us about our own package. Build scripts that look at these variables would run again, with all
        // that stands on them, each time somebody changes between `cargo xtask` and plain cargo.
        for name in environment_names("CARGO_PKG_") {
            cargo.env_remove(name);
        }
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"] {
            cargo.env_remove(name);
        }
        cargo
    }

    /// The resolved dependency graph, as cargo describes it.
    pub(crate) fn metadata(&self) -> anyhow::Result<cargo_metadata::Metadata> {
        cargo_metadata::MetadataCommand::new()
            .manifest_path(self.path("Cargo.toml"))
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .context("read the dependency graph from `cargo metadata --locked`")
    }
}

/// A variable of the process's environment; an empty one counts as unset.
#[expect(clippy::disallowed_methods, reason = "this is a program of its own: here its environment is read")]
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The names of all variables of the environment that begin with `prefix`.
#[expect(clippy::disallowed_methods, reason = "this is a program of its own: here its environment is read")]
pub(crate) fn environment_names(prefix: &str) -> Vec<OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with(prefix)).collect()
}

/// The first program of this name on the search path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = environment("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
