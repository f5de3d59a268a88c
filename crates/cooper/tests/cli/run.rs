//! `cooper run` against the scripted server: what is asked for, and where its texts are from.

use cooper_api::rest::{EncodedTaskRunRequest, FileTaskRunRequest, RunRequest, RunStatus, TaskRunCommon};

use super::build::logged_in;
use super::server::{LOG, Server};

const TASK: &str = "steps:\n- cmd: busybox echo {{.Values.v}}\n";

fn encoded(server: &Server) -> EncodedTaskRunRequest {
    let RunRequest::EncodedTaskRunRequest(request) = server.asked() else { panic!("a task is sent along") };
    request
}

fn in_source(server: &Server) -> FileTaskRunRequest {
    let RunRequest::FileTaskRunRequest(request) = server.asked() else { panic!("the task is in the source") };
    request
}

#[tokio::test]
async fn flags_of_az_are_taken_and_each_is_said_to_have_no_effect() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let run = ["run", "--cmd", "busybox true", "/dev/null"];
    let plain = cooper.run(run).await;
    plain.succeeds();
    assert!(!plain.stderr.contains("has no effect"), "{plain:?}");
    let asked = encoded(&server);
    let flags = [
        ("-r", "reg", "--registry", "named by --server"),
        ("--registry", "reg", "--registry", "named by --server"),
        ("-g", "group", "--resource-group", "no resource groups"),
        ("--resource-group", "group", "--resource-group", "no resource groups"),
        ("--auth-mode", "Default", "--auth-mode", "logs in to its own registry"),
        ("--source-acr-auth-id", "[caller]", "--source-acr-auth-id", "acts for who started it"),
        ("--log-template", "log:1", "--log-template", "kept by the server"),
        ("--subscription", "mine", "--subscription", "no subscriptions"),
    ];
    for (flag, value, name, why) in flags {
        let ended = cooper.run([&run[..], &[flag, value]].concat()).await;
        ended.succeeds();
        let told: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("has no effect")).collect();
        assert!(matches!(told[..], [line] if line.contains(why)), "{flag}: {ended:?}");
        assert!(told[0].starts_with(&format!("warning: {name} has no effect: ")), "{flag}: {ended:?}");
        assert_eq!((ended.stdout, encoded(&server)), (format!("{LOG}\n"), asked.clone()), "{flag}");
    }
    let all: Vec<&str> = flags.iter().skip(1).step_by(2).flat_map(|(flag, value, ..)| [*flag, *value]).collect();
    let ended = cooper.run([&run[..], &all, &["--no-format"]].concat()).await;
    ended.succeeds();
    assert_eq!(ended.stderr.matches("has no effect").count(), 4, "{ended:?}");
    // What is az's own is none of ours.
    for flag in ["--only-show-errors", "--verbose", "--debug"] {
        cooper.run([&run[..], &[flag]].concat()).await.fails_with(2, &[flag]);
    }
}

#[tokio::test]
async fn platform_time_and_pool_are_asked_for() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let source = "https://git.example/app.git";
    let command = ["run", "--cmd", "$Registry/app:1 test 'a: b'", "/dev/null"];
    let flags = ["--platform", "linux/arm64", "--timeout", "77", "--agent-pool", "arms"];
    let told = |common: &TaskRunCommon| {
        let platform = common.platform.as_ref().map(|platform| platform.to_string());
        (platform, common.timeout, common.agent_pool_name.clone())
    };
    // One container works where its image says, for as long as its run.
    let file = |timeout: u32| {
        format!(
            "version: v1.1.0\nsteps:\n  - cmd: \"$Registry/app:1 test 'a: b'\"\n    disableWorkingDirectoryOverride: true\n    \
             timeout: {timeout}\n"
        )
    };
    cooper.run(command).await.succeeds();
    let asked = encoded(&server);
    assert_eq!((told(&asked.common), asked.encoded_task_content.0), ((None, 3600, None), file(3600)));
    cooper.run([&command[..], &flags].concat()).await.succeeds();
    let asked = encoded(&server);
    let all = (Some("linux/arm64".to_owned()), 77, Some("arms".to_owned()));
    assert_eq!((told(&asked.common), asked.encoded_task_content.0), (all.clone(), file(77)));
    cooper.run([&["run", source], &flags[..]].concat()).await.succeeds();
    assert_eq!(told(&in_source(&server).common), all);
    for (flag, value) in [("--timeout", "0"), ("--timeout", "28801"), ("--platform", "beos/amd64")] {
        cooper.run([&command[..], &[flag, value]].concat()).await.fails_with(2, &[value]);
    }
}

