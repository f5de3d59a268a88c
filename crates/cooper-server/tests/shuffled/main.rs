//! Messages between a real agent and a real server arrive late, twice and in another order: runs end as they would have.

#![expect(
    clippy::unwrap_used,
    reason = "this binary is tests, and a panic is how a test fails; clippy sees only `#[test]`"
)]

mod proxy;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cooper_agent::{Agent, AgentSettings};
use cooper_api::rest::{CreateToken, Run, RunRequest, RunStatus};
use cooper_client::{Client, ServerUrl};
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::clock::ManualClock;
use cooper_ports::engine::EngineOwner;
use cooper_server::{Server, Settings};
use cooper_types::{AgentName, IdempotencyKey, PrincipalName, RunId, Scope, Scopes, SecretString, Timestamp};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio_util::sync::CancellationToken;

use crate::proxy::Shuffler;

/// How many runs there are; two at a time.
const RUNS: usize = 6;
/// How long they may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(600);

fn context(dockerfile: &str) -> Vec<u8> {
    let paths = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = paths.iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.expect("Debian's busybox-static, which `cargo xtask test` installs, is needed");
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, mode, content) in [("Dockerfile", 0o644, dockerfile.as_bytes()), ("bin/sh", 0o755, &busybox)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

async fn submit(client: &Client, folder: &Path, number: usize, seed: u64) -> RunId {
    let lines = "for i in 0 1 2 3 4 5 6 7 8 9; do echo line-$i; read -t 0.1 x < /dev/zero; done";
    let dockerfile =
        format!("FROM scratch\nCOPY bin /bin\nRUN echo {seed}-{number}-{}; {lines}; exit 0\n", std::process::id());
    let file = folder.join(format!("context-{number}"));
    let bytes = context(&dockerfile);
    std::fs::write(&file, &bytes).unwrap();
    let created = client.create_context().await.unwrap();
    let file = tokio::fs::File::open(&file).await.unwrap();
    client.upload_context(&created, file, bytes.len() as u64, |_| ()).await.unwrap();
    let request = serde_json::json!({
        "type": "DockerBuildRequest",
        "imageNames": [format!("shuffled:{number}-a"), format!("shuffled:{number}-b")],
        "sourceLocation": created.context_id,
        "noCache": true,
    });
    let request: RunRequest = serde_json::from_value(request).unwrap();
    client.create_run(&request, &IdempotencyKey::parse(&format!("key-{number}")).unwrap()).await.unwrap().run_id
}

async fn end_of(client: &Client, run: RunId) -> Run {
    loop {
        let record = client.get_run(run).await.unwrap();
        if record.finish_time.is_some() {
            return record;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// This machine's engine. A busy one is asked again.
async fn engine() -> DockerEngine {
    let since = Instant::now();
    loop {
        match DockerEngine::connect(EngineSocket::choose(None, None).unwrap()).await {
            Ok(engine) => return engine,
            Err(error) => {
                assert!(since.elapsed() < DEADLINE / 10, "{error}: `cargo xtask test` installs and starts an engine")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_state_is_the_same() {
    let seed = u64::from(std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: data.clone(),
        registry_name: None,
        public_url: None,
        tls: None,
        local_agent: None,
        anonymous_pull: false,
        blob_grace: Settings::DEFAULT_BLOB_GRACE,
        allowed_sources: Vec::new(),
        allowed_webhooks: Vec::new(),
        docker_config: None,
        secrets: Default::default(),
        frontends: Default::default(),
        image_aliases: std::collections::BTreeMap::new(),
        source_roots: None,
        max_context_bytes: Settings::DEFAULT_MAX_CONTEXT_BYTES,
        context_retention: Settings::DEFAULT_CONTEXT_RETENTION,
        context_retention_bytes: u64::MAX,
        base_image_poll: Settings::DEFAULT_BASE_IMAGE_POLL,
        source_poll: Settings::DEFAULT_SOURCE_POLL,
        wave_concurrency: Settings::DEFAULT_WAVE_CONCURRENCY,
        shutdown_grace: DEADLINE,
    };
    let server = Server::start(settings).await.unwrap();
    let url = format!("http://{}", server.address());
    let token = std::fs::read_to_string(data.join("admin-token")).unwrap().trim().to_owned();
    let client = Client::new(ServerUrl::parse(&url).unwrap(), Some(SecretString::new(token))).unwrap();
    let agent_token = CreateToken {
        principal: PrincipalName::parse("shuffled-agent").unwrap(),
        scopes: Scopes(vec![Scope::Agent]),
        expires_in_seconds: None,
    };
    let agent_token = client.create_token(&agent_token).await.unwrap().token;

    let shuffler = Shuffler::new(&url, seed);
    let engine = engine().await;
    let agent_settings = AgentSettings::new(
        AgentName::parse("shuffled").unwrap(),
        2,
        folder.path().join("agent"),
        SecretString::new(agent_token),
        EngineOwner::new(&format!("shuffled {}", std::process::id())),
    );
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
    let agent = Agent::new(agent_settings, Arc::new(engine), clock);
    let stop = CancellationToken::new();
    let agent = tokio::spawn(agent.run(Arc::new(shuffler.connector()), stop.clone()));

    let mut runs = Vec::new();
    for number in 0..RUNS {
        runs.push(submit(&client, folder.path(), number, seed).await);
    }
    let judged = tokio::time::timeout(DEADLINE, async {
        for run in runs {
            let record = end_of(&client, run).await;
            let (text, _, complete) = client.log_text(run, 0).await.unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            let context = format!("seed {seed}: {record:?}\n{text}");
            assert_eq!(record.status, RunStatus::Succeeded, "{context}");
            assert!(record.steps.iter().all(|step| step.attempts == 1), "{context}");
            assert_eq!(record.output_images.len(), 2, "{context}");
            assert!(complete && !text.contains("missing"), "{context}");
            // Every line once, in order.
            let lines = text.lines().filter_map(|line| line.rsplit_once("line-"));
            let lines: Vec<&str> = lines.map(|(_, number)| number).filter(|number| number.len() == 1).collect();
            assert_eq!(lines.concat(), "0123456789", "{context}");
        }
    });
    judged.await.unwrap_or_else(|_| panic!("seed {seed}: runs do not end"));
    let (late, twice) = shuffler.counts();
    assert!(late > RUNS && twice > RUNS, "seed {seed}: only {late} messages were late and {twice} doubled");
    stop.cancel();
    agent.await.unwrap().unwrap();
    server.stop().await.unwrap();
}
