//! One request of a forge: found, looked at, read, verified, parsed, kept, in this order.
//!
//! Who does not know a hook's id and its secret leaves nothing but a counter. Neither does a signed delivery that none of
//! the task's triggers listens to: a ping, another branch, another repository.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{DeliveryAnswer, ReceiptStatus};
use cooper_engine::task::Task;
use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use cooper_forge::{Delivery, DeliveryId};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::hooks::{FoundHook, KeptDelivery};
use cooper_types::{HookId, PrincipalName, SecretBytes, Timestamp};
use http::HeaderMap;

use super::body::{self, LARGE, NO_ROOM, NO_SHARE, Read};
use super::purpose;
use super::rooms::{MANY_PATTERNS, Side};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};

/// Takes a delivery. When this has answered, it is there after any crash.
pub(crate) async fn receive(core: &Arc<Core>, text: &str, headers: HeaderMap, body: Body) -> ApiResult<DeliveryAnswer> {
    let unknown = || {
        core.metrics.received("unknown");
        ApiError::not_found("this hook")
    };
    let Ok(id) = HookId::parse(text) else { return Err(unknown()) };
    let Some(hook) = core.hook_store.find_hook(&id).await? else { return Err(unknown()) };
    let (name, whose, provider) = (hook.task.name.clone(), hook.task.principal.clone(), hook.provider);
    let refused = |Refused { counter, why, code }: Refused| {
        core.metrics.received(counter);
        tracing::info!(task = %name, %provider, why, "delivery refused");
        core.hooks.note(&id, core.clock.now(), |seen| {
            seen.refused += 1;
            seen.why = Some((core.clock.now(), why.clone()));
        });
        ApiError::new(code, why)
    };
    let secrets = secrets(core, &id, &hook)?;
    cooper_forge::verify_head(provider, &secrets, &headers, core.clock.now())
        .map_err(|error| refused(Refused::unsigned(&error)))?;
    let read = body::read(&core.hooks.rooms, &whose, &headers, body).await;
    let mut read = read.map_err(|fault| refused(Refused::unread(fault)))?;
    let is_long = read.bytes.len() > LARGE || hook.task.patterns() > MANY_PATTERNS;
    let sent = Sent { provider, secrets, headers, body: read.bytes.clone(), now: core.clock.now() };
    let understood = match is_long {
        false => sent.understand(&hook.task),
        true => beside(core, &whose, &mut read, move || sent.understand(&hook.task)).await,
    };
    let understood = understood.map_err(&refused)?;
    let now = core.clock.now();
    let (delivery, events) = match understood {
        Understood::Heard { delivery, events } => (delivery, events),
        Understood::PassedOver { why } => {
            core.metrics.received("passed_over");
            core.hooks.note(&id, now, |seen| {
                seen.passed_over += 1;
                seen.why = Some((now, why.clone()));
            });
            return Ok(DeliveryAnswer { status: ReceiptStatus::PassedOver, detail: Some(why) });
        }
    };
    // To its end, also where the forge hangs up: it is worked off as soon as it is kept. What it took is given back then.
    let keep = {
        let (core, id, name, whose) = (Arc::clone(core), id.clone(), name.clone(), whose);
        let delivery = delivery.clone();
        async move {
            let kept = core.hook_store.keep_delivery(&id, delivery.as_str(), events).await?;
            failpoint::pass(Failpoint::DeliveryKept);
            drop(read);
            if kept == KeptDelivery::New {
                core.hooks.come(name, whose);
            }
            Ok(kept)
        }
    };
    let kept = core.detached(keep).await?;
    match kept {
        KeptDelivery::New => {
            core.metrics.received("kept");
            core.hooks.note(&id, now, |seen| seen.kept += 1);
            Ok(DeliveryAnswer { status: ReceiptStatus::Kept, detail: None })
        }
        KeptDelivery::Repeated => {
            core.metrics.received("repeated");
            core.hooks.note(&id, now, |seen| seen.came_again(delivery.to_string(), now));
            Ok(DeliveryAnswer { status: ReceiptStatus::Repeated, detail: None })
        }
        KeptDelivery::Full => {
            let why =
                "too many deliveries of this hook wait to be worked off; send it again in some minutes".to_owned();
            Err(refused(Refused { counter: "full", why, code: ProblemCode::TooManyRequests }))
        }
        KeptDelivery::Gone => Err(unknown()),
    }
}

