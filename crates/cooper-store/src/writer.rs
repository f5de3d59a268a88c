//! The one writer: a task that owns the only connection that writes, and commits changes in groups.
//!
//! Changes are closures. A group is `BEGIN IMMEDIATE`, the queued changes, each queue's in order of arrival, each under a savepoint
//! of its own, and one COMMIT; only then is anybody answered. So many small changes share one sync of the disk, a
//! change that fails is rolled back alone, and an answer always means durable. A caller that goes away tears nothing:
//! its change runs to the end or has not begun.
//!
//! What somebody outside waits for with little patience has a queue of its own. A group lets in what is there of it first,
//! and then what is patient for as long as a commit takes: neither waits for all of the other.
//!
//! This module knows no table.

use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cooper_ports::clock::Clock;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use futures::FutureExt;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};

use crate::checkpoint::Checkpoints;
use crate::lock::DataLock;
use crate::sql_error::{During, commit_error};

/// How many changes may wait. Beyond it callers wait for a place, which pushes back on what feeds them.
const QUEUE: usize = 256;
/// How many changes share a commit at most, and after how many impatient ones a patient one has its turn.
const GROUP: usize = 64;
const IMPATIENT: usize = GROUP / 2;
/// How much time of a group is for patient changes, at least and at most: as much as the last commit took. So nobody waits
/// much longer for them than the disk makes everybody wait, and they have a good part of the time. One that was let in ends.
const OPEN: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(8));

/// A change that was kept is merged into the transaction, and the next one begins. Statements that follow each other go in
/// one call: each call is a journey to SQLite's thread and back, and takes longer than what it does there.
const NEXT_CHANGE: &str = "RELEASE change; SAVEPOINT change";

/// The transaction as a change sees it: a connection to run statements on with `&mut *tx`.
///
/// A change must not begin, commit or roll back by itself, must hand on errors of the database instead of going on
/// after them, and must not keep the handle beyond its own end.
pub struct Tx(OwnedMutexGuard<SqliteConnection>);

impl Deref for Tx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }
}

/// What the writer has done since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterCounts {
    /// Changes that ran, successful or not.
    pub changes: u64,
    /// Commits that made something durable.
    pub commits: u64,
}

/// A handle to the writer; clones share it.
#[derive(Clone)]
pub(crate) struct Writer {
    patient: mpsc::Sender<Message>,
    impatient: mpsc::Sender<Message>,
    counters: Arc<Counters>,
}

/// How long whoever asks for a change likes to wait: which queue it stands in.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// Behind all that waits.
    Patient,
    /// Somebody outside waits. It goes before the patient ones that have not begun; between the two there is no order.
    Impatient,
}

#[derive(Default)]
struct Counters {
    changes: AtomicU64,
    commits: AtomicU64,
}

enum Message {
    Change(Box<dyn Change>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// A queued change with its types erased.
trait Change: Send {
    /// Runs it in the transaction, and leaves the way to answer its caller.
    fn run(self: Box<Self>, tx: Tx) -> Pin<Box<dyn Future<Output = Ran> + Send>>;

    /// Answers the caller without having run.
    fn refuse(self: Box<Self>, error: StoreError);
}

/// A change that ran.
struct Ran {
    /// Whether its savepoint is to be kept.
    keep: bool,
    answer: Answer,
}

/// Answers the caller with its own result, or with why the whole group failed.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A change as its caller gave it.
struct Queued<F, T, E> {
    change: F,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F, Fut> Change for Queued<F, T, E>
where
    F: FnOnce(Tx) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn run(self: Box<Self>, tx: Tx) -> Pin<Box<dyn Future<Output = Ran> + Send>> {
        let Self { change, caller } = *self;
        Box::pin(async move {
            // The async block puts a panic of the closure itself under the same guard as one of its future.
            let result = AssertUnwindSafe(async move { change(tx).await }).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(StoreError::Panicked.into()));
            let keep = result.is_ok();
            let answer: Answer = Box::new(move |group| {
                // A caller that went away wants no answer.
                let _ = caller.send(group.map_err(E::from).and(result));
            });
            Ran { keep, answer }
        })
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.caller.send(Err(error.into()));
    }
}

impl Writer {
    /// Starts the writer's task on `connection`, which nothing else may write beside. `lock` is held until the
    /// connection is closed, also where the handles are dropped without [`Writer::close`].
    pub(crate) fn start(
        connection: SqliteConnection,
        checkpoints: Checkpoints,
        clock: Arc<dyn Clock>,
        lock: DataLock,
    ) -> Self {
        let (patient, patients) = mpsc::channel(QUEUE);
        let (impatient, impatients) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let connection = Arc::new(Mutex::new(connection));
        let inbox = Inbox { patient: patients, impatient: impatients };
        let (counted, synced) = (counters.clone(), OPEN.1);
        let task = Task { connection, checkpoints, inbox, clock, counters: counted, written: 0, synced, lock };
        tokio::spawn(task.run());
        Self { patient, impatient, counters }
    }

