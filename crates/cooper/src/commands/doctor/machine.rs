//! This machine: limits of processes, control groups, free space.

use std::path::Path;

use super::check::Check;
use crate::output;

/// With fewer open files than this, some hundred agents or clients are too many.
const OPEN_FILES: u64 = 4096;
/// With less free space than this, nothing works.
const LEAST_SPACE: u64 = 64 << 20;
/// With less free space than this, the next large image may not fit.
const GOOD_SPACE: u64 = 2 << 30;
/// With fewer free inodes than this, the next image may not fit.
const GOOD_INODES: u64 = 10_000;

pub(super) fn look(checks: &mut Vec<Check>) {
    checks.push(open_files());
    let version = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    checks.push(Check::ok(
        "limits",
        format!(
            "cgroup {version}; a limit of CPU or memory binds no image build: builds are bounded by --slots, and by a cgroup \
             of the engine's if you give it one"
        ),
    ));
}

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let seen =
        limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} at most, for what starts from here"));
    match limit {
        Some(limit) if limit < OPEN_FILES => {
            let remedy =
                "raise the limit before `cooper serve`: `ulimit -n 65536`, or LimitNOFILE=65536 in a systemd unit";
            Check::warning("open-files", seen, remedy)
        }
        _ => Check::ok("open-files", seen),
    }
}

/// The free space where this folder is.
pub(super) fn space(name: &'static str, folder: &Path) -> Check {
    let shown = folder.display();
    let free = match rustix::fs::statvfs(folder) {
        Ok(free) => free,
        Err(error) => return Check::skipped(name, format!("{shown} can't be measured from here: {error}")),
    };
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    // Some file systems make inodes as they need them, and say that they have none.
    let inodes = if free.f_files == 0 { u64::MAX } else { free.f_favail };
    let mut seen = format!("{} free at {shown}", output::size(bytes));
    if inodes != u64::MAX {
        seen.push_str(&format!(", {inodes} inodes"));
    }
    let remedy = format!("free some space where {shown} is, or move it to a larger disk");
    match (bytes, inodes) {
        (..LEAST_SPACE, _) | (_, 0) => Check::failed(name, seen, remedy),
        (..GOOD_SPACE, _) | (_, ..GOOD_INODES) => Check::warning(name, seen, remedy),
        _ => Check::ok(name, seen),
    }
}
