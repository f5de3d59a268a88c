//! From a folder to an image that runs.

use cooper_e2e::{Context, Engine, TestServer, unique};

#[test]
fn a_folder_becomes_an_image_that_runs() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();

    // An image that only an earlier stage stands on, told apart from the base by its content.
    let tools =
        server.build(&["-t", "base/tools:1"], &Context::new(&format!("FROM {base}\nRUN echo tools > /tools\n")));
    let context = Context::new(&format!(
        "FROM {registry}/base/tools:1 AS make\n\
         ARG GREETING=none\n\
         RUN echo \"$GREETING\" > /greeting\n\
         FROM {base} AS unused\n\
         RUN false\n\
         FROM {base}\n\
         COPY --from=make /greeting /greeting\n\
         CMD [\"cat\", \"/greeting\"]\n"
    ));
    let flags = ["-t", "app:{{.Run.ID}}", "-t", "app", "--build-arg", "GREETING=hello from {{.Run.ID}}"];
    let run = server.build(&[&flags[..], &["--label", "made.by=a test"]].concat(), &context);
    let id = run["runId"].as_str().unwrap();
    assert_eq!(run["status"], "Succeeded", "{run:#}");
    assert_eq!(run["runType"], "QuickBuild");
    let images = run["outputImages"].as_array().unwrap();
    let tags: Vec<&str> = images.iter().map(|image| image["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, [id, "latest"], "{run:#}");
    assert_eq!(images[0]["digest"], images[1]["digest"]);
    let digest = images[0]["digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");

    // The base is recorded by the digest that the registry gave.
    let base_digest = &server.run("ca1")["outputImages"][0]["digest"];
    let dependencies = &run["dependencies"][0];
    assert_eq!(&dependencies["runtime-dependency"]["digest"], base_digest, "{run:#}");
    assert_eq!(dependencies["buildtime-dependency"][0]["digest"], tools["outputImages"][0]["digest"], "{run:#}");

    engine.login(registry, &server.token_file());
    let image = format!("{registry}/app:{id}");
    server.pull(&engine, &image);
    assert_eq!(engine.run(&image), format!("hello from {id}\n"));
    let by_digest = format!("{registry}/app@{digest}");
    server.pull(&engine, &by_digest);
    let label = engine.docker(&["image", "inspect", "--format", "{{index .Config.Labels \"made.by\"}}", &image]).ok();
    assert_eq!(label.stdout.trim(), "a test");
    server.expect_quiet_log();
}

#[test]
fn stages_a_secret_and_ignored_files() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    let secret = "s3cr3t-0f-the-t3st";
    let context = Context::new(&format!(
        "FROM {base} AS fetch\n\
         COPY . /in\n\
         RUN --mount=type=secret,id=token,required=true \
         cat /run/secrets/token && test \"$(cat /run/secrets/token)\" = {} && echo {} > /out\n\
         FROM {base} AS final\n\
         COPY --from=fetch /out /out\n\
         COPY --from=fetch /in /in\n\
         CMD [\"find\", \"/in\", \"-type\", \"f\"]\n",
        // The Dockerfile itself must not hold the secret: it is in the history.
        "\"$(printf 's3cr3t-0f-'; printf 'the-t3st')\"",
        unique(),
    ))
    .file(".dockerignore", "**/*.log\nnode_modules/\n!keep.log\n")
    .file("app.txt", "app")
    .file("keep.log", "kept")
    .file("drop.log", "dropped")
    .file("deep/er/drop.log", "dropped")
    .file("node_modules/huge.js", "dropped");
    let values = Context::empty().file("token", secret);
    let flag = format!("id=token,src={}", values.join("token").display());
    let run = server.build(&["-t", "secret:1", "--target", "final", "--secret", &flag], &context);
    let id = run["runId"].as_str().unwrap();

    let image = format!("{registry}/secret:1");
    engine.login(registry, &server.token_file());
    server.pull(&engine, &image);
    let listing = engine.run(&image);
    let mut files: Vec<&str> = listing.lines().collect();
    files.sort_unstable();
    assert_eq!(files, ["/in/.dockerignore", "/in/Dockerfile", "/in/app.txt", "/in/keep.log"]);

    // In no log, no record, no history and no layer.
    let log = server.cooper(&["logs", id]).ok().stdout;
    assert!(!log.contains(secret), "{log}");
    assert!(log.contains("***"), "what the step printed is masked, not lost: {log}");
    assert!(!run.to_string().contains(secret), "{run:#}");
    let history = engine.docker(&["history", "--no-trunc", &image]).ok().stdout;
    assert!(!history.contains(secret), "{history}");
    let files = Context::empty();
    let saved = files.join("image.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, &image]).ok();
    let bytes = std::fs::read(&saved).unwrap();
    assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is in a layer");
    let mut log_and_database = Vec::new();
    read_all(server.data(), &mut log_and_database);
    let found = log_and_database
        .iter()
        .find(|(_, bytes)| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    assert!(found.is_none(), "the secret is in {:?}", found.map(|(path, _)| path));
    server.expect_quiet_log();
}

/// All files under a folder, with their bytes.
fn read_all(folder: &std::path::Path, files: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, files);
        } else if let Ok(bytes) = std::fs::read(&path) {
            files.push((path, bytes));
        }
    }
}