    /// Runs `change` in a transaction and returns its result once that is durable.
    ///
    /// An error of the change rolls back what it did and nothing else. If the caller is dropped after the change was
    /// queued, the change runs all the same.
    pub(crate) async fn run<T, E, F, Fut>(&self, patience: Patience, change: F) -> Result<T, E>
    where
        F: FnOnce(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (caller, receiver) = oneshot::channel();
        let queue = match patience {
            Patience::Patient => &self.patient,
            Patience::Impatient => &self.impatient,
        };
        queue.send(Message::Change(Box::new(Queued { change, caller }))).await.map_err(|_| StoreError::Closed)?;
        receiver.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Lets queued changes finish, takes no more, and closes the connection.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        if self.patient.send(Message::Close(sender)).await.is_err() {
            return Ok(());
        }
        receiver.await.unwrap_or(Ok(()))
    }

    /// What the writer has done so far.
    pub(crate) fn counts(&self) -> WriterCounts {
        WriterCounts {
            changes: self.counters.changes.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
        }
    }
}

/// What waits for the writer.
struct Inbox {
    patient: mpsc::Receiver<Message>,
    impatient: mpsc::Receiver<Message>,
}

/// What a group has let in so far.
#[derive(Default)]
struct LetIn {
    impatient: usize,
    /// The time that patient ones took.
    patient: Duration,
}

impl Inbox {
    /// Waits for the next one, and ends when both queues are closed and empty.
    async fn next(&mut self) -> Option<(Message, Patience)> {
        tokio::select! {
            biased;
            Some(message) = self.impatient.recv() => Some((message, Patience::Impatient)),
            Some(message) = self.patient.recv() => Some((message, Patience::Patient)),
            else => None,
        }
    }

    /// The next one for a group, if one is there and the group has room for it; patient ones have `time`.
    fn next_now(&mut self, let_in: &LetIn, time: Duration) -> Option<(Message, Patience)> {
        if let_in.impatient < IMPATIENT
            && let Ok(message) = self.impatient.try_recv()
        {
            return Some((message, Patience::Impatient));
        }
        let has_time = let_in.patient <= time;
        if has_time && let Ok(message) = self.patient.try_recv() {
            return Some((message, Patience::Patient));
        }
        self.impatient.try_recv().ok().map(|message| (message, Patience::Impatient))
    }

    /// Takes no more. What is there stays.
    fn close(&mut self) {
        self.patient.close();
        self.impatient.close();
    }
}

/// The writer's task.
struct Task {
    /// Locked by one change at a time; the lock is how a change owns the connection without borrowing from the task.
    connection: Arc<Mutex<SqliteConnection>>,
    checkpoints: Checkpoints,
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// SQLite's count of changed rows after the last commit.
    written: i64,
    /// How long the last commit took.
    synced: Duration,
    lock: DataLock,
}

impl Task {
    async fn run(mut self) {
        let mut closers = Vec::new();
        while let Some((message, patience)) = self.inbox.next().await {
            match message {
                Message::Change(first) => {
                    let before = self.counters.changes.load(Ordering::Relaxed);
                    if let Some(closer) = self.group(first, patience).await {
                        closers.push(closer);
                        self.inbox.close();
                    }
                    let changes = self.counters.changes.load(Ordering::Relaxed) - before;
                    self.checkpoints.after_group(&mut *self.connection.lock().await, changes).await;
                }
                Message::Close(closer) => {
                    closers.push(closer);
                    self.inbox.close();
                }
            }
        }
        self.checkpoints.close().await;
        let closed = match Arc::try_unwrap(self.connection) {
            Ok(connection) => connection.into_inner().close().await.during("close the database"),
            // A change broke its contract and kept the handle; the connection closes when that is dropped.
            Err(_) => Err(StoreError::Closed),
        };
        drop(self.lock);
        for closer in closers {
            let _ = closer.send(closed.clone());
        }
    }

