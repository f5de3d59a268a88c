//! Turns on a real database.

use cooper_ports::hooks::HookStore as _;
use cooper_types::{RegistryName, TaskName};

use super::*;
use crate::StoreOptions;

struct Fixture {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry_name = RegistryName::parse("localhost:5000").unwrap();
        let store = Store::open(directory.path(), StoreOptions { registry_name, clock: None }).await.unwrap();
        let fixture = Self { store, _directory: directory };
        let tasks = "INSERT INTO principals (registry_id, name, created) VALUES (1, 'ann', 0);
             INSERT INTO tasks (registry_id, task, principal, state, generation) VALUES (1, 'nightly', 'ann', '{}', 1)";
        fixture.change(tasks.to_owned()).await;
        fixture
    }

    async fn change(&self, sql: String) {
        let changed = self.store.write(async move |mut tx| {
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
            Ok::<_, StoreError>(())
        });
        changed.await.unwrap();
    }

    /// A run of the task with a live attempt, of the run's own number.
    async fn begins(&self, run: u64) {
        self.change(format!(
            "INSERT INTO runs (registry_id, number, status, run_type, principal, platform, state, generation, created,
                               updated, pool, task)
             VALUES (1, {run}, 'Running', 'AutoRun', 'ann', '', '{{}}', 1, 0, 0, 'default', 'nightly');
             INSERT INTO live_attempts (registry_id, run_number, step_id, attempt, fence) VALUES (1, {run}, 'push', {run}, 1)"
        ))
        .await;
    }

    async fn claims(&self, run: u64, line: &str, yields: bool, images: &[&str]) -> Result<TagTurn, AttemptError> {
        self.attempt_claims((run, run), line, yields, images).await
    }

    async fn attempt_claims(
        &self,
        (run, attempt): (u64, u64),
        line: &str,
        yields: bool,
        images: &[&str],
    ) -> Result<TagTurn, AttemptError> {
        let order = TagOrder { task: TaskName::parse("Nightly").unwrap(), line: line.to_owned(), yields };
        let images = images.iter().map(|image| image_of(image)).collect();
        let claim = TagClaim { run: RunId::from_number(run), attempt: AttemptNumber(attempt), order, images };
        self.store.claim_tags(claim).await
    }

    /// The run's attempt ends, and has moved these.
    async fn ends(&self, run: u64, moved: &[&str]) {
        self.change(format!("DELETE FROM live_attempts WHERE run_number = {run}")).await;
        let (registry, moved) =
            (self.store.registry_id(), moved.iter().map(|image| image_of(image)).collect::<Vec<_>>());
        let (run, attempt) = (RunId::from_number(run), AttemptNumber(run));
        let ended = self.store.write(async move |mut tx| attempt_ended(&mut tx, registry, run, attempt, &moved).await);
        ended.await.unwrap();
    }

    async fn rows(&self) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM outside_tags");
        count.fetch_one(self.store.readers()).await.unwrap()
    }
}

fn image_of(text: &str) -> ImageRef {
    ImageRef::parse(text).unwrap()
}

fn granted(newer: &[(&str, u64)]) -> TagTurn {
    let newer = newer.iter().map(|(image, run)| (image_of(image), RunId::from_number(*run))).collect();
    TagTurn::Granted { newer }
}

const MAIN: &str = "refs/heads/main";
const LATEST: &str = "r.io/team/app:latest";
const OWN: &str = "r.io/team/app:own";

