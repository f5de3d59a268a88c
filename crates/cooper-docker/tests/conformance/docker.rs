//! What only a real engine can show: that secrets stay out of the image, that files arrive as they are, that a
//! cancelled build leaves no process and no task.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use cooper_ports::engine::{BuildError, BuildEvent, BuildFailure, ContainerEngine, EngineFeature, ResolvedBase};
use cooper_types::{Digest, Platform, RegistryName, SecretBytes};
use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{self, Bench, DockerBench, Said, run, soon, until};
use crate::context::Context;

/// The engine without our adapter, to look at what it did.
pub(crate) async fn docker() -> Docker {
    let path = bench::socket().path().to_string_lossy().into_owned();
    let docker = Docker::connect_with_unix(&path, 60, bollard::API_DEFAULT_VERSION).expect("a socket");
    docker.negotiate_version().await.expect("an engine")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_reaches_its_run_and_is_nowhere_in_the_image() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let secret = format!("tok-{:032x}", rand::random::<u128>());
        let digest = Digest::sha256(secret.as_bytes());
        let dockerfile = format!(
            "FROM scratch\nCOPY bin /bin\n\
             RUN --mount=type=secret,id=tok,required \
             busybox test \"$(busybox sha256sum < /run/secrets/tok)\" = \"{}  -\" && echo seen > /seen\n",
            digest.hex()
        );
        let mut request = bench.request(Context::shell(&dockerfile));
        request.secrets = BTreeMap::from([("tok".into(), SecretBytes::new(secret.clone().into_bytes()))]);
        let (built, said) = bench.build(request).await;
        let image = built.unwrap_or_else(|error| panic!("{error}\n{}", said.output())).image;
        assert!(!said.output().contains(&secret));

        let docker = docker().await;
        let history = docker.image_history(image.as_str()).await.expect("a history");
        let inspected = docker.inspect_image(image.as_str()).await.expect("an image");
        let words = format!("{history:?} {inspected:?}");
        assert!(words.contains("/run/secrets/tok") && !words.contains(&secret));
        let exported: Vec<u8> = docker
            .export_image(image.as_str())
            .try_fold(Vec::new(), |mut all, part| async move {
                all.extend_from_slice(&part);
                Ok(all)
            })
            .await
            .expect("an archive");
        let files = plain_files(&exported);
        let find = |text: &str| files.iter().any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()));
        assert!(find("seen\n"), "layers are read");
        assert!(!find(&secret));
    })
    .await;
}

