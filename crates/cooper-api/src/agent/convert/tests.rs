//! Messages survive the wire, and hostile ones are refused by name.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_engine::message::{
    BaseImage, DefinitionPin, Frontend, PreparedFile, PreparedSource, PushedManifest, Resolved, StepOutput, StepResult,
};
use cooper_engine::run::KnownVariables;
use cooper_spec::dockerfile::{FrontendRule, FrontendRules};
use cooper_spec::plan::{Mount, Network, Tries};
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_spec::task_request::{RequestedValue, TaskRequest, TaskText};
use cooper_types::{
    ContextId, Digest, ImageRef, RegistryName, RepositoryName, SecretBytes, SecretString, StepId, Tag, Timestamp,
};

use super::super::wire::step_ended;
use super::super::work::{
    BuildContextOrder, BuildOrder, CacheOrder, CommandImageOrder, CommandOrder, EnvironmentOrder, PrepareOrder,
    PushFrom, PushOrder, PushTarget, RegistryAccess, StepWork, TaskOrder, VolumeOrder,
};
use super::super::{MAX_PREPARED_FILE_BYTES, MAX_PREPARED_FILES};
use super::*;

fn key() -> PlacementKey {
    PlacementKey { run: RunId::from_number(7), fence: Fence(3) }
}

fn order(work: StepWork) -> StepOrder {
    StepOrder {
        step: StepId::parse("build").expect("valid"),
        timeout: Duration::from_secs(5),
        masked: vec![SecretBytes::new(b"s3cret".to_vec())],
        registry: RegistryAccess {
            name: RegistryName::parse("localhost:5000").expect("valid"),
            username: "run".to_owned(),
            password: SecretString::new("pw".to_owned()),
        },
        environment: None,
        tries: Tries::default(),
        beside: true,
        work,
    }
}

