//! Compares what is in a task's repository with what was there, and starts what nobody told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::task::{Fired, SourceRules, Task};
use cooper_engine::trigger::event::SourceChange;
use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::references::{ChangedReference, Reference, ReferenceKind, SeenAt, SeenReferences};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::NewRefusal;
use tokio::time::Instant;

use super::found::{Found, There};
use super::{Look, TIME};
use crate::core::Core;
use crate::hooks::{Started, Told, known, start};

/// So much of a kind is started in one look. More is no missed delivery: a repository was filled, or came back, and forges
/// don't tell of that either.
const MOST_STARTED: usize = 50;
/// For how long something that is tried is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// References that are compared in one go, before others of the runtime have their turn.
const A_FEW: usize = 50;

impl Look {
    /// Deals with what is there and was not before.
    pub(in crate::hooks) async fn compare(
        &self,
        core: &Arc<Core>,
        task: &Task,
        kind: ReferenceKind,
        found: Found,
    ) -> Result<Compared, StoreError> {
        // It may have been changed while its repository was asked: then it is another one's turn.
        let now = core.tasks.task(&task.name).await?;
        let is_same = |now: &Task| (now.created, now.generation) == (task.created, task.generation);
        if now.is_none_or(|now| !is_same(&now)) {
            return Ok(Compared::default());
        }
        let seen = core.references.seen_references(&task.name).await?;
        let is_first = !seen.looked.contains(&kind);
        let (mut changed, gone) = away(&seen, kind, &found);
        let (mut compared, mut starts, mut failure) = (Compared::default(), Vec::new(), None);
        // Read once for all of them.
        let rules: BTreeMap<Provider, SourceRules<'_>> = task
            .providers()
            .into_iter()
            .map(|provider| (provider, task.rules(provider, |pool| self.marked.contains(pool))))
            .collect();
        for (index, (reference, there)) in found.into_iter().enumerate() {
            if index % A_FEW == 0 {
                tokio::task::yield_now().await;
            }
            let earlier = seen.at.get(&reference).cloned().unwrap_or_default();
            let was = earlier.done.clone();
            if is_first {
                // What becomes ready later is new then.
                if !is_draft(&there) {
                    let at = SeenAt { done: Some(there.at), seen: None };
                    changed.push(ChangedReference { reference, was, at });
                }
                continue;
            }
            let at = if earlier.done.as_ref().is_some_and(|done| there.is_at(done)) {
                earlier.seen.is_some().then_some(SeenAt { done: earlier.done, seen: None })
            } else {
                match judge(core, task, &rules, &there, &earlier).await {
                    Ok(Judged::Done) => Some(SeenAt { done: Some(there.at), seen: None }),
                    Ok(Judged::Waits) => {
                        compared.waits = true;
                        Some(SeenAt { done: earlier.done, seen: Some(there.at) })
                    }
                    // It waits for nothing.
                    Ok(Judged::Left) => earlier.seen.is_some().then_some(SeenAt { done: earlier.done, seen: None }),
                    Ok(Judged::Starts(fired)) => {
                        starts.push(Start { reference, there, was, fired });
                        continue;
                    }
                    // The others are looked at all the same.
                    Err(error) => {
                        failure = failure.or(Some(error));
                        None
                    }
                }
            };
            changed.extend(at.map(|at| ChangedReference { reference, was, at }));
        }
        start_all(core, task, starts, &mut changed, &mut compared, &mut failure).await;
        if is_first || !changed.is_empty() || !gone.is_empty() {
            core.references.put_references(task, kind, changed, gone).await?;
        }
        failure.map_or(Ok(compared), Err)
    }
}

/// What came of comparing what is there with what was.
#[derive(Debug, Default)]
pub(in crate::hooks) struct Compared {
    /// Whether something has to wait for the next look.
    pub(in crate::hooks) waits: bool,
    /// What is new and started nothing, with the reasons.
    pub(super) refusals: Vec<NewRefusal>,
}

/// What is not there any more: noted at the first look, by what was dealt with being what was seen, and forgotten at the
/// second one. Lists that lack something for a moment are no reason to take it for new afterwards.
fn away(seen: &SeenReferences, kind: ReferenceKind, found: &Found) -> (Vec<ChangedReference>, Vec<Reference>) {
    let (mut noted, mut gone) = (Vec::new(), Vec::new());
    for (reference, at) in seen.at.iter().filter(|(reference, _)| reference.kind() == kind) {
        if found.contains_key(reference) {
            continue;
        }
        let reference = reference.clone();
        if at.done.is_none() || at.seen == at.done {
            gone.push(reference);
        } else {
            let (was, done) = (at.done.clone(), at.done.clone());
            noted.push(ChangedReference { reference, was, at: SeenAt { seen: done.clone(), done } });
        }
    }
    (noted, gone)
}

