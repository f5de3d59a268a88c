//! Looks after the disk: the engine's build cache keeps within its budget, and an agent whose disk is nearly full takes
//! no work, after it has freed what it may.
//!
//! What a placement made is removed at its end, and its images with it; what is left on an engine's disk are layers in the
//! build cache, those of base images among them. So one budget covers both. The cache cannot be told apart by who filled
//! it: on an engine that its operator uses as well, theirs counts and goes too, unless the budget is `none`. Images,
//! containers and volumes of others are never touched.

mod space;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cooper_ports::agents::DiskSpace;
use cooper_ports::engine::{ContainerEngine, EngineStorage};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::conditions::{Condition, Conditions};
use crate::error::chain;
use crate::settings::{CacheBudget, DiskSettings};
use space::{Shortage, Space};

/// The most that a build cache takes by default, in bytes; on a small disk half of that disk is less.
const DEFAULT_BUDGET: u64 = 20 << 30;
/// How much of the budget is left when a cache that was over it was shrunk, in percent: not every build is to be followed
/// by another shrinking.
const SHRINK_TO: u64 = 90;
/// What a cache may take while the agent works, in percent of the budget: a shrinking then takes from builds what they
/// are about to use.
const BUSY_LIMIT: u64 = 125;
/// How long after a fruitless clean-up of a full disk the next one waits: it costs the engine a walk through its cache.
const CLEAN_PAUSE: Duration = Duration::from_secs(60);

/// Looks after the disks of an agent and of its engine.
pub(crate) struct DiskWatch {
    engine: Arc<dyn ContainerEngine>,
    conditions: Conditions,
    settings: DiskSettings,
    work_dir: PathBuf,
    /// Whether the agent holds nothing.
    idle: watch::Receiver<bool>,
    /// Told when a build found the engine's disk full.
    was_full: Arc<Notify>,
    /// How full the engine's disk is, for the server.
    space: watch::Sender<Option<DiskSpace>>,
    /// Where the engine keeps its data, once it has said so.
    root: Option<PathBuf>,
    measured: Option<Instant>,
    cleaned: Option<Instant>,
}

impl DiskWatch {
    pub(crate) fn new(
        engine: Arc<dyn ContainerEngine>,
        conditions: Conditions,
        settings: DiskSettings,
        work_dir: PathBuf,
        idle: watch::Receiver<bool>,
        was_full: Arc<Notify>,
    ) -> Self {
        let (space, root, measured, cleaned) = (watch::Sender::new(None), None, None, None);
        Self { engine, conditions, settings, work_dir, idle, was_full, space, root, measured, cleaned }
    }

    /// Where to see how full the engine's disk is: the agent's own, while the engine has not said where it keeps its data.
    pub(crate) fn space(&self) -> watch::Receiver<Option<DiskSpace>> {
        self.space.subscribe()
    }

    /// Watches until it is dropped.
    pub(crate) async fn run(mut self) {
        let was_full = Arc::clone(&self.was_full);
        // Before the engine is asked what it keeps, which may take a while.
        self.look().await;
        let mut after_work = false;
        loop {
            let age = self.measured.map(|at| at.elapsed());
            // Right after work, though not after each of many short builds; and now and then, for others may use the engine.
            after_work |= self.idle.has_changed().unwrap_or(false) && *self.idle.borrow_and_update();
            let due = if after_work { self.settings.period } else { self.settings.cache_period };
            if age.is_none_or(|age| age >= due) {
                after_work = false;
                self.keep_the_budget().await;
            }
            self.look().await;
            // Each branch only says that it is time: nothing is lost with those that are dropped.
            tokio::select! {
                () = tokio::time::sleep(self.settings.period) => {}
                () = turn(&self.idle) => {}
                () = was_full.notified() => self.make_room().await,
            }
        }
    }

    /// Shrinks the cache when it is over its budget.
    async fn keep_the_budget(&mut self) {
        let Some(storage) = self.measure().await else { return };
        let Some(budget) = self.budget(&storage.root).await else { return };
        let idle = *self.idle.borrow();
        let limit = if idle { budget } else { percent(budget, BUSY_LIMIT) };
        if storage.cache_bytes > limit {
            self.shrink(percent(budget, SHRINK_TO)).await;
        }
    }

