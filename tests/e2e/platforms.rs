//! Images for two platforms: built by two agents with engines of their own, one of which emulates; pushed under one name, and
//! run by whoever pulls it.

use std::os::unix::fs::PermissionsExt as _;

use cooper_e2e::{
    Context, Emulation, EmulationTurn, Namespace, ServerOptions, TestServer, amd64_program, arm64_program, unique,
};
use serde_json::Value;

use super::two_machines::Machine;

const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY hello-$TARGETARCH /hello\nCMD [\"/hello\"]\n";

/// A folder with a program for each platform.
pub(super) fn hello(word: &str) -> Context {
    let context = Context::new(DOCKERFILE)
        .file("hello-amd64", amd64_program(&format!("amd64 says {word}\n")))
        .file("hello-arm64", arm64_program(&format!("arm64 says {word}\n")));
    for name in ["hello-amd64", "hello-arm64"] {
        std::fs::set_permissions(context.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    context
}

/// The platforms of an index in the server's registry, and the digests of their manifests.
pub(super) fn index(server: &TestServer, repository: &str, tag: &str) -> Vec<(String, String)> {
    let answer = server.registry(&format!("/v2/{repository}/manifests/{tag}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let index: Value = serde_json::from_str(&answer.body).unwrap();
    let platform = |entry: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let platform = &entry["platform"];
        (format!("{}/{}", text(&platform["os"]), text(&platform["architecture"])), text(&entry["digest"]))
    };
    index["manifests"].as_array().unwrap_or_else(|| panic!("no index: {index}")).iter().map(platform).collect()
}

/// What the named steps of a run pushed, by digest.
fn pushed(run: &Value, step: &str) -> Vec<String> {
    let steps = run["steps"].as_array().unwrap();
    let step = steps.iter().find(|one| one["id"] == step).unwrap_or_else(|| panic!("no step {step}: {run:#}"));
    let digest = |image: &Value| image["digest"].as_str().unwrap().to_owned();
    step["pushed"].as_array().map(|images| images.iter().map(digest).collect()).unwrap_or_default()
}

#[test]
fn one_name_stands_for_images_of_two_platforms() {
    let turn = EmulationTurn::wait();
    let _emulation = Emulation::register(&turn);
    let here = Namespace::new();
    let arguments = vec!["--no-agent".to_owned()];
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(here.clone()), ..Default::default() });
    let amd = Machine::new(&server, &here, "amd", &["--platform", "linux/amd64"]);
    let arm = Machine::new(&server, &here, "arm", &["--platform", "linux/arm64"]);
    let word = unique();
    let context = hello(&word)
        .file("data.dockerfile", format!("FROM scratch\nCOPY word /word\nLABEL word={word}\n"))
        .file("word", &word)
        .file("app.dockerfile", "FROM multi/hello:v1\nCOPY --from=multi/data /word /word\n")
        .file("copy.dockerfile", "FROM scratch\nCOPY --from=multi/data /word /word\n")
        .file(
            "acr-task.yaml",
            "version: v1.1.0\nsteps:\n  - id: image\n    build: -t $Registry/multi/hello:v1 -t multi/hello:{{.Run.ID}} -t multi/hello:v1 .\n    \
             platforms: [linux/amd64, linux/arm64]\n  - id: on-arm\n    cmd: multi/hello:v1\n    platform: linux/arm64\n  - id: \
             on-amd\n    cmd: multi/hello:v1\n  - id: data\n    build: -t multi/data -f data.dockerfile .\n  - id: app\n    build: \
             -t multi/app -f app.dockerfile .\n    platform: linux/arm64\n  - id: copy\n    build: -t multi/copy -f \
             copy.dockerfile .\n    platform: linux/arm64\n  - id: out\n    push: ['multi/hello:v1', 'multi/hello:{{.Run.ID}}', \
             multi/app, multi/copy]\n",
        );
    let run = server.cooper(&["run", "--no-logs", "--output", "json", &context.display()]);
    let id = run.json()["runId"].as_str().unwrap().to_owned();
    let log = server.cooper(&["logs", &id]).ok().stdout;
    assert_eq!(run.code, Some(0), "{run}\n{log}");
    let run = server.run(&id);
    assert!(log.contains(&format!("arm64 says {word}")) && log.contains(&format!("amd64 says {word}")), "{log}");
    let agents: Vec<(&str, &str)> = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["id"].as_str().unwrap(), step["agent"].as_str().unwrap()))
        .collect();
    for (step, agent) in [
        ("image-linux-amd64", "amd"),
        ("image-linux-arm64", "arm"),
        ("image-linux-amd64-stage", "amd"),
        ("image-linux-arm64-stage", "arm"),
        ("data-stage", "amd"),
        ("app", "arm"),
    ] {
        assert!(agents.contains(&(step, agent)), "{agents:?}");
    }

    // One index under both tags; the stages' tags are nobody's.
    let parts = index(&server, "multi/hello", "v1");
    assert_eq!(parts, index(&server, "multi/hello", &id));
    let staged = |platform: &str| pushed(&run, &format!("image-linux-{platform}-stage"))[0].clone();
    let expect = [("linux/amd64", staged("amd64")), ("linux/arm64", staged("arm64"))];
    assert_eq!(parts, expect.map(|(platform, digest)| (platform.to_owned(), digest)));
    let tags = server.registry("/v2/multi/hello/tags/list");
    let tags: Value = serde_json::from_str(&tags.body).unwrap();
    assert_eq!(tags["tags"].as_array().unwrap().len(), 2, "{tags}");
    assert!(
        serde_json::from_str::<Value>(&server.registry("/v2/multi/data/tags/list").body).unwrap()["tags"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );

    // By the same name each machine gets its own, and any other that it asks for.
    let registry = format!("localhost:{}", server.port());
    let name = format!("{registry}/multi/hello:v1");
    for (machine, asked, says) in
        [(&amd, "linux/amd64", "amd64"), (&amd, "linux/arm64", "arm64"), (&arm, "linux/arm64", "arm64")]
    {
        let client = machine.engine.client();
        client.login(&registry, &server.token_file());
        client.docker(&["pull", "--quiet", "--platform", asked, &name]).ok();
        let said = client.docker(&["run", "--rm", "--platform", asked, &name]).ok().stdout;
        assert_eq!(said, format!("{says} says {word}\n"), "{asked}");
    }
    // What the amd64 engine built is in the arm64 images.
    let client = arm.engine.client();
    client.login(&registry, &server.token_file());
    for image in ["app", "copy"] {
        let image = format!("{registry}/multi/{image}:latest");
        client.docker(&["pull", "--quiet", "--platform", "linux/arm64", &image]).ok();
        let container = client.docker(&["create", &image, "none"]).ok().stdout.trim().to_owned();
        let copied = client.docker(&["cp", &format!("{container}:/word"), "-"]).ok().stdout;
        assert!(copied.contains(&word), "{image}");
    }

    // A quick build of the same.
    let built = server.build(&["--platform", "linux/arm64,linux/amd64", "-t", "multi/quick:1"], &hello(&unique()));
    let parts = index(&server, "multi/quick", "1");
    assert_eq!(parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>(), ["linux/arm64", "linux/amd64"]);
    assert_eq!(built["outputImages"][0]["digest"], pushed(&built, "push")[0]);
    assert_eq!(pushed(&built, "build-linux-arm64-stage"), [parts[0].1.clone()]);

    // Without a push nothing is left.
    let unpushed =
        server.build(&["--platform", "linux/arm64,linux/amd64", "--no-push", "-t", "multi/none:1"], &hello(&unique()));
    assert_eq!(unpushed["steps"].as_array().unwrap().len(), 2);
    assert_eq!(server.registry("/v2/multi/none/tags/list").status, 404);
}