#[tokio::test]
async fn runs_of_a_task_move_a_tag_one_after_the_other_and_none_takes_it_back() {
    let fixture = Fixture::new().await;
    for run in 1..=5 {
        fixture.begins(run).await;
    }
    assert_eq!(fixture.claims(2, MAIN, true, &[LATEST, OWN]).await.unwrap(), granted(&[]));
    // Asked again, as after an answer that was lost.
    assert_eq!(fixture.claims(2, MAIN, true, &[LATEST, OWN]).await.unwrap(), granted(&[]));
    let taken = TagTurn::Taken { by: RunId::from_number(2) };
    for (run, line) in [(1, MAIN), (4, MAIN), (4, "refs/heads/other"), (4, "")] {
        // It holds nothing meanwhile that others would wait for.
        assert_eq!(fixture.claims(run, line, true, &["r.io/x:1", LATEST]).await.unwrap(), taken, "run {run} of {line}");
    }
    assert_eq!(fixture.claims(3, MAIN, true, &["r.io/x:1"]).await.unwrap(), granted(&[]));
    // It has moved one of the two.
    fixture.ends(2, &[LATEST]).await;
    assert_eq!(fixture.claims(1, MAIN, true, &[LATEST, OWN]).await.unwrap(), granted(&[(LATEST, 2)]));
    fixture.ends(1, &[OWN]).await;
    // One that fails stands in nobody's way, nor does one that is older.
    assert_eq!(fixture.claims(5, MAIN, true, &[LATEST]).await.unwrap(), granted(&[]));
    fixture.ends(5, &[]).await;
    assert_eq!(fixture.claims(4, MAIN, true, &[LATEST, OWN]).await.unwrap(), granted(&[]));
    fixture.ends(4, &[LATEST, OWN]).await;
    // Whoever asks by hand moves it.
    assert_eq!(fixture.claims(3, MAIN, false, &[LATEST]).await.unwrap(), granted(&[]));
    assert_eq!(fixture.claims(3, MAIN, true, &[LATEST]).await.unwrap(), granted(&[(LATEST, 4)]));
    assert_eq!(fixture.claims(3, "refs/heads/other", true, &[LATEST]).await.unwrap(), granted(&[]));
    let over = fixture.claims(4, MAIN, true, &[LATEST]).await.unwrap_err();
    assert!(matches!(over, AttemptError::NotLive { .. }), "{over:?}");
}

#[tokio::test]
async fn two_pushes_of_a_run_have_a_turn_each() {
    let fixture = Fixture::new().await;
    fixture.begins(7).await;
    let second =
        "INSERT INTO live_attempts (registry_id, run_number, step_id, attempt, fence) VALUES (1, 7, 'again', 8, 1)";
    fixture.change(second.to_owned()).await;
    assert_eq!(fixture.claims(7, MAIN, true, &[LATEST]).await.unwrap(), granted(&[]));
    let taken = TagTurn::Taken { by: RunId::from_number(7) };
    assert_eq!(fixture.attempt_claims((7, 8), MAIN, true, &[LATEST]).await.unwrap(), taken);
    fixture.change("DELETE FROM live_attempts WHERE attempt = 7".to_owned()).await;
    assert_eq!(fixture.attempt_claims((7, 8), MAIN, true, &[LATEST]).await.unwrap(), granted(&[]));
}

#[tokio::test]
async fn turns_are_kept_while_an_older_run_goes_on() {
    let fixture = Fixture::new().await;
    for run in 1..=3 {
        fixture.begins(run).await;
    }
    assert_eq!(fixture.claims(2, MAIN, true, &[LATEST]).await.unwrap(), granted(&[]));
    assert_eq!(fixture.claims(3, "", false, &[OWN]).await.unwrap(), granted(&[]));
    fixture.ends(2, &[LATEST]).await;
    let finish =
        |run: u64| fixture.change(format!("UPDATE runs SET status = 'Failed', finished = 1 WHERE number = {run}"));
    finish(2).await;
    // The one stands before run 1, the other is being moved.
    assert_eq!((fixture.store.prune_hooks(10).await.unwrap(), fixture.rows().await), (0, 2));
    finish(1).await;
    assert_eq!((fixture.store.prune_hooks(10).await.unwrap(), fixture.rows().await), (1, 1));
    // Nobody said that the attempt is over, and it is.
    fixture.change("DELETE FROM live_attempts".to_owned()).await;
    assert_eq!((fixture.store.prune_hooks(10).await.unwrap(), fixture.rows().await), (1, 0));
}

#[tokio::test]
async fn turns_are_found_by_indexes() {
    let fixture = Fixture::new().await;
    for (sql, expect) in [
        (TAKEN, "SEARCH o USING PRIMARY KEY (registry_id=? AND task=? AND image=?)"),
        (TAKEN, "USING PRIMARY KEY (registry_id=? AND run_number=? AND attempt=?)"),
        (OVER, "SEARCH r USING COVERING INDEX runs_unfinished_of_task (registry_id=? AND task=? AND number<?"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain).fetch_all(fixture.store.readers()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(expect)), "{expect}: {plan:#?}");
    }
}
