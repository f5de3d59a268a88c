//! What a task file says of its steps is what their agent is told to do, word for word.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::agent::{
    BuildContextOrder, BuildOrder, CacheOrder, CommandImageOrder, CommandOrder, EnvironmentOrder, StepOrder, StepWork,
    VolumeOrder, read_server_message,
};
use cooper_spec::plan::{Mount, Network, Tries};
use cooper_types::{ImageRef, SecretBytes, StepId};
use serde_json::{Value, json};

use super::serving::api;
use super::*;

/// Steps that say something of everything; none waits for another.
const TASK: &str = r#"
version: v1.1.0
env: [A=task]
networks:
- {name: net, driver: bridge, ipv6: true}
volumes:
- name: keys
  secret: {token: '{{.Values.key | b64enc}}'}
steps:
- id: all
  cmd: -t busybox word '{{.Values.key}}'
  env: [B=step]
  timeout: 77
  startDelay: 3
  retries: 2
  retryDelay: 4
  retryOnErrors: [reset, timed out]
  repeat: 5
  keep: true
  detach: true
  privileged: true
  user: ann
  network: net
  cpus: 1.5
  entryPoint: /bin/sh
  expose: [80]
  ports: ["8080:80"]
  volumeMounts: [{name: keys, mountPath: /keys}]
  pull: true
  cmdDownloadRetries: 6
  cmdDownloadRetryDelay: 7
  disableWorkingDirectoryOverride: true
  when: ['-']
- id: few
  cmd: busybox
  workingDirectory: sub
  when: ['-']
- id: build
  build: >-
    -t app:1 -f src/D --target t --build-arg N=v --build-arg KEY={{.Values.key}} --label l=w --no-cache --network none
    --add-host h:10.0.0.1 --secret id=s,src=/keys/token src
  volumeMounts: [{name: keys, mountPath: /keys}]
  cache: enabled
  when: ['-']
"#;

fn secret(text: &str) -> SecretString {
    SecretString::new(text.to_owned())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, SecretString)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect()
}

/// What is said of an order's work and of how it is tried.
fn told(order: &StepOrder) -> (Duration, &Tries, &StepWork) {
    (order.timeout, &order.tries, &order.work)
}

#[tokio::test]
async fn every_property_of_a_step_reaches_its_agent() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let request = json!({
        "type": "EncodedTaskRunRequest",
        "encodedTaskContent": STANDARD.encode(TASK),
        "values": [{ "name": "key", "value": "hunter22", "isSecret": true }],
    });
    let (status, body) = api(&fixture.core, "POST", "/api/v1/runs", &request.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let run: Value = serde_json::from_str(&body).expect("a run");
    let run = RunId::parse(run["runId"].as_str().expect("an id")).expect("valid");
    let key = fixture.offer(run, &agent.agent).await;
    agent.expect(ToAgent::Offer { key, platform: Platform::LINUX_AMD64 }).await;
    agent.say(ToServer::Accepted(key)).await;
    let mut orders = BTreeMap::new();
    while orders.len() < 3 {
        let message = wire::ServerMessage { message: Some(agent.hear().await) };
        let Ok(Some(ToAgent::StartStep { work, .. })) = read_server_message(message) else { panic!("no order") };
        orders.insert(work.step.clone(), work);
    }
    let of = |id: &str| &orders[&StepId::parse(id).expect("valid")];
    let key_file = || ("token".to_owned(), SecretBytes::new(b"hunter22".to_vec()));
    let environment = EnvironmentOrder {
        has_context: false,
        networks: vec![Network {
            name: "net".to_owned(),
            driver: Some("bridge".to_owned()),
            ipv6: true,
            external: false,
        }],
        volumes: vec![VolumeOrder { name: "keys".to_owned(), files: vec![key_file()] }],
        registry_by_address: false,
    };
    for order in orders.values() {
        assert_eq!(order.beside, order.step.as_str() != "all", "what is detached says nothing itself: {}", order.step);
        assert_eq!(order.environment.as_ref(), Some(&environment), "{}", order.step);
        assert!(order.masked.contains(&SecretBytes::new(b"hunter22".to_vec())), "{}", order.step);
    }

    let tries = Tries {
        start_delay: Duration::from_secs(3),
        retries: 2,
        retry_delay: Duration::from_secs(4),
        retry_on_errors: vec!["reset".to_owned(), "timed out".to_owned()],
        repeat: 5,
    };
    let all = CommandOrder {
        image: CommandImageOrder::Named("busybox:latest".to_owned()),
        arguments: vec![secret("word"), secret("hunter22")],
        environment: pairs(&[("B", "step"), ("A", "task")]),
        mounts: vec![Mount { volume: "keys".to_owned(), path: "/keys".to_owned() }],
        platform: Platform::LINUX_AMD64,
        entry_point: Some("/bin/sh".to_owned()),
        working_directory: None,
        user: Some("ann".to_owned()),
        network: Some("net".to_owned()),
        ports: vec!["8080:80".to_owned()],
        expose: vec!["80".to_owned()],
        cpus: Some("1.5".to_owned()),
        isolation: None,
        privileged: true,
        keep: true,
        detach: true,
        terminal: true,
        pull: true,
        pull_retries: 6,
        pull_retry_delay: Duration::from_secs(7),
    };
    assert_eq!(told(of("all")), (Duration::from_secs(77), &tries, &StepWork::Command(all)));
    let few = CommandOrder {
        image: CommandImageOrder::Named("busybox:latest".to_owned()),
        arguments: Vec::new(),
        environment: pairs(&[("A", "task")]),
        mounts: Vec::new(),
        platform: Platform::LINUX_AMD64,
        entry_point: None,
        working_directory: Some("/workspace/sub".to_owned()),
        user: None,
        network: None,
        ports: Vec::new(),
        expose: Vec::new(),
        cpus: None,
        isolation: None,
        privileged: false,
        keep: false,
        detach: false,
        terminal: false,
        pull: false,
        pull_retries: 0,
        pull_retry_delay: Duration::ZERO,
    };
    let usual = (Duration::from_secs(600), &Tries::default());
    assert_eq!(told(of("few")), (usual.0, usual.1, &StepWork::Command(few)));

    let StepWork::Build(BuildOrder { shared_key, .. }) = &of("build").work else { panic!("it is a build") };
    let build = BuildOrder {
        dockerfile: "D".to_owned(),
        target: Some("t".to_owned()),
        arguments: pairs(&[("N", "v"), ("KEY", "hunter22")]),
        labels: vec![("l".to_owned(), "w".to_owned())],
        no_cache: true,
        secrets: vec![("s".to_owned(), key_file().1)],
        platform: Platform::LINUX_AMD64,
        shared_key: shared_key.clone(),
        context: BuildContextOrder::Workspace("src".to_owned()),
        network: Some("none".to_owned()),
        add_hosts: vec!["h:10.0.0.1".to_owned()],
        cache: Some(CacheOrder {
            reference: ImageRef::parse("localhost:5000/app:cache_quickrun_build").expect("valid"),
            writable: true,
            images: Vec::new(),
        }),
        own_bases: Vec::new(),
        staged_bases: Vec::new(),
        frontends: fixture.core.frontends.clone(),
        allowed_networks: fixture.core.allowed_sources.iter().map(ToString::to_string).collect(),
        pinned: Vec::new(),
    };
    assert_eq!(told(of("build")), (usual.0, usual.1, &StepWork::Build(build)));
}
