//! One at a time for each name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, by name. A name that nobody waits for takes no room.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the name's turn, which lasts as long as the guard.
    pub(crate) async fn lock(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|_, turn| turn.strong_count() > 0);
            let known = names.get(name).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            names.insert(name.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}
