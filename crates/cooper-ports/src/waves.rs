//! Base images: what tasks stand on, tags that moved, and the waves that follow.
//!
//! What a task stands on is written in the transaction that ends its run, a moved tag that somebody stands on in the one that
//! moves it, and a member's run in the one that accepts it. So nothing is missed and nothing happens twice, whoever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::task::ImageUpdate;
use cooper_engine::wave::{Cut, Graph, ImageTag, MemberState, PlannedMember, RunFailure, Wave, WavePhase};
use cooper_types::{
    Digest, PrincipalName, RegistryName, RepositoryName, RunId, SourceHost, Tag, TaskName, Timestamp, WaveId,
};

use crate::outbox::UpdateNotice;
use crate::store_error::StoreError;

/// A tag that moved, and that a task stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChange {
    /// Its place among all.
    pub seq: i64,
    /// The tag.
    pub image: ImageTag,
    /// What it stood for, where that is known.
    pub from: Option<Digest>,
    /// What it stands for now.
    pub to: Digest,
    /// When it moved, or was seen to have.
    pub at: Timestamp,
    /// The run that moved it, where one did.
    pub by: Option<ChangedBy>,
}

/// The run that moved a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangedBy {
    /// Its task.
    pub task: Option<TaskName>,
    /// The wave that it is a part of.
    pub wave: Option<WaveId>,
}

/// A wave to be opened, or what is known instead of one.
#[derive(Clone, Debug)]
pub struct OpenWave {
    /// The changes that it is for. They are done with then.
    pub changes: Vec<BaseChange>,
    /// Its members; there is no wave without any.
    pub members: Vec<PlannedMember>,
    /// Where circles were cut.
    pub cuts: Vec<Cut>,
    /// The tasks whose runs led to the changes, by their keys.
    pub origins: BTreeSet<String>,
    /// What did not start tasks.
    pub refusals: Vec<NewRefusal>,
}

/// Something that did not start a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefusal {
    /// The task.
    pub task: TaskName,
    /// What happened, in a line.
    pub event: String,
    /// The rule that said no, in a line.
    pub rule: String,
}

/// Something that did not start a task, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// What happened, in a line.
    pub event: String,
    /// The rule that said no, in a line.
    pub rule: String,
}

/// A wave as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWave {
    /// The wave.
    pub wave: Wave,
    /// How often it has been changed: a change names the generation that it was made from.
    pub generation: i64,
    /// Whose tasks its members are, by their keys. A task that is gone is nobody's.
    pub owners: BTreeMap<String, PrincipalName>,
}

/// A wave that is not over, as far as it is looked at again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveHead {
    /// Which.
    pub id: WaveId,
    /// How often it has been changed.
    pub generation: i64,
    /// Whether members begin.
    pub phase: WavePhase,
    /// How many members run.
    pub running: usize,
    /// Those of them, by their places, that have waited for an agent since so long ago.
    pub agentless: Vec<usize>,
}

/// A wave in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveSummary {
    /// The wave, without its members.
    pub wave: Wave,
    /// How many members are in which state, by its name.
    pub counts: Vec<(String, u32)>,
}

/// A member whose run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedMember {
    /// The wave.
    pub wave: WaveId,
    /// The member's place.
    pub member: usize,
    /// What went wrong; nothing if the run succeeded.
    pub failure: Option<RunFailure>,
}

/// A change of a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveWave {
    /// The wave.
    pub id: WaveId,
    /// The generation that the change was made from.
    pub generation: i64,
    /// Whether members begin.
    pub phase: WavePhase,
    /// When it was over.
    pub finished: Option<Timestamp>,
    /// Who has cancelled it.
    pub canceled_by: Option<PrincipalName>,
    /// Members whose states changed, by their places.
    pub members: Vec<(usize, MemberState)>,
}

impl SaveWave {
    /// The change that made a wave what it is, with the places of the members that it changed.
    pub fn of(stored: &StoredWave, changed: &[usize]) -> Self {
        let StoredWave { wave, generation, owners: _ } = stored;
        let member = |place: &usize| wave.members.get(*place).map(|member| (*place, member.state.clone()));
        Self {
            id: wave.id,
            generation: *generation,
            phase: wave.phase,
            finished: wave.finished,
            canceled_by: wave.canceled_by.clone(),
            members: changed.iter().filter_map(member).collect(),
        }
    }
}

/// The run of a member, to be accepted for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRun {
    /// The wave.
    pub wave: WaveId,
    /// The member's place.
    pub member: usize,
    /// The run that said what the task stands on when that was compared.
    pub compared: Option<RunId>,
    /// Who is told of it.
    pub notice: Option<UpdateNotice>,
}

/// What is known of a task's bases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskBases {
    /// Those that differ from what the task was last built on, whether its trigger follows them or not.
    pub moved: Vec<MovedBase>,
    /// The run that says what it was built on.
    pub said_by: Option<RunId>,
    /// A run of the task that goes on, may stand on any of these, and may move the same tags.
    pub busy: Option<RunId>,
    /// A task that makes one of its bases and is being built in a wave, or waits for that in another wave than this, and is not
    /// held by a pause; by its key.
    pub maker: Option<String>,
    /// Since when nothing has held it that people did: since it has waited, or since a pause has ended that held it.
    pub free_since: Option<Timestamp>,
}

/// A base that differs from what a task was last built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedBase {
    /// How the task uses it.
    pub kind: cooper_engine::wave::BaseKind,
    /// The change.
    pub update: ImageUpdate,
}

/// A tag of another registry that is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTag {
    /// The tag; it has a registry.
    pub image: ImageTag,
    /// What the registry said the last time, to be shown again.
    pub etag: Option<String>,
    /// How often it has not answered since it last did.
    pub failures: u32,
}

