//! `cooper runs why`: what set a run off, for people.

use cooper_api::rest::{Run, SourceTriggerView, UpdatedImage};
use cooper_types::RunId;

use super::{plain, short_time};
use crate::output;

/// What set a run off, for people.
pub(super) fn why(run: &Run) -> String {
    let created = short_time(run.create_time);
    if let Some(of) = run.rerun_of {
        return why_again(run, of);
    }
    if let (Some(task), Some(source)) = (&run.task, &run.source_trigger) {
        return why_source(run, task, source);
    }
    let what = match (&run.task, &run.timer_trigger, &run.requested_by) {
        (Some(task), ..) if run.image_update_trigger.is_some() => {
            format!("base images of task {task} have changed")
        }
        (Some(task), Some(timer), _) => {
            let (name, instant) = (&timer.timer_trigger_name, short_time(timer.schedule_occurrence));
            let late = run.create_time.since(timer.schedule_occurrence);
            let late = match late.as_secs() {
                0..60 => String::new(),
                _ => format!(", {} late", output::duration(late)),
            };
            let made_up = match timer.is_catch_up {
                true => ": no server could run it then, and it makes up for that and for what was missed after it",
                false => "",
            };
            format!("timer {name} of task {task} fired for {instant}{late}{made_up}")
        }
        (Some(task), None, Some(by)) => format!("{by} asked for a run of {}'s task {task} at {created}", run.principal),
        (Some(task), None, None) => format!("{} asked for a run of task {task} at {created}", run.principal),
        (None, ..) => format!("{} asked for it at {created}", run.principal),
    };
    let mut lines = vec![plain(&format!("Run {}: {what}.", run.run_id))];
    if let Some(trigger) = &run.image_update_trigger {
        for image in &trigger.images {
            let UpdatedImage { registry, repository, tag, digest, previous_digest } = image;
            let before = previous_digest.as_deref().unwrap_or("something unknown");
            lines.push(plain(&format!("{registry}/{repository}:{tag} was {before}, and became {digest}.")));
        }
        lines.push(format!("It is a part of wave {0}: `cooper wave show {0}` shows the others.", trigger.id));
    }
    lines.extend(source(run));
    lines.join("\n")
}

/// What a rerun repeats, and how, for people.
fn why_again(run: &Run, of: RunId) -> String {
    let (id, by, at) = (run.run_id, &run.principal, short_time(run.create_time));
    let task = run.task.as_ref().map(|task| format!(" of task {task}")).unwrap_or_default();
    let how = match run.rerun.map(|rerun| (rerun.failed, rerun.fresh)) {
        None | Some((false, false)) => "with the source and the images that it had",
        Some((true, false)) => "with --failed: what had not succeeded, and the steps that this needs",
        Some((false, true)) => "with --fresh: its source, images and secrets were resolved anew",
        Some((true, true)) => {
            "with --failed and --fresh: what had not succeeded, with images and secrets resolved anew"
        }
    };
    let mut lines = vec![
        plain(&format!("Run {id}: {by} asked for a rerun of run {of}{task} at {at}, {how}.")),
        format!(
            "What set that one off is told by `cooper runs why {of}`; `cooper runs diff {of} {id}` shows what moved."
        ),
    ];
    lines.extend(source(run));
    lines.join("\n")
}

/// What the source was found to be, for people.
fn source(run: &Run) -> Option<String> {
    let commit = run.source_commit.as_ref()?;
    let branch = run.source_branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
    Some(plain(&format!("Its source was commit {commit}{branch}.")))
}

