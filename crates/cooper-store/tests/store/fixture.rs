//! A store in a directory of its own.

use std::path::Path;
use std::sync::Arc;

use cooper_ports::clock::ManualClock;
use cooper_store::{OpenError, Store, StoreOptions};
use cooper_types::{RegistryName, Timestamp};
use tempfile::TempDir;

/// A store, its directory, and the clock that tests move.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = open_with(directory.path(), Some(clock.clone())).await.unwrap();
        Self { store, clock, directory }
    }

    /// Closes the store and opens it again, as a restart does.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open_with(self.directory.path(), Some(self.clock.clone())).await.unwrap();
    }
}

pub(crate) async fn open(directory: &Path) -> Result<Store, OpenError> {
    open_with(directory, None).await
}

async fn open_with(directory: &Path, clock: Option<Arc<ManualClock>>) -> Result<Store, OpenError> {
    let registry_name = RegistryName::parse("localhost:5000").unwrap();
    Store::open(directory, StoreOptions { registry_name, clock: clock.map(|clock| clock as _) }).await
}

/// The whole chain of an error, as a log shows it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
