//! What the figures are to reach, and whether they did.

use std::fmt;

/// A figure and its bound.
pub(super) struct Goal {
    what: String,
    figure: f64,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub(super) fn at_most(most: f64, what: impl Into<String>, figure: f64) -> Self {
        Self { what: what.into(), figure, bound: Bound::AtMost(most) }
    }

    pub(super) fn at_least(least: f64, what: impl Into<String>, figure: f64) -> Self {
        Self { what: what.into(), figure, bound: Bound::AtLeast(least) }
    }

    /// What is no number reaches nothing.
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        let (bound, limit) = match self.bound {
            Bound::AtMost(most) => ("at most", most),
            Bound::AtLeast(least) => ("at least", least),
        };
        write!(f, "goal {verdict:<7} {:.2}, {bound} {limit:.2}: {}", self.figure, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_says_so() {
        let shown = |goal: Goal| goal.to_string();
        assert_eq!(shown(Goal::at_most(0.5, "time", 0.4)), "goal met     0.40, at most 0.50: time");
        assert_eq!(shown(Goal::at_most(0.5, "time", 0.51)), "goal MISSED  0.51, at most 0.50: time");
        assert_eq!(shown(Goal::at_least(0.5, "speed", 0.5)), "goal met     0.50, at least 0.50: speed");
        assert_eq!(shown(Goal::at_least(0.5, "speed", 0.49)), "goal MISSED  0.49, at least 0.50: speed");
        assert!(!Goal::at_most(0.5, "time", f64::NAN).is_met() && !Goal::at_least(0.5, "speed", f64::NAN).is_met());
    }
}
