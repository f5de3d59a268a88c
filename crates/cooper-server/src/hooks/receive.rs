//! One request of a forge: found, read, verified, parsed, kept, in this order.
//!
//! Who does not know a hook's id and its secret leaves nothing but a counter. Neither does a signed delivery that none of
//! the task's triggers listens to: a ping, another branch, another repository.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{DeliveryAnswer, ReceiptStatus};
use cooper_engine::task::Task;
use cooper_engine::trigger::Rule;
use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use cooper_forge::{Delivery, MAX_BODY};
use cooper_ports::hooks::FoundHook;
use cooper_types::{HookId, SecretBytes};
use http::HeaderMap;
use http_body_util::BodyExt as _;

use super::purpose;
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// A body that is larger than this is parsed beside the others' work.
const LARGE: usize = 128 << 10;

/// Takes a delivery. When this has answered, it is there after any crash.
pub(crate) async fn receive(core: &Arc<Core>, text: &str, headers: HeaderMap, body: Body) -> ApiResult<DeliveryAnswer> {
    let unknown = || {
        core.metrics.received("unknown");
        ApiError::not_found("this hook")
    };
    let Ok(id) = HookId::parse(text) else { return Err(unknown()) };
    let Some(hook) = core.hook_store.find_hook(&id).await? else { return Err(unknown()) };
    let refused = |counter: &'static str, why: String, code: ProblemCode| {
        core.metrics.received(counter);
        tracing::info!(task = %hook.task.name, provider = %hook.provider, why, "delivery refused");
        core.hooks.note(&id, core.clock.now(), |seen| {
            seen.refused += 1;
            seen.why = Some((core.clock.now(), why.clone()));
        });
        ApiError::new(code, why)
    };
    let body = read(core, body).await.map_err(|(code, why)| refused("unreadable", why.to_owned(), code))?;
    let secrets = secrets(core, &id, &hook)?;
    let provider = hook.provider;
    cooper_forge::verify(provider, &secrets, &headers, &body, core.clock.now())
        .map_err(|error| refused("unsigned", chain(&error), ProblemCode::Unauthorized))?;
    let parsed = match body.len() {
        0..=LARGE => cooper_forge::parse(provider, &headers, &body),
        _ => tokio::task::spawn_blocking(move || cooper_forge::parse(provider, &headers, &body)).await.map_err(
            |error| {
                tracing::error!(%error, "a delivery's parsing panicked");
                refused("unreadable", "the delivery can't be read".to_owned(), ProblemCode::InvalidRequest)
            },
        )?,
    };
    let Delivery { id: delivery, events } =
        parsed.map_err(|error| refused("unreadable", chain(&error), ProblemCode::InvalidRequest))?;
    let now = core.clock.now();
    if let Some(why) = passed_over(&hook.task, provider, &events) {
        core.metrics.received("passed_over");
        core.hooks.note(&id, now, |seen| {
            seen.passed_over += 1;
            seen.why = Some((now, why.clone()));
        });
        return Ok(DeliveryAnswer { status: ReceiptStatus::PassedOver, detail: Some(why) });
    }
    let is_new = core.hook_store.keep_delivery(&id, delivery.as_str(), events).await?;
    core.hooks.note(&id, now, |seen| seen.kept += u64::from(is_new));
    if !is_new {
        core.metrics.received("repeated");
        return Ok(DeliveryAnswer { status: ReceiptStatus::Repeated, detail: None });
    }
    core.metrics.received("kept");
    core.hooks.wake.notify_one();
    Ok(DeliveryAnswer { status: ReceiptStatus::Kept, detail: None })
}

async fn read(core: &Core, body: Body) -> Result<bytes::Bytes, (ProblemCode, &'static str)> {
    let read = async {
        let _room = core.hooks.room.acquire().await;
        http_body_util::Limited::new(body, MAX_BODY).collect().await
    };
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err((ProblemCode::RequestTooLarge, "the delivery is larger than 16 MiB; push in smaller parts"))
        }
        Ok(Err(_)) => Err((ProblemCode::InvalidRequest, "the delivery was cut off")),
        Err(_) => Err((ProblemCode::InvalidRequest, "the delivery took more than 30 s")),
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
    let mut why = "it tells of nothing".to_owned();
    for event in events {
        match task.fires(provider, event, |_| true) {
            Ok(_) => return None,
            Err(refusal) => match refusal.rule {
                Rule::Fork | Rule::Draft | Rule::SkipCi | Rule::Paths => return None,
                Rule::Enabled | Rule::Event | Rule::Repository | Rule::Action | Rule::Branch | Rule::Tag => {
                    why = refusal.text;
                }
            },
        }
    }
    Some(why)
}
