//! Registers tasks' hooks at their forges, renews them when their secret changes, and removes them when they are gone.
//!
//! What is to be done is in the store. A forge that is away is asked again, later and later; what it refuses is written down
//! for who looks at the task's hooks, and tried again when the task, its token or the server's address changes. At the
//! forge a hook is known by its URL, so that whatever was done twice or half is the same in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cooper_engine::task::Task;
use cooper_forge::api::{ForgeApi, NewHook};
use cooper_ports::registrations::{DueRegistration, Registration, RegistrationTried};
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, Timestamp};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::due;
use super::forges::{self, Refusal};
use super::purpose;
use crate::core::Core;
use crate::problem::chain;

/// Registrations that are read at a time.
const BATCH: u32 = 100;
/// Hooks that are worked on at a time; of one host, no more are read than the store gives.
const AT_ONCE: usize = 16;
/// Tasks that are read at a time at the start.
const PAGE: u32 = 500;

/// What forges are to have of a task. One whose forge takes no requests, or whose URL leads to none, is not among it.
pub(crate) fn wanted(task: &Task) -> Vec<Registration> {
    let Some(repository) = task.source.as_ref().and_then(|source| source.repository()) else { return Vec::new() };
    let repository = repository.to_string();
    let of = |provider| {
        let (_, host) = forges::place(provider, &repository).ok()?;
        let events = events(task, provider);
        let events = events.into_iter().collect::<Vec<_>>().join(",");
        Some(Registration { provider, repository: repository.clone(), host, events })
    };
    task.providers().into_iter().filter_map(of).collect()
}

const COMMITS: &str = "commit";
const PULL_REQUESTS: &str = "pullrequest";
const TAGS: &str = "tag";

/// What a task's hook for a kind of forge is to tell of: what any of its triggers listens to, disabled ones too.
fn events(task: &Task, provider: cooper_engine::trigger::provider::Provider) -> BTreeSet<&'static str> {
    let settings = task.sources.values().filter(|settings| settings.provider == provider);
    let listens = settings.flat_map(|settings| {
        [(settings.commits, COMMITS), (settings.pull_requests, PULL_REQUESTS), (settings.tags, TAGS)]
    });
    listens.filter_map(|(listens, name)| listens.then_some(name)).collect()
}

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    while core.is_public
        && let Err(error) = recall(&core).await
    {
        tracing::error!(error = chain(&error), "registrations of hooks can't be looked through; trying again");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(due::AFTER_FAILURE) => {}
        }
    }
    due::keep_doing(&core, &shutdown, &core.hooks.register, "registrations of hooks", || pass(&core)).await;
}

/// What a start looks for: tasks of releases that registered nothing, and what is registered under another address.
pub(super) async fn recall(core: &Core) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = core.tasks.list_tasks(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.task.name.clone());
        let wanted = page.into_iter().map(|record| (record.task.name.clone(), wanted(&record.task)));
        let wanted: Vec<_> = wanted.filter(|(_, wanted)| !wanted.is_empty()).collect();
        if !wanted.is_empty() {
            core.registrations.adopt_registrations(wanted).await?;
        }
    }
    core.registrations.recall_registrations(&core.public_url).await
}

/// Does what is due, and tells when the next is.
pub(super) async fn pass(core: &Arc<Core>) -> Result<Option<Timestamp>, StoreError> {
    loop {
        let due = core.registrations.due_registrations(core.clock.now(), BATCH).await?;
        if due.is_empty() {
            return core.registrations.next_registration().await;
        }
        // What concerns one hook goes one after another: it is known at the forge by its URL alone.
        let mut lanes: BTreeMap<HookId, Vec<DueRegistration>> = BTreeMap::new();
        for due in due {
            lanes.entry(due.hook.clone()).or_default().push(due);
        }
        let work = lanes.into_values().map(|lane| async move {
            for due in lane {
                let became = match &due.removal {
                    Some(_) => remove(core, &due).await,
                    None => register(core, &due).await,
                };
                let became = became.unwrap_or_else(|error| {
                    // The others are not kept up by it.
                    tracing::error!(task = %due.task, error = chain(&error), "registration of a hook can't be dealt with");
                    let at = core.clock.now().after(forges::doubled(due.tries));
                    RegistrationTried::Again { at, fault: forges::UNREADABLE.to_owned() }
                });
                core.registrations.registration_tried(&due, became).await?;
            }
            Ok(())
        });
        let done: Vec<Result<(), StoreError>> = futures::stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        done.into_iter().collect::<Result<(), _>>()?;
    }
}

