//! The delivery of one event to one target: when it is tried, tried again, and given up.
//!
//! Owns the life of a delivery, and how a target stands, which is what pauses and the end of patience depend on: a target that takes
//! nothing is left alone for longer and longer, whichever event is next. It keeps no order among deliveries: whoever stores them lets
//! a target's first one that has not ended be tried, and no other.

use std::time::Duration;

use cooper_types::Timestamp;

/// How far a delivery is.
///
/// ```text
///        Begun              Ended: taken
///  Due ────────▶ Trying ───────────────▶ Delivered
///   ▲             │  │ Ended: refused or late for the last time, gone, Dropped
///   └─────────────┘  └─────────────────▶ Failed ◀── Due, Dropped
///  Ended: not now, Lost
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its next try.
    Due {
        /// The earliest time of that.
        at: Timestamp,
    },
    /// Somebody tries it.
    Trying {
        /// Whoever has not told of the end by then is gone, and another may try.
        until: Timestamp,
    },
    /// The target has taken it.
    Delivered {
        /// When it said so.
        at: Timestamp,
    },
    /// It is given up.
    Failed {
        /// When.
        at: Timestamp,
    },
}

/// One event on its way to one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it was queued: the time in which it has to arrive begins then.
    pub queued: Timestamp,
    /// How often it was tried; the newest try has this number.
    pub tries: u32,
    /// How often the target has refused it.
    pub refusals: u32,
    /// How far it is.
    pub state: State,
}

/// How a target stands with what it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many tries in a row it has not answered to any purpose, of whichever events.
    pub failures: u32,
    /// When the first of those ended; nothing where there is none.
    pub failing_since: Option<Timestamp>,
}

impl Standing {
    /// After a try that came to nothing.
    fn failed(self, now: Timestamp) -> Self {
        Self { failures: self.failures.saturating_add(1), failing_since: self.failing_since.or(Some(now)) }
    }

    /// How long it is left alone now; `spread` is a random number from 0 to 1.
    pub fn pause(&self, spread: f64, policy: &Policy) -> Duration {
        pause(self.failures, spread, policy)
    }

    /// Whether it has had all patience that there is: for long, and often.
    pub fn is_hopeless(&self, now: Timestamp, policy: &Policy) -> bool {
        self.failures >= policy.tries && self.failing_since.is_some_and(|since| now.since(since) >= policy.give_up)
    }
}

/// What happens to a delivery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Somebody begins to try it.
    Begun,
    /// A try has ended.
    Ended {
        /// Which one: [`Delivery::tries`] when it began.
        number: u32,
        /// What came of it.
        answer: Answer,
        /// A random number from 0 to 1: targets that failed together are not tried together.
        spread: f64,
    },
    /// Whoever tried it is gone.
    Lost,
    /// It is not wanted any more.
    Dropped,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The target has taken it.
    Taken,
    /// The target was reached and won't take this one.
    Refused,
    /// There is no such target any more.
    Gone,
    /// It could not be taken now.
    NotNow {
        /// How long the target asks to be left alone.
        pause: Option<Duration>,
    },
}

/// The times of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a try may take until its end has to be known.
    pub lease: Duration,
    /// The pause after the first try, before it is spread; each later one is twice as long.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long after it was queued a delivery is given up, if its target has taken nothing for as long.
    pub give_up: Duration,
    /// How many tries in a row a target has in any case: they may be few because nobody was there to make them.
    pub tries: u32,
    /// What the target refuses so often is given up.
    pub refusals: u32,
}

impl Policy {
    /// The usual times.
    pub const DEFAULT: Self = Self {
        lease: Duration::from_secs(60),
        first_pause: Duration::from_secs(2),
        longest_pause: Duration::from_secs(3600),
        give_up: Duration::from_secs(24 * 3600),
        tries: 12,
        refusals: 3,
    };
}

/// The event can't happen to a delivery in this state: another has tried it meanwhile, or it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is {0:?} by now")]
pub struct Refusal(pub State);

