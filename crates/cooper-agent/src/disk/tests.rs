use cooper_ports::engine::scripted::{EngineCall, Gate, ScriptedEngine};

use super::*;
use crate::settings::MinFree;

/// A watch over a scripted engine, and what a test turns and sees.
struct Fixture {
    engine: Arc<ScriptedEngine>,
    conditions: Conditions,
    idle: watch::Sender<bool>,
    was_full: Arc<Notify>,
    folder: tempfile::TempDir,
    /// What the last watch tells.
    space: std::cell::RefCell<Option<watch::Receiver<Option<DiskSpace>>>>,
}

const QUICK: Duration = Duration::from_millis(5);

impl Fixture {
    /// An engine with this much cache, in a folder of this machine's disk.
    fn new(cache_bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let engine = Arc::new(ScriptedEngine::new());
        engine.set_storage(EngineStorage { root: folder.path().to_owned(), cache_bytes });
        let (conditions, was_full) = (Conditions::default(), Arc::default());
        Self { engine, conditions, idle: watch::Sender::new(true), was_full, folder, space: Default::default() }
    }

    fn start(&self, settings: DiskSettings) -> tokio_util::task::AbortOnDropHandle<()> {
        let watch = DiskWatch::new(
            self.engine.clone(),
            self.conditions.clone(),
            settings,
            self.folder.path().to_owned(),
            self.idle.subscribe(),
            Arc::clone(&self.was_full),
        );
        self.space.replace(Some(watch.space()));
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(watch.run()))
    }

    /// To how many bytes the cache was shrunk, each time.
    fn shrunk(&self) -> Vec<u64> {
        let shrunk = |call| match call {
            EngineCall::ShrinkCache(keep) => Some(keep),
            _ => None,
        };
        self.engine.calls().into_iter().filter_map(shrunk).collect()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "not within 60 s: {what}");
    }

    fn cache(&self, cache_bytes: u64) {
        self.engine.set_storage(EngineStorage { root: self.folder.path().to_owned(), cache_bytes });
    }
}

fn settings(cache_budget: CacheBudget, min_free: MinFree) -> DiskSettings {
    DiskSettings { cache_budget, min_free, period: QUICK, cache_period: QUICK }
}

#[tokio::test]
async fn a_cache_over_its_budget_is_shrunk_below_it() {
    let fixture = Fixture::new(1001);
    let _watch = fixture.start(settings(CacheBudget::Bytes(1000), MinFree::Bytes(0)));
    fixture.until("a shrinking", |fixture| fixture.shrunk() == [900]).await;
    // The 900 bytes that are left are fine.
    fixture.cache(2000);
    fixture.until("another", |fixture| fixture.shrunk() == [900, 900]).await;
}

#[tokio::test]
async fn while_builds_run_the_cache_may_be_larger() {
    let fixture = Fixture::new(1200);
    fixture.idle.send_replace(false);
    let _watch = fixture.start(settings(CacheBudget::Bytes(1000), MinFree::Bytes(0)));
    // Seen, measured and let be: the next measure is due at once.
    fixture
        .until("a larger cache", |fixture| {
            fixture.cache(1200);
            fixture.shrunk().is_empty()
        })
        .await;
    fixture.cache(1300);
    fixture.until("a shrinking", |fixture| fixture.shrunk() == [900]).await;
    fixture.cache(1100);
    fixture.idle.send_replace(true);
    fixture.until("a shrinking after work", |fixture| fixture.shrunk() == [900, 900]).await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_cleaned_and_then_told() {
    let fixture = Fixture::new(5000);
    let watch = fixture.start(settings(CacheBudget::Bytes(1 << 40), MinFree::Bytes(u64::MAX)));
    fixture.until("the reason", |fixture| fixture.conditions.why().is_some()).await;
    let why = fixture.conditions.why().expect("a reason");
    let told = fixture.space.borrow().as_ref().and_then(|space| *space.borrow()).expect("told");
    assert!(told.total >= told.free && told.free > 0, "{told:?}");
    assert!(why.starts_with("low disk: ") && why.contains(&fixture.folder.path().display().to_string()), "{why}");
    fixture.until("a clean-up", |fixture| fixture.shrunk() == [0]).await;
    drop(watch);
    // The same disk with more modest wishes.
    let _watch = fixture.start(settings(CacheBudget::Bytes(1 << 40), MinFree::Bytes(1)));
    fixture.until("the end of the reason", |fixture| fixture.conditions.why().is_none()).await;
}

#[tokio::test]
async fn no_work_is_taken_while_a_full_disk_is_cleaned() {
    let fixture = Fixture::new(5000);
    let gate = Gate::new();
    fixture.engine.hold_shrinking(gate.clone());
    let _watch = fixture.start(settings(CacheBudget::Bytes(1 << 40), MinFree::Bytes(u64::MAX)));
    gate.arrival().await;
    assert!(fixture.conditions.why().is_some());
}

#[tokio::test]
async fn a_full_disk_halves_the_cache() {
    let fixture = Fixture::new(5000);
    let _watch = fixture.start(settings(CacheBudget::Bytes(1 << 40), MinFree::Bytes(0)));
    fixture.was_full.notify_one();
    fixture.until("a shrinking", |fixture| fixture.shrunk() == [2500]).await;
}

#[tokio::test]
async fn a_cache_without_a_budget_is_never_touched() {
    let fixture = Fixture::new(u64::MAX);
    let _watch = fixture.start(settings(CacheBudget::Unlimited, MinFree::Bytes(u64::MAX)));
    fixture.was_full.notify_one();
    fixture.until("the reason", |fixture| fixture.conditions.why().is_some()).await;
    assert_eq!(fixture.shrunk(), Vec::<u64>::new());
}

#[tokio::test]
async fn an_engine_on_another_disk_keeps_its_cache_when_the_agents_own_is_full() {
    let fixture = Fixture::new(5000);
    // Another file system on every Linux.
    fixture.engine.set_storage(EngineStorage { root: "/proc".into(), cache_bytes: 5000 });
    let _watch = fixture.start(settings(CacheBudget::Bytes(1 << 40), MinFree::Percent(100)));
    fixture.until("the reason", |fixture| fixture.conditions.why().is_some()).await;
    assert_eq!(fixture.shrunk(), Vec::<u64>::new());
}
