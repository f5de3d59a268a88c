//! How much space a file system has, and whether that is enough.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::MinFree;

/// How long a file system may take to say how full it is. One that hangs (a network's) is not waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// By default this much is to be free, in bytes: a build of usual size fits.
const DEFAULT_BYTES: u64 = 2 << 30;
/// Or this much of the disk, in percent, where that is less: small disks work too.
const DEFAULT_PERCENT: u8 = 5;
/// At least this much of the file system's inodes is to be free, in percent: without one there is no file, however much
/// space there is.
const INODES_PERCENT: u64 = 1;

/// The space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// All of it, in bytes.
    pub(super) total: u64,
    /// What this process may still use, in bytes.
    pub(super) free: u64,
    /// Which file system it is.
    pub(super) device: u64,
    inodes: u64,
    free_inodes: u64,
}

/// What a file system has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// So many bytes are missing.
    Bytes(u64),
    /// Inodes are; how many a part of the build cache holds is not known.
    Inodes,
}

impl Shortage {
    /// How much of a build cache of this size may stay, in bytes.
    pub(super) fn keep(self, cache: u64) -> u64 {
        match self {
            // As much again goes, so that it lasts for a while.
            Self::Bytes(missing) => cache.saturating_sub(missing.saturating_mul(2)),
            Self::Inodes => cache / 2,
        }
    }
}

impl Space {
    /// The space of the file system that holds a folder; `None` if it is not there or does not answer.
    pub(super) async fn of(folder: &Path) -> Option<Self> {
        let folder: PathBuf = folder.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            Some((rustix::fs::statvfs(&folder).ok()?, std::fs::metadata(&folder).ok()?.dev()))
        });
        let (stat, device) = tokio::time::timeout(LIMIT, asked).await.ok()?.ok()??;
        Some(Self {
            device,
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            free_inodes: stat.f_favail,
        })
    }

    /// How many bytes are to be free.
    pub(super) fn needed(&self, min_free: MinFree) -> u64 {
        let percent = |percent: u8| self.total / 100 * u64::from(percent);
        match min_free {
            MinFree::Auto => DEFAULT_BYTES.min(percent(DEFAULT_PERCENT)),
            MinFree::Bytes(bytes) => bytes,
            MinFree::Percent(number) => percent(number),
        }
    }

    /// What is wrong with it, if anything, and in words.
    pub(super) fn lacks(&self, needed: u64, folder: &Path) -> Option<(Shortage, String)> {
        let folder = folder.display();
        if self.free < needed {
            let why = format!("low disk: {} free in {folder}, needs {}", shown(self.free), shown(needed));
            return Some((Shortage::Bytes(needed - self.free), why));
        }
        // Some file systems have no fixed number of inodes, and say 0.
        let few = self.inodes > 0 && self.free_inodes < self.inodes / 100 * INODES_PERCENT;
        few.then(|| {
            (Shortage::Inodes, format!("low disk: {} of {} inodes free in {folder}", self.free_inodes, self.inodes))
        })
    }
}

/// Bytes as people read them, in the units that settings take.
fn shown(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        // Rounded down: what is told as free is there.
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_what_is_there_and_what_is_needed() {
        let space = |total, free| Space { total, free, device: 1, inodes: 1000, free_inodes: 500 };
        let lacks = |space: Space, min| space.lacks(space.needed(min), Path::new("/d"));
        let why = |space: Space, min| lacks(space, min).map(|(_, why)| why);
        assert_eq!(why(space(100 << 30, 3 << 30), MinFree::Auto), None, "2 GiB are enough on a large disk");
        let low = why(space(100 << 30, (1 << 30) + (300 << 20)), MinFree::Auto);
        assert_eq!(low.as_deref(), Some("low disk: 1.2 GiB free in /d, needs 2.0 GiB"));
        assert_eq!(why(space(1 << 30, 60 << 20), MinFree::Auto), None, "a twentieth is enough on a small one");
        assert!(why(space(1 << 30, 40 << 20), MinFree::Auto).is_some());
        assert!(why(space(100 << 30, 9 << 30), MinFree::Percent(10)).is_some());
        assert_eq!(why(space(100 << 30, 1), MinFree::Bytes(1)), None);
        assert_eq!(why(space(100 << 30, 0), MinFree::Bytes(0)), None);
        let crowded = Space { free_inodes: 5, ..space(100 << 30, 50 << 30) };
        assert_eq!(why(crowded, MinFree::Auto).as_deref(), Some("low disk: 5 of 1000 inodes free in /d"));
        assert_eq!(why(Space { inodes: 0, free_inodes: 0, ..crowded }, MinFree::Auto), None);
        let what = |space: Space, min| lacks(space, min).map(|(what, _)| what);
        assert_eq!(what(space(100 << 30, 1), MinFree::Bytes(5)), Some(Shortage::Bytes(4)));
        assert_eq!(what(crowded, MinFree::Auto), Some(Shortage::Inodes));
    }

    #[test]
    fn whatever_is_short_some_of_the_cache_goes() {
        assert_eq!(Shortage::Bytes(4).keep(100), 92);
        assert_eq!(Shortage::Bytes(u64::MAX).keep(100), 0);
        assert_eq!(Shortage::Inodes.keep(100), 50);
    }

    #[test]
    fn sizes_are_read_as_they_are_set() {
        assert_eq!(shown(0), "0 bytes");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown((1 << 30) - 1), "1023.9 MiB");
        assert_eq!(shown(2 << 40), "2.0 TiB");
    }
}
