//! A stored run as the API shows it.

use cooper_api::rest;
use cooper_engine::message::{PushedManifest, StepOutput};
use cooper_engine::run::{Run, RunSource, RunStatus, Step, StepState};
use cooper_engine::task::{Cause, ImageUpdate, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_ports::runs::{OutputImage, RunRecord, RunType, StepBase};
use cooper_spec::plan::{PushedName, Work};
use cooper_spec::source::RemoteSource;
use cooper_types::{ImageRef, StepId, Tag};

/// The registry that a reference without one means.
const DOCKER_HUB: &str = "docker.io";

/// The record of a run.
pub(crate) fn run_view(record: &RunRecord) -> rest::Run {
    let run = &record.run;
    let found = run.source.as_ref().and_then(RunSource::found);
    let first = || run.plan.placements.first().map(|placement| &placement.platform);
    let platform = run.platform.as_ref().or_else(first).map(rest::PlatformView::from);
    rest::Run {
        run_id: run.id,
        name: run.id.to_string(),
        id: format!("{}/runs/{}", rest::API_PREFIX, run.id),
        status: rest_status(run.status()),
        run_type: rest_run_type(record.run_type),
        create_time: run.created,
        start_time: run.started,
        finish_time: run.finished(),
        last_updated_time: record.updated,
        task: run.origin.task.as_ref().map(|task| task.name.to_string()),
        output_images: record
            .output_images
            .iter()
            .map(|image| rest::OutputImage {
                registry: image.registry.to_string(),
                repository: image.repository.to_string(),
                tag: Some(image.tag.to_string()),
                digest: Some(image.digest.to_string()),
            })
            .collect(),
        platform: platform.unwrap_or_else(|| rest::PlatformView::from(&cooper_types::Platform::LINUX_AMD64)),
        agent_configuration: run.origin.task.as_ref().map(|task| rest::AgentConfiguration { cpu: Some(task.cpu) }),
        agent_pool_name: Some(run.pool.to_string()),
        run_error_message: run.error_message(),
        is_archive_enabled: record.archived,
        provisioning_state: rest::ProvisioningState::Succeeded,
        rerun_of: run.rerun_of(),
        rerun: run
            .provenance
            .replay
            .as_ref()
            .map(|replay| rest::RerunView { failed: replay.done.is_some(), fresh: replay.fresh }),
        timer_trigger: match &run.origin.cause {
            Cause::Timer { timer, occurrence, missed } => Some(rest::TimerTrigger {
                timer_trigger_name: timer.clone(),
                schedule_occurrence: *occurrence,
                is_catch_up: *missed,
            }),
            Cause::Manual | Cause::For { .. } | Cause::BaseImage { .. } | Cause::Source(_) => None,
        },
        source_trigger: match &run.origin.cause {
            Cause::Source(cause) => Some(source_trigger(cause)),
            Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::BaseImage { .. } => None,
        },
        image_update_trigger: match &run.origin.cause {
            Cause::BaseImage { wave, images } => Some(rest::ImageUpdateTrigger {
                id: *wave,
                timestamp: run.created,
                images: images.iter().map(updated_image).collect(),
            }),
            Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::Source(_) => None,
        },
        requested_by: match &run.origin.cause {
            Cause::For { by } => Some(by.clone()),
            Cause::Manual | Cause::Timer { .. } | Cause::BaseImage { .. } | Cause::Source(_) => None,
        },
        pending_reason: run.pending_reason().map(ToString::to_string),
        principal: run.principal.clone(),
        timeout: u32::try_from(run.timeout.as_secs()).unwrap_or(u32::MAX),
        steps: (0..run.steps.len()).map(|step| step_view(run, step)).collect(),
        dependencies: dependencies(record),
        image_names: run.plan.pushed_images().map(ToString::to_string).collect(),
        source_location: run
            .source
            .as_ref()
            .map(RunSource::location)
            .filter(|location| !matches!(location, RemoteSource::Uploaded(_)))
            .map(RemoteSource::shown),
        source_commit: found.and_then(|found| found.commit.clone()),
        source_branch: found.and_then(|found| found.branch.clone()),
    }
}

/// What happened in a repository.
fn source_trigger(cause: &SourceCause) -> rest::SourceTriggerView {
    let firing = &cause.firing;
    rest::SourceTriggerView {
        id: cause.delivery.clone(),
        event_type: firing.event_type().to_owned(),
        commit_id: firing.commit.as_str().to_owned(),
        previous_commit_id: firing.before.as_ref().map(|commit| commit.as_str().to_owned()),
        pull_request_id: match &firing.kind {
            FiringKind::PullRequest { number, .. } => Some(number.to_string()),
            FiringKind::Commit { .. } | FiringKind::Tag { .. } => None,
        },
        repository_url: cause.repository.clone(),
        branch_name: firing.branch().map(ToString::to_string),
        tag_name: match &firing.kind {
            FiringKind::Tag { tag } => Some(tag.to_string()),
            FiringKind::Commit { .. } | FiringKind::PullRequest { .. } => None,
        },
        provider_type: cause.provider.to_string(),
        trigger_name: cause.trigger.clone(),
        notes: firing.notes.clone(),
    }
}

fn updated_image(image: &ImageUpdate) -> rest::UpdatedImage {
    rest::UpdatedImage {
        registry: image.registry.to_string(),
        repository: image.repository.to_string(),
        tag: image.tag.to_string(),
        digest: image.to.to_string(),
        previous_digest: image.from.as_ref().map(ToString::to_string),
    }
}

fn step_view(run: &Run, index: usize) -> rest::RunStep {
    let (step, planned) = (&run.steps[index], &run.plan.steps[index]);
    let waiting = run.waiting(index);
    let waits_for = waiting.iter().flat_map(|waiting| &waiting.steps);
    let (exit_code, reason) = match &step.state {
        StepState::Failed { exit_code, reason, ignored: false, .. } => (*exit_code, Some(reason.clone())),
        StepState::Failed { exit_code, reason, ignored: true, .. } => {
            (*exit_code, Some(format!("{reason} (ignored: the step says ignoreErrors)")))
        }
        StepState::Cancelled { .. } => (None, Some("stopped, because the run ended before it did".to_owned())),
        StepState::Skipped => (None, Some("not begun, because the run ended before".to_owned())),
        StepState::Waiting | StepState::Running { .. } | StepState::Succeeded { .. } => (None, None),
    };
    rest::RunStep {
        id: planned.id.clone(),
        step_type: step_type(&planned.work),
        status: match &step.state {
            StepState::Waiting => rest::StepStatus::Pending,
            StepState::Running { .. } => rest::StepStatus::Running,
            StepState::Succeeded { .. } => rest::StepStatus::Succeeded,
            // In ACR's words, a step whose errors are ignored is successful.
            StepState::Failed { ignored: true, .. } => rest::StepStatus::Succeeded,
            StepState::Failed { ignored: false, .. } => rest::StepStatus::Failed,
            StepState::Cancelled { .. } => rest::StepStatus::Canceled,
            StepState::Skipped => rest::StepStatus::Skipped,
        },
        attempts: step.attempts,
        tries: (step.tries > 1).then_some(step.tries),
        start_time: step.state.began(),
        finish_time: step.state.finished(),
        exit_code,
        reason,
        agent: step.agent.as_ref().map(ToString::to_string),
        platform: run.plan.placements.get(planned.placement).map(|placement| placement.platform.to_string()),
        pushed: pushed(run, step),
        waits_for: waits_for.map(|step| run.plan.steps[*step].id.clone()).collect(),
        pending_reason: waiting.as_ref().and_then(|waiting| waiting.agent.map(|agent| agent.to_string())),
    }
}

/// What a push wrote.
fn pushed(run: &Run, step: &Step) -> Vec<rest::OutputImage> {
    let StepState::Succeeded { output: StepOutput::Pushed { manifests }, .. } = &step.state else { return Vec::new() };
    let image = |manifest: &PushedManifest| rest::OutputImage {
        registry: manifest.registry.as_ref().unwrap_or(&run.registry).to_string(),
        repository: manifest.repository.to_string(),
        // In the embedded registry it was pushed under a tag that is nobody's business.
        tag: manifest.registry.as_ref().map(|_| manifest.staging_tag.to_string()),
        digest: Some(manifest.digest.to_string()),
    };
    manifests.iter().map(image).collect()
}

/// What a step does.
pub(super) fn step_type(work: &Work) -> rest::StepType {
    match work {
        Work::Prepare(_) => rest::StepType::Prepare,
        Work::Build(_) => rest::StepType::Build,
        Work::Push(_) => rest::StepType::Push,
        Work::Command(_) => rest::StepType::Cmd,
    }
}

/// What each image stood on (contract §2.8): one record for each tag that a build's push moved, or one without an image.
fn dependencies(record: &RunRecord) -> Vec<rest::Dependency> {
    let plan = &record.run.plan;
    let found = record.run.source.as_ref().and_then(RunSource::found);
    let git = found.and_then(|found| found.commit.clone()).map(|revision| rest::GitHead { revision });
    let mut all = Vec::new();
    for (index, planned) in plan.steps.iter().enumerate().filter(|(_, planned)| matches!(planned.work, Work::Build(_)))
    {
        let succeeded = matches!(record.run.steps[index].state, StepState::Succeeded { .. });
        if !succeeded {
            continue;
        }
        let bases: Vec<&StepBase> = record.base_images.iter().filter(|base| base.step == planned.id).collect();
        let of_this = |name: &&PushedName| plan.is_made_by(&name.from, index);
        let pushed: Vec<(&StepId, &ImageRef)> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.work {
                Work::Push(push) if push.is_stage => None,
                Work::Push(push) => Some(push.names.iter().filter(of_this).map(|name| (&step.id, &name.image))),
                Work::Prepare(_) | Work::Build(_) | Work::Command(_) => None,
            })
            .flatten()
            .collect();
        let is_this = |image: &&OutputImage| {
            pushed.iter().any(|(step, name)| {
                **step == image.step
                    && name.repository == image.repository
                    && *name.tag.as_ref().unwrap_or(&Tag::latest()) == image.tag
            })
        };
        let images: Vec<Option<rest::ImageDependency>> = record
            .output_images
            .iter()
            .filter(is_this)
            .map(|image| {
                Some(rest::ImageDependency {
                    registry: image.registry.to_string(),
                    repository: image.repository.to_string(),
                    tag: Some(image.tag.to_string()),
                    digest: image.digest.to_string(),
                    reference: format!("{}/{}:{}", image.registry, image.repository, image.tag),
                })
            })
            .collect();
        let images = if images.is_empty() { vec![None] } else { images };
        let runtime = bases.iter().find(|base| base.base.runtime).map(|base| base_view(base));
        let buildtime: Vec<_> = bases.iter().filter(|base| !base.base.runtime).map(|base| base_view(base)).collect();
        all.extend(images.into_iter().map(|image| rest::Dependency {
            image,
            runtime_dependency: runtime.clone(),
            buildtime_dependency: (!buildtime.is_empty()).then(|| buildtime.clone()),
            git: git.clone(),
        }));
    }
    all
}