/// What happened in a repository to set a run off, for people.
fn why_source(run: &Run, task: &str, source: &SourceTriggerView) -> String {
    let commit: String = source.commit_id.chars().take(12).collect();
    let branch = source.branch_name.as_deref().unwrap_or_default();
    let what = match (&source.pull_request_id, &source.tag_name) {
        (Some(number), _) => format!("pull request {number} into {branch} came to commit {commit}"),
        (None, Some(tag)) => format!("tag {tag} was pushed at commit {commit}"),
        (None, None) => format!("commit {commit} was pushed to {branch}"),
    };
    let place =
        format!("of {}, which starts task {task} by its trigger {}", source.repository_url, source.trigger_name);
    let mut lines = vec![plain(&format!("Run {}: {what} {place}.", run.run_id))];
    if let Some(before) = &source.previous_commit_id {
        let moved = source.tag_name.as_deref().unwrap_or(branch);
        lines.push(plain(&format!("{moved} was at {before}, and came to {}.", source.commit_id)));
    }
    lines.push(match &source.id {
        Some(id) => plain(&format!("The hook of {} told of it, in delivery {id}.", source.provider_type)),
        None => "No hook told of it: it was found by looking at the repository.".to_owned(),
    });
    lines.extend(source.notes.iter().map(|note| plain(&format!("Note: {note}."))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rerun_says_what_it_repeats_and_how() {
        let run = |rerun: serde_json::Value| {
            let run = json!({
                "runId": "ca5", "name": "ca5", "id": "/api/v1/runs/ca5", "status": "Succeeded", "runType": "QuickRun",
                "createTime": "2026-01-31T12:00:00.000000Z", "lastUpdatedTime": "2026-01-31T12:00:00.000000Z", "task": null,
                "platform": {"os": "linux", "architecture": "amd64"}, "agentConfiguration": null, "agentPoolName": null,
                "runErrorMessage": null, "isArchiveEnabled": false, "provisioningState": "Succeeded", "pendingReason": null,
                "principal": "ann", "timeout": 3600, "rerunOf": "ca2", "rerun": rerun, "sourceCommit": "abc"
            });
            why(&serde_json::from_value(run).expect("a run"))
        };
        let told = run(json!({"failed": true, "fresh": false}));
        assert!(
            told.starts_with("Run ca5: ann asked for a rerun of run ca2 at 2026-01-31T12:00:00Z, with --failed: "),
            "{told}"
        );
        assert!(told.contains("`cooper runs why ca2`") && told.ends_with("Its source was commit abc."), "{told}");
        assert!(run(json!({"failed": false, "fresh": true})).contains("with --fresh: "));
        // As an older server tells it.
        assert!(run(json!(null)).contains("with the source and the images that it had"));
    }

    #[test]
    fn a_run_that_makes_up_for_a_missed_instant_says_so() {
        let told = |catch_up: bool| {
            let timer = json!({
                "timerTriggerName": "nightly", "scheduleOccurrence": "2026-01-31T12:00:00.000000Z", "isCatchUp": catch_up
            });
            let run = json!({
                "runId": "ca5", "name": "ca5", "id": "/api/v1/runs/ca5", "status": "Succeeded", "runType": "AutoRun",
                "createTime": "2026-01-31T14:00:00.000000Z", "lastUpdatedTime": "2026-01-31T14:00:00.000000Z",
                "task": "purge", "platform": {"os": "linux", "architecture": "amd64"}, "agentConfiguration": null,
                "agentPoolName": null, "runErrorMessage": null, "isArchiveEnabled": false, "provisioningState": "Succeeded",
                "pendingReason": null, "principal": "ann", "timeout": 3600, "timerTrigger": timer
            });
            why(&serde_json::from_value(run).expect("a run"))
        };
        let late = "Run ca5: timer nightly of task purge fired for 2026-01-31T12:00:00Z, 2h00m late";
        let (made_up, slow) = (told(true), told(false));
        assert!(
            made_up.starts_with(&format!("{late}: no server could run it then, and it makes up for that")),
            "{made_up}"
        );
        assert!(slow.starts_with(&format!("{late}.")), "{slow}");
    }

    #[test]
    fn a_run_of_a_push_says_what_was_there_before() {
        let told = |more: serde_json::Value| {
            let mut source = json!({
                "id": "d1", "eventType": "commit", "commitId": "b".repeat(40), "pullRequestId": null, "branchName": "main",
                "repositoryUrl": "https://git.example/app.git", "providerType": "gitea", "triggerName": "t"
            });
            for (key, value) in more.as_object().expect("a map") {
                source[key] = value.clone();
            }
            let run = json!({
                "runId": "ca5", "name": "ca5", "id": "/api/v1/runs/ca5", "status": "Succeeded", "runType": "AutoRun",
                "createTime": "2026-01-31T12:00:00.000000Z", "lastUpdatedTime": "2026-01-31T12:00:00.000000Z",
                "task": "nightly", "platform": {"os": "linux", "architecture": "amd64"}, "agentConfiguration": null,
                "agentPoolName": null, "runErrorMessage": null, "isArchiveEnabled": false, "provisioningState": "Succeeded",
                "pendingReason": null, "principal": "ann", "timeout": 3600, "sourceTrigger": source
            });
            why(&serde_json::from_value(run).expect("a run"))
        };
        let (before, after) = ("a".repeat(40), "b".repeat(40));
        let line = |name: &str| format!("\n{name} was at {before}, and came to {after}.\n");
        assert!(told(json!({"previousCommitId": before})).contains(&line("main")));
        assert!(told(json!({"previousCommitId": before, "branchName": null, "tagName": "v1"})).contains(&line("v1")));
        // A new branch, and what forges don't say.
        assert!(!told(json!({})).contains("was at"));
    }
}
