//! Runs that are run again: from what they were made from, from what there is now, or from where they failed.

use cooper_e2e::{Context, GitRepository, GitServer, ServerOptions, TestServer};
use serde_json::{Value, json};

fn steps(run: &Value) -> Vec<&str> {
    run["steps"].as_array().unwrap().iter().map(|step| step["id"].as_str().unwrap()).collect()
}

/// A run with its record, its standard output being the log.
fn rerun(server: &TestServer, arguments: &[&str]) -> (Value, String) {
    let run = server.cooper(&[&["runs", "rerun", "--output", "json"], arguments].concat()).ok().json();
    let log = server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    (run, log)
}

#[test]
fn a_build_stands_on_the_bases_that_it_had() {
    let server = TestServer::start();
    let busybox = server.base_image();
    let moving = |which: &str| {
        let context = Context::new(&format!("FROM {busybox}\nRUN echo {which} > /which\n"));
        server.build(&["--no-logs", "-t", "moving:1"], &context)["outputImages"][0]["digest"].clone()
    };
    let one = moving("one");
    let moving_name = busybox.replace("base/busybox", "moving");
    let app = Context::new(&format!("FROM {busybox} AS tool\nFROM {moving_name}\nRUN echo which=$(cat /which).\n"));
    let flags = ["--no-logs", "--no-cache", "-t", "app:{{.Run.ID}}", "--build-arg", "OF={{.Run.Registry}}"];
    let first = server.build(&flags, &app);
    let a = first["runId"].as_str().unwrap();
    let two = moving("two");
    assert_ne!(one, two);

    let lock = server.cooper(&["runs", "lock", a]).ok().json();
    let base = &lock["steps"][0]["bases"][0];
    assert_eq!((base["reference"].as_str(), &base["digest"]), (Some(moving_name.as_str()), &one), "{lock:#}");
    assert_eq!(lock["steps"][0]["frontend"]["reference"], "built-in");
    let registry = busybox.split('/').next().unwrap();
    assert_eq!(lock["steps"][0]["arguments"], json!([{ "name": "OF", "value": registry }]));
    assert!(lock["placements"][0]["engine"].as_str().unwrap().starts_with("Docker"), "{lock:#}");
    assert!(lock["context"]["digest"].as_str().unwrap().starts_with("sha256:"), "{lock:#}");

    let (same, log) = rerun(&server, &[a]);
    let b = same["runId"].as_str().unwrap();
    assert!(log.contains("which=one."), "{log}");
    assert!(log.contains(&format!("Rerun of run {a}, with the source and the images that it had.")), "{log}");
    assert_eq!((&same["rerunOf"], same["outputImages"][0]["tag"].as_str()), (&first["runId"], Some(b)));
    let nothing = server.cooper(&["runs", "diff", a, b]).ok().stdout;
    assert_eq!(nothing, format!("Nothing moved from run {a} to run {b}.\n"));

    let (fresh, log) = rerun(&server, &[a, "--fresh"]);
    let c = fresh["runId"].as_str().unwrap();
    assert!(log.contains("which=two."), "{log}");
    let moved = server.cooper(&["runs", "diff", a, c]).ok().stdout;
    let digests = [&one, &two].map(|digest| digest.as_str().unwrap());
    assert_eq!(moved, format!("step build: base {moving_name}: {} → {}\n", digests[0], digests[1]));
    // A rerun of a rerun has what that one had.
    assert!(rerun(&server, &[b]).1.contains("which=one."));
    server.cooper(&["runs", "rerun", a, "--failed"]).expect(5).error_names(&["has no failed step"]);
    server.expect_quiet_log();
}