#[test]
fn a_failing_step_is_the_users_result() {
    let server = TestServer::start();
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN echo the-reason-is-here && exit 7\n"));
    let build = server.cooper(&["build", "-t", "bad:1", &context.display()]).expect(1);
    assert!(build.stdout.contains("the-reason-is-here"), "{build}");
    let runs = server.cooper(&["runs", "list", "--output", "json"]).ok().json();
    let text = runs.to_string();
    assert!(text.contains("\"Failed\""), "{runs:#}");
    // Nothing was tagged.
    let answer = server.registry("/v2/bad/manifests/1");
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn nothing_is_pushed_when_it_is_not_wanted() {
    let server = TestServer::start();
    let base = server.base_image();
    let run = server.build(&["-t", "quiet:1", "--no-push"], &Context::new(&format!("FROM {base}\nRUN true\n")));
    assert_eq!(run["status"], "Succeeded");
    assert_eq!(run["outputImages"].as_array().map(Vec::len), Some(0), "{run:#}");
    let answer = server.registry("/v2/quiet/manifests/1");
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn two_builds_of_one_name_never_meet() {
    let server = TestServer::start();
    let base = server.base_image();
    let contexts = ["one", "two", "three"]
        .map(|word| (word, Context::new(&format!("FROM {base}\nRUN echo {word} > /word\nCMD [\"cat\", \"/word\"]\n"))));
    let running: Vec<_> = contexts
        .iter()
        .map(|(word, context)| {
            let tag = format!("app:{word}");
            let folder = context.display();
            (word, server.cooper_running(&["build", "--output", "json", "-t", "app:latest", "-t", &tag, &folder]))
        })
        .collect();
    let engine = Engine::new();
    let registry = base.split('/').next().unwrap();
    engine.login(registry, &server.token_file());
    let mut digests = Vec::new();
    for (word, build) in running {
        let run = build.end(std::time::Duration::from_secs(120)).ok().json();
        let image = format!("{registry}/app:{word}");
        server.pull(&engine, &image);
        assert_eq!(engine.run(&image), format!("{word}\n"), "{run:#}");
        digests.push(run["outputImages"][0]["digest"].as_str().unwrap().to_owned());
    }
    let latest = server.registry("/v2/app/manifests/latest");
    let digest = latest.header("docker-content-digest").unwrap();
    assert!(digests.iter().any(|known| known == digest), "{digest} is none of {digests:?}");
}

#[test]
fn what_an_old_engine_cannot_do_is_named() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN <<END\necho from-a-heredoc\nEND\n"));
    let build = server.cooper(&["build", "-t", "app:1", &context.display()]);
    let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]).ok().stdout;
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    if major < 23 {
        build.expect(1).error_names(&["heredoc", "23"]);
    } else {
        assert!(build.ok().stdout.contains("from-a-heredoc"));
    }
}