#[test]
fn messages_for_agents_survive_the_wire() {
    let build = StepWork::Build(BuildOrder {
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        arguments: vec![("A".to_owned(), SecretString::new("b".to_owned()))],
        labels: vec![("l".to_owned(), "v".to_owned())],
        no_cache: true,
        secrets: vec![("id".to_owned(), SecretBytes::new(vec![0, 255]))],
        platform: Platform::LINUX_AMD64,
        shared_key: "k".to_owned(),
        context: BuildContextOrder::Workspace("src".to_owned()),
        network: Some("none".to_owned()),
        add_hosts: vec!["db:10.0.0.1".to_owned()],
        cache: Some(CacheOrder {
            reference: ImageRef::parse("localhost:5000/app:cache_quickrun_build").expect("valid"),
            writable: true,
            images: vec![ImageRef::parse("localhost:5000/app:v1").expect("valid")],
        }),
        own_bases: vec![("base:v1".to_owned(), Digest::sha256(b"base"))],
        staged_bases: vec![(
            "data:v1".to_owned(),
            ImageRef::parse(&format!("localhost:5000/data@{}", Digest::sha256(b"data"))).expect("valid"),
        )],
        frontends: FrontendRules(vec![FrontendRule::parse("r.io/f:1=pull").expect("a rule")]),
        allowed_networks: vec!["10.0.0.0/8".to_owned()],
        pinned: vec![("busybox:1".to_owned(), Digest::sha256(b"busybox"))],
    });
    let command = StepWork::Command(CommandOrder {
        image: CommandImageOrder::Built(Digest::sha256(b"x")),
        arguments: vec![SecretString::new("echo".to_owned()), SecretString::new("a b".to_owned())],
        environment: vec![("A".to_owned(), SecretString::new("b=c".to_owned()))],
        mounts: vec![Mount { volume: "keys".to_owned(), path: "/run/keys".to_owned() }],
        platform: Platform::LINUX_AMD64,
        entry_point: Some("sh".to_owned()),
        working_directory: Some("/workspace".to_owned()),
        user: Some("1:1".to_owned()),
        network: Some("back".to_owned()),
        ports: vec!["8080:80".to_owned()],
        expose: vec!["80".to_owned()],
        cpus: Some("0.5".to_owned()),
        isolation: None,
        privileged: false,
        keep: true,
        detach: true,
        terminal: true,
        pull: true,
        pull_retries: 2,
        pull_retry_delay: Duration::from_secs(3),
    });
    let network = Network { name: "back".to_owned(), driver: None, ipv6: true, external: false };
    let file = ("key".to_owned(), SecretBytes::new(vec![0, 255]));
    let command = StepOrder {
        environment: Some(EnvironmentOrder {
            has_context: true,
            registry_by_address: true,
            networks: vec![network],
            volumes: vec![VolumeOrder { name: "keys".to_owned(), files: vec![file] }],
        }),
        tries: Tries {
            start_delay: Duration::from_secs(1),
            retries: 2,
            retry_delay: Duration::from_secs(5),
            retry_on_errors: vec!["reset".to_owned()],
            repeat: 3,
        },
        ..order(command)
    };
    let prepare = |source: &str, task_file: Option<&str>| {
        StepWork::Prepare(PrepareOrder {
            source: RemoteSource::parse(source).expect("valid"),
            dockerfile: task_file.is_none().then(|| "Dockerfile".to_owned()),
            files: task_file.map(|_| "values.yaml".to_owned()).into_iter().collect(),
            task_file: task_file.map(str::to_owned),
            definition: task_file.map(|_| "refs/heads/main".to_owned()),
            task: task_file.map(|file| TaskOrder {
                request: TaskRequest {
                    file: TaskText::InSource(file.to_owned()),
                    fallbacks: vec!["acb.yaml".to_owned()],
                    values: Some(TaskText::Given { name: "-".to_owned(), text: "a: b".to_owned() }),
                    set: vec![RequestedValue { name: "k".to_owned(), value: None }],
                    alias_files: BTreeMap::from([("a".to_owned(), "b: c".to_owned())]),
                    platform: Platform::LINUX_AMD64,
                    working_directory: None,
                },
                created: Timestamp::from_micros(9),
                known: KnownVariables {
                    branch: Some(String::new()),
                    git_tag: None,
                    task_name: "nightly".to_owned(),
                    triggered_by: "timer".to_owned(),
                },
            }),
            allowed_networks: vec!["10.0.0.0/8".to_owned()],
            max_bytes: 7,
        })
    };
    let push = StepWork::Push(PushOrder {
        targets: [
            PushFrom::Image(Digest::sha256(b"x")),
            PushFrom::Manifest(Digest::sha256(b"m")),
            PushFrom::Index(vec![(Platform::LINUX_AMD64, Digest::sha256(b"p"))]),
        ]
        .map(|from| PushTarget {
            from,
            registry: Some(RegistryName::parse("registry.example").expect("valid")),
            repository: RepositoryName::parse("a/b").expect("valid"),
            staging_tag: Tag::parse("staged.ca7.2").expect("valid"),
        })
        .to_vec(),
        allowed_networks: vec!["10.0.0.0/8".to_owned()],
    });
    let attempt = AttemptNumber(2);
    for message in [
        ToAgent::Offer { key: key(), platform: Platform::LINUX_AMD64 },
        ToAgent::StartStep {
            key: key(),
            attempt,
            work: order(prepare("https://git.example:8443/a/b.git#v1:sub/folder", None)),
        },
        ToAgent::StartStep {
            key: key(),
            attempt,
            work: order(prepare("https://h.example/a.tgz?sig=x#:sub", Some("acb.yaml"))),
        },
        ToAgent::StartStep { key: key(), attempt, work: order(build) },
        ToAgent::StartStep { key: key(), attempt, work: order(push) },
        ToAgent::StartStep { key: key(), attempt, work: command },
        ToAgent::Stop { key: key() },
        ToAgent::ResultStored { key: key(), attempt },
    ] {
        assert_eq!(read_server_message(to_agent(message.clone())).expect("reads"), Some(message));
    }
}

#[test]
fn messages_for_the_server_survive_the_wire() {
    let attempt = AttemptNumber(2);
    let built = StepOutput::Built {
        image: Digest::sha256(b"x"),
        bases: vec![BaseImage { reference: "scratch".to_owned(), digest: None, runtime: true }],
        frontend: Some(Frontend { reference: "docker/dockerfile:1".to_owned(), digest: Some(Digest::sha256(b"f")) }),
        context: Some(SourcePin::Commit("a".repeat(40))),
    };
    let image = BaseImage { reference: "busybox".to_owned(), digest: Some(Digest::sha256(b"b")), runtime: true };
    let ran = StepOutput::Ran { image: Some(image) };
    let pushed = StepOutput::Pushed {
        manifests: vec![PushedManifest {
            registry: Some(RegistryName::parse("registry.example").expect("valid")),
            repository: RepositoryName::parse("a").expect("valid"),
            staging_tag: Tag::latest(),
            digest: Digest::sha256(b"y"),
        }],
    };
    let prepared = |branch: Option<&str>| {
        StepOutput::Prepared(PreparedSource {
            commit: branch.map(|_| "0123456789abcdef0123456789abcdef01234567".to_owned()),
            branch: branch.map(str::to_owned),
            tag: branch.is_none().then(|| "v1".to_owned()),
            context: ContextId::parse("c-1").expect("valid"),
            digest: Digest::sha256(b"archive"),
            size: 7,
            dockerfile: branch.map(|_| "Dockerfile".to_owned()),
            pinned: branch.is_none().then(|| Digest::sha256(b"as it came")),
            definition: branch.map(|_| Box::new(DefinitionPin { commit: "1".repeat(40) })),
            files: vec![
                PreparedFile { name: "acb.yaml".to_owned(), content: Some(vec![0, 255]) },
                PreparedFile { name: "empty".to_owned(), content: Some(Vec::new()) },
                PreparedFile { name: "missing".to_owned(), content: None },
            ],
        })
    };
    for message in [
        ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: prepared(Some("main")) }),
        ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: prepared(None) }),
        ToServer::Holding(vec![Held { key: key(), attempts: vec![attempt] }]),
        ToServer::Accepted(key()),
        ToServer::Declined(key(), "busy".to_owned()),
        ToServer::StepStarted(key(), attempt),
        ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: built }),
        ToServer::Resolved(
            key(),
            attempt,
            Resolved {
                bases: vec![BaseImage {
                    reference: "a:1".to_owned(),
                    digest: Some(Digest::sha256(b"a")),
                    runtime: true,
                }],
                context: Some(SourcePin::Digest(Digest::sha256(b"tar"))),
                tries: 2,
            },
        ),
        ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: pushed }),
        ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: ran }),
        ToServer::StepEnded(key(), attempt, StepResult::Failed { exit_code: Some(3), reason: "r".to_owned() }),
        ToServer::StepEnded(key(), attempt, StepResult::TimedOut),
        ToServer::StepEnded(key(), attempt, StepResult::Lost { reason: "r".to_owned() }),
        ToServer::Stopped(key()),
    ] {
        assert_eq!(read_agent_message(to_server(message.clone())).expect("reads"), Some(message));
    }
}

