//! A step that says much: how fast it may speak, what comes through, and what that takes.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::goals::Goal;
use super::record::Record;
use super::{Amount, Bench};
use crate::bench::memory::{Memory, forget_peak, kilobytes, memory};
use crate::bench::times::Times;
use crate::product::Server;
use crate::report::Report;

/// Bytes of a line, its end included.
const LINE: usize = 100;
/// The step that speaks.
const STEP: &str = "say";

/// What was seen of it.
pub(super) struct Said {
    /// The step's time with nobody reading its log, and with somebody.
    unread: Times,
    read: Times,
    docker: Times,
    attach: Times,
    before: Memory,
    peak: u64,
    /// How much the data directory has grown in a run.
    grown: u64,
}

/// Writes the output to be: numbered lines, so that each is where it belongs or is missed.
pub(super) fn write(path: &Path, megabytes: usize) -> anyhow::Result<()> {
    let doing = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(doing)?);
    for number in 0..lines(megabytes) {
        file.write_all(line(number).as_bytes()).with_context(doing)?;
    }
    file.flush().with_context(doing)
}

fn lines(megabytes: usize) -> usize {
    megabytes * 1_000_000 / LINE
}

fn line(number: usize) -> String {
    // Not all the same, and not noise: as programs speak.
    let mut line = format!("line {number:010}: ");
    while line.len() < LINE - 1 {
        line.push(char::from(b'a' + ((number + line.len() * 7) % 26) as u8));
    }
    line.push('\n');
    line
}

/// Measures it.
pub(super) fn measure(bench: &Bench<'_>, report: &Report, server: &Server, amount: &Amount) -> anyhow::Result<Said> {
    let image = &bench.image;
    // The first step makes what all share, which is no part of this.
    let task = format!(
        "version: v1.1.0\nsteps:\n  - id: first\n    cmd: {image} true\n  - id: {STEP}\n    cmd: {image} cat /data\n"
    );
    let task = bench.file("output.yaml", &task)?;
    let attached = bench.container(&["cat", "/data"], &format!("container:{}", bench.namespace));
    let bytes = (lines(amount.megabytes) * LINE) as u64;
    let heard = |heard: u64| ensure_all(heard, bytes);
    report.step("warmed all sides up: output", || {
        heard(bench.engine.run_attached(&attached)?)?;
        docker(bench)?;
        bench.ours(&task).map(drop)
    })?;
    forget_peak(server.pid())?;
    let before = memory(server.pid())?;
    let size = data_size(bench)?;
    let [unread, read, docker_run, attach] = [(); 4].map(|()| Times::default());
    let mut said = Said { unread, read, docker: docker_run, attach, before, peak: 0, grown: 0 };
    report.step(&format!("ran {} rounds: output", amount.rounds), || {
        for round in 0..amount.rounds {
            for turn in 0..4 {
                match (round + turn) % 4 {
                    0 => said.unread.add(bench.ours(&task)?.of(STEP)?),
                    1 => said.read.add(shown(bench, &task, amount.megabytes)?),
                    2 => said.docker.measure(|| docker(bench))?,
                    _ => said.attach.measure(|| heard(bench.engine.run_attached(&attached)?))?,
                }
            }
        }
        Ok(())
    })?;
    said.peak = memory(server.pid())?.peak;
    said.grown = data_size(bench)?.saturating_sub(size) / u64::from(amount.rounds * 2);
    Ok(said)
}

/// Fails unless the engine sent at least so much.
fn ensure_all(heard: u64, bytes: u64) -> anyhow::Result<()> {
    ensure!(heard > bytes, "the engine sent {heard} bytes of {bytes}");
    Ok(())
}

/// A run with its log shown, which must be whole; how long the step took.
fn shown(bench: &Bench<'_>, task: &Path, megabytes: usize) -> anyhow::Result<Duration> {
    let path = bench.product.folder().join("output.log");
    let shown = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut run = bench.product.cooper(&["run", "-f"]);
    run.arg(task).arg("/dev/null").stdout(shown).stdin(Stdio::null()).stderr(Stdio::null());
    let status = run.status().context("start `cooper run`")?;
    ensure!(status.success(), "`cooper run` failed ({status})");
    check(&path, megabytes)?;
    let runs = bench.product.capture(&mut bench.product.cooper(&["runs", "list", "--top", "1", "--output", "json"]))?;
    let runs: Vec<serde_json::Value> = serde_json::from_str(&runs).context("read the list of runs")?;
    let id = runs.first().and_then(|run| run.get("runId")?.as_str()).context("there is no run")?;
    let record = bench.product.capture(&mut bench.product.cooper(&["runs", "show", id, "--output", "json"]))?;
    Record::read(&record)?.of(STEP)
}

