//! A wall clock that a test sets for one process and its children, through libfaketime. The monotonic clock stays true.

use std::path::PathBuf;

use tempfile::TempDir;

/// How far a process's wall clock is off.
pub struct WallClock {
    folder: TempDir,
}

impl WallClock {
    /// A clock that is right.
    #[track_caller]
    pub fn new() -> Self {
        let clock = Self { folder: TempDir::with_prefix("cooper-clock-").expect("make a temporary folder") };
        clock.jump(0);
        clock
    }

    /// The variables of the environment that give a process this clock.
    #[track_caller]
    pub fn environment(&self) -> Vec<(String, String)> {
        let value = |path: PathBuf| path.display().to_string();
        [
            ("LD_PRELOAD", value(library())),
            ("FAKETIME_TIMESTAMP_FILE", value(self.folder.path().join("offset"))),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Sets the clock this many seconds off the true time.
    #[track_caller]
    pub fn jump(&self, seconds: i64) {
        // In one step: a reader must not find half of it.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{seconds:+}\n")).expect("write a clock's offset");
        std::fs::rename(next, self.folder.path().join("offset")).expect("set a clock");
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new()
    }
}

#[track_caller]
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let file = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.is_file());
    file.expect("libfaketime is needed: `cargo xtask test` installs it")
}
