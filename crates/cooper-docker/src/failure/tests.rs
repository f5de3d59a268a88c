//! The engine's texts, old and new, and what each must come out as.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use cooper_ports::context_tree::ContextEntry;
use cooper_ports::engine::{EngineOwner, LocalName};
use cooper_types::{AttemptNumber, Platform, RunId};

use super::*;

fn blame(dockerfile: &str) -> Blame {
    let mut spool = tempfile::tempfile().expect("a file");
    spool.write_all(dockerfile.as_bytes()).expect("it takes bytes");
    let kind = EntryKind::File { offset: 0, size: dockerfile.len() as u64 };
    let entry = ContextEntry { path: "Dockerfile".into(), kind, mode: 0o644, mtime_ns: 0 };
    let request = BuildRequest {
        name: LocalName::new(&EngineOwner::new("test"), RunId::from_number(1), AttemptNumber(1)),
        context: ContextTree::new(vec![entry], spool),
        dockerfile: "Dockerfile".into(),
        target: Some("there".into()),
        platform: None,
        arguments: Vec::new(),
        labels: Vec::new(),
        no_cache: false,
        secrets: BTreeMap::new(),
        logins: std::sync::Arc::new(BTreeMap::new()),
        dockerfile_tree: None,
        bases: cooper_ports::engine::BaseImages::default(),
        network: cooper_ports::engine::BuildNetwork::default(),
        hosts: Vec::new(),
        cache_from: Vec::new(),
        cache_to: None,
        shared_key: String::new(),
        resolved: Vec::new(),
        copied: Vec::new(),
    };
    let engine = EngineDescription {
        name: "Docker Engine".into(),
        version: "20.10.24".into(),
        api_version: "1.41".into(),
        native: Platform::LINUX_AMD64,
        emulated: BTreeSet::new(),
        features: BTreeSet::from([EngineFeature::BuildKit]),
    };
    Blame::new(&request, &engine)
}

/// The sorted error of a build whose vertex failed so, as one line, with the kind before it.
fn sorted(dockerfile: &str, vertex: Option<(&str, &str)>, message: &str) -> String {
    let mut blame = blame(dockerfile);
    if let Some((name, error)) = vertex {
        blame.saw(&VertexEvent {
            id: "sha256:0".into(),
            name: name.into(),
            started: None,
            completed: None,
            cached: false,
            error: Some(error.into()),
        });
    }
    match blame.error(message) {
        BuildError::Failed(failure) => format!("user: {failure}"),
        BuildError::Machinery(error) => format!("machinery: {error}"),
        BuildError::Cancelled => "cancelled".into(),
    }
}

#[test]
fn failing_steps() {
    let check = |step: &str, error: &str, expect: &str| {
        let message = format!("failed to solve: {error}");
        assert_eq!(sorted("FROM scratch", Some((step, error)), &message), expect);
    };
    let run = "[2/2] RUN exit 3";
    let expect = "user: step `[2/2] RUN exit 3` exited with code 3";
    check(run, "executor failed running [/bin/sh -c exit 3]: exit code: 3", expect);
    check(run, "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3", expect);
    check(
        "RUN no space left on device",
        "process \"/bin/sh -c no space left on device\" did not complete successfully: exit code: 127",
        "user: step `RUN no space left on device` exited with code 127",
    );
    let expect = "user: secret `tok` is required by the Dockerfile and was not given: give it with --secret \
                  id=tok,src=FILE";
    check("[2/2] RUN --mount=type=secret,id=tok x", "secret tok not found: not found", expect);
    check("[2/2] RUN --mount=type=secret,id=tok x", "failed to mount: secret tok: not found", expect);
    let step = "[2/2] COPY secret x not found /";
    check(
        step,
        "failed to compute cache key: \"/secret\" not found: not found",
        "user: step `[2/2] COPY secret x not found /`: failed to compute cache key: \"/secret\" not found",
    );
}

#[test]
fn base_images() {
    let check = |error: &str, expect: &str| {
        let reference = "docker.io/library/nope:1";
        let step = format!("[internal] load metadata for {reference}");
        let message = format!("failed to solve with frontend dockerfile.v0: failed to create LLB definition: {error}");
        assert_eq!(
            sorted("FROM nope:1", Some((&step, error)), &message),
            format!("user: base image `{reference}` {expect}")
        );
    };
    check("docker.io/library/nope:1: not found", "is not in its registry");
    check(
        "docker.io/library/nope:1: failed to resolve source metadata for docker.io/library/nope:1: \
         docker.io/library/nope:1: not found",
        "is not in its registry",
    );
    check(
        "pull access denied, repository does not exist or may require authorization: server message: \
         insufficient_scope: authorization failed",
        "may not be pulled, or is not there: pull access denied, repository does not exist or may require \
         authorization: server message: insufficient_scope: authorization failed",
    );
    check(
        "failed to do request: Head \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: \
         no such host",
        "cannot be reached: failed to do request: Head \"https://registry-1.docker.io/v2/\": dial tcp: lookup \
         registry-1.docker.io: no such host",
    );
}