/// Fails unless a log has every line of the output, in order, once.
fn check(path: &Path, megabytes: usize) -> anyhow::Result<()> {
    let log = BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?);
    let mut next = 0;
    for text in log.split(b'\n') {
        let text = text.with_context(|| format!("read {}", path.display()))?;
        if !text.starts_with(b"line ") {
            continue;
        }
        let expected = line(next);
        ensure!(
            text == expected.trim_end().as_bytes(),
            "line {next} of the output is `{}` in the log",
            String::from_utf8_lossy(&text)
        );
        next += 1;
    }
    ensure!(next == lines(megabytes), "the log ends with line {next} of {}", lines(megabytes));
    Ok(())
}

/// The engine's client, whose output goes nowhere.
fn docker(bench: &Bench<'_>) -> anyhow::Result<()> {
    let network = format!("container:{}", bench.namespace);
    let mut run = bench.product.docker(&["run", "--rm", "--network", &network, &bench.image, "cat", "/data"]);
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).status().context("start `docker run`")?;
    ensure!(status.success(), "`docker run` failed ({status})");
    Ok(())
}

/// The bytes of the server's data directory.
fn data_size(bench: &Bench<'_>) -> anyhow::Result<u64> {
    let mut du = Command::new("du");
    let text = bench.product.capture(du.args(["--summarize", "--bytes"]).arg(bench.product.folder().join("data")))?;
    let bytes = text.split_whitespace().next().context("`du` says nothing")?;
    bytes.parse().context("read what `du` says")
}

impl Said {
    /// The speed of one side against the raw attach's.
    fn against_attach(&self, times: &Times) -> f64 {
        self.attach.median().as_secs_f64() / times.median().as_secs_f64()
    }

    pub(super) fn goals(&self, amount: &Amount) -> [Goal; 3] {
        let growth = self.peak.saturating_sub(self.before.now) as f64 / (amount.megabytes * 1_000_000) as f64;
        [
            Goal::at_least(
                0.5,
                "speed of output with nobody reading, against a raw attach",
                self.against_attach(&self.unread),
            ),
            Goal::at_least(
                0.5,
                "speed of output with the log shown, against a raw attach",
                self.against_attach(&self.read),
            ),
            Goal::at_most(0.1, "growth of the server's memory, against the output's size", growth),
        ]
    }

    pub(super) fn show(&self, report: &Report, amount: &Amount) {
        let megabytes = amount.megabytes;
        report.line(format_args!(
            "\n  {:<40} {:>9} {:>9} {:>9} {:>9}   ({} rounds, ms)",
            format!("{megabytes} MB of output in lines"),
            "median",
            "least",
            "most",
            "MB/s",
            amount.rounds
        ));
        let speed = |times: &Times| megabytes as f64 / times.median().as_secs_f64();
        let sides = [
            ("a step, nobody reading", &self.unread),
            ("a step, its log shown", &self.read),
            ("docker run", &self.docker),
            ("the engine alone, attached", &self.attach),
        ];
        for (name, times) in sides {
            report.line(format_args!("  {} {:>9.1}", times.row_of(name, 40), speed(times)));
        }
        report.line(format_args!(
            "  speed against a raw attach: {:.2}, with the log shown {:.2}; every line was there, once, in order",
            self.against_attach(&self.unread),
            self.against_attach(&self.read)
        ));
        report.line(format_args!(
            "  memory of `cooper serve` with its agent: {} before, {} at the peak; data directory: {} more for a run",
            kilobytes(self.before.now),
            kilobytes(self.peak),
            kilobytes(self.grown)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_lacks_a_line_is_found() {
        let path = std::env::temp_dir().join(format!("xtask-output-{}", std::process::id()));
        write(&path, 1).unwrap();
        check(&path, 1).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 1_000_000);
        std::fs::write(&path, text.replacen(&line(77), "", 1)).unwrap();
        assert!(check(&path, 1).unwrap_err().to_string().contains("line 77"));
        std::fs::write(&path, text.trim_end_matches(&line(9_999))).unwrap();
        assert!(check(&path, 1).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
