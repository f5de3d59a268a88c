//! What the steps of a held placement share on the engine: made by the first step that needs it, removed with the
//! placement, whatever happened in between.
//!
//! One [`SharedPlacement`] a placement; its [clean-up](crate::cleanup) owns its end. How it is opened and filled is the
//! attempts' affair (`step/environment.rs`), as that takes a log, a context and a credential.

mod detached;
mod logins;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cooper_ports::context_tree::ContextTree;
use cooper_ports::engine::{ContainerEngine, EngineError, LocalName, Placement, PlacementScope, PulledImage};
use cooper_types::{Digest, ImageRef, Platform, VolumeName};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use detached::DetachedOutput;
pub(crate) use logins::Logins;

/// How long an attempt that does not end may keep the environment from being closed by itself.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a placement's steps share.
#[derive(Default)]
pub(crate) struct SharedPlacement {
    /// Locked while it is being opened.
    pub(crate) open: Mutex<Option<Arc<dyn Placement>>>,
    /// The context that the workspace is filled with. Locked while it is being fetched.
    pub(crate) context: Mutex<Option<ContextTree>>,
    /// What detached containers say.
    pub(crate) detached: Arc<DetachedOutput>,
    /// By what its containers read the embedded registry.
    pub(crate) logins: Arc<Logins>,
    /// What its steps have built, and the names of that in the engine.
    images: std::sync::Mutex<HashMap<Digest, LocalName>>,
    /// What its steps have pulled, by the names of that.
    pulled: std::sync::Mutex<HashMap<ImageRef, PulledImage>>,
    /// Fires when it is closed.
    pub(crate) closed: CancellationToken,
    /// Whether anything of it may be in the engine.
    touched: AtomicBool,
    /// Whether a container may have changed the workspace.
    changed: AtomicBool,
}

impl SharedPlacement {
    /// Notes that something of it will be in the engine.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    /// Notes that a container begins, which may change the workspace.
    pub(crate) fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Notes that a step has built an image, which stays under this name as long as the placement.
    pub(crate) fn built(&self, image: Digest, name: LocalName) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).insert(image, name);
    }

    /// The name of an image that a step has built here.
    pub(crate) fn name_of(&self, image: &Digest) -> Option<LocalName> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    /// Notes that a step has pulled an image, which its placement may do.
    pub(crate) fn has_pulled(&self, reference: ImageRef, image: PulledImage) {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner).insert(reference, image);
    }

    /// The image that a step has pulled under this name.
    pub(crate) fn pulled(&self, reference: &ImageRef) -> Option<PulledImage> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    /// Whether the workspace may be something else than the context by now.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Removes everything of it from the engine. To be called when its steps have ended; again after a failure.
    pub(crate) async fn close(&self, engine: &dyn ContainerEngine, scope: &PlacementScope) -> Result<(), EngineError> {
        self.closed.cancel();
        if !self.touched.load(Ordering::Acquire) {
            return Ok(());
        }
        let opened = match tokio::time::timeout(LOCK_TIMEOUT, self.open.lock()).await {
            Ok(mut open) => open.take(),
            Err(_) => None,
        };
        if let Some(placement) = opened
            && let Err(error) = placement.close().await
        {
            tracing::debug!(
                error = crate::error::chain(&error),
                "a placement does not close; it is removed by its name"
            );
        }
        // It costs little where nothing is left, and finds what an opening that broke off has made.
        engine.remove_placement(scope).await?;
        self.touched.store(false, Ordering::Release);
        Ok(())
    }
}

impl std::fmt::Debug for SharedPlacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedPlacement").field("touched", &self.touched).finish_non_exhaustive()
    }
}

/// Where shared volumes are in a step's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folders {
    pub(crate) workspace: &'static str,
    pub(crate) home: &'static str,
}

impl Folders {
    /// As on this platform.
    pub(crate) fn of(platform: &Platform) -> Self {
        match platform.os() {
            "windows" => Self { workspace: r"c:\workspace", home: r"c:\acb\home" },
            _ => Self { workspace: "/workspace", home: "/acb/home" },
        }
    }
}

/// The volume of the steps' workspace.
pub(crate) fn workspace() -> VolumeName {
    VolumeName::parse("workspace").expect("letters are a name")
}

/// The volume of the steps' home folder.
pub(crate) fn home() -> VolumeName {
    VolumeName::parse("home").expect("letters are a name")
}

/// A task's secret volume: whatever it is called, it is none of the others.
pub(crate) fn secret_volume(name: &str) -> Result<VolumeName, String> {
    VolumeName::parse(&format!("secret-{name}")).map_err(|error| error.to_string())
}

/// Why a network of the engine's is not used.
pub(crate) fn network_refused(name: &str) -> String {
    format!(
        "network `{name}` is the agent's machine's own, and its operator does not allow it: it is given with \
         --allow-network {name}"
    )
}
