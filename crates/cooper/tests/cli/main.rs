//! The binary as a user meets it: help, errors, exit codes, and a build against a scripted server. Nothing of the
//! machine's own environment or logins gets in.

mod build;
mod help;
mod purge;
mod run;
mod server;
mod task;
mod usage;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt as _;

/// A command line in an environment of its own.
struct Cooper {
    folder: tempfile::TempDir,
}

impl Cooper {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    /// The folder that commands run in.
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, text).expect("write");
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cooper"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path())
            .env("COOPER_CONFIG_DIR", self.path().join("config"))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        Ended::new(self.command(args).output().await.expect("the binary runs"))
    }

    /// Runs a command with this on its standard input.
    async fn piped<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &str) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        Ended::new(child.wait_with_output().await.expect("it ends"))
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Asserts the code, and that standard error holds an error line with these texts.
    #[track_caller]
    fn fails_with(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let line = self.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        for text in texts {
            assert!(line.contains(text), "`{text}` is not in `{line}`\n{self:#?}");
        }
    }

    #[track_caller]
    fn succeeds(&self) {
        assert_eq!(self.code, Some(0), "{self:#?}");
    }
}
