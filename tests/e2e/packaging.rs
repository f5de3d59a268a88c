//! What ships around an agent: each file of `agents/` is held against the program that reads it, as far as it can run
//! here, and the container image works as an agent.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cooper_e2e::{Context, Engine, ServerOptions, TestServer, cooper_binary, repository_path, run_to_end, unique};
use serde_json::Value;
use tempfile::TempDir;

/// How long a program that checks a file may take.
const CHECK: Duration = Duration::from_secs(60);

/// Where the engine of these tests listens.
const SOCKET: &str = "/var/run/docker.sock";

fn agents(name: &str) -> PathBuf {
    repository_path("agents").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(agents(name)).unwrap()
}

/// The documents of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The help of `cooper agent`, which names every setting.
fn agent_help() -> String {
    run_to_end(Command::new(cooper_binary()).args(["agent", "--help"]), CHECK).ok().stdout
}

/// Fails when the variable is none of an agent's settings.
fn check_variable(variable: &str) {
    let name = variable.strip_prefix("COOPER_").unwrap().to_lowercase().replace('_', "-");
    check_arguments([format!("--{}", name.strip_prefix("agent-").unwrap_or(&name)).as_str()]);
}

/// Fails when a command line has a flag that `cooper agent` does not know.
fn check_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) {
    let help = agent_help();
    for flag in arguments.into_iter().filter(|word| word.starts_with("--")) {
        assert!(help.split_whitespace().any(|word| word == flag), "{flag} is not in\n{help}");
    }
}

fn strings(values: &Value) -> Vec<&str> {
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

#[test]
fn the_systemd_unit_is_sound_and_leaves_the_agent_little() {
    let unit = text("systemd/cooper-agent.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/cooper agent ")).unwrap();
    check_arguments(start.split(' '));
    for line in text("systemd/agent.env").lines().map(|line| line.trim_start_matches('#')) {
        if let Some((variable, _)) = line.split_once('=').filter(|(name, _)| name.starts_with("COOPER_")) {
            check_variable(variable);
        }
    }

    // The program of the unit is looked for, and this one is there.
    let folder = TempDir::with_prefix("cooper-unit-").unwrap();
    let path = folder.path().join("cooper-agent.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/cooper", &cooper_binary().display().to_string())).unwrap();
    let verified = run_to_end(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path), CHECK).ok();
    assert_eq!(verified.stderr, "", "{verified}");
    // The scale of `systemd-analyze security` ends at 10.
    let most = ["security", "--offline=true", "--no-pager", "--threshold=20"];
    run_to_end(Command::new("systemd-analyze").args(most).arg(&path), CHECK).ok();
}

#[test]
fn the_compose_file_says_what_the_image_needs() {
    let [file] = &yaml("docker/compose.yaml")[..] else { panic!("one document") };
    let top: Vec<&String> = file.as_object().unwrap().keys().collect();
    assert_eq!(top, ["secrets", "services", "volumes"]);
    let agent = &file["services"]["agent"];
    check_arguments(strings(&agent["command"]));
    for variable in agent["environment"].as_object().unwrap().keys() {
        check_variable(variable);
    }
    assert_eq!(agent["network_mode"], "host", "the registry's name is a loopback address of the engine's host");
    let volumes = strings(&agent["volumes"]);
    assert!(volumes.contains(&"/var/run/docker.sock:/var/run/docker.sock"));
    // A name before the colon is a volume of the file.
    let state = volumes.iter().find_map(|volume| volume.strip_suffix(":/var/lib/cooper-agent")).unwrap();
    assert!(file["volumes"].as_object().unwrap().contains_key(state));
    assert!(text("docker/Dockerfile").contains("\nVOLUME /var/lib/cooper-agent\n"));
    for secret in strings(&agent["secrets"]) {
        let path = format!("/run/secrets/{secret}");
        let variables = agent["environment"].as_object().unwrap().values();
        let named = strings(&agent["command"]).contains(&path.as_str())
            || variables.into_iter().any(|value| value.as_str().unwrap().ends_with(&format!(":+{path}}}")));
        assert!(named, "{path} is for nobody");
        assert!(file["secrets"][secret]["file"].is_string());
    }
    assert_eq!(agent["read_only"], true);
    assert_eq!(strings(&agent["cap_drop"]), ["ALL"]);
}