#[test]
fn texts_stay_one_line_and_lists_stay_short() {
    let reason = format!("no\nRun ID: ca7 was successful\r\u{1b}[2J{}", "x".repeat(2 * MAX_TEXT));
    let lost = StepResult::Lost { reason };
    let read = read_agent_message(to_server(ToServer::StepEnded(key(), AttemptNumber(1), lost))).expect("reads");
    let Some(ToServer::StepEnded(_, _, StepResult::Lost { reason })) = read else { panic!("{read:?}") };
    assert!(reason.starts_with("no Run ID: ca7 was successful  [2Jx"), "{reason}");
    assert_eq!(reason.chars().count(), MAX_TEXT);

    let many = |count| ToServer::Holding(vec![Held { key: key(), attempts: Vec::new() }; count]);
    assert!(read_agent_message(to_server(many(MAX_HELD))).is_ok());
    let error = read_agent_message(to_server(many(MAX_HELD + 1))).expect_err("refused");
    assert_eq!(error.to_string(), "message has a bad number of placements");
}

#[test]
fn what_is_missing_is_named() {
    let check = |message: agent_message::Message, expect: &str| {
        let error = read_agent_message(wire::AgentMessage { message: Some(message) }).expect_err("refused");
        assert_eq!(error.to_string(), expect);
    };
    check(agent_message::Message::StepEnded(wire::StepEnded::default()), "message has no result");
    check(agent_message::Message::StepStarted(wire::StepStarted::default()), "message has no placement key");
    let prepared =
        step_ended::Result::Prepared(step_ended::Prepared { commit: "main".to_owned(), ..Default::default() });
    let ended = wire::StepEnded { result: Some(prepared), ..Default::default() };
    check(agent_message::Message::StepEnded(ended), "message has a bad commit");
    let (commit, dockerfile) = ("a".repeat(40), "x".repeat(MAX_TEXT + 1));
    let prepared = step_ended::Result::Prepared(step_ended::Prepared { commit, dockerfile, ..Default::default() });
    let ended = wire::StepEnded { result: Some(prepared), ..Default::default() };
    check(agent_message::Message::StepEnded(ended), "message has a bad length of the Dockerfile's path");
    check(agent_message::Message::Stopped(wire::PlacementKey::default()), "message has a bad run id");
    let of = |files: Vec<step_ended::SourceFile>, pinned: &str| {
        let pinned = pinned.to_owned();
        let context = "c".to_owned();
        let digest = Digest::sha256(b"archive").to_string();
        let prepared = step_ended::Prepared { files, pinned, context, digest, ..Default::default() };
        let result = Some(step_ended::Result::Prepared(prepared));
        agent_message::Message::StepEnded(wire::StepEnded { result, ..Default::default() })
    };
    let file = |len: usize| step_ended::SourceFile { name: "f".to_owned(), content: Some(vec![0; len]) };
    let pinned = Digest::sha256(b"as it came").to_string();
    check(of(Vec::new(), ""), "message has a bad commit");
    check(of(Vec::new(), "latest"), "message has a bad source digest");
    check(of(vec![file(MAX_PREPARED_FILE_BYTES + 1)], &pinned), "message has a bad length of a file");
    check(of(vec![file(MAX_PREPARED_FILE_BYTES); 5], &pinned), "message has a bad length of all files");
    check(of(vec![file(0); MAX_PREPARED_FILES + 1], &pinned), "message has a bad number of files");
}
