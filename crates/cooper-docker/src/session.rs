//! A BuildKit session: the engine calls back over a connection that we opened, for files, logins and secrets.
//!
//! The session is an HTTP/2 server on the hijacked `POST /session`. It lives exactly as long as its build: dropping it
//! closes the connection and ends every task that it started.

mod auth;
mod context_files;
mod follow;
mod health;
mod ignore;
mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use cooper_ports::context_tree::ContextTree;
use cooper_types::SecretBytes;
use http::{HeaderName, HeaderValue};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use cooper_ports::engine::{EngineError, RegistryLogins};

use self::context_files::{ContextFault, ContextFiles};
use crate::wire::{EngineWire, RequestError};

const OPERATION: &str = "open a build session";
/// Window of a stream and of the connection: a context is sent at the speed of the socket, not of its round trips.
const WINDOW: u32 = 4 << 20;

/// What the engine may say of a transfer in headers, in bytes: every line of `.dockerignore` and every path that is copied
/// is one. Hyper's own limit of 16 KiB ends at some hundred of them; this is what Go's servers take.
const MAX_HEADERS: u32 = 16 << 20;

/// How long the end of a session may take: its tasks only have to notice it.
const CLOSE: Duration = Duration::from_millis(200);

/// What the engine may call; it does not ask for what is not listed.
const METHODS: [&str; 4] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/grpc.health.v1.Health/Check",
];

/// What a session gives to the engine.
pub(crate) struct SessionContents {
    pub(crate) context: ContextTree,
    /// Where the Dockerfile is read from, if not from the context.
    pub(crate) dockerfile: Option<ContextTree>,
    pub(crate) secrets: BTreeMap<String, SecretBytes>,
    pub(crate) logins: Arc<dyn RegistryLogins>,
    pub(crate) shared_key: String,
}

/// An open session.
pub(crate) struct Session {
    id: String,
    fault: Arc<ContextFault>,
    tasks: TaskTracker,
    end: DropGuard,
}

impl Session {
    /// Opens a session on a connection of its own.
    pub(crate) async fn open(wire: &EngineWire, contents: SessionContents) -> Result<Self, RequestError> {
        let id = random_id();
        let header = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value)
                .map_err(|error| EngineError::Broken { operation: OPERATION, source: error.into() })?;
            Ok::<_, EngineError>((HeaderName::from_static(name), value))
        };
        let mut headers = vec![
            header("x-docker-expose-session-uuid", &id)?,
            header("x-docker-expose-session-name", "cooper")?,
            header("x-docker-expose-session-sharedkey", &contents.shared_key)?,
        ];
        for method in METHODS {
            headers.push(header("x-docker-expose-session-grpc-method", method)?);
        }
        let connection = wire.upgrade(OPERATION, "/session", HeaderValue::from_static("h2c"), headers).await?;

        let fault = Arc::new(ContextFault::default());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let files = ContextFiles::new(contents.context, contents.dockerfile, Arc::clone(&fault), tasks.clone());
        let routes = tonic::service::Routes::new(HealthServer::new(health::Serving))
            .add_service(FileSyncServer::new(files))
            .add_service(AuthServer::new(auth::Logins::new(contents.logins)))
            .add_service(SecretsServer::new(secrets::BuildSecrets::new(contents.secrets)))
            .prepare();
        let executor = SessionExecutor { tasks: tasks.clone(), stop: stop.clone() };
        let server = hyper::server::conn::http2::Builder::new(executor)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .serve_connection(connection, TowerToHyperService::new(routes));
        let stopped = stop.clone();
        tasks.spawn(async move {
            if let Some(Err(error)) = stopped.run_until_cancelled_owned(server).await {
                // The build that the session is for fails too, and says so.
                tracing::debug!(%error, "build session ended early");
            }
        });
        Ok(Self { id, fault, tasks, end: stop.drop_guard() })
    }

    /// The id that the build names it by.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What went wrong with the context on our side, if anything did.
    pub(crate) fn take_fault(&self) -> Option<std::io::Error> {
        self.fault.take()
    }

    /// Closes the connection and returns when every task of the session is gone; a read from a disk that hangs is not
    /// waited for.
    pub(crate) async fn close(self) {
        let Self { tasks, end, .. } = self;
        drop(end);
        tasks.close();
        if tokio::time::timeout(CLOSE, tasks.wait()).await.is_err() {
            tracing::warn!("a transfer of a build context does not end: the disk may hang");
        }
    }
}

/// An id that nobody can guess: who knows a session's id can use its secrets.
pub(crate) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Runs the tasks of a session's connection so that they end with it.
#[derive(Clone)]
struct SessionExecutor {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for SessionExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(future)));
    }
}