#[test]
fn the_kubernetes_manifest_is_consistent() {
    let documents = yaml("kubernetes/agent.yaml");
    let of_kind = |kind: &str| {
        let found: Vec<&Value> = documents.iter().filter(|document| document["kind"] == kind).collect();
        let [found] = found[..] else { panic!("{} of {kind}", found.len()) };
        found
    };
    let (service, set) = (of_kind("Service"), of_kind("StatefulSet"));
    assert_eq!(documents.len(), 2);
    assert_eq!((&service["apiVersion"], &set["apiVersion"]), (&Value::from("v1"), &Value::from("apps/v1")));
    assert_eq!(set["spec"]["serviceName"], service["metadata"]["name"]);
    let template = &set["spec"]["template"];
    assert_eq!(set["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    assert_eq!(service["spec"]["selector"], template["metadata"]["labels"]);

    let pod = &template["spec"];
    let named = |list: &Value, name: &str| {
        let found =
            list.as_array().unwrap().iter().find(|item| item["name"] == name || item["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {list:#}")).clone()
    };
    let (agent, engine) = (named(&pod["containers"], "agent"), named(&pod["containers"], "engine"));
    for container in [&agent, &engine] {
        for mount in container["volumeMounts"].as_array().unwrap() {
            let name = mount["name"].as_str().unwrap();
            let volumes = pod["volumes"].as_array().unwrap().iter();
            let claims = set["spec"]["volumeClaimTemplates"].as_array().unwrap().iter();
            assert!(volumes.chain(claims).any(|volume| volume["name"] == name || volume["metadata"]["name"] == name));
        }
    }
    let mount = |container: &Value, name: &str| named(&container["volumeMounts"], name)["mountPath"].clone();
    assert_eq!(mount(&agent, "engine-socket"), mount(&engine, "engine-socket"));
    assert_eq!(mount(&agent, "engine-data"), mount(&engine, "engine-data"), "the agent looks where the engine says");
    assert_eq!(mount(&agent, "state"), "/var/lib/cooper-agent");

    let arguments = strings(&agent["args"]);
    check_arguments(arguments.iter().copied());
    let value = |flag| arguments[arguments.iter().position(|word| *word == flag).unwrap() + 1];
    assert!(strings(&engine["args"]).contains(&format!("--host=unix://{}", value("--engine")).as_str()));
    assert!(value("--token-file").starts_with(mount(&agent, "token").as_str().unwrap()));
    let ca = named(&agent["env"], "COOPER_CA_FILE");
    assert_eq!(ca["valueFrom"]["configMapKeyRef"]["optional"], true);
    let folder = mount(&agent, "ca");
    let hint = format!("--from-file=ca.pem --from-literal=path={}/ca.pem", folder.as_str().unwrap());
    assert!(text("kubernetes/agent.yaml").contains(&hint) && text("README.md").contains(&hint));
    assert_eq!(named(&pod["volumes"], "ca")["configMap"]["optional"], true);
    for variable in agent["env"].as_array().unwrap() {
        check_variable(variable["name"].as_str().unwrap());
    }
    // The image's user, and whom the engine and the secret let in.
    let user = agent["securityContext"]["runAsUser"].as_u64().unwrap();
    assert!(text("docker/Dockerfile").contains(&format!("USER {user}:{user}\n")));
    assert!(strings(&engine["args"]).contains(&format!("--group={user}").as_str()));
    // The group of every file in the engine's images would be changed with each start of a pod.
    assert!(pod.get("securityContext").is_none_or(|context| context.get("fsGroup").is_none()));
    // The agent is not its owner. (An octal number, which not all readers of YAML take for one.)
    assert!(text("kubernetes/agent.yaml").contains("defaultMode: 0444\n"));
    // The image's entrypoint stays.
    assert!(engine.get("command").is_none());
    assert_eq!(engine["args"][0], "dockerd");
    assert_eq!(agent["securityContext"]["readOnlyRootFilesystem"], true);
    assert!(agent["securityContext"].get("privileged").is_none());
}

/// A base image with nothing but the libraries that the program of this machine needs; its name in the registry.
fn base_image(server: &TestServer) -> String {
    let needs = run_to_end(Command::new("ldd").arg(cooper_binary()), CHECK).ok().stdout;
    let context = Context::new("FROM scratch\nCOPY root /\n");
    let root = context.join("root");
    for library in needs.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(library, to).unwrap();
    }
    image_name(&server.build(&["-t", "packaging/base:1"], &context), "packaging/base:1")
}

fn image_name(run: &Value, name: &str) -> String {
    format!("{}/{name}", run["outputImages"][0]["registry"].as_str().unwrap())
}

/// A container that goes with the test; its image goes with the engine's client.
struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.engine.docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Has the server build the agent's image as its folder says, and pulls it. The name is another one for each test.
fn image(server: &TestServer, engine: &Engine) -> String {
    let base = base_image(server);
    let context = Context::empty()
        .file("Dockerfile", text("docker/Dockerfile"))
        .file(".dockerignore", text("docker/.dockerignore"));
    // Without what only a debugger needs, it is a fifth of the size.
    let program = context.join("cooper");
    run_to_end(Command::new("strip").args(["--strip-debug", "-o"]).arg(&program).arg(cooper_binary()), CHECK).ok();
    let name = format!("packaging/{}:1", unique());
    let run = server.build(&["--build-arg", &format!("BASE={base}"), "-t", &name], &context);
    let image = image_name(&run, &name);
    engine.login(image.split('/').next().unwrap(), &server.token_file());
    server.pull(engine, &image);
    image
}

#[test]
fn the_container_image_holds_the_program_for_nobody_in_particular() {
    let (server, engine) = (TestServer::start(), Engine::new());
    let image = &image(&server, &engine);
    let container = Container { engine: &engine, name: format!("cooper-packaging-{}", unique()) };
    let version = engine.docker(&["run", "--rm", "--network", "none", "--read-only", image, "version"]).ok().stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let config = engine.docker(&["inspect", "--format", "{{json .Config}}", image]).ok().json();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Cmd"], serde_json::json!(["agent"]));
    // A new volume takes its owner from the folder in the image: the agent may write there.
    engine.docker(&["create", "--name", &container.name, image]).ok();
    let folder = TempDir::with_prefix("cooper-packaging-").unwrap();
    let listed = folder.path().join("rootfs.tar");
    engine.docker(&["export", "--output", listed.to_str().unwrap(), &container.name]).ok();
    let listed = run_to_end(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&listed), CHECK).ok().stdout;
    let state = listed.lines().find(|line| line.ends_with(" var/lib/cooper-agent/"));
    assert!(state.is_some_and(|line| line.contains(" 65532/65532 ")), "{listed}");
}

