//! Random mixtures of faults over a server and two agents, for as long as asked, judged by the API and the registry alone.
//!
//! `cargo xtask soak --minutes 30` plays longer ones than the smoke that the tests play.

use std::time::{Duration, Instant};

use cooper_e2e::{Chance, Submission, is_final, unique, wait_until};
use rustix::process::Signal;

use crate::machines::{Far, Near};

/// How long the smoke lasts when nothing is said.
const SMOKE: Duration = Duration::from_secs(30);
/// How long everything may take to come to rest when nothing is broken any more: leases, pauses, builds in a row.
const REST: Duration = Duration::from_secs(300);
/// Runs that have not ended, at most.
const OPEN: usize = 6;

/// Something that is broken, and how to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Agent(usize),
    Cable(usize),
    EngineStopped(usize),
    EngineStalled(usize),
}

struct Soak {
    chance: Chance,
    near: Near,
    far: Vec<Far>,
    base: String,
    submissions: Vec<Submission>,
    broken: Vec<(Broken, Instant)>,
    start: Instant,
}

impl Soak {
    fn note(&self, what: &str) {
        let line = format!("{:>8.1} {what}\n", self.start.elapsed().as_secs_f64());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }

    fn step(&mut self) {
        self.mend(Instant::now());
        for submission in &mut self.submissions {
            if submission.run().is_none() {
                submission.submit(&self.near.server);
            }
            submission.look(&self.near.server);
        }
        let one = self.chance.below(self.far.len() as u64) as usize;
        match self.chance.below(20) {
            0..=7 => self.submit(),
            8 => {
                self.note("kill the server");
                self.near.server.crash();
                self.near.server.restart();
            }
            9 => self.breaks(Broken::Agent(one)),
            10 | 11 => self.breaks(Broken::Cable(one)),
            12 => self.breaks(Broken::EngineStopped(one)),
            13 => self.breaks(Broken::EngineStalled(one)),
            _ => {}
        }
    }

    fn submit(&mut self) {
        let open =
            self.submissions.iter().filter(|one| !one.record(&self.near.server).is_some_and(|run| is_final(&run)));
        if open.count() >= OPEN {
            return;
        }
        let number = self.submissions.len();
        let (one, two) = (format!("soak:{number}-one"), format!("soak:{number}-two"));
        let sleep = self.chance.below(6);
        let script = format!("for i in 1 2 3; do echo line-$i; done; sleep {sleep}; echo {}", unique());
        let mut submission = Submission::new(&format!("FROM {}\nRUN {script}\n", self.base), &[&one, &two]);
        submission.submit(&self.near.server);
        self.note(&format!("ask for a build of {sleep} s: {:?}", submission.run()));
        self.submissions.push(submission);
    }

    /// Breaks something that is not broken, for a while.
    fn breaks(&mut self, what: Broken) {
        let (Broken::Agent(of) | Broken::Cable(of) | Broken::EngineStopped(of) | Broken::EngineStalled(of)) = what;
        // An engine can't be stopped and stalled at once.
        let same = |other: Broken| match (other, what) {
            (
                Broken::EngineStopped(a) | Broken::EngineStalled(a),
                Broken::EngineStopped(b) | Broken::EngineStalled(b),
            ) => a == b,
            _ => other == what,
        };
        if self.broken.iter().any(|(other, _)| same(*other)) {
            return;
        }
        let long = self.chance.below(4) == 0;
        let time = if long { self.chance.millis(20_000, 60_000) } else { self.chance.millis(500, 8_000) };
        self.note(&format!("break {what:?} for {time:?}"));
        let far = &mut self.far[of];
        match what {
            Broken::Agent(_) => far.agent.crash(),
            Broken::Cable(_) => match self.chance.below(4) {
                0 => far.cable.cut_into(&self.near.namespace),
                1 => far.cable.cut_into(&far.namespace),
                2 => far.cable.slow("2mbit"),
                _ => far.cable.cut(),
            },
            Broken::EngineStopped(_) => match self.chance.below(2) {
                0 => far.engine.kill(),
                _ => far.engine.stop(),
            },
            Broken::EngineStalled(_) => far.engine.process().signal(Signal::STOP),
        }
        self.broken.push((what, Instant::now() + time));
    }

    /// Mends what has been broken for long enough.
    fn mend(&mut self, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) = self.broken.iter().partition(|(_, until)| *until <= now);
        self.broken = later;
        for (what, _) in due {
            self.note(&format!("mend {what:?}"));
            match what {
                Broken::Agent(one) => self.far[one].agent.launch(),
                Broken::Cable(one) => self.far[one].cable.mend(),
                Broken::EngineStopped(one) => self.far[one].engine.launch(),
                Broken::EngineStalled(one) => self.far[one].engine.process().signal(Signal::CONT),
            }
        }
    }

    /// Nothing is broken any more: every run ends, as promised.
    fn judge(mut self) {
        self.note("mend everything");
        self.mend(Instant::now() + Duration::from_secs(3600));
        let mut ends: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for submission in &mut self.submissions {
            wait_until("the server answers", REST, || submission.submit(&self.near.server));
            let record = submission.end(&self.near.server, REST);
            let log = submission.check(&self.near.server, &record);
            // Nobody's build fails by itself here: only three losses of the machinery's end one otherwise.
            let expect = if log.contains("loss 3 of 3") { "Error" } else { "Succeeded" };
            assert_eq!(record["status"], expect, "seed {}: {record:#}\n{log}", self.chance.seed());
            *ends.entry(expect.to_owned()).or_default() += 1;
        }
        let runs = self.near.server.get("/api/v1/runs?top=1000");
        let runs: serde_json::Value = serde_json::from_str(&runs.body).unwrap();
        let count = runs["value"].as_array().map_or(0, Vec::len);
        assert_eq!(
            count,
            (self.submissions.len() + 1).min(1000),
            "seed {}: runs that nobody asked for",
            self.chance.seed()
        );
        self.note(&format!("{} builds ended: {ends:?}", self.submissions.len()));
    }
}

#[test]
fn random_mixtures() {
    #[expect(clippy::disallowed_methods, reason = "a person asks a test for a time; there are no settings to resolve")]
    let seconds = std::env::var("COOPER_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = seconds.map_or(SMOKE, Duration::from_secs);
    let chance = Chance::from_environment();
    let near = Near::new();
    let far = vec![near.machine("one"), near.machine("two")];
    let base = near.server.base_image();
    let start = Instant::now();
    let mut soak = Soak { chance, near, far, base, submissions: Vec::new(), broken: Vec::new(), start };
    while start.elapsed() < time {
        let (now, pause) = (Instant::now(), soak.chance.millis(200, 1_500));
        wait_until("the next moment", pause * 2 + Duration::from_secs(5), || now.elapsed() > pause);
        soak.step();
    }
    soak.judge();
}