impl Delivery {
    /// A delivery that is queued now, and due at once.
    pub fn queued(now: Timestamp) -> Self {
        Self { queued: now, tries: 0, refusals: 0, state: State::Due { at: now } }
    }

    /// Whether nothing happens to it any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Delivered { .. } | State::Failed { .. })
    }

    /// When somebody may try it next; nothing once it has ended.
    pub fn next(&self) -> Option<Timestamp> {
        match self.state {
            State::Due { at } => Some(at),
            State::Trying { until } => Some(until),
            State::Delivered { .. } | State::Failed { .. } => None,
        }
    }

    /// What it is after an event, and how its target stands then.
    pub fn apply(
        self,
        event: Event,
        standing: Standing,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<(Self, Standing), Refusal> {
        let refused = Err(Refusal(self.state));
        match (self.state, event) {
            (State::Due { at: next } | State::Trying { until: next }, Event::Begun) if next <= now => {
                let state = State::Trying { until: now.after(policy.lease) };
                Ok((Self { tries: self.tries.saturating_add(1), state, ..self }, standing))
            }
            (State::Trying { .. }, Event::Ended { number, answer, spread }) if number == self.tries => {
                Ok(self.after_try(answer, spread, standing, now, policy))
            }
            (State::Trying { .. }, Event::Lost) => Ok((Self { state: State::Due { at: now }, ..self }, standing)),
            (State::Due { .. } | State::Trying { .. }, Event::Dropped) => {
                Ok((Self { state: State::Failed { at: now }, ..self }, standing))
            }
            (_, Event::Begun | Event::Ended { .. } | Event::Lost | Event::Dropped) => refused,
        }
    }

    fn after_try(
        self,
        answer: Answer,
        spread: f64,
        standing: Standing,
        now: Timestamp,
        policy: &Policy,
    ) -> (Self, Standing) {
        match answer {
            Answer::Taken => (Self { state: State::Delivered { at: now }, ..self }, Standing::default()),
            Answer::Gone => (Self { state: State::Failed { at: now }, ..self }, Standing::default()),
            // Whoever refuses was reached: it is this one event that does not arrive.
            Answer::Refused => {
                let refused = Self { refusals: self.refusals.saturating_add(1), ..self };
                let state = match refused.refusals >= policy.refusals {
                    true => State::Failed { at: now },
                    false => State::Due { at: now.after(pause(refused.refusals, spread, policy)) },
                };
                (Self { state, ..refused }, Standing::default())
            }
            Answer::NotNow { pause: asked } => {
                let standing = standing.failed(now);
                let end = self.queued.after(policy.give_up);
                if now >= end && standing.is_hopeless(now, policy) {
                    return (Self { state: State::Failed { at: now }, ..self }, standing);
                }
                let asked = asked.unwrap_or_default().min(policy.longest_pause);
                let next = now.after(standing.pause(spread, policy).max(asked));
                (Self { state: State::Due { at: next }, ..self }, standing)
            }
        }
    }
}

/// The pause after so many tries in vain: half of it is fixed and half by chance.
fn pause(tries: u32, spread: f64, policy: &Policy) -> Duration {
    let doublings = tries.saturating_sub(1).min(31);
    let whole = policy.first_pause.saturating_mul(1 << doublings).min(policy.longest_pause);
    let share = if spread.is_finite() { spread.clamp(0.0, 1.0) } else { 1.0 };
    whole.mul_f64(0.5 + share / 2.0)
}

impl Answer {
    /// What a target means by a status. Only one of 200 to 299 takes a delivery; statuses that speak of this one body refuse it, and
    /// everything else may be otherwise later, after somebody has looked at the target.
    pub fn of_status(status: u16, pause: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Taken,
            // Bad request, conflict, gone, too large, unsupported type, unprocessable, headers too large.
            400 | 409 | 410 | 413 | 415 | 422 | 431 => Self::Refused,
            _ => Self::NotNow { pause },
        }
    }
}

#[cfg(test)]
mod tests;
