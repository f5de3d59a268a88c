//! Running other programs: with a log, with captured output, until they end or the person gives up.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How much of a log is shown when a step fails, in lines.
const TAIL_LINES: usize = 30;
/// How long a program that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How often a wait looks at what it waits for. Looking costs next to nothing, and measurements are no finer than this.
const POLL: Duration = Duration::from_millis(2);

/// Whether Ctrl-C or a termination signal has come. Once installed, those signals only set this.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("install the signal handlers")?;
        }
        Ok(Self(flag))
    }

    /// Fails once a signal has come.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until `ready` gives a value, at most `limit`, and fails at once on a signal. `None` when the time is up.
    pub(crate) fn wait<T>(
        &self,
        limit: Duration,
        mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<Option<T>> {
        let start = Instant::now();
        loop {
            if let Some(value) = ready()? {
                return Ok(Some(value));
            }
            self.check()?;
            if start.elapsed() >= limit {
                return Ok(None);
            }
            pause();
        }
    }

    /// Waits for a child. On a signal the child is asked to end, too: it may not be in the terminal's group.
    pub(crate) fn wait_for(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().context("wait for a program")? {
                self.check()?;
                return Ok(status);
            }
            if let Err(interrupted) = self.check() {
                stop(child);
                return Err(interrupted);
            }
            pause();
        }
    }
}

/// Asks a child to end, and kills it when it takes too long.
pub(crate) fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        && !matches!(child.try_wait(), Ok(Some(_)))
    {
        let _ = kill_process(pid, Signal::TERM);
    }
    let start = Instant::now();
    while start.elapsed() < GRACE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        pause();
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[expect(
    clippy::disallowed_methods,
    reason = "no runtime here whose thread it could block, and every loop has a limit"
)]
pub(crate) fn pause() {
    std::thread::sleep(POLL);
}

/// The file that keeps what the programs of a task wrote.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Begins an empty log, making its folder.
    pub(crate) fn create(path: PathBuf) -> anyhow::Result<Self> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Goes on with a log, or begins an empty one.
    pub(crate) fn go_on(path: PathBuf) -> anyhow::Result<Self> {
        Self::open(path, OpenOptions::new().append(true).create(true))
    }

    fn open(path: PathBuf, how: &OpenOptions) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        }
        how.open(&path).with_context(|| format!("make the log {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle that appends, for a program's output.
    pub(crate) fn writer(&self) -> anyhow::Result<File> {
        OpenOptions::new()
            .append(true)
            .open(&self.path)
            .with_context(|| format!("open the log {}", self.path.display()))
    }

    /// The last lines, for a person whose step has failed.
    pub(crate) fn tail(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Runs a program with all its output in the log.
    pub(crate) fn run(&self, command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<()> {
        let out = self.begin(command)?;
        command.stdout(out.try_clone().context("share the log")?).stderr(out);
        self.finish(command, interrupt)
    }

    /// Runs a program that reads this input, with all its output in the log.
    pub(crate) fn run_with_input(
        &self,
        command: &mut Command,
        input: Stdio,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let out = self.begin(command)?;
        command.stdin(input).stdout(out.try_clone().context("share the log")?).stderr(out);
        self.finish(command, interrupt)
    }

    /// Runs a program with its standard output captured and the rest in the log.
    pub(crate) fn capture(&self, command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<String> {
        let mut log = self.begin(command)?;
        // A file, not a pipe: nothing has to be read while the program runs, so that waiting stays interruptible.
        let path = self.path.with_extension("out");
        let out = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        command.stdout(out).stderr(log.try_clone().context("share the log")?);
        let result = self.finish(command, interrupt);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let _ = std::fs::remove_file(&path);
        let _ = log.write_all(text.as_bytes());
        result.map(|()| text)
    }

    fn begin(&self, command: &mut Command) -> anyhow::Result<File> {
        let mut out = self.writer()?;
        let _ = writeln!(out, "$ {}", show(command));
        command.stdin(Stdio::null());
        Ok(out)
    }

    fn finish(&self, command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mut child = command.spawn().with_context(|| format!("start `{}`", show(command)))?;
        let status = interrupt.wait_for(&mut child)?;
        if !status.success() {
            bail!("`{}` failed ({status}); the end of {}:\n{}", show(command), self.path.display(), self.tail());
        }
        Ok(())
    }
}

/// A command as one would type it, for messages.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a program that shares our terminal and fails when it does.
pub(crate) fn run_visibly(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", show(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> Log {
        Log::create(std::env::temp_dir().join(format!("xtask-{}-{name}.log", std::process::id()))).unwrap()
    }

    #[test]
    fn a_failing_program_shows_the_end_of_its_log() {
        let log = scratch("fail");
        let interrupt = Interrupt(Arc::default());
        let error = log.run(Command::new("sh").args(["-c", "echo the reason >&2; exit 3"]), &interrupt).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the reason") && text.contains("exit status: 3"), "{text}");
        std::fs::remove_file(log.path()).unwrap();
    }

    #[test]
    fn output_is_captured_and_logged() {
        let log = scratch("capture");
        let interrupt = Interrupt(Arc::default());
        let text = log.capture(Command::new("sh").args(["-c", "echo data; echo noise >&2"]), &interrupt).unwrap();
        assert_eq!(text, "data\n");
        assert!(log.tail().contains("noise") && log.tail().contains("data"), "{}", log.tail());
        std::fs::remove_file(log.path()).unwrap();
    }

    #[test]
    fn a_signal_ends_the_wait_and_the_program() {
        let interrupt = Interrupt(Arc::new(AtomicBool::new(true)));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(interrupt.wait_for(&mut child).unwrap_err().to_string(), "interrupted");
        assert!(child.try_wait().unwrap().is_some(), "the program is gone");
        assert!(interrupt.wait(Duration::from_secs(600), || Ok(None::<()>)).is_err());
    }
}
