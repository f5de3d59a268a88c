//! Timers of a task, and what becomes of an instant that has come.

use std::time::Duration;

use cooper_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::timer::Schedule;

/// How late an instant may be before nobody was there for it.
pub const GRACE: Duration = Duration::from_secs(60);

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// When it fires.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// What becomes of instants that passed while no server ran.
    pub catch_up: CatchUp,
    /// Whether it fires at all.
    pub enabled: bool,
}

/// What becomes of instants that passed while no server ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CatchUp {
    /// Nothing.
    #[default]
    Skip,
    /// One run for all of them.
    Once,
}

/// What becomes of an instant that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whether it sets a run off.
    pub fires: bool,
    /// Whether it came while no server ran.
    pub missed: bool,
    /// The next instant.
    pub next: Option<Timestamp>,
}

impl Timer {
    /// What becomes of an instant of its that has come. `watched` is since when a server has looked at timers: what was
    /// due more than [`GRACE`] before that was missed. What is late for another reason, such as many timers at once, is not.
    pub fn passed(&self, instant: Timestamp, watched: Timestamp, now: Timestamp) -> Passed {
        let missed = watched.since(instant) > GRACE;
        if !missed {
            return Passed { fires: true, missed, next: self.schedule.next_after(instant) };
        }
        match self.catch_up {
            // The first that was not missed, which may be due at once.
            CatchUp::Skip => {
                let micros = i64::try_from(GRACE.as_micros()).unwrap_or(i64::MAX);
                let from = Timestamp::from_micros(watched.as_micros().saturating_sub(micros + 1));
                Passed { fires: false, missed, next: self.schedule.next_after(from) }
            }
            CatchUp::Once => Passed { fires: true, missed, next: self.schedule.next_after(now) },
        }
    }

    /// When it fires first after this moment; never if it is disabled.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.enabled.then(|| self.schedule.next_after(now)).flatten()
    }
}