/// What came of asking for a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAnswer {
    /// It stands for what it stood for.
    Same,
    /// It stands for this.
    Is {
        /// The manifest.
        digest: Digest,
        /// What is shown the next time.
        etag: Option<String>,
    },
    /// It is not known, and why, in a line.
    Failed(String),
    /// It was not asked for.
    Later,
}

/// What stands on images.
#[derive(Clone, Debug, Default)]
pub struct BaseGraph {
    /// The tasks.
    pub graph: Graph,
    /// The keys of those that can't be read, and why.
    pub unreadable: Vec<(String, StoreError)>,
}

/// A credential that may be shown to a registry for tasks that follow a tag.
#[derive(Clone, PartialEq, Eq)]
pub struct FollowersCredential {
    /// The user name that goes with it.
    pub username: String,
    /// Nonce and ciphertext of the password or token.
    pub sealed: Vec<u8>,
    /// The key of the task that it is kept with, if it is.
    pub task: Option<String>,
    /// The tasks for which it may be shown.
    pub followers: Vec<TaskName>,
}

/// Keeps the graph of base images and the waves.
#[async_trait]
pub trait WaveStore: Send + Sync {
    /// Waits until a tag may have moved that somebody stands on. What is told may have been looked at already.
    async fn base_moved(&self);

    /// The tasks that stand on images, however far, with what their last runs stood on and made. One that can't be read keeps no
    /// other from being there.
    async fn base_graph(&self, images: &[ImageTag]) -> Result<BaseGraph, StoreError>;

    /// Tasks that base images start and of which no run says yet what they stand on, so many at most.
    async fn unbuilt_tasks(&self, limit: u32) -> Result<Vec<TaskName>, StoreError>;

    /// The tags that have moved and are not done with, the first first.
    async fn base_changes(&self, limit: u32) -> Result<Vec<BaseChange>, StoreError>;

    /// What a tag stands for, as far as it is known.
    async fn known_digest(&self, image: &ImageTag) -> Result<Option<Digest>, StoreError>;

    /// Opens a wave, and has it take over members of older ones that wait, those of paused ones excepted; nothing happens if one
    /// of the changes is done with already. None comes back where no wave was opened.
    async fn open_wave(&self, open: OpenWave) -> Result<Option<WaveId>, StoreError>;

    /// Opens a wave of the members of another one that failed, were left out or were cancelled. None comes back where there are
    /// none.
    async fn retry_wave(&self, id: WaveId) -> Result<Option<WaveId>, StoreError>;

    /// The waves that are not over, the oldest first. Runs that have waited for so long are told apart.
    async fn open_waves(&self, agentless: Duration) -> Result<Vec<WaveHead>, StoreError>;

    /// The tasks that wait in a wave, by their keys.
    async fn waiting_in_wave(&self, id: WaveId) -> Result<Vec<String>, StoreError>;

    /// A wave.
    async fn find_wave(&self, id: WaveId) -> Result<Option<StoredWave>, StoreError>;

    /// The newest run that says what a task stands on, for the tasks that a wave has left out or cancelled and that began to be
    /// built after it was opened; by their keys.
    async fn built_since(&self, id: WaveId) -> Result<BTreeMap<String, RunId>, StoreError>;

    /// Waves, the newest first.
    async fn list_waves(&self, limit: u32) -> Result<Vec<WaveSummary>, StoreError>;

    /// The running members of waves whose runs have ended, wave by wave.
    async fn ended_members(&self) -> Result<Vec<EndedMember>, StoreError>;

    /// Changes a wave; tells whether it was still of that generation, and changes nothing otherwise. What a member was left out
    /// for is written down with its task. What waits in another wave as well when its wave is cancelled is that one's.
    async fn save_wave(&self, save: SaveWave) -> Result<bool, StoreError>;

    /// What has become of a task's bases since it was last built, for its turn in a wave.
    async fn task_bases(&self, task: &TaskName, wave: WaveId) -> Result<TaskBases, StoreError>;

    /// Removes a part of what is left of waves that were over so long ago: so many members at most, and the waves that have none
    /// left. Tells how many rows it were; nothing is left when there are none.
    async fn expire_waves(&self, keep: Duration, limit: u32) -> Result<u64, StoreError>;

    /// Forgets tags of other registries that nobody stands on any more, so many at most; tells how many it were.
    async fn forget_remote_tags(&self, limit: u32) -> Result<u64, StoreError>;

    /// Tags of other registries that tasks stand on and that are to be asked for by now, without those of some registries, and so
    /// many at most of one.
    async fn due_remote_tags(&self, limit_of_one: u32, without: &[RegistryName]) -> Result<Vec<RemoteTag>, StoreError>;

    /// Writes down what came of asking for a tag, and when it is asked for next. A tag that has moved under a task is a
    /// change from then on; that is told.
    async fn remote_answer(&self, image: &ImageTag, answer: RemoteAnswer, next: Timestamp) -> Result<bool, StoreError>;

    /// Has tags of a repository of other registries asked for soon: the one that is named, or all of them.
    async fn bring_forward(&self, repository: &RepositoryName, tag: Option<&Tag>) -> Result<u64, StoreError>;

    /// What may be shown to a registry for the tasks that follow a tag: tasks' own come before what their principals may use.
    async fn followers_credentials(
        &self,
        image: &ImageTag,
        host: &SourceHost,
    ) -> Result<Vec<FollowersCredential>, StoreError>;

    /// Writes down what did not start tasks.
    async fn write_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError>;

    /// What did not start a task lately, the newest first.
    async fn list_refusals(&self, task: &TaskName, limit: u32) -> Result<Vec<Refusal>, StoreError>;
}
