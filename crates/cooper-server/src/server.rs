//! Start and stop of a server: everything is opened in order, and closed in the order that loses nothing.
//!
//! Stop: no new connections and no new offers; the local agent ends its steps; answers in progress go out, and clients
//! that are slow with theirs are cut off; the changes of requests end; the store closes. All under one deadline: what is late is left to crash recovery, which is
//! the same path as after a power cut.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use cooper_api::agent::SpokenByServer;
use cooper_api::problem::ProblemCode;
use cooper_blobs::{FsBlobStore, OpenBlobStoreError};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use cooper_registry::{Collected, RegistryOptions, RegistryParts, RegistryService, SigningKey};
use cooper_store::{OpenError, Store, StoreOptions};
use cooper_types::{RegistryName, SecretBytes};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use crate::access::{Access, AdminTokenError};
use crate::acr_image::AcrImage;
use crate::agents::AgentGateway;
use crate::api::{self, ApiState};
use crate::contexts::ContextFiles;
use crate::core::{Core, CoreParts};
use crate::docker_logins::DockerLogins;
use crate::keys::{KEY_FILE, KeyError, ServerKey};
use crate::listen::Connections;
use crate::problem::{ApiError, chain};
use crate::secrets::Secrets;
use crate::settings::{Settings, TlsName};
use crate::tls::{ServerTls, TlsError};
use crate::{backup, hooks, housekeeping, local_agent, outbox, scheduler, timers, waves};

/// How often the registry's leftovers are removed.
const REGISTRY_PERIOD: Duration = Duration::from_secs(60);

/// A running server.
pub struct Server {
    address: SocketAddr,
    /// Has the certificate looked at.
    certificate: Arc<Notify>,
    stop: CancellationToken,
    /// Ends the connections that do not end by themselves.
    cut: CancellationToken,
    grace: Duration,
    core: Arc<Core>,
    store: Store,
    registry: RegistryService,
    connections: JoinHandle<()>,
    loops: Vec<JoinHandle<()>>,
    local_agent: Option<local_agent::Running>,
}

