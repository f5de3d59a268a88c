//! One build: a session, `POST /build` on it, and what comes back, until the image is there or will not be.

mod bases;
mod export;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use cooper_ports::engine::{
    BaseImages, BuildError, BuildEvent, BuildFailure, BuildNetwork, BuildRequest, BuiltImage, EngineDescription,
    EngineError, EngineFeature,
};
use cooper_types::Digest;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::{self, Blame};
use crate::housekeeping::Removals;
use crate::lines::Lines;
use crate::session::{Session, SessionContents, random_id};
use crate::trace::{self, BuildLine};
use crate::wire::{EngineWire, MAX_QUERY, RequestError};
use bases::Bases;

const OPERATION: &str = "build an image";
/// How long a cancelled build may take to say that it has ended before its connections are cut.
const GRACE: Duration = Duration::from_millis(700);

/// All that is not plain in a query's value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What a build needs of its engine.
pub(crate) struct Builder<'a> {
    pub(crate) docker: &'a Docker,
    pub(crate) wire: &'a EngineWire,
    pub(crate) engine: &'a EngineDescription,
    pub(crate) removals: &'a Removals,
}

/// Builds, and makes sure that the image stays.
///
/// Two builds of the same content give one image with two names. The engine deletes an image with what it takes for its
/// last name, also when a build is about to give it another one: then that build fails, or has a name of nothing. So
/// the image is looked for once it has its name and no removal of ours is under way; from then on the name protects it.
/// If it is gone, it is built again, which takes the cache and no time.
pub(crate) async fn build(
    builder: &Builder<'_>,
    request: BuildRequest,
    sink: mpsc::Sender<BuildEvent>,
    cancel: &CancellationToken,
) -> Result<BuiltImage, BuildError> {
    // Only the removals of other processes can need the third.
    const TRIES: usize = 3;
    let mut request = request;
    let mut removals_held = None;
    for _ in 0..TRIES {
        match build_once(builder, request.clone(), sink.clone(), cancel).await {
            Ok(built) => {
                // By its name, which is this build's alone: the engine takes all names away with an image, and by its
                // id it may be there again through yet another build.
                let look = builder.docker.inspect_image(request.name.as_str());
                let settled = async {
                    let _settled = if removals_held.is_none() { Some(builder.removals.hold().await) } else { None };
                    look.await
                };
                match cancel.run_until_cancelled(settled).await.ok_or(BuildError::Cancelled)? {
                    Ok(_) => return Ok(built),
                    Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                    Err(error) => return Err(broken(error).into()),
                }
            }
            Err(BuildError::Machinery(EngineError::Refused { message, .. })) if failure::image_vanished(&message) => {}
            Err(error) => return Err(error),
        }
        tracing::debug!(name = %request.name, "built image was removed under another name; it is built again");
        // All that it takes is in the cache by now.
        request.no_cache = false;
        if removals_held.is_none() {
            removals_held =
                Some(cancel.run_until_cancelled(builder.removals.hold()).await.ok_or(BuildError::Cancelled)?);
        }
    }
    Err(EngineError::Refused { operation: OPERATION, message: "it removes the image again and again".into() }.into())
}

