//! A container engine that does what a test tells it to, and remembers what it was asked.
//!
//! It keeps the port's promises (names, cancellation, events) without running anything: the conformance suite of the
//! real adapter runs on it too.

mod containers;
mod gate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cooper_types::{Digest, ImageRef, Platform, VolumeName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEngine, ContainerRequest, EngineDescription,
    EngineError, EngineFeature, EngineOwner, EngineStorage, LocalImage, LocalName, Placement, PlacementError,
    PlacementRequest, PlacementScope, PullError, PullEvent, PullRequest, PulledImage, PushError, PushEvent,
    PushRequest, PushedImage, Reaped, ResolvedBase,
};
pub use containers::ScriptedContainer;
use containers::{Opened, ScriptedPlacement};
pub use gate::Gate;
use gate::play;

/// The fake. Without a script, a build succeeds with an image that its request determines, a pull with one that its
/// reference determines, a push succeeds, and a container exits with 0.
#[derive(Debug)]
pub struct ScriptedEngine {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    description: Arc<EngineDescription>,
    /// What it becomes with the next refresh.
    next_description: Arc<EngineDescription>,
    storage: EngineStorage,
    builds: VecDeque<ScriptedBuild>,
    pushes: VecDeque<ScriptedPush>,
    pulls: VecDeque<ScriptedPull>,
    containers: VecDeque<ScriptedContainer>,
    /// How the next openings fail.
    openings: VecDeque<PlacementError>,
    calls: Vec<EngineCall>,
    names: BTreeMap<String, Digest>,
    /// What was pulled or put there, by reference.
    images: BTreeMap<String, LocalImage>,
    /// What is open, by label.
    placements: BTreeMap<String, Opened>,
    down: bool,
    shrinking: Option<Gate>,
}

/// What the next build does.
#[derive(Debug)]
pub struct ScriptedBuild {
    /// What it says first.
    pub events: Vec<BuildEvent>,
    /// Where it waits then, if anywhere.
    pub gate: Option<Gate>,
    /// How it ends.
    pub outcome: Result<BuiltImage, BuildError>,
}

/// What the next push does.
#[derive(Debug)]
pub struct ScriptedPush {
    /// What it says first.
    pub events: Vec<PushEvent>,
    /// Where it waits then, if anywhere.
    pub gate: Option<Gate>,
    /// How it ends.
    pub outcome: Result<PushedImage, PushError>,
}

/// What the next pull does.
#[derive(Debug)]
pub struct ScriptedPull {
    /// What it says first.
    pub events: Vec<PullEvent>,
    /// Where it waits then, if anywhere.
    pub gate: Option<Gate>,
    /// How it ends.
    pub outcome: Result<PulledImage, PullError>,
}

/// Something that the engine was asked to do, in the order of asking.
#[derive(Clone, Debug)]
pub enum EngineCall {
    /// A build.
    Build(Box<BuildRequest>),
    /// A push of this image to this reference.
    Push(Digest, ImageRef),
    /// A pull.
    Pull(Box<PullRequest>),
    /// The opening of a placement.
    OpenPlacement(Box<PlacementRequest>),
    /// A container in a placement.
    RunContainer(PlacementScope, Box<ContainerRequest>),
    /// An archive into a folder of a volume.
    PutArchive(VolumeName),
    /// The archive of a folder of a volume.
    GetArchive(VolumeName, String),
    /// The removal of a placement, open or not.
    RemovePlacement(PlacementScope),
    /// The removal of names.
    RemoveNames(Vec<LocalName>),
    /// A reaping.
    Reap(EngineOwner),
    /// A cache that is to take this many bytes at most.
    ShrinkCache(u64),
}

impl Default for ScriptedEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedEngine {
    /// An engine for linux/amd64 that can do everything.
    pub fn new() -> Self {
        Self::with_description(EngineDescription {
            name: "Scripted Engine".into(),
            version: "1.0".into(),
            api_version: "1.0".into(),
            native: Platform::LINUX_AMD64,
            emulated: BTreeSet::new(),
            features: BTreeSet::from([
                EngineFeature::BuildKit,
                EngineFeature::Heredoc,
                EngineFeature::CopyLink,
                EngineFeature::RunNetwork,
            ]),
        })
    }