#[test]
fn only_what_failed_is_repeated_with_secrets_given_again() {
    let server = TestServer::start();
    let busybox = server.base_image();
    let sh = |script: &str| format!("$Registry/base/busybox:1 sh -c '{script}'");
    let task = format!(
        "version: v1.1.0\nsteps:\n  - id: good\n    cmd: {}\n    when: ['-']\n  - id: base\n    cmd: {}\n    when: ['-']\n  \
         - id: image\n    build: -f ci/Dockerfile .\n    when: [base]\n  - id: judged\n    cmd: {}\n    when: [good, base]\n  - id: beside\n    cmd: {}\n    when: ['-']\n  - id: bad\n    \
         cmd: {}\n    when: [image]\n",
        sh("echo good"),
        sh("echo made > made"),
        sh("echo judged"),
        sh("echo beside"),
        sh("sleep 3; cat made; test {{.Values.pw}} = right")
    );
    // The Dockerfile's own ignore rules hold where the file is built with other names of its bases, too.
    let dockerfile = format!("FROM {busybox}\nCOPY . /src\nRUN test -e /src/made && test ! -e /src/ignored\n");
    let context = Context::empty().file("acr-task.yaml", &task).file("ci/Dockerfile", &dockerfile);
    let context = context.file("ci/Dockerfile.dockerignore", "ignored\n").file("ignored", "");
    let failed = server.cooper(&["run", "--no-logs", "-o", "json", "--set-secret", "pw=wrong", &context.display()]);
    let run = failed.expect(1).json();
    let a = run["runId"].as_str().unwrap();
    server.cooper(&["runs", "rerun", a, "--failed"]).expect(2).error_names(&["--set-secret pw=VALUE"]);
    server
        .cooper(&["runs", "rerun", a, "--set-secret", "pw=x", "--set-secret", "other=1"])
        .expect(2)
        .error_names(&["other"]);

    let (again, log) = rerun(&server, &[a, "--failed", "--set-secret", "pw=right"]);
    assert_eq!(
        (steps(&again), again["status"].as_str()),
        (vec!["base", "image", "bad"], Some("Succeeded")),
        "{again:#}"
    );
    assert!(log.contains(&format!("Not repeated, because done in run {a}: good, judged, beside")), "{log}");
    assert!(!log.contains("right"), "{log}");
    let lock = server.cooper(&["runs", "lock", a]).ok().stdout;
    assert!(lock.contains("acr-task.yaml") && !lock.contains("wrong"), "{lock}");
    let shown = server.cooper(&["runs", "show", again["runId"].as_str().unwrap()]).ok().stdout;
    assert!(shown.contains(&format!("Rerun of:     {a}")), "{shown}");
}

#[test]
fn a_source_is_what_it_was_though_its_branch_has_moved() {
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let mut server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    let task = "version: v1.1.0\nsteps:\n  - id: show\n    cmd: $Registry/base/busybox:1 sh -c 'echo \
                branch={{.Run.Branch}} commit={{.Run.Commit}}; cat which'\n";
    let commit = |which: &str| repository.commit_files(&[("acr-task.yaml", task), ("which", which)]);
    let first = commit("which=first.");
    let run = server.cooper(&["run", "--no-logs", "-o", "json", &git.url("app.git")]).ok().json();
    let a = run["runId"].as_str().unwrap();
    let second = commit("which=second.");

    let (kept, log) = rerun(&server, &[a]);
    assert!(log.contains(&format!("branch=main commit={first}")) && log.contains("which=first."), "{log}");
    assert_eq!(steps(&kept), ["show"], "nobody fetches it again");
    server.stop();
    server.add_arguments(&["--context-retention", "0"]);
    server.restart();
    // The context is there until the server looks for what nobody needs, which it does soon after it starts.
    let is_fetched = |(run, _): &(Value, String)| steps(run) == ["prepare", "show"];
    let (fetched, log) = (0..60).map(|_| rerun(&server, &[a])).find(is_fetched).expect("the context goes");
    assert!(log.contains(&format!("branch=main commit={first}")) && log.contains("which=first."), "{log}");
    let b = fetched["runId"].as_str().unwrap();
    let (fresh, log) = rerun(&server, &[a, "--fresh"]);
    assert!(log.contains(&format!("branch=main commit={second}")) && log.contains("which=second."), "{log}");
    let moved = server.cooper(&["runs", "diff", b, fresh["runId"].as_str().unwrap()]).ok().stdout;
    assert!(moved.starts_with(&format!("commit: {first} → {second}\n")), "{moved}");
}

#[test]
fn a_steps_own_context_is_what_it_was_though_its_branch_has_moved() {
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let busybox = server.base_image();
    let dockerfile = format!("FROM {busybox}\nCOPY which /which\nRUN cat /which\n");
    let commit = |which: &str| repository.commit_files(&[("Dockerfile", &dockerfile), ("which", which)]);
    let url = git.url("app.git") + "#main";
    let task = format!("version: v1.1.0\nsteps:\n  - id: app\n    build: --no-cache {url}\n");
    let first = commit("which=first.");
    let context = Context::empty().file("acr-task.yaml", &task);
    let run = server.cooper(&["run", "--no-logs", "-o", "json", &context.display()]).ok().json();
    let a = run["runId"].as_str().unwrap();
    let second = commit("which=second.");

    let lock = server.cooper(&["runs", "lock", a]).ok().json();
    let locked = &lock["steps"][0]["context"];
    assert_eq!((locked["location"].as_str(), locked["commit"].as_str()), (Some(&*url), Some(&*first)), "{lock:#}");
    let (same, log) = rerun(&server, &[a]);
    let b = same["runId"].as_str().unwrap();
    assert!(log.contains("which=first.") && log.contains(&format!("at commit {first}")), "{log}");
    let nothing = server.cooper(&["runs", "diff", a, b]).ok().stdout;
    assert_eq!(nothing, format!("Nothing moved from run {a} to run {b}.\n"));
    // A rerun of a rerun has what that one had.
    assert!(rerun(&server, &[b]).1.contains("which=first."));
    let (fresh, log) = rerun(&server, &[a, "--fresh"]);
    assert!(log.contains("which=second."), "{log}");
    let moved = server.cooper(&["runs", "diff", a, fresh["runId"].as_str().unwrap()]).ok().stdout;
    assert_eq!(moved, format!("step app: context commit: {first} → {second}\n"));
}

