//! A command of a step that lasts until its test has seen enough: what is to happen meanwhile has all the time it needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::context::unique;
use crate::outcome::wait_until;

/// How often what is to end is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// How long a step may take to begin.
const BEGIN: Duration = Duration::from_secs(180);

/// A `sleep` like no other one of this machine, which lasts longer than any test.
pub struct Pause {
    seconds: String,
    over: Arc<AtomicBool>,
    ending: Option<JoinHandle<()>>,
}

impl Pause {
    /// One that nobody has used before.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        let digits: String = unique().bytes().skip(1).take(9).map(|byte| char::from(b'0' + byte % 10)).collect();
        Self { seconds: format!("86400.{digits}"), over: Arc::default(), ending: None }
    }

    /// The command, for one that is stopped in its midst.
    pub fn command(&self) -> String {
        format!("sleep {}", self.seconds)
    }

    /// The command, for a shell's script that goes on when it has ended.
    pub fn script(&self) -> String {
        format!("({} || true)", self.command())
    }

    /// Whether it runs, in a container or not.
    pub fn is_on(&self) -> bool {
        processes(&["sleep", &self.seconds]).next().is_some()
    }

    /// Waits until it runs.
    #[track_caller]
    pub fn begins(&self) {
        wait_until("the step runs", BEGIN, || self.is_on());
    }

    /// Waits until it does not run any more, without anything of the test's doing.
    #[track_caller]
    pub fn is_ended(&self) {
        wait_until("the step's command has ended", BEGIN, || !self.is_on());
    }

    /// Ends it wherever it runs, now and whenever it is begun again.
    #[expect(clippy::disallowed_methods, reason = "it looks for what other processes begin")]
    pub fn end(&mut self) {
        let (seconds, over) = (self.seconds.clone(), Arc::clone(&self.over));
        self.ending.get_or_insert_with(|| {
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for process in processes(&["sleep", &seconds]) {
                        // It may have ended meanwhile.
                        let _ = kill_process(process, Signal::TERM);
                    }
                    std::thread::sleep(LOOK);
                }
            })
        });
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(ending) = self.ending.take() {
            drop(ending.join());
        }
    }
}

/// The processes of this machine with exactly this command line.
fn processes(words: &[&str]) -> impl Iterator<Item = Pid> {
    std::fs::read_dir("/proc").expect("/proc is there").flatten().filter_map(move |entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
        let is_it = arguments.len() == words.len() && arguments.iter().zip(words).all(|(a, b)| *a == b.as_bytes());
        is_it.then(|| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).flatten()
    })
}