async fn build_once(
    builder: &Builder<'_>,
    request: BuildRequest,
    sink: mpsc::Sender<BuildEvent>,
    cancel: &CancellationToken,
) -> Result<BuiltImage, BuildError> {
    let Builder { docker, wire, engine, removals: _ } = *builder;
    if !engine.features.contains(&EngineFeature::BuildKit) {
        let missing = "builds by BuildKit over a session (Docker Engine 18.09 or newer on Linux has them)".into();
        return Err(EngineError::Unsupported { engine: format!("{} {}", engine.name, engine.version), missing }.into());
    }
    let blame = Blame::new(&request, engine);
    blame.before_the_build()?;
    let build_id = random_id();
    let query = query(&request, &build_id)?;
    let cache = Cache::of(&request, engine);
    let mut bases = Bases::new(docker, Arc::clone(&request.logins), request.resolved);
    // Where it knows `COPY --link`, it tells what it copies from as well.
    if !engine.features.contains(&EngineFeature::CopyLink) {
        cancel.run_until_cancelled(bases.ask_before(&request.copied)).await.ok_or(BuildError::Cancelled)?;
    }
    let contents = SessionContents {
        context: request.context,
        dockerfile: request.dockerfile_tree,
        secrets: request.secrets,
        logins: request.logins,
        shared_key: request.shared_key,
    };
    let opened = cancel.run_until_cancelled(Session::open(wire, contents)).await.ok_or(BuildError::Cancelled)?;
    let session = opened.map_err(|error| no_session(error, engine))?;

    let path = format!("/build?{query}&session={}", session.id());
    let warnings = sink.clone();
    let run = Run { wire, build_id, cancel, sink: Some(sink), bases, image: None, blame };
    let mut result = run.finish(&path, &session).await;
    if result.is_ok() {
        match cancel.run_until_cancelled(cache.keep(wire, &session)).await {
            Some(None) => {}
            // The image is there, and is what was asked for.
            Some(Some(message)) => {
                let warning = BuildEvent::Warning { vertex: String::new(), message };
                let _ = warnings.send(warning).await;
            }
            None => result = Err(BuildError::Cancelled),
        }
    }
    let fault = session.take_fault();
    session.close().await;
    match (result, fault) {
        // The engine says that the build failed, but it was our side that could not give it the files.
        (Err(BuildError::Failed(_)), Some(error)) => {
            Err(EngineError::Broken { operation: "read the build context", source: error.into() }.into())
        }
        (result, _) => result,
    }
}

/// What is to become of a build's cache.
enum Cache {
    /// It stays in the engine, and in the image where that was asked for.
    Here,
    /// It is written to a registry.
    There { to: String, solve: Box<SolveRequest> },
    /// It can't be.
    NotThere { message: String },
}

impl Cache {
    fn of(request: &BuildRequest, engine: &EngineDescription) -> Self {
        let Some(to) = request.cache_to.clone() else { return Self::Here };
        if !engine.features.contains(&EngineFeature::RegistryCache) {
            let message = format!("cache is not written to {to}: {} {} can't do that", engine.name, engine.version);
            return Self::NotThere { message };
        }
        match export::request(request) {
            Some(solve) => Self::There { to, solve: Box::new(solve) },
            None => Self::NotThere {
                message: format!("cache is not written to {to}: the build names a host that only the engine knows"),
            },
        }
    }

    /// Writes it, and says what went wrong.
    async fn keep(self, wire: &EngineWire, session: &Session) -> Option<String> {
        match self {
            Self::Here => None,
            Self::NotThere { message } => Some(message),
            Self::There { to, mut solve } => {
                session.id().clone_into(&mut solve.session);
                let written = Box::pin(export::export(wire, *solve)).await;
                written.err().map(|error| format!("cache can't be written to {to}: {error}"))
            }
        }
    }
}

fn no_session(error: RequestError, engine: &EngineDescription) -> EngineError {
    match error {
        RequestError::Status(http::StatusCode::NOT_FOUND, _) => EngineError::Unsupported {
            engine: format!("{} {}", engine.name, engine.version),
            missing: "build sessions (`POST /session`), which Docker Engine has since 18.09".into(),
        },
        other => other.into_engine_error("open a build session"),
    }
}