/// Understands beside the runtime what takes long, as the principal's share and the processors allow.
async fn beside(
    core: &Core,
    whose: &PrincipalName,
    read: &mut Read,
    work: impl FnOnce() -> Result<Understood, Refused> + Send + 'static,
) -> Result<Understood, Refused> {
    if read.share.is_none() {
        read.share = Some(core.hooks.rooms.share(whose).await.ok_or_else(|| Refused::unread(NO_SHARE))?);
    }
    let processor = core.hooks.rooms.processor_in_time(Side::Receive).await.ok_or_else(|| Refused::unread(NO_ROOM))?;
    processor.work(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a delivery's parsing panicked");
        Err(Refused::unread((ProblemCode::InvalidRequest, "the delivery can't be read")))
    })
}

/// Why a delivery is not taken.
struct Refused {
    counter: &'static str,
    why: String,
    code: ProblemCode,
}

impl Refused {
    fn unsigned(error: &cooper_forge::Unsigned) -> Self {
        Self { counter: "unsigned", why: chain(error), code: ProblemCode::Unsigned }
    }

    fn unread((code, why): body::Fault) -> Self {
        Self { counter: "unreadable", why: why.to_owned(), code }
    }
}

/// What a delivery says.
enum Understood {
    /// The task listens to it.
    Heard { delivery: DeliveryId, events: Vec<SourceEvent> },
    /// It does not.
    PassedOver { why: String },
}

/// A request that is whole.
struct Sent {
    provider: Provider,
    secrets: Vec<SecretBytes>,
    headers: HeaderMap,
    body: Bytes,
    now: Timestamp,
}

impl Sent {
    /// Verifies it, reads it, and asks the task whether it listens.
    fn understand(self, task: &Task) -> Result<Understood, Refused> {
        let Self { provider, secrets, headers, body, now } = self;
        cooper_forge::verify(provider, &secrets, &headers, &body, now).map_err(|error| Refused::unsigned(&error))?;
        let Delivery { id: delivery, events } = cooper_forge::parse(provider, &headers, &body).map_err(|error| {
            Refused { counter: "unreadable", why: chain(&error), code: ProblemCode::InvalidRequest }
        })?;
        Ok(match passed_over(task, provider, &events) {
            Some(why) => Understood::PassedOver { why },
            None => Understood::Heard { delivery, events },
        })
    }
}

/// The secrets that a hook takes now.
fn secrets(core: &Core, id: &HookId, hook: &FoundHook) -> ApiResult<Vec<SecretBytes>> {
    let previous = hook.previous.iter().filter(|(_, until)| core.clock.now() < *until).map(|(sealed, _)| sealed);
    let sealed = std::iter::once(&hook.sealed).chain(previous);
    let secrets = sealed.map(|sealed| core.key.unseal(&purpose(id), sealed));
    secrets.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(task = %hook.task.name, error = chain(&error), "secret of a hook can't be read");
        ApiError::new(ProblemCode::Internal, "the hook's secret can't be read; give it another one")
    })
}

/// Why no event is for the task, in rules that are asked before anything of the change counts. What such a rule says no to
/// is not kept. A fork's pull request, a draft, `[skip ci]` and paths are: somebody will ask for them.
fn passed_over(task: &Task, provider: Provider, events: &[SourceEvent]) -> Option<String> {
    let rules = task.rules(provider, |_| false);
    let mut why = "it tells of nothing".to_owned();
    for event in events {
        match rules.hear(event) {
            Ok(()) => return None,
            Err(refusal) => why = refusal.text,
        }
    }
    Some(why)
}
