//! Why an agent takes no work at the moment: each reason by what it is about. Whoever looks after a thing says how it is;
//! the supervisor turns the reasons into answers to offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// What may keep an agent from taking work; the first of those that do is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// The engine does not answer.
    Engine,
    /// A disk is nearly full.
    Disk,
    /// The registry can't be reached by its name from this machine.
    Registry,
    /// The engine holds what an earlier life left.
    Leftovers,
}

/// The reasons that there are now. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions(Arc<watch::Sender<BTreeMap<Condition, String>>>);

impl Conditions {
    /// Says how a thing is: fine, or why it keeps the agent from working. Tells whether it was fine before and is not
    /// now, or the other way round.
    pub(crate) fn set(&self, condition: Condition, why: Option<String>) -> bool {
        let mut turned = false;
        self.0.send_if_modified(|reasons| {
            let before = match &why {
                Some(why) => reasons.insert(condition, why.clone()),
                None => reasons.remove(&condition),
            };
            turned = before.is_some() != why.is_some();
            before != why
        });
        turned
    }

    /// Why no work is taken, if none is.
    pub(crate) fn why(&self) -> Option<String> {
        self.0.borrow().values().next().cloned()
    }

    /// Notices changes from now on, and that things may not be fine already.
    pub(crate) fn changes(&self) -> Changes {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        Changes(changes)
    }
}

/// Notices changes of conditions.
#[derive(Debug)]
pub(crate) struct Changes(watch::Receiver<BTreeMap<Condition, String>>);

impl Changes {
    /// Returns when something has changed; never when nobody can change anything any more. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_reasons_is_told_until_all_are_gone() {
        let conditions = Conditions::default();
        assert_eq!(conditions.why(), None);
        assert!(conditions.set(Condition::Disk, Some("low disk".into())));
        assert!(!conditions.set(Condition::Disk, Some("lower disk".into())));
        assert!(conditions.set(Condition::Engine, Some("no engine".into())));
        assert_eq!(conditions.why().as_deref(), Some("no engine"));
        assert!(conditions.set(Condition::Engine, None));
        assert!(!conditions.set(Condition::Engine, None));
        assert_eq!(conditions.why().as_deref(), Some("lower disk"));
        assert!(conditions.set(Condition::Disk, None));
        assert_eq!(conditions.why(), None);
    }
}