/// Something that nobody told of, and the triggers that it sets off.
struct Start {
    reference: Reference,
    there: There,
    was: Option<CommitId>,
    fired: Vec<(Provider, Fired)>,
}

/// Starts what nobody told of, if it is not too much.
async fn start_all(
    core: &Arc<Core>,
    task: &Task,
    starts: Vec<Start>,
    changed: &mut Vec<ChangedReference>,
    compared: &mut Compared,
    failure: &mut Option<StoreError>,
) {
    let (count, begun) = (starts.len(), Instant::now());
    let is_too_much = count > MOST_STARTED;
    if is_too_much {
        tracing::warn!(task = %task.name, count, "too much is new at once in a task's repository to be missed: nothing is started");
        compared.refusals.push(NewRefusal {
            task: task.name.clone(),
            event: "a look at the repository".to_owned(),
            rule: format!(
                "{count} are new at once, which is too much to be missed deliveries (more than {MOST_STARTED})"
            ),
        });
    }
    let mut waits = false;
    for Start { reference, there, was, fired } in starts {
        let started = if is_too_much {
            Ok(true)
        } else if waits || begun.elapsed() > TIME {
            // Others' repositories have their turn.
            Ok(false)
        } else {
            start_one(core, task, &reference, &there, fired, &mut compared.refusals).await
        };
        let at = match started {
            Ok(true) => SeenAt { done: Some(there.at), seen: None },
            Ok(false) => {
                waits = true;
                SeenAt { done: was.clone(), seen: Some(there.at) }
            }
            Err(error) => {
                *failure = failure.take().or(Some(error));
                continue;
            }
        };
        changed.push(ChangedReference { reference, was, at });
    }
    compared.waits |= waits;
}

/// Starts what an event that nobody told of sets off, and tells whether that is dealt with.
async fn start_one(
    core: &Arc<Core>,
    task: &Task,
    reference: &Reference,
    there: &There,
    fired: Vec<(Provider, Fired)>,
    refusals: &mut Vec<NewRefusal>,
) -> Result<bool, StoreError> {
    // What it was before is not a part of the event that is made up for it.
    let what = match reference {
        Reference::Branch(name) => format!("branch {name} is at {}", there.at.short()),
        Reference::Tag(name) => format!("tag {name} is at {}", there.at.short()),
        Reference::PullRequest(_) => there.event.what(),
    };
    tracing::warn!(task = %task.name, what, "no delivery told of an event: found by looking");
    let at = core.hooks.tried_since(&task.name, reference, core.clock.now(), REMEMBERED);
    for (provider, fired) in fired {
        match start(core, task, provider, fired, Told { delivery: None, at }).await? {
            Started::Run(_) | Started::Known(_) => {}
            Started::No(why) => {
                tracing::warn!(task = %task.name, what, why, "an event that was found started no run");
                let event = format!("{what}, as was found by looking");
                refusals.push(NewRefusal { task: task.name.clone(), event, rule: why });
            }
            Started::Later => return Ok(false),
        }
    }
    core.hooks.tried(&task.name, reference);
    Ok(true)
}

fn is_draft(there: &There) -> bool {
    matches!(&there.event.change, SourceChange::PullRequest(pull) if pull.draft)
}

/// What is to be done about something that is elsewhere than before.
enum Judged {
    /// Nothing.
    Done,
    /// It waits for the next look.
    Waits,
    /// It is looked at anew the next time, as if it were not there.
    Left,
    /// It starts these.
    Starts(Vec<(Provider, Fired)>),
}

/// Judges what is elsewhere than before; nothing is started where its delivery may be on its way.
async fn judge(
    core: &Arc<Core>,
    task: &Task,
    rules: &BTreeMap<Provider, SourceRules<'_>>,
    there: &There,
    earlier: &SeenAt,
) -> Result<Judged, StoreError> {
    let (mut refused, mut starts) = (true, Vec::new());
    for (provider, rules) in rules.iter().filter(|(one, _)| there.provider.is_none_or(|only| only == **one)) {
        // Whatever a rule says no to needs no delivery.
        let Ok(fired) = rules.fires(&there.event) else { continue };
        refused = false;
        if known(core, &task.name, &fired).await?.is_none() {
            starts.push((*provider, *fired));
        }
    }
    Ok(if starts.is_empty() {
        if refused && is_draft(there) { Judged::Left } else { Judged::Done }
    } else if earlier.seen.as_ref() != Some(&there.at) || core.hook_store.next_delivery(&task.name, 0).await?.is_some()
    {
        Judged::Waits
    } else {
        Judged::Starts(starts)
    })
}
