//! A container engine that does what a test tells it to, and remembers what it was asked.
//!
//! It keeps the port's promises (names, cancellation, events) without running anything: the conformance suite of the
//! real adapter runs on it too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cooper_types::{Digest, ImageRef, Platform};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEngine, EngineDescription, EngineError, EngineFeature,
    EngineOwner, EngineStorage, LocalName, PushError, PushEvent, PushRequest, PushedImage, Reaped, ResolvedBase,
};

/// The fake. Without a script, a build succeeds with an image that its request determines, and a push succeeds.
#[derive(Debug)]
pub struct ScriptedEngine {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    description: Arc<EngineDescription>,
    /// What it becomes with the next refresh.
    next_description: Arc<EngineDescription>,
    storage: EngineStorage,
    builds: VecDeque<ScriptedBuild>,
    pushes: VecDeque<ScriptedPush>,
    calls: Vec<EngineCall>,
    names: BTreeMap<String, Digest>,
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

/// Something that the engine was asked to do, in the order of asking.
#[derive(Clone, Debug)]
pub enum EngineCall {
    /// A build.
    Build(Box<BuildRequest>),
    /// A push of this image to this reference.
    Push(Digest, ImageRef),
    /// The removal of names.
    RemoveNames(Vec<LocalName>),
    /// A reaping.
    Reap(EngineOwner),
    /// A cache that is to take this many bytes at most.
    ShrinkCache(u64),
}

/// Where a scripted build or push waits until a test opens it, or until it is cancelled.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    arrived: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), arrived: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets through what waits and what will come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Returns when something has arrived at the gate.
    pub async fn arrival(&self) {
        until_true(&self.arrived).await;
    }

    async fn pass(&self) {
        self.arrived.send_replace(true);
        until_true(&self.open).await;
    }
}

async fn until_true(flag: &watch::Sender<bool>) {
    // The sender is borrowed for the whole wait, so the channel cannot close meanwhile.
    let _ = flag.subscribe().wait_for(|value| *value).await;
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
            calls: Vec::new(),
            names: BTreeMap::new(),
            down: false,
            shrinking: None,
        };
        Self { state: Mutex::new(state) }
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
        // A test that panicked elsewhere must not turn into a second panic here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Says the events and waits at the gate; false when cancelled meanwhile.
async fn play<E>(events: Vec<E>, gate: Option<Gate>, sink: &mpsc::Sender<E>, cancel: &CancellationToken) -> bool {
    let acts = async {
        for event in events {
            // A receiver that is gone is no error of the build's.
            let _ = sink.send(event).await;
        }
        if let Some(gate) = gate {
            gate.pass().await;
        }
    };
    // Biased: what was cancelled before it began does nothing.
    tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        () = acts => true,
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
            state.pushes.pop_front().unwrap_or_else(|| ScriptedPush::ending(Ok(PushedImage { digest, size: 1 })))
        };
        if !play(script.events, script.gate, &sink, &cancel).await {
            return Err(PushError::Cancelled);
        }
        script.outcome
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
        Ok(Reaped { image_names: before - state.names.len(), ..Reaped::default() })
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