fn base_view(base: &StepBase) -> rest::ImageDependency {
    let reference = base.base.reference.clone();
    let digest = base.base.digest.as_ref().map(ToString::to_string).unwrap_or_default();
    match ImageRef::parse(&reference) {
        Ok(image) => rest::ImageDependency {
            registry: image.registry.map_or_else(|| DOCKER_HUB.to_owned(), |registry| registry.to_string()),
            repository: image.repository.to_string(),
            tag: image.tag.map(|tag| tag.to_string()),
            digest,
            reference,
        },
        // A stage built on something that is no reference would not have been built; show it rather than hide it.
        Err(_) => rest::ImageDependency {
            registry: String::new(),
            repository: reference.clone(),
            tag: None,
            digest,
            reference,
        },
    }
}

/// A status on the wire.
pub(crate) fn rest_status(status: RunStatus) -> rest::RunStatus {
    match status {
        RunStatus::Queued => rest::RunStatus::Queued,
        RunStatus::Started => rest::RunStatus::Started,
        RunStatus::Running => rest::RunStatus::Running,
        RunStatus::Succeeded => rest::RunStatus::Succeeded,
        RunStatus::Failed => rest::RunStatus::Failed,
        RunStatus::Canceled => rest::RunStatus::Canceled,
        RunStatus::Error => rest::RunStatus::Error,
        RunStatus::Timeout => rest::RunStatus::Timeout,
    }
}