    /// Sees how full the disks are, says so if they are too full, and cleans up then.
    async fn look(&mut self) {
        let mut low = self.low().await;
        // Before a clean-up, which may take minutes.
        self.tell(low.as_ref());
        let rested = self.cleaned.is_none_or(|at| at.elapsed() >= CLEAN_PAUSE);
        if let Some(Low { what, cache_is_there: true, .. }) = low
            && rested
        {
            self.cleaned = Some(Instant::now());
            self.free(|cache| what.keep(cache)).await;
            low = self.low().await;
            self.tell(low.as_ref());
        }
    }

    fn tell(&self, low: Option<&Low>) {
        let why = low.map(|low| low.why.clone());
        if self.conditions.set(Condition::Disk, why.clone()) {
            match why {
                Some(why) => tracing::warn!(reason = why, "disk is nearly full: no work is taken"),
                None => tracing::info!("disk has space again"),
            }
        }
    }

    /// A build found the engine's disk full, maybe though there seemed to be enough: the next one gets half of the cache.
    async fn make_room(&mut self) {
        self.free(|cache| cache / 2).await;
    }

    /// Shrinks the cache to what `keep` makes of its size, where that is allowed.
    async fn free(&mut self, keep: impl FnOnce(u64) -> u64) {
        if self.settings.cache_budget == CacheBudget::Unlimited {
            return;
        }
        if let Some(cache) = self.measure().await.map(|storage| storage.cache_bytes).filter(|bytes| *bytes > 0) {
            self.shrink(keep(cache)).await;
        }
    }

    /// Asks the engine what it keeps. One that does not answer is the engine watch's affair.
    async fn measure(&mut self) -> Option<EngineStorage> {
        self.measured = Some(Instant::now());
        match self.engine.storage().await {
            Ok(storage) => {
                self.root = Some(storage.root.clone());
                Some(storage)
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "engine does not say what it keeps");
                None
            }
        }
    }

    async fn shrink(&mut self, keep: u64) {
        match self.engine.shrink_cache(keep).await {
            Ok(freed) => tracing::info!(freed, keep, "build cache was shrunk"),
            Err(error) => tracing::warn!(error = chain(&error), "build cache can't be shrunk"),
        }
    }

    async fn budget(&self, root: &Path) -> Option<u64> {
        match self.settings.cache_budget {
            CacheBudget::Unlimited => None,
            CacheBudget::Bytes(bytes) => Some(bytes),
            CacheBudget::Auto => {
                let half = Space::of(root).await.map(|space| space.total / 2);
                Some(half.map_or(DEFAULT_BUDGET, |half| half.min(DEFAULT_BUDGET)))
            }
        }
    }

    /// The first disk that has too little left.
    async fn low(&self) -> Option<Low> {
        let engine = match &self.root {
            // The engine's folder may be in a place that the agent does not see: then nothing is known of its disk.
            Some(root) => Space::of(root).await.map(|space| (root.as_path(), space)),
            None => None,
        };
        let own = Space::of(&self.work_dir).await.map(|space| (self.work_dir.as_path(), space));
        let told = if self.root.is_some() { engine } else { own };
        self.space.send_replace(told.map(|(_, space)| DiskSpace { free: space.free, total: space.total }));
        [engine, own].into_iter().flatten().find_map(|(folder, space)| {
            let (what, why) = space.lacks(space.needed(self.settings.min_free), folder)?;
            let cache_is_there = engine.is_some_and(|(_, engine)| engine.device == space.device);
            Some(Low { why, what, cache_is_there })
        })
    }
}

/// A disk that has too little left.
struct Low {
    why: String,
    what: Shortage,
    /// Whether it is the disk of the engine's build cache.
    cache_is_there: bool,
}

/// Returns when the agent is no longer as idle or busy as it was when that was last looked at.
async fn turn(idle: &watch::Receiver<bool>) {
    let mut idle = idle.clone();
    if idle.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn percent(bytes: u64, percent: u64) -> u64 {
    // Less than the exact number by a few bytes, and without an overflow.
    (bytes / 100).saturating_mul(percent)
}

#[cfg(test)]
mod tests;