/// Why a server did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be listened on.
    #[error("failed to listen on {address}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The data directory or its database can't be used.
    #[error("failed to open data directory `{path}`")]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The key can't be used.
    #[error("failed to load the server's key")]
    Key(#[from] KeyError),
    /// The blobs can't be used.
    #[error("failed to open the blobs")]
    Blobs(#[from] OpenBlobStoreError),
    /// A file or folder of the data directory can't be used.
    #[error("failed to prepare `{path}`")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no certificate to show.
    #[error("failed to set TLS up")]
    Tls(#[from] TlsError),
    /// The first token can't be made.
    #[error("failed to make the first access token")]
    Admin(#[from] AdminTokenError),
}

/// Why a server did not stop cleanly. What was answered is durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Something took longer than the grace.
    #[error("shutdown took longer than {} s; what was left is recovered at the next start", .0.as_secs())]
    Late(Duration),
    /// The store did not close.
    #[error("failed to close the store")]
    Store(#[from] StoreError),
}

impl Server {
    /// Opens everything and begins to serve.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let listen_failed = |source| StartError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        let registry_name = settings.registry_name.clone().unwrap_or_else(|| {
            RegistryName::parse(&format!("localhost:{}", address.port())).expect("localhost and a port make a name")
        });

        let data = &settings.data_dir;
        let options = StoreOptions { registry_name: registry_name.clone(), clock: None };
        let store =
            Store::open(data, options).await.map_err(|source| StartError::Store { path: data.clone(), source })?;
        failpoint::pass(Failpoint::StoreOpened);
        let key = Arc::new(ServerKey::open(&data.join(KEY_FILE), settings.secrets.key.as_ref())?);
        let secrets = Secrets::open(&settings.secrets, Arc::new(store.clone()), key.clone())?;
        let blobs = FsBlobStore::open(data)?;
        let contexts = data.join("contexts");
        let context_files = ContextFiles::open(contexts.clone(), settings.max_context_bytes)
            .await
            .map_err(|source| StartError::Data { path: contexts, source })?;
        if let Err(error) = context_files.sweep(&store).await {
            tracing::warn!(error = chain(&error), "contexts' folder may hold what is no context's");
        }
        let access = Access::new(Arc::new(store.clone()), store.clock().clone());
        let admin_file = data.join("admin-token");
        if access.ensure_admin(&admin_file).await? {
            tracing::info!("made the first admin token: it is in {}", admin_file.display());
        }
        let signing = SigningKey::new(&SecretBytes::new(key.registry_signing().to_vec()))
            .expect("derived keys are as long as a signing key must be");

        let parts = RegistryParts {
            blobs: Arc::new(blobs),
            store: Arc::new(store.clone()),
            credentials: Arc::new(access.clone()),
            clock: store.clock().clone(),
            key: signing.clone(),
        };
        let options = RegistryOptions {
            name: registry_name.clone(),
            anonymous_pull: settings.anonymous_pull,
            blob_grace: settings.blob_grace,
        };
        let registry = RegistryService::new(parts, options);
        let core = Arc::new(Core::new(CoreParts {
            runs: Arc::new(store.clone()),
            logs: Arc::new(store.clone()),
            tasks: Arc::new(store.clone()),
            webhooks: Arc::new(store.clone()),
            outbox: Arc::new(store.clone()),
            waves: Arc::new(store.clone()),
            wave_concurrency: usize::try_from(settings.wave_concurrency).unwrap_or(usize::MAX),
            hook_store: Arc::new(store.clone()),
            statuses: Arc::new(store.clone()),
            references: Arc::new(store.clone()),
            registrations: Arc::new(store.clone()),
            outside_tags: Arc::new(store.clone()),
            is_public: settings.public_url.is_some(),
            public_url: settings.public_url.clone().unwrap_or_else(|| {
                let scheme = if settings.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{registry_name}")
            }),
            contexts: Arc::new(store.clone()),
            context_files,
            context_retention: settings.context_retention,
            context_retention_bytes: settings.context_retention_bytes,
            credentials: Arc::new(store.clone()),
            secret_store: Arc::new(store.clone()),
            allowed_sources: settings.allowed_sources.clone(),
            allowed_webhooks: settings.allowed_webhooks.clone(),
            names: None,
            source_roots: settings.source_roots.clone(),
            docker_logins: settings.docker_config.clone().map(DockerLogins::new),
            image_aliases: settings.image_aliases.clone(),
            frontends: settings.frontends.clone(),
            clock: store.clock().clone(),
            wall_clock: store.wall_clock().clone(),
            access,
            key,
            secrets,
            signing,
            registry: registry_name,
            agent_store: Arc::new(store.clone()),
            spoken: SpokenByServer::THIS,
            local_agent: settings.local_agent.as_ref().map(|agent| agent.name.clone()),
        }));

        // Set once, here.
        let _ = core.own_image.set(AcrImage::new(registry.clone(), data.clone()));

        let host = (!address.ip().is_unspecified())
            .then(|| TlsName::parse(&address.ip().to_string()).expect("an address is what a certificate can be for"));
        let tls = settings.tls.as_ref().map(|tls| ServerTls::open(tls, data, host, &core.registry)).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };

        // The last thing that can fail: from here on there are tasks.
        let address_file = data.join("address");
        tokio::fs::write(&address_file, format!("{scheme}://{address}\n"))
            .await
            .map_err(|source| StartError::Data { path: address_file, source })?;

        let grace = settings.shutdown_grace;
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let state = ApiState { core: core.clone(), shutdown: stop.clone() };
        let acceptor = tls.as_ref().map(ServerTls::acceptor);
        let connections = Connections::new(router(state, registry.clone())).over_tls(acceptor);
        let certificate = Arc::new(Notify::new());
        let mut loops = vec![
            tokio::spawn(scheduler::run(core.clone(), stop.clone())),
            tokio::spawn(timers::run(core.clone(), stop.clone())),
            tokio::spawn(housekeeping::run(core.clone(), stop.clone())),
            tokio::spawn(outbox::run(core.clone(), stop.clone())),
            tokio::spawn(waves::run(core.clone(), stop.clone())),
            tokio::spawn(waves::poller::run(core.clone(), settings.base_image_poll, stop.clone())),
            tokio::spawn(hooks::run(core.clone(), stop.clone())),
            tokio::spawn(hooks::supersede::run(core.clone(), stop.clone())),
            tokio::spawn(hooks::statuses::run(core.clone(), stop.clone())),
            tokio::spawn(hooks::missed::run(core.clone(), settings.source_poll, stop.clone())),
            tokio::spawn(hooks::registering::run(core.clone(), stop.clone())),
            tokio::spawn(sweep_registry(registry.clone(), settings.clone(), stop.clone())),
        ];
        if let Some(tls) = tls {
            loops.push(tokio::spawn(tls.keep(certificate.clone(), stop.clone())));
        }
        let local_agent = settings.local_agent.clone().map(|agent| {
            let (work, here) = (data.join("agent"), local_agent::here(address));
            local_agent::start(agent, core.clone(), connections.clone(), work, grace, here)
        });
        let accepting = tokio::spawn(connections.accept(listener, stop.clone(), cut.clone()));

        tracing::info!("listening on {scheme}://{address}");
        Ok(Self {
            address,
            certificate,
            stop,
            cut,
            grace,
            core,
            store,
            registry,
            connections: accepting,
            loops,
            local_agent,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at once whether there is a new certificate.
    pub fn reload(&self) {
        self.certificate.notify_one();
    }

    /// Stops in order, within the settings' grace.
    pub async fn stop(self) -> Result<(), StopError> {
        let grace = self.grace;
        let store = self.store.clone();
        let deadline = tokio::time::Instant::now() + grace;
        let late = tokio::time::timeout_at(deadline, self.stop_in_order()).await.is_err();
        store.close().await?;
        tracing::info!("stopped");
        if late { Err(StopError::Late(grace)) } else { Ok(()) }
    }

    async fn stop_in_order(mut self) {
        // What is left of the grace then is for the changes that requests have begun, and for the store.
        let cut_at = tokio::time::Instant::now() + self.grace * 3 / 4;
        tracing::info!("stopping");
        self.stop.cancel();
        for task in self.loops {
            log_panic("loop", task.await);
        }
        if let Some(agent) = self.local_agent {
            agent.stop().await;
        }
        self.core.agents.close();
        let connections = match tokio::time::timeout_at(cut_at, &mut self.connections).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!("some clients are slow to end their requests: their connections are closed");
                self.cut.cancel();
                self.connections.await
            }
        };
        log_panic("listener", connections);
        self.core.changes_finished().await;
        self.registry.finished().await;
    }
}