#[test]
fn what_failed_is_repeated_with_the_images_that_it_had() {
    let server = TestServer::start();
    let busybox = server.base_image();
    let moving = |which: &str| {
        let context = Context::new(&format!("FROM {busybox}\nRUN echo which={which}. > /which\n"));
        server.build(&["--no-logs", "-t", "moving:1"], &context);
    };
    moving("one");
    let moving_name = busybox.replace("base/busybox", "moving");
    let task = "version: v1.1.0\nsteps:\n  - id: test\n    cmd: $Registry/moving:1 sh -c 'cat /which; exit 3'\n    \
                ignoreErrors: true\n  - id: app\n    build: --no-cache -f app.Dockerfile .\n";
    let dockerfile = format!("FROM {moving_name}\nRUN cat /which && false\n");
    let context = Context::empty().file("acr-task.yaml", task).file("app.Dockerfile", &dockerfile);
    let run = server.cooper(&["run", "--no-logs", "-o", "json", &context.display()]).expect(1).json();
    let a = run["runId"].as_str().unwrap();
    moving("two");

    let lock = server.cooper(&["runs", "lock", a]).ok().json();
    let digest = &lock["steps"][0]["image"]["digest"];
    assert!(digest.is_string() && *digest == lock["steps"][1]["bases"][0]["digest"], "{lock:#}");
    let again = server.cooper(&["runs", "rerun", "--output", "json", a]).expect(1).json();
    let b = again["runId"].as_str().unwrap();
    let log = server.cooper(&["logs", b]).ok().stdout;
    assert_eq!((log.matches("which=one.").count() >= 2, log.contains("which=two.")), (true, false), "{log}");
    assert!(!log.contains("warning: not all images"), "{log}");
    let nothing = server.cooper(&["runs", "diff", a, b]).ok().stdout;
    assert_eq!(nothing, format!("Nothing moved from run {a} to run {b}.\n"));
}

#[test]
fn secrets_have_the_version_that_the_run_had() {
    let server = TestServer::start();
    server.base_image();
    let values = Context::empty().file("1", "version-1").file("2", "second-version");
    let set = |version: &str| {
        let file = values.join(version).display().to_string();
        server.cooper(&["secret", "set", "token", "--from-file", &file]).ok();
    };
    // The value itself is masked.
    let task = "version: v1.1.0\nsecrets:\n  - id: token\n    keyvault: cooper://token\nsteps:\n  - cmd: \
                $Registry/base/busybox:1 sh -c 'echo length=${#TOKEN}.'\n    env: [\"TOKEN={{.Secrets.token}}\"]\n";
    let context = Context::empty().file("acr-task.yaml", task);
    set("1");
    let run = server.cooper(&["run", "--no-logs", "-o", "json", &context.display()]).ok().json();
    let a = run["runId"].as_str().unwrap();
    let secrets = |run: &str| server.cooper(&["runs", "lock", run]).ok().json()["secrets"].clone();
    let locked = |version: &str| json!([{ "id": "token", "provider": "the server's store", "place": "cooper://token", "version": version }]);
    assert_eq!(secrets(a), locked("1"));
    set("2");

    let (same, log) = rerun(&server, &[a]);
    let b = same["runId"].as_str().unwrap();
    assert!(log.contains("length=9."), "{log}");
    assert_eq!(secrets(b), locked("1"));
    let nothing = server.cooper(&["runs", "diff", a, b]).ok().stdout;
    assert_eq!(nothing, format!("Nothing moved from run {a} to run {b}.\n"));
    let (fresh, log) = rerun(&server, &[a, "--fresh"]);
    let c = fresh["runId"].as_str().unwrap();
    assert!(log.contains("length=14."), "{log}");
    let moved = server.cooper(&["runs", "diff", a, c]).ok().stdout;
    assert_eq!(moved, "secret token: cooper://token version 1 → cooper://token version 2\n");

    server.cooper(&["secret", "delete", "token/1"]).ok();
    // A rerun of a rerun would have what that one had.
    for run in [a, b] {
        let refused = server.cooper(&["runs", "rerun", run]).expect(2);
        refused.error_names(&[&format!("run {run}"), "--fresh", "`token` (cooper://token/1)", "no version 1"]);
    }
    assert!(rerun(&server, &[b, "--fresh"]).1.contains("length=14."));
    assert!(rerun(&server, &[c]).1.contains("length=14."));
    server.expect_quiet_log();
}