/// The files of an archive, decompressed: an engine with containerd's store keeps layers as registries have them.
fn plain_files(archive: &[u8]) -> Vec<Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("an archive");
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let (mut bytes, mut plain) = (Vec::new(), Vec::new());
        entry.expect("an entry").read_to_end(&mut bytes).expect("its bytes");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("a compressed layer");
            return plain;
        }
        bytes
    };
    entries.map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignore_rules_and_copies_may_be_many() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let rules: String = (0..3000).map(|number| format!("folder/of/number/{number}/*.tmp\n")).collect();
        // Long names, not many: BuildKit takes a checksum of each at once, and gives up what waits long for another. What
        // we must bear is what both lists are on the wire.
        let names: Vec<String> =
            (0..50).map(|number| format!("source_file_{}_{number}.txt", "long".repeat(50))).collect();
        let dockerfile = format!("FROM scratch\nCOPY {} /there/\n", names.join(" "));
        let context = || {
            let context = Context::new(&dockerfile).file(".dockerignore", 0o644, rules.as_bytes());
            names.iter().fold(context, |context, name| context.file(name, 0o644, name.as_bytes()))
        };
        let (mut built, mut said) = bench.build(bench.request(context())).await;
        // A busy engine still gives one up now and then; a run would lose the attempt and make others, with pauses too.
        for pause in [1, 2, 4, 8, 16, 32] {
            if !matches!(&built, Err(BuildError::Machinery(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(pause)).await;
            (built, said) = bench.build(bench.request(context())).await;
        }
        built.unwrap_or_else(|error| panic!("{error:?}\n{}", said.output()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_written_to_a_registry_where_the_engine_can() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        bench.registry.require_login();
        let registry = RegistryName::parse(bench.registry.address()).expect("a registry");
        let to = format!("{registry}/team/app:cache_quickrun_b");
        let dockerfile = "FROM scratch AS first\nCOPY bin /bin\nRUN busybox date > /made\n\
                          FROM scratch\nCOPY --from=first /made /made\n";
        let mut request = bench.request(Context::shell(dockerfile));
        request.logins = Arc::new(BTreeMap::from([(registry, bench.registry.credential().expect("a login"))]));
        request.cache_from = vec![to.clone()];
        request.cache_to = Some(to.clone());
        let (built, said) = bench.build(request).await;
        built.unwrap_or_else(|error| panic!("{error}\n{}", said.output()));
        let is_able = bench.engine.describe().features.contains(&EngineFeature::RegistryCache);
        let is_warning =
            |event: &&BuildEvent| matches!(event, BuildEvent::Warning { message, .. } if message.contains(&to));
        let warnings: Vec<_> = said.0.iter().filter(is_warning).collect();
        assert_eq!(bench.registry.tag("team/app:cache_quickrun_b").is_some(), is_able, "{warnings:?}");
        assert_eq!(warnings.is_empty(), is_able, "{warnings:?}");
    })
    .await;
}

/// What is told too late would say that an image stands on what it does not: nobody would build it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_whose_tag_moves_while_it_is_built_on_is_what_was_built_on() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let tool = |tag: &str| format!("{}/base/tool:{tag}", bench.registry.address());
        let mut digests = Vec::new();
        for tag in ["before", "after"] {
            let content = format!("{} {tag}", bench.owner.label());
            let context = Context::new("FROM scratch\nCOPY tool /tool\n").file("tool", 0o755, content.as_bytes());
            let (built, said) = bench.build(bench.request(context)).await;
            let image = built.unwrap_or_else(|error| panic!("{error}\n{}", said.output())).image;
            digests.push(bench.push(image, &tool(tag)).await.expect("pushed").digest);
        }
        bench.registry.move_tag("base/tool:1", "base/tool:before");
        let mut request = bench.request(Context::new(&format!("FROM scratch\nCOPY --from={} /tool /\n", tool("1"))));
        request.copied = vec![tool("1")];
        bench.registry.hold_downloads();
        let over = CancellationToken::new();
        let build = async {
            let _over = over.clone().drop_guard();
            bench.build(request).await
        };
        let moves = async {
            // An engine that has kept what it pushed downloads nothing.
            let _ = over.run_until_cancelled(bench.registry.somebody_waits()).await;
            bench.registry.move_tag("base/tool:1", "base/tool:after");
            bench.registry.let_go();
        };
        let ((built, said), ()) = tokio::join!(build, moves);
        let bases = built.unwrap_or_else(|error| panic!("{error}\n{}", said.output())).bases;
        assert_eq!(bases, [ResolvedBase { reference: tool("1"), digest: digests[0].clone() }], "{digests:?}");
        let in_doubt = |said: &Said| {
            let is_doubt = |event: &BuildEvent| {
                matches!(event, BuildEvent::Warning { message, .. } if message.contains("was asked for when the build had begun"))
            };
            said.0.iter().any(is_doubt)
        };
        assert!(!in_doubt(&said));
        // What only the engine's reader knows of is asked for when it is seen, where the engine does not tell.
        let request = bench.request(Context::new(&format!("FROM scratch\nCOPY --from={} /tool /other\n", tool("1"))));
        let (built, said) = bench.build(request).await;
        built.unwrap_or_else(|error| panic!("{error}\n{}", said.output()));
        assert_eq!(in_doubt(&said), !bench.engine.describe().features.contains(&EngineFeature::CopyLink));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_labels_target_and_platform_count() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile = "FROM scratch AS first\nARG WORDS\nCOPY bin /bin\nRUN echo \"words=<$WORDS>\"\n\
                          FROM scratch AS second\nCOPY nothing /nothing\n";
        let mut request = bench.request(Context::shell(dockerfile));
        request.no_cache = true;
        request.target = Some("first".into());
        request.platform = Some(bench.engine.describe().native.clone());
        request.arguments = vec![("WORDS".into(), "lost".into()), ("WORDS".into(), "a&b=\"c\" % ü+\\".into())];
        request.labels = vec![("a.label".into(), "with & and ü".into())];
        let (built, said) = bench.build(request).await;
        let image = built.expect("it builds").image;
        assert!(said.output().contains("words=<a&b=\"c\" % ü+\\>"), "{}", said.output());
        let config = docker().await.inspect_image(image.as_str()).await.expect("an image").config.expect("a config");
        let labels = config.labels.unwrap_or_default();
        assert_eq!(labels.get("a.label").map(String::as_str), Some("with & and ü"));
        assert_eq!(labels.len(), 1, "we add none of our own: {labels:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_arrive_as_they_are() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let large: Vec<u8> = (0..1_000_003_u32).map(|number| (number % 251) as u8).collect();
        let list = "busybox find /data -exec busybox stat -c '%n %a %u:%g %s %F' '{}' ';'";
        let dockerfile = format!(
            "FROM scratch\nCOPY bin /bin\nCOPY . /data/\nRUN busybox rm -r /data/bin /data/Dockerfile && {list} && \
             busybox sha256sum /data/large && busybox readlink /data/link && busybox cat '/data/dir/ü é'\n"
        );
        let context = || {
            Context::shell(&dockerfile)
                .directory("dir")
                .directory("dir/empty")
                .file("dir/ü é", 0o600, b"umlauts\n")
                .file("large", 0o4755, &large)
                .file("zero", 0o444, b"")
                .symlink("link", "../outside/the context")
        };
        let mut request = bench.request(context());
        request.no_cache = true;
        let (built, said) = bench.build(request).await;
        built.unwrap_or_else(|error| panic!("{error}\n{}", said.output()));
        let expect = format!(
            "/data 755 0:0 4096 directory\n/data/dir 755 0:0 4096 directory\n/data/dir/empty 755 0:0 4096 directory\n\
             /data/dir/ü é 600 0:0 8 regular file\n/data/large 4755 0:0 1000003 regular file\n\
             /data/link 777 0:0 22 symbolic link\n/data/zero 444 0:0 0 regular empty file\n{}  /data/large\n\
             ../outside/the context\numlauts\n",
            Digest::sha256(&large).hex()
        );
        let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&said.output()), sorted(&expect));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_the_same_size_in_the_same_second_is_seen() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile = "FROM scratch\nCOPY bin /bin\nCOPY word /word\nRUN busybox cat /word\n";
        for word in ["first\n", "other\n", "first\n"] {
            let request = bench.request(Context::shell(dockerfile).file("word", 0o644, word.as_bytes()));
            let image = bench.build(request).await.0.expect("it builds").image;
            let mut check = bench.request(Context::shell(dockerfile).file("word", 0o644, word.as_bytes()));
            check.no_cache = true;
            let (built, said) = bench.build(check).await;
            assert_eq!(said.output(), word);
            drop((image, built.expect("it builds")));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_named_part_of_a_context_is_sent() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // The contents of `torn` cannot be read: asking for them would fail the build.
        let part = |copy: &str| {
            Context::new(&format!("FROM scratch\n{copy}\n"))
                .file("sub/Dockerfile", 0o644, format!("FROM scratch\n{copy}\n").as_bytes())
                .directory("sub")
                .file("sub/file", 0o644, b"content")
                .symlink("way", "sub")
                .torn_file("torn", 5)
        };
        for copy in ["COPY sub/file /", "COPY sub/f* /", "COPY way/file /", "COPY ./sub /x/"] {
            let mut request = bench.request(part(copy));
            request.dockerfile = "sub/Dockerfile".into();
            bench.build(request).await.0.unwrap_or_else(|error| panic!("{copy}: {error}"));
        }
        // A context that we cannot read is no fault of the user's.
        let (built, _) = bench.build(bench.request(part("COPY torn /"))).await;
        assert!(matches!(built, Err(BuildError::Machinery(_))), "{built:?}");
        // A file that is not there is.
        let (built, _) = bench.build(bench.request(part("COPY missing /"))).await;
        match built {
            Err(BuildError::Failed(failure @ BuildFailure::Other { .. })) => {
                let text = failure.to_string();
                assert!(text.contains("COPY missing") && text.contains("not found"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ignored_is_not_copied() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile = "FROM scratch\nCOPY bin /bin\nCOPY . /data/\nRUN busybox find /data -type f\n";
        let context = Context::shell(dockerfile)
            .file(".dockerignore", 0o644, "Dockerfile\n.dockerignore\nlogs\n!logs/übrig\n".as_bytes())
            .directory("logs")
            .file("logs/old", 0o644, b"x")
            .file("logs/übrig", 0o644, b"x");
        let mut request = bench.request(context);
        request.no_cache = true;
        let (built, said) = bench.build(request).await;
        built.unwrap_or_else(|error| panic!("{error}\n{}", said.output()));
        let mut files: Vec<String> = said.output().lines().map(str::to_owned).collect();
        files.sort();
        assert_eq!(files, ["/data/bin/busybox", "/data/logs/übrig"]);
    })
    .await;
}

/// Whether any process of this machine has this text among its arguments.
fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_and_dropping_kill_what_runs_and_leave_nothing_open() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        // Every connection belongs to a task of this test's runtime: no task left means no connection left.
        let metrics = tokio::runtime::Handle::current().metrics();
        for by_token in [true, false] {
            let tasks = metrics.num_alive_tasks();
            let seconds = format!("{}", 1_000_000 + u64::from(rand::random::<u32>()));
            let dockerfile = format!("FROM scratch\nCOPY bin /bin\nRUN busybox sleep {seconds}\n");
            let request = bench.request(Context::shell(&dockerfile));
            let (sink, mut events) = mpsc::channel(8);
            let cancel = CancellationToken::new();
            let build = tokio::spawn({
                let (bench, cancel) = (bench.clone(), cancel.clone());
                async move { bench.engine.build(request, sink, cancel).await }
            });
            let drain = tokio::spawn(async move { while events.recv().await.is_some() {} });
            until("the start of a RUN", || runs(&seconds)).await;
            if by_token {
                cancel.cancel();
            } else {
                build.abort();
            }
            until("the end of a RUN", || !runs(&seconds)).await;
            let ended = soon("the end of the build", build).await;
            assert!(if by_token { matches!(ended, Ok(Err(BuildError::Cancelled))) } else { ended.is_err() });
            drain.await.expect("it does not panic");
            until("the end of all tasks", || metrics.num_alive_tasks() <= tasks).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_engine_lacks_is_named() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let cases = [
            ("FROM scratch\nCOPY bin /bin\nRUN <<EOF\necho one\nEOF\n", EngineFeature::Heredoc),
            ("FROM scratch\nCOPY --link bin /bin\n", EngineFeature::CopyLink),
            ("FROM scratch\nCOPY bin /bin\nRUN --network=none echo two\n", EngineFeature::RunNetwork),
        ];
        for (dockerfile, feature) in cases {
            let (built, _) = bench.build(bench.request(Context::shell(dockerfile))).await;
            if bench.engine.describe().features.contains(&feature) {
                built.unwrap_or_else(|error| panic!("{feature:?}: {error}"));
                continue;
            }
            match built {
                Err(BuildError::Failed(failure @ BuildFailure::FeatureMissing { feature: named, .. })) => {
                    assert_eq!(named, feature);
                    let text = failure.to_string();
                    assert!(text.contains(&bench.engine.describe().version), "{text}");
                }
                other => panic!("{feature:?}: {other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_the_engine_cannot_run_fails_as_the_users_build() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let description = bench.engine.describe();
        let all = ["linux/arm64", "linux/arm/v7", "linux/386", "linux/amd64"];
        let all = all.iter().map(|text| Platform::parse(text).expect("a platform"));
        let Some(foreign) = all.into_iter().find(|p| *p != description.native && !description.emulated.contains(p))
        else {
            // An engine that can run everything has nothing to show here.
            return;
        };
        let mut request = bench.request(Context::shell("FROM scratch\nCOPY bin /bin\n"));
        request.platform = Some(foreign);
        // Without a RUN there is nothing to emulate.
        bench.build(request).await.0.expect("it builds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_of_one_shared_key_do_not_mix_their_contexts() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile = "FROM scratch\nCOPY bin /bin\nCOPY word /word\nRUN busybox cat /word\n";
        let mut builds = Vec::new();
        for number in 0..4 {
            let word = format!("word {number}\n");
            let bench = bench.clone();
            builds.push(tokio::spawn(async move {
                let context = Context::shell(dockerfile).file("word", 0o644, word.as_bytes());
                let mut request = bench.request(context);
                request.no_cache = true;
                let (built, said) = bench.build(request).await;
                built.expect("it builds");
                assert_eq!(said.output(), word);
            }));
        }
        for build in builds {
            build.await.expect("it does not panic");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_arrives_in_order_at_a_slow_listener() {
    run(DockerBench::start().await, |bench: Arc<Bench>| async move {
        let dockerfile = "FROM scratch\nCOPY bin /bin\nRUN busybox seq 1 20000\n";
        let mut request = bench.request(Context::shell(dockerfile));
        request.no_cache = true;
        let (sink, mut events) = mpsc::channel(1);
        let engine = bench.engine.clone();
        let build = tokio::spawn(async move { engine.build(request, sink, CancellationToken::new()).await });
        let mut output = Vec::new();
        while let Some(event) = events.recv().await {
            tokio::task::yield_now().await;
            if let BuildEvent::Log { bytes, .. } = event {
                output.extend_from_slice(&bytes);
            }
        }
        build.await.expect("it does not panic").expect("it builds");
        let expect: String = (1..=20000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output), expect);
    })
    .await;
}

#[tokio::test]
async fn an_engine_is_described_with_what_it_emulates() {
    let engine = bench::connect().await;
    // Every amd64 machine can run 386 code. BuildKit says so, or shows it, as soon as it has the time.
    if engine.describe().native == Platform::LINUX_AMD64 {
        let narrow = Platform::parse("linux/386").expect("a platform");
        soon("386 is found", async {
            while !engine.refresh().await.is_ok_and(|description| description.emulated.contains(&narrow)) {
                bench::a_moment().await;
            }
        })
        .await;
    }
}