    /// An engine that says this of itself.
    pub fn with_description(description: EngineDescription) -> Self {
        let description = Arc::new(description);
        let state = State {
            next_description: Arc::clone(&description),
            description,
            storage: EngineStorage { root: "/nonexistent/scripted-engine".into(), cache_bytes: 0 },
            builds: VecDeque::new(),
            pushes: VecDeque::new(),
            pulls: VecDeque::new(),
            containers: VecDeque::new(),
            openings: VecDeque::new(),
            calls: Vec::new(),
            names: BTreeMap::new(),
            images: BTreeMap::new(),
            placements: BTreeMap::new(),
            down: false,
            shrinking: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Says what the engine says of itself from the next refresh on.
    pub fn set_description(&self, description: EngineDescription) {
        self.state().next_description = Arc::new(description);
    }

    /// Says what the engine keeps on its disk.
    pub fn set_storage(&self, storage: EngineStorage) {
        self.state().storage = storage;
    }

    /// Says where the engine waits, from now on, before it makes its cache smaller.
    pub fn hold_shrinking(&self, gate: Gate) {
        self.state().shrinking = Some(gate);
    }

    /// Says what the next build that has no script yet does.
    pub fn script_build(&self, build: ScriptedBuild) {
        self.state().builds.push_back(build);
    }

    /// Says what the next push that has no script yet does.
    pub fn script_push(&self, push: ScriptedPush) {
        self.state().pushes.push_back(push);
    }

    /// Says what the next pull that has no script yet does.
    pub fn script_pull(&self, pull: ScriptedPull) {
        self.state().pulls.push_back(pull);
    }

    /// Says what the next container that has no script yet does.
    pub fn script_container(&self, container: ScriptedContainer) {
        self.state().containers.push_back(container);
    }

    /// Says how the next opening of a placement fails that has no script yet.
    pub fn script_opening(&self, error: impl Into<PlacementError>) {
        self.state().openings.push_back(error.into());
    }

    /// Puts an image there, as if it had been pulled.
    pub fn put_image(&self, reference: &ImageRef, image: LocalImage) {
        self.state().images.insert(reference.to_string(), image);
    }

    /// The labels of the placements that are open.
    pub fn placements(&self) -> Vec<String> {
        self.state().placements.keys().cloned().collect()
    }

    /// How many containers there are, detached and kept ones included.
    pub fn containers(&self) -> usize {
        self.state().placements.values().map(Opened::containers).sum()
    }

    /// Takes the engine down or brings it back: while it is down, everything fails as unreachable.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// What it was asked so far.
    pub fn calls(&self) -> Vec<EngineCall> {
        self.state().calls.clone()
    }

    /// The local names that are there now.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The state of an engine that is up, with the call recorded.
    fn called(&self, call: EngineCall) -> Result<MutexGuard<'_, State>, EngineError> {
        let mut state = self.state();
        state.calls.push(call);
        if state.down {
            return Err(down());
        }
        Ok(state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that panicked elsewhere must not turn into a second panic here.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn has_image(&self, image: &Digest) -> bool {
        self.names.values().chain(self.images.values().map(|image| &image.image)).any(|held| held == image)
    }
}

impl ScriptedPull {
    /// A pull that ends so at once.
    pub fn ending(outcome: Result<PulledImage, PullError>) -> Self {
        Self { events: Vec::new(), gate: None, outcome }
    }

    /// The same, waiting at a gate.
    #[must_use]
    pub fn waiting_at(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

impl ScriptedBuild {
    /// A build that succeeds at once with an image of this content and these bases.
    pub fn success(content: &str, bases: Vec<ResolvedBase>) -> Self {
        let image = Digest::sha256(content.as_bytes());
        Self { events: Vec::new(), gate: None, outcome: Ok(BuiltImage { image, bases }) }
    }

    /// A build that ends so at once.
    pub fn failure(error: impl Into<BuildError>) -> Self {
        Self { events: Vec::new(), gate: None, outcome: Err(error.into()) }
    }

    /// The same, saying these first.
    #[must_use]
    pub fn saying(mut self, events: Vec<BuildEvent>) -> Self {
        self.events = events;
        self
    }

    /// The same, waiting at a gate after its events.
    #[must_use]
    pub fn waiting_at(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

impl ScriptedPush {
    /// A push that ends so at once.
    pub fn ending(outcome: Result<PushedImage, PushError>) -> Self {
        Self { events: Vec::new(), gate: None, outcome }
    }

    /// The same, waiting at a gate.
    #[must_use]
    pub fn waiting_at(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

fn down() -> EngineError {
    EngineError::Unreachable {
        socket: "scripted".into(),
        source: std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "the test took it down"),
    }
}

#[async_trait::async_trait]
impl ContainerEngine for ScriptedEngine {
    fn describe(&self) -> Arc<EngineDescription> {
        Arc::clone(&self.state().description)
    }

    async fn refresh(&self) -> Result<Arc<EngineDescription>, EngineError> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        state.description = Arc::clone(&state.next_description);
        Ok(Arc::clone(&state.description))
    }

    async fn ping(&self) -> Result<(), EngineError> {
        if self.state().down { Err(down()) } else { Ok(()) }
    }

    async fn build(
        &self,
        request: BuildRequest,
        sink: mpsc::Sender<BuildEvent>,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        let name = request.name.to_string();
        let script = {
            let mut state = self.called(EngineCall::Build(Box::new(request)))?;
            state.builds.pop_front().unwrap_or_else(|| ScriptedBuild::success(&name, Vec::new()))
        };
        if !play(script.events, script.gate, &sink, &cancel).await {
            return Err(BuildError::Cancelled);
        }
        let built = script.outcome?;
        self.state().names.insert(name, built.image.clone());
        Ok(built)
    }

    async fn push(
        &self,
        request: PushRequest,
        sink: mpsc::Sender<PushEvent>,
        cancel: CancellationToken,
    ) -> Result<PushedImage, PushError> {
        let PushRequest { image, reference, credential: _ } = request;
        if reference.registry.is_none() || reference.tag.is_none() || reference.digest.is_some() {
            return Err(PushError::Reference { reference });
        }
        let script = {
            let mut state = self
                .called(EngineCall::Push(image.clone(), reference.clone()))
                .map_err(|source| PushError::Machinery { reference, source })?;
            if !state.names.values().any(|held| *held == image) {
                return Err(PushError::ImageMissing { image });
            }
            let digest = Digest::sha256(image.as_str().as_bytes());
            state.pushes.pop_front().unwrap_or_else(|| ScriptedPush::ending(Ok(PushedImage { digest, size: Some(1) })))
        };
        if !play(script.events, script.gate, &sink, &cancel).await {
            return Err(PushError::Cancelled);
        }
        script.outcome
    }

    async fn find_image(&self, reference: &ImageRef) -> Result<Option<LocalImage>, EngineError> {
        let state = self.state();
        if state.down { Err(down()) } else { Ok(state.images.get(&reference.to_string()).cloned()) }
    }

    async fn pull(
        &self,
        request: PullRequest,
        sink: mpsc::Sender<PullEvent>,
        cancel: CancellationToken,
    ) -> Result<PulledImage, PullError> {
        let reference = request.reference.clone();
        let key = reference.to_string();
        let script = {
            let mut state = self
                .called(EngineCall::Pull(Box::new(request)))
                .map_err(|source| PullError::Machinery { reference, source })?;
            let (image, digest) =
                (Digest::sha256(key.as_bytes()), Digest::sha256(format!("manifest {key}").as_bytes()));
            state.pulls.pop_front().unwrap_or_else(|| ScriptedPull::ending(Ok(PulledImage { image, digest })))
        };
        if !play(script.events, script.gate, &sink, &cancel).await {
            return Err(PullError::Cancelled);
        }
        let pulled = script.outcome?;
        let mut state = self.state();
        let image = LocalImage {
            image: pulled.image.clone(),
            platform: Some(state.description.native.clone()),
            manifests: Vec::new(),
        };
        state.images.insert(key, image);
        Ok(pulled)
    }

    async fn open_placement(
        &self,
        request: PlacementRequest,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Placement>, PlacementError> {
        let scope = request.scope.clone();
        let mut state = self.called(EngineCall::OpenPlacement(Box::new(request.clone())))?;
        if cancel.is_cancelled() {
            return Err(PlacementError::Cancelled);
        }
        if let Some(error) = state.openings.pop_front() {
            return Err(error);
        }
        state.placements.insert(scope.label(), Opened::new(request));
        Ok(Box::new(ScriptedPlacement { state: Arc::clone(&self.state), scope }))
    }

    async fn remove_placement(&self, scope: &PlacementScope) -> Result<Reaped, EngineError> {
        let mut state = self.called(EngineCall::RemovePlacement(scope.clone()))?;
        Ok(state.placements.remove(&scope.label()).map(Opened::remove).unwrap_or_default())
    }

    async fn remove_names(&self, names: &[LocalName]) -> Result<(), EngineError> {
        let mut state = self.called(EngineCall::RemoveNames(names.to_vec()))?;
        for name in names {
            state.names.remove(name.as_str());
        }
        Ok(())
    }

    async fn reap(&self, owner: &EngineOwner) -> Result<Reaped, EngineError> {
        let mut state = self.called(EngineCall::Reap(owner.clone()))?;
        let prefix = owner.name_prefix();
        let before = state.names.len();
        state.names.retain(|name, _| !name.starts_with(&prefix));
        let mut reaped = Reaped { image_names: before - state.names.len(), ..Reaped::default() };
        let owned = state.placements.extract_if(.., |_, opened| opened.owner() == owner).collect::<Vec<_>>();
        for (_, opened) in owned {
            let removed = opened.remove();
            reaped.containers += removed.containers;
            reaped.networks += removed.networks;
            reaped.volumes += removed.volumes;
        }
        Ok(reaped)
    }

    async fn storage(&self) -> Result<EngineStorage, EngineError> {
        let state = self.state();
        if state.down { Err(down()) } else { Ok(state.storage.clone()) }
    }

    async fn shrink_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        let gate = self.called(EngineCall::ShrinkCache(keep_bytes))?.shrinking.clone();
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let mut state = self.state();
        let before = state.storage.cache_bytes;
        state.storage.cache_bytes = before.min(keep_bytes);
        Ok(before - state.storage.cache_bytes)
    }
}