#[tokio::test]
async fn a_remote_sources_task_is_where_it_says_or_has_a_usual_name() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let source = "https://git.example/app.git";
    cooper.run(["run", source]).await.succeeds();
    let asked = in_source(&server);
    assert_eq!((asked.task_file_path, asked.values_file_path), (None, None));
    assert_eq!(asked.common.source_location.as_deref(), Some(source));
    cooper.run(["run", "-f", "./ci/t.yaml", "--values", "v.yaml", source]).await.succeeds();
    let asked = in_source(&server);
    assert_eq!(asked.task_file_path.as_deref(), Some("ci/t.yaml"));
    assert_eq!(asked.values_file_path.as_deref(), Some("v.yaml"));
    // A task on the standard input is sent along, whatever the source is.
    cooper.piped(["run", "-f", "-", "--set", "v=1", source], TASK).await.succeeds();
    let asked = encoded(&server);
    assert_eq!((asked.encoded_task_content.0.as_str(), asked.task_file_path.as_deref()), (TASK, Some("-")));
    assert_eq!(asked.common.source_location.as_deref(), Some(source));
}

#[tokio::test]
async fn texts_of_this_machine_are_looked_for_in_the_folder_first() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let named = |name: &str| format!("{TASK}# {name}\n");
    for name in ["t.yaml", "src/t.yaml", "only-here.yaml", "src/acb.yaml"] {
        cooper.write(name, &named(name));
    }
    for name in ["v.yaml", "src/v.yaml", "only-v.yaml"] {
        cooper.write(name, &format!("v: {name}\n"));
    }
    let cases: [(&[&str], &str, Option<&str>); 4] = [
        (&["-f", "t.yaml", "--values", "v.yaml"], "src/t.yaml", Some("src/v.yaml")),
        (&["-f", "only-here.yaml", "--values", "only-v.yaml"], "only-here.yaml", Some("only-v.yaml")),
        (&["-f", "src/t.yaml"], "src/t.yaml", None),
        (&[], "src/acb.yaml", None),
    ];
    for (flags, task, values) in cases {
        cooper.run([&["run", "--set", "x=y"], flags, &["src"]].concat()).await.succeeds();
        let asked = encoded(&server);
        assert_eq!(asked.encoded_task_content.0, named(task), "{flags:?}");
        let sent = asked.encoded_values_content.map(|text| text.0);
        assert_eq!(sent, values.map(|name| format!("v: {name}\n")), "{flags:?}");
        assert_eq!(asked.common.source_location.as_deref(), Some("ctx-1"));
    }
    cooper.write("src/acr-task.yaml", &named("src/acr-task.yaml"));
    cooper.run(["run", "src"]).await.succeeds();
    assert_eq!(encoded(&server).encoded_task_content.0, named("src/acr-task.yaml"));
    // Without a folder there is one place to look.
    cooper.run(["run", "-f", "t.yaml", "/dev/null"]).await.succeeds();
    assert_eq!(encoded(&server).encoded_task_content.0, named("t.yaml"));
    cooper.run(["run", "-f", "nope.yaml", "src"]).await.fails_with(2, &["task file `nope.yaml`"]);
}
