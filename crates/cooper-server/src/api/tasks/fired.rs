//! What starts a task by the clock, and what did not start it.

use axum::Json;
use axum::extract::State;
use cooper_api::rest::{FiredView, ListTimersQuery, Moment, RefusalList, RefusalView, TimerList, TimerView};
use cooper_engine::task::{Task, Timer};
use cooper_ports::hooks::{EventOutcome, Outcome};
use cooper_ports::references::LookWay;
use cooper_ports::waves::Refusal;
use cooper_types::TaskName;

use super::{ApiState, PathId, Query, find, hooks, invalid, settings};
use crate::problem::ApiResult;

/// What became of so many instants is told of each timer.
const FIRED: u32 = 16;
/// How many of the newest are looked through for refusals: those that led to something stand between them.
const LOOKED_THROUGH: u32 = 500;

/// `GET /tasks/{id}/timers`
pub(in crate::api) async fn timers(
    State(state): State<ApiState>,
    PathId(name): PathId<TaskName>,
    Query(query): Query<ListTimersQuery>,
) -> ApiResult<Json<TimerList>> {
    let count = query.count.unwrap_or(1);
    if count == 0 || count > ListTimersQuery::MAX_COUNT {
        return Err(invalid(format!("count is {count}; it must be 1 to {}", ListTimersQuery::MAX_COUNT)));
    }
    let record = find(&state.core, &name).await?;
    let fired = state.core.tasks.list_fired(&name, FIRED).await?;
    let timers = record.task.timers.iter().map(|(name, timer)| {
        let next = std::iter::successors(record.next.get(name).copied(), |last| timer.schedule.next_after(*last));
        let last = fired.iter().filter(|fired| fired.timer == *name).map(|fired| FiredView {
            schedule_occurrence: fired.instant,
            run_id: fired.outcome.as_ref().ok().copied(),
            why_not: fired.outcome.as_ref().err().cloned(),
        });
        TimerView {
            name: name.clone(),
            settings: settings::timer_view(timer),
            next: next.take(count as usize).map(Moment).collect(),
            last: last.collect(),
        }
    });
    let task_status = settings::status(record.task.enabled);
    Ok(Json(TimerList { value: timers.collect(), task_status }))
}

/// Timers that stand before no instant.
fn stopped_timers(task: &Task) -> Option<RefusalView> {
    let names = |stopped: &dyn Fn(&Timer) -> bool| {
        let names = task.timers.iter().filter(|(_, timer)| stopped(timer)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let (stopped, rule) = match task.enabled {
        false => (names(&|_| true), format!("the task is disabled: `cooper task enable {}`", task.name)),
        true => {
            let stopped = names(&|timer| !timer.enabled);
            let way_out = format!("cooper task timer update --name {} --timer-name NAME --enabled true", task.name);
            (stopped, format!("disabled: `{way_out}`"))
        }
    };
    let event = format!("instants of timer {stopped}");
    (!stopped.is_empty()).then_some(RefusalView { time: task.updated, event, rule })
}

/// `GET /tasks/{id}/refusals`: of base images, of timers, of what forges told of, and of looks for what they did not tell of.
pub(in crate::api) async fn refusals(
    State(state): State<ApiState>,
    PathId(name): PathId<TaskName>,
) -> ApiResult<Json<RefusalList>> {
    let core = &state.core;
    let record = find(core, &name).await?;
    let noted = core.waves.list_refusals(&name, FIRED).await?.into_iter();
    let mut all: Vec<RefusalView> =
        noted.map(|Refusal { at, event, rule }| RefusalView { time: at, event, rule }).collect();
    let fired = core.tasks.list_fired(&name, LOOKED_THROUGH).await?.into_iter();
    all.extend(fired.filter_map(|fired| {
        let rule = fired.outcome.err()?;
        let event = format!("timer {} was due at {}", fired.timer, fired.instant);
        Some(RefusalView { time: fired.at, event, rule })
    }));
    for delivery in core.hook_store.list_deliveries(&name, LOOKED_THROUGH).await? {
        for EventOutcome { what, outcome } in delivery.outcomes.into_iter().flatten() {
            let rule = match outcome {
                Outcome::Refused(refusal) => refusal.text,
                Outcome::Failed(why) => why,
                Outcome::Started(_) | Outcome::Known(_) => continue,
            };
            all.push(RefusalView { time: delivery.received, event: what, rule });
        }
    }
    all.extend(hooks::looks(core, &record).await?.into_iter().filter_map(|(way, look)| {
        let event = match way {
            LookWay::Git => "the repository was to be looked at for what no webhook told of",
            LookWay::Forge => "the forge was to be asked for pull requests that no webhook told of",
        };
        let rule = format!("{}; it is tried again at {}", look.fault?, look.next);
        Some(RefusalView { time: look.at, event: event.to_owned(), rule })
    }));
    all.extend(record.hooks.iter().filter_map(|hook| {
        let seen = core.hooks.seen(&hook.id);
        let (time, rule) = seen.why?;
        // Nothing but a counter is kept of them.
        let (provider, passed_over, refused) = (hook.provider, seen.passed_over, seen.refused);
        let event = format!(
            "of what came to the hook of {provider} since the server's start, {passed_over} were passed over and {refused} \
             refused; the last of these"
        );
        Some(RefusalView { time, event, rule })
    }));
    all.extend(stopped_timers(&record.task));
    all.sort_by_key(|refusal| std::cmp::Reverse(refusal.time));
    all.truncate(FIRED as usize);
    Ok(Json(RefusalList { value: all }))
}
