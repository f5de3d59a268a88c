//! What the scheduler has read of the unfinished runs.
//!
//! The rows are the queue. This is a copy of them that is brought up to date at the beginning of every look, run by run,
//! by the generations that the rows have now: it can't disagree with them for longer than a look takes.

use std::collections::BTreeMap;

use cooper_engine::run::Run;
use cooper_ports::runs::RunStore;
use cooper_ports::store_error::StoreError;
use cooper_types::RunId;

use crate::problem::chain;

/// The unfinished runs, as of the last look.
#[derive(Default)]
pub(super) struct Queue {
    runs: BTreeMap<RunId, Run>,
    /// In which generation each was read; runs that can't be read are here as well, so that each is told of once.
    generations: BTreeMap<RunId, u64>,
}

impl Queue {
    /// Reads what has changed.
    pub(super) async fn refresh(&mut self, store: &dyn RunStore) -> Result<(), StoreError> {
        let found = store.unfinished_changes(&self.generations).await?;
        for run in found.gone {
            self.generations.remove(&run);
            self.runs.remove(&run);
        }
        for (generation, run) in found.changed {
            self.generations.insert(run.id, generation);
            self.runs.insert(run.id, run);
        }
        for (run, generation, error) in found.unreadable {
            tracing::error!(run = %run, error = chain(&error), "run can't be read; it waits until its row is mended and the server starts anew");
            self.generations.insert(run, generation);
            self.runs.remove(&run);
        }
        Ok(())
    }

    /// The runs, oldest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// One of them.
    pub(super) fn get(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run)
    }
}
