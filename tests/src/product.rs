//! The product's binary and the repository's files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::outcome::{quiet, run_to_end};

/// How long building the product may take when a test is run by itself.
const BUILD: Duration = Duration::from_secs(1200);

/// A path inside the repository.
pub fn repository_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").join(relative)
}

/// The `cooper` binary of this very source, in the profile of the tests. Cargo knows whether it has to be built.
pub fn cooper_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        // target/PROFILE/deps/e2e-0123456789abcdef
        let profile = test.ancestors().nth(2).expect("a test is in the deps folder of a profile");
        let mut build = quiet(env!("CARGO"));
        build.args(["build", "--quiet", "--locked"]).current_dir(repository_path(""));
        // What cargo told the tests about their own package would have build scripts run again, and with them much else.
        for name in variables("CARGO_PKG_") {
            build.env_remove(name);
        }
        for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"] {
            build.env_remove(name);
        }
        match profile.ends_with("release") {
            true => build.args(["--release", "--package", "cooper"]),
            // What `cargo xtask test` has built: another selection has other features, and half of all is built again.
            false => build.args(["--workspace", "--bin", "cooper", "--example", "dispatch"]),
        };
        run_to_end(&mut build, BUILD).ok();
        profile.join("cooper")
    })
}

/// The names of the environment's variables that begin with this, to be kept from a program.
#[expect(clippy::disallowed_methods, reason = "only names are read, and only to be left out")]
pub(crate) fn variables(prefix: &str) -> Vec<std::ffi::OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with(prefix)).collect()
}