async fn register(core: &Core, due: &DueRegistration) -> Result<RegistrationTried, StoreError> {
    let refused = |fault: String| {
        tracing::warn!(task = %due.task, provider = %due.provider, why = fault, "hook is not registered at its forge");
        Ok(RegistrationTried::Refused { fault })
    };
    if !core.is_public {
        let fault = "the forge can't be told where the server is: start it with --public-url";
        return Ok(RegistrationTried::Refused { fault: fault.to_owned() });
    }
    let api = match forges::of_task(core, &due.task, due.provider, &due.repository).await? {
        Ok(Some(api)) => api,
        Ok(None) => {
            let fault = format!("the task keeps no token for {}", due.host);
            return Ok(RegistrationTried::Refused { fault });
        }
        Err(why) => return refused(why),
    };
    let Some(found) = core.hook_store.find_hook(&due.hook).await? else { return Ok(RegistrationTried::Forgotten) };
    let secret = match core.key.unseal(&purpose(&due.hook), &found.sealed) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(task = %due.task, error = chain(&error), "secret of a hook can't be read");
            return refused("the hook's secret can't be read; give it another one".to_owned());
        }
    };
    let events = events(&found.task, due.provider);
    let hook = NewHook {
        url: format!("{}{}", core.public_url, path(&due.hook)),
        secret,
        commits: events.contains(COMMITS),
        tags: events.contains(TAGS),
        pull_requests: events.contains(PULL_REQUESTS),
    };
    match forges::ask(core, due.tries, api.replace_hook(&hook, is_own(&due.hook))).await {
        Ok(()) => {
            tracing::info!(task = %due.task, repository = due.repository, "hook registered at its forge");
            Ok(RegistrationTried::Registered { address: core.public_url.clone() })
        }
        Err(Refusal::Later(wait, why)) => {
            tracing::info!(task = %due.task, why, wait = wait.as_secs(), "hook can't be registered now");
            Ok(RegistrationTried::Again { at: core.clock.now().after(wait), fault: why })
        }
        Err(Refusal::Never(why)) => refused(why),
    }
}

async fn remove(core: &Core, due: &DueRegistration) -> Result<RegistrationTried, StoreError> {
    if is_still_there(core, due).await? {
        return Ok(RegistrationTried::Forgotten);
    }
    Ok(match removed(core, due).await {
        Ok(()) => RegistrationTried::Forgotten,
        Err(Refusal::Later(wait, why)) => RegistrationTried::Again { at: core.clock.now().after(wait), fault: why },
        Err(Refusal::Never(why)) => {
            let (task, repository) = (&due.task, &due.repository);
            tracing::warn!(task = %task, repository, why, "hook can't be removed at its forge: remove it there by hand");
            RegistrationTried::Forgotten
        }
    })
}

/// Has a forge remove a hook.
pub(super) async fn removed(core: &Core, due: &DueRegistration) -> Result<(), Refusal> {
    let api = removal_api(core, due).map_err(Refusal::Never)?;
    forges::ask(core, due.tries, api.remove_hooks(is_own(&due.hook))).await
}

/// Whether the same hook is to be at the same place, under another spelling of the repository's URL.
async fn is_still_there(core: &Core, due: &DueRegistration) -> Result<bool, StoreError> {
    let Ok((place, _)) = forges::place(due.provider, &due.repository) else { return Ok(false) };
    let live = core.registrations.registrations_of(&due.task).await?;
    let mut live = live.into_iter().filter(|one| one.hook == due.hook && !one.removing);
    Ok(live.any(|one| forges::place(due.provider, &one.repository).is_ok_and(|(other, _)| other.is_same(&place))))
}

fn removal_api(core: &Core, due: &DueRegistration) -> Result<ForgeApi, String> {
    let token = due.removal.as_ref().ok_or_else(|| "there is no token for it".to_owned())?;
    let (place, host) = forges::place(due.provider, &due.repository)?;
    forges::with(core, &due.task, place, &host, token)
}

fn path(hook: &HookId) -> String {
    format!("/hooks/{hook}")
}

/// Whether a URL at a forge is a hook's, under whatever address the server had: nobody else's ends like it.
fn is_own(hook: &HookId) -> impl Fn(&str) -> bool + Send + use<> {
    let path = path(hook);
    move |url| url.ends_with(&path)
}