fn log_panic(what: &str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "{what} panicked");
    }
}

/// Everything on the one port.
fn router(state: ApiState, registry: RegistryService) -> Router {
    let agents = AgentGateway::server(state.core.clone());
    api::router(state)
        .merge(cooper_registry::router(registry))
        .route_service("/cooper.agent.v1.AgentService/{method}", agents)
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request's handler panicked");
            ApiError::new(ProblemCode::Internal, "the server failed; its log says why").into_response()
        }))
        .layer(TraceLayer::new_for_http())
}

async fn sweep_registry(registry: RegistryService, settings: Settings, stop: CancellationToken) {
    // Where little is kept for long, it is looked for more often.
    let period = REGISTRY_PERIOD.min(settings.blob_grace / 2);
    loop {
        if let Err(error) = registry.sweep().await {
            tracing::error!(error = chain(&error), "registry can't be swept");
        }
        // A backup copies the files of the rows that it has: what is there when it begins has to stay until its end.
        let goes_on = || !stop.is_cancelled();
        match registry.collect(goes_on, || !backup::is_running(&settings.data_dir)).await {
            Ok(collected) if collected == Collected::default() => {}
            Ok(Collected { unfinished, released, strays, removed }) => {
                tracing::info!(unfinished, released, strays, removed, "collected what nothing refers to");
            }
            Err(error) => tracing::error!(error = chain(&error), "blobs that nothing refers to can't be collected"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}