/// A status from the wire.
pub(super) fn engine_status(status: rest::RunStatus) -> RunStatus {
    match status {
        rest::RunStatus::Queued => RunStatus::Queued,
        rest::RunStatus::Started => RunStatus::Started,
        rest::RunStatus::Running => RunStatus::Running,
        rest::RunStatus::Succeeded => RunStatus::Succeeded,
        rest::RunStatus::Failed => RunStatus::Failed,
        rest::RunStatus::Canceled => RunStatus::Canceled,
        rest::RunStatus::Error => RunStatus::Error,
        rest::RunStatus::Timeout => RunStatus::Timeout,
    }
}

/// A type of run on the wire.
pub(super) fn rest_run_type(run_type: RunType) -> rest::RunType {
    match run_type {
        RunType::QuickBuild => rest::RunType::QuickBuild,
        RunType::QuickRun => rest::RunType::QuickRun,
        RunType::AutoBuild => rest::RunType::AutoBuild,
        RunType::AutoRun => rest::RunType::AutoRun,
    }
}

/// A run type from the wire.
pub(super) fn ports_run_type(run_type: rest::RunType) -> RunType {
    match run_type {
        rest::RunType::QuickBuild => RunType::QuickBuild,
        rest::RunType::QuickRun => RunType::QuickRun,
        rest::RunType::AutoBuild => RunType::AutoBuild,
        rest::RunType::AutoRun => RunType::AutoRun,
    }
}

