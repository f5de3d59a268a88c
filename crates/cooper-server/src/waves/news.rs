//! What other registries tell of pushes, in the forms of distribution, ACR, Harbor and Docker Hub.
//!
//! Nothing that is told is believed: it only has the poller look sooner at what tasks stand on already.

use std::collections::BTreeSet;

use cooper_types::{RepositoryName, Tag};
use serde_json::Value;

/// How many pushes of one message count.
const MAX_PUSHES: usize = 64;

/// A repository that was pushed to, and the tag, if that is said.
pub(crate) type Push = (RepositoryName, Option<Tag>);

/// The pushes that a message tells of; none if it is of another form.
pub(crate) fn pushes(message: &Value) -> BTreeSet<Push> {
    let mut found = BTreeSet::new();
    let mut add = |repository: Option<&str>, tag: Option<&str>| {
        let repository = repository.and_then(|text| RepositoryName::parse(text).ok());
        if let Some(repository) = repository.filter(|_| found.len() < MAX_PUSHES) {
            found.insert((repository, tag.and_then(|text| Tag::parse(text).ok())));
        }
    };
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let target = |event: &Value| (text(event, "/target/repository"), text(event, "/target/tag"));
    // distribution: a list of events.
    for event in message.get("events").and_then(Value::as_array).into_iter().flatten() {
        if event.get("action").and_then(Value::as_str) == Some("push") {
            let (repository, tag) = target(event);
            add(repository.as_deref(), tag.as_deref());
        }
    }
    // ACR: one such event.
    if message.get("action").and_then(Value::as_str) == Some("push") {
        let (repository, tag) = target(message);
        add(repository.as_deref(), tag.as_deref());
    }
    // Harbor.
    if message.get("type").and_then(Value::as_str) == Some("PUSH_ARTIFACT") {
        let repository = text(message, "/event_data/repository/repo_full_name");
        for resource in message.pointer("/event_data/resources").and_then(Value::as_array).into_iter().flatten() {
            add(repository.as_deref(), resource.get("tag").and_then(Value::as_str));
        }
    }
    // Docker Hub.
    if message.get("push_data").is_some() {
        let (repository, tag) = (text(message, "/repository/repo_name"), text(message, "/push_data/tag"));
        add(repository.as_deref(), tag.as_deref());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pushes_are_read_in_each_form() {
        let check = |message: Value, expect: &[(&str, Option<&str>)]| {
            let found = pushes(&message);
            let shown: Vec<(&str, Option<&str>)> =
                found.iter().map(|(repository, tag)| (repository.as_str(), tag.as_ref().map(Tag::as_str))).collect();
            assert_eq!(shown, expect, "{message}");
        };
        let target =
            |repository: &str, tag: &str| json!({ "repository": repository, "tag": tag, "digest": "sha256:0" });
        let distribution = json!({ "events": [
            { "id": "1", "action": "push", "target": target("team/app", "1"), "request": { "host": "r.example:5000" } },
            { "id": "2", "action": "push", "target": { "repository": "team/app" } },
            { "id": "3", "action": "pull", "target": target("other", "1") },
        ] });
        check(distribution, &[("team/app", None), ("team/app", Some("1"))]);
        check(json!({ "action": "push", "target": target("hello", "v1") }), &[("hello", Some("v1"))]);
        check(json!({ "action": "delete", "target": target("hello", "v1") }), &[]);
        let harbor = json!({ "type": "PUSH_ARTIFACT", "event_data": {
            "resources": [{ "digest": "sha256:0", "tag": "latest", "resource_url": "h.example/library/debian:latest" }],
            "repository": { "name": "debian", "namespace": "library", "repo_full_name": "library/debian" },
        } });
        check(harbor, &[("library/debian", Some("latest"))]);
        let hub = json!({ "push_data": { "tag": "2" }, "repository": { "repo_name": "me/app", "name": "app" } });
        check(hub, &[("me/app", Some("2"))]);
        for other in [json!({}), json!([]), json!("push"), json!({ "events": 3 }), json!({ "push_data": 1 })] {
            check(other, &[]);
        }
        let many: Vec<Value> =
            (0..1000).map(|n| json!({ "action": "push", "target": target(&format!("a{n}"), "1") })).collect();
        assert_eq!(pushes(&json!({ "events": many })).len(), MAX_PUSHES);
    }
}
