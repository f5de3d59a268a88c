//! Installing Debian's packages, and saying so.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::command::{Interrupt, Log};
use crate::report::Report;
use crate::workspace::find_program;

/// Packages to install, each with what it is for.
#[derive(Default)]
pub(super) struct Missing(BTreeMap<&'static str, Vec<String>>);

impl Missing {
    pub(super) fn add(&mut self, package: &'static str, purpose: impl Display) {
        self.0.entry(package).or_default().push(purpose.to_string());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The command that a person would type.
    fn command(&self) -> String {
        let packages: Vec<&str> = self.0.keys().copied().collect();
        format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
    }
}

/// Whether this process may install and start things.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this machine has neither form of control groups mounted, as in a bare chroot.
pub(super) fn lacks_control_groups() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    !root.join("cgroup.controllers").exists() && !root.join("memory").exists() && !root.join("pids").exists()
}

/// Installs the packages, or fails with the command that a person has to run.
pub(super) fn install(missing: &Missing, report: &Report, log: &Log, interrupt: &Interrupt) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let wanted: Vec<String> =
        missing.0.iter().map(|(package, purposes)| format!("{package} ({})", purposes.join(", "))).collect();
    let wanted = wanted.join(", ");
    if find_program("apt-get").is_none() {
        bail!(
            "this machine lacks what these Debian packages hold: {wanted}; only Debian and Ubuntu are installed on \
             by itself, so install the like with your own package manager, start the engine, and run this again"
        );
    }
    if !is_root() {
        bail!("this machine lacks {wanted}; run `sudo {}`, then this again", missing.command());
    }
    for (package, purposes) in &missing.0 {
        report.begin(format_args!("installing {package}: {}", purposes.join(", ")));
    }
    report.step("installed packages with apt-get", || {
        log.run(apt_get().arg("update"), interrupt)?;
        let packages: Vec<&str> = missing.0.keys().copied().collect();
        log.run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages), interrupt)?;
        // Debian 13 and Ubuntu 25.10 split the client off; before them there is no such package.
        if find_program("docker").is_none() {
            log.run(apt_get().args(["install", "-y", "--no-install-recommends", "docker-cli"]), interrupt)?;
        }
        Ok(())
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_installed_once_whatever_it_is_for() {
        let mut missing = Missing::default();
        assert!(missing.is_empty());
        missing.add("docker.io", "the client");
        missing.add("busybox-static", "a base image");
        missing.add("docker.io", "an engine");
        assert_eq!(missing.command(), "apt-get install -y --no-install-recommends busybox-static docker.io");
    }
}
