//! When a timer fires: an expression of five fields (ACR contract §6.3), read in a time zone.
//!
//! Owns the instants. It keeps no clock and remembers nothing: whoever stores the next instant asks for the one after it.
//!
//! Zones and daylight saving (our extension; UTC has neither rule):
//! * A wall time that a change of the clocks skips fires once, at the moment of the change. Several of them are one firing. An
//!   expression for every hour has no firing for an hour that is not there.
//! * A wall time that comes twice fires the first time. An expression for every hour fires both times: it stands for an
//!   interval, and an hour without firings would be a hole in it.

mod expression;
mod zone;

use cooper_types::Timestamp;
use serde::{Deserialize, Serialize};

pub use expression::{Expression, ExpressionError};
pub use zone::{Zone, ZoneError};

/// When a timer fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Which wall times.
    pub expression: Expression,
    /// On whose walls.
    pub zone: Zone,
}

impl Schedule {
    /// The first instant after this one at which it fires; none if there is none before the year 2100.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut next: Option<Timestamp> = None;
        for wall in self.expression.walls_from(self.zone.search_from(after)?) {
            let instants = self.zone.instants(wall)?;
            if instants.is_skipped && self.expression.is_every_hour() {
                continue;
            }
            // Wall times are in order, and so are the first instants of each.
            if next.is_some_and(|next| next <= instants.first) {
                break;
            }
            let again = instants.again.filter(|_| self.expression.is_every_hour());
            if let Some(instant) = [Some(instants.first), again].into_iter().flatten().find(|instant| *instant > after)
            {
                next = Some(next.map_or(instant, |next| next.min(instant)));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests;