/// The query of `POST /build` (Docker Engine API, `ImageBuild`), without the session.
fn query(request: &BuildRequest, build_id: &str) -> Result<String, BuildFailure> {
    let json = |pairs: &[(String, String)]| {
        let map: BTreeMap<&str, &str> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        serde_json::to_string(&map).expect("a map of strings is JSON")
    };
    let mut query = String::from("version=2&remote=client-session&rm=1&forcerm=1");
    let mut add = |name: &str, value: &str| {
        query.push_str(&format!("&{name}={}", utf8_percent_encode(value, QUERY)));
    };
    add("buildid", build_id);
    add("t", request.name.as_str());
    add("dockerfile", &request.dockerfile);
    // Without it the engine prefers what it has.
    if request.bases == BaseImages::FromRegistries {
        add("pull", "1");
    }
    match request.network {
        BuildNetwork::Default => {}
        BuildNetwork::None => add("networkmode", "none"),
        BuildNetwork::Host => add("networkmode", "host"),
    }
    for host in &request.hosts {
        add("extrahosts", host);
    }
    if !request.cache_from.is_empty() {
        add("cachefrom", &serde_json::to_string(&request.cache_from).expect("texts are JSON"));
    }
    if request.no_cache {
        add("nocache", "1");
    }
    if let Some(target) = &request.target {
        add("target", target);
    }
    if let Some(platform) = &request.platform {
        add("platform", &platform.to_string());
    }
    if !request.arguments.is_empty() {
        add("buildargs", &json(&request.arguments));
    }
    if !request.labels.is_empty() {
        add("labels", &json(&request.labels));
    }
    if query.len() > MAX_QUERY {
        return Err(BuildFailure::TooLong { bytes: query.len(), limit: MAX_QUERY });
    }
    Ok(query)
}

/// A build under way.
struct Run<'a> {
    wire: &'a EngineWire,
    build_id: String,
    cancel: &'a CancellationToken,
    /// Absent once the receiver is gone.
    sink: Option<mpsc::Sender<BuildEvent>>,
    bases: Bases,
    image: Option<Digest>,
    blame: Blame,
}

/// The answer of `POST /build`.
struct Answer {
    lines: Lines<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

impl Run<'_> {
    async fn finish(mut self, path: &str, session: &Session) -> Result<BuiltImage, BuildError> {
        let answer = self.cancel.run_until_cancelled(self.wire.post(OPERATION, path, Vec::new())).await;
        let (body, connection) = match answer {
            None => {
                self.ask_to_stop().await;
                return Err(BuildError::Cancelled);
            }
            Some(Ok(answer)) => answer.into_parts(),
            Some(Err(RequestError::Engine(error))) => return Err(error.into()),
            Some(Err(RequestError::Status(status, message))) => return Err(self.blame.refusal(status, &message)),
        };
        let mut answer = Answer { lines: Lines::new(body), _connection: connection };
        let followed = self.cancel.clone().run_until_cancelled_owned(self.follow(&mut answer)).await;
        match followed {
            None => {
                self.stop(answer).await;
                Err(BuildError::Cancelled)
            }
            Some(Err(error)) => Err(error),
            Some(Ok(())) => {
                tracing::debug!(session = session.id(), "build ended");
                let image = self.image.take().ok_or_else(|| broken("the answer ended without an image"))?;
                let Self { bases, cancel, sink, .. } = self;
                let resolved = cancel.run_until_cancelled(bases.resolved()).await;
                let (bases, doubts) = resolved.ok_or(BuildError::Cancelled)?;
                for message in doubts {
                    if let Some(sink) = &sink {
                        let _ = sink.send(BuildEvent::Warning { vertex: String::new(), message }).await;
                    }
                }
                Ok(BuiltImage { image, bases })
            }
        }
    }

    /// Reads the answer to its end.
    async fn follow(&mut self, answer: &mut Answer) -> Result<(), BuildError> {
        while let Some(line) = answer.lines.next().await.map_err(broken)? {
            match trace::parse(&line).map_err(broken)? {
                BuildLine::Status(status) => {
                    for event in trace::events(*status) {
                        if let BuildEvent::Vertex(vertex) = &event {
                            self.blame.saw(vertex);
                            if let Some(base) = self.bases.saw(&vertex.name) {
                                self.tell(BuildEvent::Base(base)).await;
                            }
                        }
                        if let BuildEvent::Log { vertex, bytes, .. } = &event {
                            self.blame.heard(vertex, bytes);
                        }
                        self.tell(event).await;
                    }
                }
                BuildLine::Image(image) => self.image = Some(image),
                BuildLine::Error(message) => return Err(self.blame.error(&message)),
                BuildLine::Other => {}
            }
        }
        Ok(())
    }

