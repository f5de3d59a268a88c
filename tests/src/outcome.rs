//! Programs that ran, and waiting with a deadline.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// How often a wait looks again. Only the latency of a success depends on it, never the verdict.
const POLL: Duration = Duration::from_millis(15);

/// What everything gets that is bound to come: a deadline tells what hangs from what works, and a busy machine works slowly.
/// Who wants to show that something comes promptly has the other thing take forever instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on standard output.
    pub stdout: String,
    /// What it wrote on standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Fails unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.expect(0)
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Fails unless standard error has one line that begins with `error:` and holds all of these texts.
    #[track_caller]
    pub fn error_names(&self, texts: &[&str]) {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let [line] = errors[..] else { panic!("{} error lines instead of one: {self}", errors.len()) };
        for text in texts {
            assert!(line.contains(text), "the error line does not name {text:?}: {self}");
        }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr, took } = self;
        write!(f, "`{command}` → {code:?} after {took:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// Runs a program to its end, which must come before the deadline; a busy machine has `PATIENCE` at least.
#[track_caller]
pub fn run_to_end(command: &mut Command, deadline: Duration) -> Finished {
    let running = Running::start(command);
    running.end(deadline)
}

/// A program that runs, with its output going to files, so that no pipe can fill up.
pub struct Running {
    shown: String,
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
    start: Instant,
}

impl Running {
    /// Starts a program with no input unless the command says otherwise.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        let file = || NamedTempFile::with_prefix("cooper-output-").expect("make a file for a program's output");
        let (stdout, stderr) = (file(), file());
        // Handles of their own: ours would share the position at which the program writes.
        let writer = |file: &NamedTempFile| file.reopen().expect("open a program's output");
        command.stdout(writer(&stdout)).stderr(writer(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` did not start: {error}"));
        Self { shown, child, stdout, stderr, start: Instant::now() }
    }

    /// The process id.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// What it has written on standard output and standard error so far.
    pub fn output(&self) -> (String, String) {
        let text = |file: &NamedTempFile| {
            let bytes = std::fs::read(file.path()).expect("read a program's output");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (text(&self.stdout), text(&self.stderr))
    }

    /// Types on its terminal, when it was started with [`Running::on_terminal`].
    #[track_caller]
    pub fn type_text(&mut self, text: &str) {
        let keyboard = self.child.stdin.as_mut().expect("only a program on a terminal is typed to");
        std::io::Write::write_all(keyboard, text.as_bytes()).expect("type on a terminal");
    }

    /// Starts a program on a terminal of its own, through `script`, which every Debian has.
    #[track_caller]
    pub fn on_terminal(command: &Command) -> Self {
        let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        // A shell that stayed in between would take a Ctrl-C as meant for itself too, and end by it.
        let line = format!("exec {}", words.map(quote).collect::<Vec<_>>().join(" "));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).stdin(Stdio::piped());
        script.env("SHELL", "/bin/sh");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        Self::start(&mut script)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let _ = rustix::process::kill_process(self.pid(), signal);
    }

    /// Waits for its end; a busy machine has `PATIENCE` at least.
    #[track_caller]
    pub fn end(mut self, deadline: Duration) -> Finished {
        let deadline = deadline.max(PATIENCE);
        let mut status: Option<ExitStatus> = None;
        let ended = try_wait_until(deadline, || {
            status = self.child.try_wait().expect("wait for a program");
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let took = self.start.elapsed();
        let (stdout, stderr) = self.output();
        let code = status.and_then(|status| status.code());
        let finished = Finished { command: self.shown.clone(), code, stdout, stderr, took };
        assert!(ended, "not at its end within {deadline:?}: {finished}");
        finished
    }
}

/// Waits until the condition holds; fails when it does not before the deadline. A busy machine has `PATIENCE` at least.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    let deadline = deadline.max(PATIENCE);
    assert!(try_wait_until(deadline, condition), "not within {deadline:?}: {what}");
}

/// Waits until the condition holds, and says whether it did before the deadline.
#[expect(clippy::disallowed_methods, reason = "it waits for an event in another process, and has a deadline")]
pub fn try_wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that reads nothing.
pub(crate) fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