#[test]
fn images_that_are_read_otherwise() {
    let check = |step: &str, error: &str, expect: &str| {
        assert_eq!(
            sorted("FROM x", Some((step, error)), &format!("failed to solve: {error}")),
            format!("user: {expect}")
        );
    };
    let refused =
        "failed to do request: Head \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
    for step in
        ["resolve image config for r.io/f:1", "resolve image config for docker-image://r.io/f:1", "FROM r.io/f:1"]
    {
        check(step, refused, &format!("base image `r.io/f:1` cannot be reached: {refused}"));
    }
    check(
        "[internal] load metadata for r.io/f:1",
        "no match for platform in manifest sha256:00: not found",
        "base image `r.io/f:1` is not there for this platform: no match for platform in manifest sha256:00: not found",
    );
    check(
        "[internal] load metadata for r.io/f:1",
        "unexpected status code [manifests 1]: 503 Service Unavailable",
        "base image `r.io/f:1` cannot be reached: unexpected status code [manifests 1]: 503 Service Unavailable",
    );
    check(
        "[internal] load metadata for r.io/f:1",
        "something new",
        "step `[internal] load metadata for r.io/f:1`: something new",
    );
}

#[test]
fn dockerfiles() {
    let check = |dockerfile: &str, message: &str, expect: &str| {
        for prefix in ["failed to solve with frontend dockerfile.v0: ", "failed to solve: "] {
            assert_eq!(sorted(dockerfile, None, &format!("{prefix}{message}")), format!("user: {expect}"));
        }
    };
    check(
        "FROM scratch\nFOO",
        "failed to create LLB definition: dockerfile parse error line 2: unknown instruction: FOO",
        "Dockerfile `Dockerfile`, line 2: unknown instruction: FOO",
    );
    check(
        "FROM scratch\nFOO",
        "dockerfile parse error on line 2: unknown instruction: FOO",
        "Dockerfile `Dockerfile`, line 2: unknown instruction: FOO",
    );
    check(
        "FROM scratch\nRUN <<EOF\necho\nEOF",
        "dockerfile parse error line 3: unknown instruction: ECHO",
        "Dockerfile `Dockerfile`, line 3: a here-document needs Docker Engine 23 or newer; this agent has Docker \
         Engine 20.10.24",
    );
    check(
        "FROM scratch\nFOO\nRUN <<EOF",
        "dockerfile parse error line 2: unknown instruction: FOO",
        "Dockerfile `Dockerfile`, line 2: unknown instruction: FOO",
    );
    check(
        "FROM scratch\nCOPY --link a b",
        "failed to create LLB definition: dockerfile parse error line 2: Unknown flag: link",
        "Dockerfile `Dockerfile`, line 2: the flag --link needs Docker Engine 23 or newer; this agent has Docker \
         Engine 20.10.24",
    );
    check(
        "",
        "failed to create LLB definition: the Dockerfile cannot be empty",
        "Dockerfile `Dockerfile`: the Dockerfile cannot be empty",
    );
    for quoted in ["there", "\"there\""] {
        check(
            "FROM scratch",
            &format!("failed to create LLB definition: target stage {quoted} could not be found"),
            "target stage `there` is not in Dockerfile `Dockerfile`",
        );
    }
    check(
        "FROM scratch",
        "failed to read dockerfile: open /var/lib/docker/tmp/buildkit-mount1/Dockerfile: no such file or directory",
        "Dockerfile `Dockerfile` is not in the context: name it with --file",
    );
    check(
        "FROM scratch",
        "failed to read dockerfile: read /var/lib/docker/tmp/buildkit-mount1/bin: is a directory",
        "Dockerfile `Dockerfile`: is a directory",
    );
}

/// How a step's exit with 1 is sorted after this output of its.
fn exited_after(output: &[&str]) -> BuildError {
    let mut blame = blame("");
    output.iter().for_each(|text| blame.heard("sha256:0", text.as_bytes()));
    blame.heard("sha256:1", b"tar: x: No space left on device");
    blame.saw(&VertexEvent {
        id: "sha256:0".into(),
        name: "[2/2] RUN dd".into(),
        started: None,
        completed: None,
        cached: false,
        error: Some("executor failed running [/bin/sh -c dd]: exit code: 1".into()),
    });
    blame.error("executor failed running [/bin/sh -c dd]: exit code: 1")
}