    /// Runs one group: `first` and what is queued behind it. Returns the request to close that ended it, if one did.
    async fn group(
        &mut self,
        first: Box<dyn Change>,
        patience: Patience,
    ) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        if let Err(error) = self.begin().await {
            first.refuse(error);
            return None;
        }
        let mut closer = None;
        let mut answers = Vec::new();
        let mut next = Some((first, patience));
        let mut outcome = Ok(());
        let mut let_in = LetIn::default();
        while let Some((change, patience)) = next.take() {
            let begun = self.clock.now();
            let kept = self.change(change, &mut answers).await;
            outcome = kept.as_ref().map(|_| ()).map_err(Clone::clone);
            match patience {
                Patience::Patient => let_in.patient += self.clock.now().since(begun),
                Patience::Impatient => let_in.impatient += 1,
            }
            if outcome.is_err() || answers.len() == GROUP {
                break;
            }
            match self.inbox.next_now(&let_in, self.synced.clamp(OPEN.0, OPEN.1)) {
                Some((Message::Change(change), patience)) => next = Some((change, patience)),
                Some((Message::Close(sender), _)) => closer = Some(sender),
                None => {}
            }
            // After a change that was rolled back, its savepoint is the next one's.
            if next.is_some()
                && matches!(kept, Ok(true))
                && let Err(error) = self.execute(NEXT_CHANGE).await.map_err(commit_error)
            {
                outcome = Err(error.clone());
                if let Some((change, _)) = next.take() {
                    change.refuse(error);
                }
            }
        }
        if outcome.is_ok() {
            outcome = self.commit().await;
        }
        if outcome.is_err() {
            // SQLite has rolled back by itself after some errors; a second time does no harm.
            let _ = self.execute("ROLLBACK").await;
        }
        for answer in answers {
            answer(outcome.clone());
        }
        closer
    }

    /// Runs a change under the savepoint, and tells whether it is kept. An error is one of the whole transaction, which is
    /// over then.
    async fn change(&mut self, change: Box<dyn Change>, answers: &mut Vec<Answer>) -> Result<bool, StoreError> {
        self.counters.changes.fetch_add(1, Ordering::Relaxed);
        let ran = change.run(Tx(self.connection.clone().lock_owned().await)).await;
        // On a full disk or a failing one SQLite rolls back the whole transaction, and the savepoint is gone. The
        // change that met that keeps its own error, which knows best what happened.
        if !ran.keep && self.execute("ROLLBACK TO change").await.is_err() {
            (ran.answer)(Ok(()));
            return Err(StoreError::StorageFull { operation: "commit" });
        }
        answers.push(ran.answer);
        Ok(ran.keep)
    }

    /// Begins a transaction and its first change.
    async fn begin(&mut self) -> Result<(), StoreError> {
        const BEGIN: &str = "BEGIN IMMEDIATE; SAVEPOINT change";
        let begun = self.execute(BEGIN).await;
        if begun.is_err() && self.execute("ROLLBACK").await.is_ok() {
            // A transaction had been left open by a failure; without this the writer would never write again.
            return self.execute(BEGIN).await.during("begin a transaction");
        }
        begun.during("begin a transaction")
    }

    /// Commits, after it has written down how far time has come, so that the clock never starts before it.
    ///
    /// A group that changed no row (refused events, repeated requests) is not worth a sync of the disk.
    async fn commit(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connection.lock().await;
        let written: i64 = sqlx::query_scalar("RELEASE change; SELECT total_changes()")
            .fetch_one(&mut *connection)
            .await
            .map_err(commit_error)?;
        if written == self.written {
            return sqlx::query("COMMIT").execute(&mut *connection).await.map(drop).map_err(commit_error);
        }
        failpoint::pass(Failpoint::WriterBeforeCommit);
        let begun = self.clock.now();
        self.written =
            sqlx::query_scalar("UPDATE store_clock SET newest = max(newest, ?1); COMMIT; SELECT total_changes()")
                .bind(begun.as_micros())
                .fetch_one(&mut *connection)
                .await
                .map_err(commit_error)?;
        self.synced = self.clock.now().since(begun);
        failpoint::pass(Failpoint::WriterAfterCommit);
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn execute(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        let mut connection = self.connection.lock().await;
        sqlx::query(statement).execute(&mut *connection).await.map(drop)
    }
}