#[cfg(test)]
mod tests {
    use cooper_engine::message::StepResult;
    use cooper_engine::run::{AgentRef, PendingReason, RunEvent};
    use cooper_types::AgentName;

    use super::*;
    use crate::testing::{self, accept_git, accept_pushing};

    #[tokio::test]
    async fn a_step_says_what_it_waits_for() {
        let (core, _data) = testing::core().await;
        let id = accept_pushing(&core).await;
        let steps = async || run_view(&core.runs.find_run(id).await.expect("store").expect("run")).steps;
        let told = |steps: &[rest::RunStep]| {
            let told = |step: &rest::RunStep| {
                (step.waits_for.iter().map(ToString::to_string).collect(), step.pending_reason.clone())
            };
            steps.iter().map(told).collect::<Vec<(Vec<String>, Option<String>)>>()
        };
        let before = PendingReason::New.to_string();
        let first = |step: &str| vec![step.to_owned()];
        assert_eq!(told(&steps().await), [(vec![], Some(before)), (first("build"), None)]);
        let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
        let fence = core.apply(id, RunEvent::Offer { placement: 0, agent }).await.expect("offered").run.last_fence;
        assert_eq!(steps().await[0].pending_reason.as_deref(), Some("agent `one` is asked"));
        core.apply(id, RunEvent::Accepted { fence, host: None }).await.expect("accepted");
        assert_eq!(told(&steps().await), [(vec![], None), (first("build"), None)]);
        core.apply(id, RunEvent::CancelRequested { by: testing::principal("alice") }).await.expect("cancelled");
        assert_eq!(told(&steps().await), [(vec![], None), (vec![], None)], "nothing is going to run");
    }

    #[tokio::test]
    async fn a_finished_run_says_whose_its_attempts_were() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
        let fence = core.apply(id, RunEvent::Offer { placement: 0, agent }).await.expect("offered").run.last_fence;
        let attempt =
            core.apply(id, RunEvent::Accepted { fence, host: None }).await.expect("accepted").run.last_attempt;
        let result = StepResult::Failed { exit_code: None, reason: "no such branch".to_owned() };
        core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("ended");
        let view = run_view(&core.runs.find_run(id).await.expect("store").expect("run"));
        assert_eq!((view.status, view.steps[0].agent.as_deref()), (rest::RunStatus::Failed, Some("one")));
    }
}
