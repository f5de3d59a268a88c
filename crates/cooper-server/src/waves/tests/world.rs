//! A server's core over a real store, with tasks that stand on images.

use super::*;

pub(super) struct World {
    pub(super) core: Arc<Core>,
    pub(super) store: Store,
    pub(super) clock: Arc<ManualClock>,
    _data: TempDir,
}

pub(super) fn follows(enabled: bool) -> BaseImageChange {
    BaseImageChange { enabled: Some(enabled), steps: Some(true), ..BaseImageChange::default() }
}

impl World {
    pub(super) async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        Self::of(data, async |data, clock| testing::core_sending_here(data, Some(clock)).await).await
    }

    pub(super) async fn of(
        data: TempDir,
        core: impl AsyncFnOnce(&Path, Arc<ManualClock>) -> (Arc<Core>, Store),
    ) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_767_225_630_000_000)));
        let (core, store) = core(data.path(), clock.clone()).await;
        testing::token(&core, "ann", &["run", "repository:*:pull,push"]).await;
        Self { core, store, clock, _data: data }
    }

    /// Points a tag of the registry at some content.
    pub(super) async fn push(&self, tag: &str, content: &str) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        let manifest = Manifest {
            digest: digest.clone(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes: content.as_bytes().to_vec().into(),
        };
        let repository = RepositoryName::parse("base").expect("valid");
        let tag = Some(Tag::parse(tag).expect("valid"));
        let new = NewManifest { repository, manifest, references: Vec::new(), tag };
        let writer = Writer { principal: testing::principal("bob"), attempt: None };
        self.clock.advance(Duration::from_secs(1));
        self.store.put_manifest(new, &writer).await.expect("pushed");
        digest
    }

    /// A task of one step that runs in an image.
    pub(super) async fn make(&self, task: &str, change: BaseImageChange) {
        self.make_of(task, "steps:\n  - cmd: localhost:5000/base:1 true\n", change).await;
    }

    /// A task of these steps.
    pub(super) async fn make_of(&self, task: &str, text: &str, change: BaseImageChange) {
        self.make_for("ann", task, text, change).await;
    }

    /// A task of somebody.
    pub(super) async fn make_for(&self, owner: &str, task: &str, text: &str, change: BaseImageChange) {
        let change = TaskChange { base_image: change, ..TaskChange::default() };
        tasks::make(&self.core, owner, task, text, change, self.clock.now()).await;
    }

    /// Changes a task.
    pub(super) async fn change(&self, task: &str, change: TaskChange) {
        tasks::change(&self.core, task, change, self.clock.now()).await;
    }

    /// Runs a task by hand on what a tag stands for.
    pub(super) async fn run(&self, task: &str, tag: &str, digest: &Digest) {
        let task = tasks::find(&self.core, task).await;
        let request = stored_tasks::request(&self.core, &task, Given::default(), Cause::Manual, None).await;
        let accepted =
            stored_tasks::accept(&self.core, request.expect("a request"), For::Asker).await.expect("accepted");
        self.start(accepted.record.run.id).await;
        self.end(accepted.record.run.id, tag, Some(digest)).await;
    }

    /// Has an agent take a run.
    pub(super) async fn start(&self, run: RunId) {
        let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
        let fence =
            self.core.apply(run, RunEvent::Offer { placement: 0, agent }).await.expect("offered").run.last_fence;
        let taken = self.core.apply(run, RunEvent::Accepted { fence, host: None }).await.expect("accepted").run;
        let begun = RunEvent::StepStarted { fence, attempt: taken.last_attempt };
        self.core.apply(run, begun).await.expect("begun");
    }

    /// Ends a run that an agent has: it ran on what a tag stood for, or failed.
    pub(super) async fn end(&self, id: RunId, tag: &str, digest: Option<&Digest>) {
        self.end_on(id, &format!("localhost:5000/base:{tag}"), digest).await;
    }

    pub(super) async fn end_on(&self, id: RunId, reference: &str, digest: Option<&Digest>) {
        let run = self.find(id).await;
        let image = |digest: &Digest| BaseImage {
            reference: reference.to_owned(),
            digest: Some(digest.clone()),
            runtime: true,
        };
        let result = match digest {
            Some(digest) => StepResult::Succeeded { output: StepOutput::Ran { image: Some(image(digest)) } },
            None => StepResult::Failed { exit_code: Some(1), reason: "it broke".to_owned() },
        };
        let (fence, attempt) = (run.last_fence, run.last_attempt);
        let ended = self.core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("ended").run;
        if ended.finished().is_none() {
            self.core.apply(id, RunEvent::Stopped { fence }).await.expect("stopped");
        }
    }

    pub(super) async fn find(&self, id: RunId) -> Run {
        self.core.runs.find_run(id).await.expect("store").expect("run").run
    }

    pub(super) async fn pass(&self) {
        self.settle(&mut self.waves_loop()).await;
    }

    /// A loop that remembers nothing, as after a start.
    pub(super) fn waves_loop(&self) -> Waves {
        Waves::new(Arc::clone(&self.core))
    }

    /// Looks until nobody is on the way.
    pub(super) async fn settle(&self, waves: &mut Waves) {
        loop {
            waves.look().await.expect("a look");
            if waves.flights.is_empty() {
                return;
            }
            while let Some(landed) = waves.flights.join_next_with_id().await {
                waves.all_landed(landed).await;
            }
        }
    }

    /// Opens waves, and lets nobody begin.
    pub(super) async fn open(&self) {
        self.waves_loop().open().await.expect("opened");
    }

    /// The waves, the oldest first: `w1 running a=waiting b=running`.
    pub(super) async fn waves(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for summary in self.core.waves.list_waves(100).await.expect("store").into_iter().rev() {
            let wave = self.core.waves.find_wave(summary.wave.id).await.expect("store").expect("wave").wave;
            let mut text =
                format!("{} {}", wave.id, if wave.finished.is_some() { "over" } else { wave.phase.as_str() });
            for member in &wave.members {
                text.push_str(&format!(" {}={}", member.task, member.state.as_str()));
            }
            shown.push(text);
        }
        shown
    }

    /// Why a member of a wave is as it is.
    pub(super) async fn why(&self, wave: u64, task: &str) -> String {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        let reasons = reasons(&self.core, &stored.wave).await.expect("store");
        let place = stored.wave.members.iter().position(|member| member.task == name(task)).expect("member");
        reasons[place].clone().unwrap_or_default()
    }

    /// The run of a member of a wave.
    pub(super) async fn member_run(&self, wave: u64, task: &str) -> RunId {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        let member = stored.wave.members.iter().find(|member| member.task == name(task)).expect("member");
        member.state.run().expect("a run")
    }

    pub(super) async fn count(&self) -> usize {
        let query = RunQuery::newest(1000);
        self.core.runs.list_runs(&query).await.expect("store").len()
    }
}

/// Two tasks that were built on `base:1`.
pub(super) async fn two_tasks() -> (World, Digest) {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    for task in ["first", "other"] {
        world.make(task, follows(true)).await;
        world.run(task, "1", &one).await;
    }
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0], "nothing has moved since");
    (world, one)
}