#[test]
fn a_full_disk_is_nobodys_fault_but_the_machinerys() {
    match exited_after(&["writing\n", "dd: error writing '/x': No space left on device\n"]) {
        BuildError::Machinery(error @ EngineError::DiskFull { .. }) => {
            let text = error.to_string();
            assert!(text.contains("RUN dd` exited with code 1") && text.contains("--cache-budget"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(exited_after(&["another error\n"]), BuildError::Failed(BuildFailure::Exited { code: 1, .. })));
    let copy = blame("").error("failed to copy files: write /var/lib/docker/x: no space left on device");
    assert!(matches!(copy, BuildError::Machinery(EngineError::DiskFull { .. })), "{copy:?}");
}

#[test]
fn a_container_whose_network_the_engine_did_not_make_is_the_machinerys() {
    let hook = "error running hook #0: exit status 1, stdout: , stderr: time=\"2026-11-23T03:58:48Z\" level=fatal \
                msg=\"failed to update store for object type *libnetwork.sbState: open : no such file or directory\"";
    for text in [
        format!("runc run failed: unable to start container process: error during container init: {hook}\n"),
        format!("container_linux.go:380: starting container process caused: process_linux.go:545: container init: {hook}"),
        "runc run failed: unable to start container process: error during container init: error running prestart hook #0"
            .to_owned(),
        "runc run failed: getwd: no such file or directory\n".to_owned(),
    ] {
        match exited_after(&[&text]) {
            BuildError::Machinery(error @ EngineError::Refused { .. }) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let said = format!("{error} {source:?}");
                assert!(said.contains("RUN dd` exited with code 1, as the runtime could not"), "{said}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    // The build's own fault, in runc's words; and a command's own words, which are never the first.
    let own = "runc run failed: unable to start container process: ";
    for output in [
        &[format!("{own}exec: \"/nope\": stat /nope: no such file or directory").as_str()][..],
        &[format!("{own}exec /bin/sh: exec format error").as_str()],
        &[format!("{own}error during container init: mkdir /x: chdir to cwd (\"/x\") set in config.json failed")
            .as_str()],
        &["starting a container\n", "runc run failed: getwd: no such file or directory"],
        &["it says runc run failed: getwd: no such file or directory"],
    ] {
        assert!(matches!(exited_after(output), BuildError::Failed(BuildFailure::Exited { code: 1, .. })), "{output:?}");
    }
}

#[test]
fn machinery() {
    for message in [
        "no active session for abc: context deadline exceeded",
        "failed to copy files: write /var/lib/docker/x: no space left on device",
        "rpc error: code = Unavailable desc = transport is closing",
        "failed to solve: Canceled: context canceled",
        "failed to get digest sha256:00: open /var/lib/docker/image/overlay2/imagedb/x: no such file or directory",
        "failed to solve with frontend dockerfile.v0: failed to build LLB: invalid request {0 0xc00333a380} for build",
        "failed to solve: failed to get edge: inconsistent graph state",
        "failed to compute cache key: flightcontrol: exceeded retry timeout",
        "failed to solve: failed to prepare sha256:00 as x: parent snapshot sha256:7a does not exist: not found",
        "executor failed running [/bin/sh -c id]: failed to update store for object type *libnetwork.endpoint: open : no \
         such file or directory",
        "process \"/bin/sh -c id\" did not complete successfully: failed to create endpoint x on network bridge: y",
    ] {
        let sorted = sorted("FROM scratch", None, message);
        assert!(sorted.starts_with("machinery: "), "{sorted}");
    }
    // Neither is the base image missing.
    let lost = "failed to prepare sha256:00 as x: parent snapshot sha256:7a does not exist: not found";
    let sorted = sorted("FROM r.io/f:1", Some(("[1/2] FROM r.io/f:1", lost)), &format!("failed to solve: {lost}"));
    assert!(sorted.starts_with("machinery: "), "{sorted}");
}

#[test]
fn what_was_cancelled_beside_a_failure_is_not_to_blame() {
    let mut blame = blame("FROM scratch");
    let vertex = |name: &str, error: &str| VertexEvent {
        id: name.into(),
        name: name.into(),
        started: None,
        completed: None,
        cached: false,
        error: Some(error.into()),
    };
    blame.saw(&vertex("importing cache manifest from r.io/a:cache_t_b", "r.io/a:cache_t_b: not found"));
    blame.saw(&vertex("[a] RUN sleep", "executor failed running [sleep]: context canceled"));
    blame.saw(&vertex("[b] RUN false", "executor failed running [false]: exit code: 1"));
    let error = blame.error("executor failed running [false]: exit code: 1");
    assert!(matches!(error, BuildError::Failed(BuildFailure::Exited { step, code: 1 }) if step == "[b] RUN false"));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(name in "(\\[internal\\] load metadata for |\\[|RUN |FROM )?\\PC{0,20}", error in "\\PC{0,80}") {
        let _ = sorted("FROM scratch", Some((&name, &error)), &error);
    }
}