#[test]
fn the_container_image_is_an_agent() {
    let engine = Engine::new();
    let image = image(&TestServer::start(), &engine);
    // Who works for this server comes from elsewhere.
    let arguments = vec!["--no-agent".to_owned()];
    let server = TestServer::with(ServerOptions { arguments, ..Default::default() });

    let folder = TempDir::with_prefix("cooper-packaging-").unwrap();
    let token = server.cooper(&["token", "create", "packaged", "--scope", "agent"]).ok().stdout;
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token.trim()).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&token_file, PermissionsExt::from_mode(0o400)).unwrap();
    std::os::unix::fs::chown(&token_file, Some(65532), Some(65532)).unwrap();

    // As the compose file has it.
    let container = Container { engine: &engine, name: format!("cooper-packaging-{}", unique()) };
    let group = std::fs::metadata(SOCKET).unwrap().gid().to_string();
    let address = format!("COOPER_SERVER={}", server.url());
    let secret = format!("{}:/run/secrets/token:ro", token_file.display());
    let socket = format!("{SOCKET}:{SOCKET}");
    let run = ["run", "--detach", "--name", &container.name, "--network", "host", "--read-only", "--cap-drop", "ALL"];
    let given = ["--security-opt", "no-new-privileges:true", "--group-add", &group, "--env", &address];
    let mounts = ["--volume", &socket, "--volume", &secret, "--volume", "/var/lib/docker:/var/lib/docker:ro"];
    let rest = ["--env", "COOPER_AGENT_NAME=packaged", &image, "agent", "--token-file", "/run/secrets/token"];
    engine.docker(&[&run[..], &given, &mounts, &rest].concat()).ok();
    let logs = || engine.docker(&["logs", &container.name]);

    let folder = Context::busybox();
    let built = server.cooper(&["build", "-t", "made/there:1", &folder.display()]);
    assert_eq!(built.code, Some(0), "{built}\n{}", logs());
    assert!(format!("{built}").contains("Agent: 'packaged'"), "{built}");

    // The first signal ends it in order.
    engine.docker(&["stop", "--time", "110", &container.name]).ok();
    let code = engine.docker(&["inspect", "--format", "{{.State.ExitCode}}", &container.name]).ok().stdout;
    assert_eq!(code.trim(), "0", "{}", logs());
}