    async fn tell(&mut self, event: BuildEvent) {
        if let Some(sink) = &self.sink
            && sink.send(event).await.is_err()
        {
            self.sink = None;
        }
    }

    /// Ends a cancelled build: asks the engine to, and waits for the end of the answer, so that nothing is tagged
    /// after this returns. An engine that takes too long loses its connections, which kills the build as well.
    async fn stop(&self, mut answer: Answer) {
        let stop = async {
            self.ask_to_stop().await;
            while let Ok(Some(_)) = answer.lines.next().await {}
        };
        if tokio::time::timeout(GRACE, stop).await.is_err() {
            tracing::debug!("engine did not end a cancelled build in time; its connections are cut");
        }
    }

    async fn ask_to_stop(&self) {
        let path = format!("/build/cancel?id={}", self.build_id);
        let asked = tokio::time::timeout(GRACE, self.wire.post("cancel a build", &path, Vec::new())).await;
        if let Ok(Err(error)) = asked {
            tracing::debug!(?error, "engine did not take the cancellation of a build");
        }
    }
}

fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
    EngineError::Broken { operation: failure::OPERATION, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_ports::context_tree::ContextTree;
    use cooper_ports::engine::{EngineOwner, LocalName};
    use cooper_types::{AttemptNumber, Platform, RunId};

    pub(super) fn request() -> BuildRequest {
        BuildRequest {
            name: LocalName::new(&EngineOwner::new("test"), RunId::from_number(1), AttemptNumber(2)),
            context: ContextTree::new(Vec::new(), tempfile::tempfile().expect("a file")),
            dockerfile: "a b/Dockerfile&x=1".into(),
            target: Some("été".into()),
            platform: Some(Platform::LINUX_AMD64),
            arguments: vec![("A".into(), "first".into()), ("A".into(), "x&y=\"1\"+%\n".into())],
            labels: vec![("l".into(), "v".into())],
            no_cache: true,
            secrets: BTreeMap::new(),
            logins: Arc::new(BTreeMap::new()),
            dockerfile_tree: None,
            bases: cooper_ports::engine::BaseImages::default(),
            network: cooper_ports::engine::BuildNetwork::default(),
            hosts: Vec::new(),
            cache_from: Vec::new(),
            cache_to: None,
            shared_key: String::new(),
            resolved: Vec::new(),
            copied: Vec::new(),
        }
    }

    #[test]
    fn the_query_is_encoded_so_that_no_value_becomes_a_parameter() {
        let query = query(&request(), "id").expect("a query");
        let get = |name: &str| {
            let values: Vec<_> = query.split('&').filter_map(|p| p.strip_prefix(&format!("{name}="))).collect();
            assert_eq!(values.len(), 1, "{name} in {query}");
            percent_encoding::percent_decode_str(values[0]).decode_utf8().expect("UTF-8").into_owned()
        };
        assert_eq!(get("dockerfile"), "a b/Dockerfile&x=1");
        assert_eq!(get("target"), "été");
        assert_eq!(get("buildargs"), r#"{"A":"x&y=\"1\"+%\n"}"#);
        assert_eq!(get("labels"), r#"{"l":"v"}"#);
        assert_eq!((get("pull"), get("nocache"), get("platform")), ("1".into(), "1".into(), "linux/amd64".into()));
        assert!(!query.contains('+') && query.is_ascii());
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_before_the_engine_sees_them() {
        let mut request = request();
        request.arguments.push(("B".into(), "x".repeat(MAX_QUERY)));
        assert!(matches!(query(&request, "id"), Err(BuildFailure::TooLong { .. })));
    }
}
