//! Random histories of a run: whatever happens, the rows beside a run's state say what the state says.

use std::time::Duration;

use cooper_engine::message::{PushedManifest, StepOutput, StepResult};
use cooper_engine::run::{Policy, RunEvent};
use cooper_ports::clock::Clock;
use cooper_ports::runs::{ApplyError, RunStore};
use cooper_types::{AttemptNumber, Digest, Fence, RunId, StepId};
use proptest::prelude::*;
use sqlx::Row;

use crate::fixture::{Fixture, agent, principal, quick_build, upload};

#[derive(Clone, Debug)]
enum Act {
    Offer,
    Decline,
    Accept,
    Start,
    /// The newest attempt but this many ends in this way.
    End(u64, Outcome),
    Stopped,
    Renew,
    Replaced,
    Cancel,
    Tick(u64),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Built,
    Pushed,
    Failed,
    Lost,
    TimedOut,
}

fn act() -> impl Strategy<Value = Act> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Built),
        2 => Just(Outcome::Pushed),
        1 => Just(Outcome::Failed),
        2 => Just(Outcome::Lost),
        1 => Just(Outcome::TimedOut)
    ];
    prop_oneof![
        8 => Just(Act::Offer),
        1 => Just(Act::Decline),
        8 => Just(Act::Accept),
        3 => Just(Act::Start),
        6 => (0_u64..2, outcome).prop_map(|(back, outcome)| Act::End(back, outcome)),
        1 => Just(Act::Stopped),
        2 => Just(Act::Renew),
        1 => Just(Act::Replaced),
        1 => Just(Act::Cancel),
        3 => (0_u64..30).prop_map(Act::Tick),
        1 => Just(Act::Restart),
    ]
}

fn event(act: &Act, fence: Fence, newest: AttemptNumber) -> RunEvent {
    match act {
        Act::Offer => RunEvent::Offer { placement: 0, agent: agent() },
        Act::Decline => RunEvent::Declined { fence, why: "busy".to_owned() },
        Act::Accept => RunEvent::Accepted { fence, host: None },
        Act::Start => RunEvent::StepStarted { fence, attempt: newest },
        Act::End(back, outcome) => {
            let attempt = AttemptNumber(newest.0.saturating_sub(*back));
            RunEvent::StepEnded { fence, attempt, result: result(*outcome) }
        }
        Act::Stopped => RunEvent::Stopped { fence },
        Act::Renew => RunEvent::Renewed { fence },
        Act::Replaced => {
            let mut agent = agent();
            agent.incarnation = "second".to_owned();
            RunEvent::AgentReplaced { agent }
        }
        Act::Cancel => RunEvent::CancelRequested { by: principal("alice") },
        Act::Tick(_) => RunEvent::Tick,
        Act::Restart => RunEvent::ServerStarted,
    }
}

fn result(outcome: Outcome) -> StepResult {
    match outcome {
        Outcome::Built => StepResult::Succeeded {
            output: StepOutput::Built {
                image: Digest::sha256(b"image"),
                bases: Vec::new(),
                frontend: None,
                context: None,
            },
        },
        Outcome::Pushed => {
            StepResult::Succeeded { output: StepOutput::Pushed { manifests: Vec::<PushedManifest>::new() } }
        }
        Outcome::Failed => StepResult::Failed { exit_code: Some(1), reason: "it broke".to_owned() },
        Outcome::Lost => StepResult::Lost { reason: "engine went away".to_owned() },
        Outcome::TimedOut => StepResult::TimedOut,
    }
}

async fn check(fixture: &Fixture, id: RunId) {
    let record = fixture.store.find_run(id).await.unwrap().unwrap();
    let run = &record.run;
    let live: Vec<(StepId, AttemptNumber)> = run
        .steps
        .iter()
        .zip(&run.plan.steps)
        .filter_map(|(step, planned)| Some((planned.id.clone(), step.state.live_attempt()?)))
        .collect();
    let rows = sqlx::query("SELECT step_id, attempt FROM live_attempts ORDER BY attempt");
    let rows = rows.fetch_all(fixture.store.readers()).await.unwrap();
    let stored: Vec<(StepId, AttemptNumber)> = rows
        .iter()
        .map(|row| (StepId::parse(row.get("step_id")).unwrap(), AttemptNumber(row.get::<i64, _>("attempt") as u64)))
        .collect();
    assert_eq!(stored, live);
    let columns = sqlx::query("SELECT status, started, finished FROM runs WHERE number = 1");
    let columns = columns.fetch_one(fixture.store.readers()).await.unwrap();
    assert_eq!(columns.get::<&str, _>("status"), run.status().as_str());
    assert_eq!(columns.get::<Option<i64>, _>("started"), run.started.map(|time| time.as_micros()));
    assert_eq!(columns.get::<Option<i64>, _>("finished"), run.finished().map(|time| time.as_micros()));
    let over = run.status().is_terminal();
    assert_eq!(record.log.complete, over);
    assert_eq!(fixture.unfinished_runs().await.is_empty(), over);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn rows_say_what_the_state_says(acts in proptest::collection::vec(act(), 1..30)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let fixture = Fixture::new().await;
            upload(&fixture.store, "alice", "source").await;
            let accepted = fixture.store.accept_run(quick_build("alice", "source")).await.unwrap();
            let mut run = accepted.record.run;
            for act in &acts {
                if let Act::Tick(seconds) = act {
                    fixture.clock.advance(Duration::from_secs(*seconds));
                }
                let event = event(act, run.last_fence, run.last_attempt);
                // The state machine alone, beside the store.
                let mut expect = run.clone();
                let decided = expect.apply(event.clone(), fixture.clock.now(), &Policy::DEFAULT);
                match fixture.apply(run.id, event).await {
                    Ok(applied) => {
                        assert!(decided.is_ok());
                        assert_eq!(applied.run, expect);
                        run = applied.run;
                    }
                    Err(ApplyError::Refused { refusal, .. }) => assert_eq!(decided, Err(refusal)),
                    // Nothing was pushed in this test, so a push can't be reported: the event is rolled back whole.
                    Err(ApplyError::NotPushed { .. }) => assert!(decided.is_ok()),
                    Err(error) => panic!("{}", crate::fixture::chain(&error)),
                }
                assert_eq!(fixture.store.find_run(run.id).await.unwrap().unwrap().run, run);
                check(&fixture, run.id).await;
            }
        });
    }
}
