//! Scripted agents and a queue, against a real server: how long a run takes from its request to its agent, how many runs a
//! second are taken, how soon an agent gets work from a long queue, what an idle server with many agents uses.
//!
//! Usage: `dispatch URL ADMIN_TOKEN AGENT_TOKEN SERVER_PID AGENTS QUEUED RUNS PER_SECOND SECONDS`, against `cooper serve
//! --no-agent`; SECONDS is how long the server's use is watched. Both in the release profile, or the numbers say nothing:
//! `cargo xtask bench dispatch` sees to it.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and ends where something fails")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cooper_api::agent::wire::agent_service_client::AgentServiceClient;
use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{PROTOCOL_VERSION, to_server};
use cooper_engine::message::{Held, PlacementKey, StepOutput, StepResult, ToServer};
use cooper_types::{AttemptNumber, Digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// When each run reached its agent, by its id.
type Started = Arc<Mutex<HashMap<String, Instant>>>;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, admin, agent, pid, agents, queued, runs, rate, seconds] = &arguments[..] else {
        panic!("see the first lines")
    };
    let number = |text: &String| text.parse::<usize>().unwrap();
    let (agents, queued, runs, rate) = (number(agents), number(queued), number(runs), number(rate));
    let watched = Duration::from_secs(number(seconds) as u64);
    let authority = url.strip_prefix("http://").unwrap().to_owned();
    let mut http = Http::connect(&authority, admin).await;
    let created = http.call("POST", "/api/v1/contexts", "application/json", b"").await;
    let context = created["contextId"].as_str().unwrap().to_owned();
    http.call("PUT", &format!("/api/v1/contexts/{context}"), "application/gzip", b"nobody unpacks this").await;
    let request = format!(r#"{{"type":"DockerBuildRequest","sourceLocation":"{context}","isPushEnabled":false}}"#);
    let started = Started::default();

    let begin = Instant::now();
    let accepts = (0..16).map(|_| {
        let (authority, admin, request) = (authority.clone(), admin.clone(), request.clone());
        tokio::spawn(async move {
            let mut http = Http::connect(&authority, &admin).await;
            for _ in 0..queued / 16 {
                http.call("POST", "/api/v1/runs", "application/json", request.as_bytes()).await;
            }
        })
    });
    for accept in accepts.collect::<Vec<_>>() {
        accept.await.unwrap();
    }
    let queued = queued / 16 * 16;
    println!(
        "accepted {queued} runs in {:.2?}: {:.0} per second",
        begin.elapsed(),
        per_second(queued, begin.elapsed())
    );
    usage("with them queued", pid, watched).await;

    let begin = Instant::now();
    tokio::spawn(serve(url.clone(), agent.clone(), 0, started.clone()));
    until(|| !started.lock().unwrap().is_empty()).await;
    println!("from an agent's appearance to its first step, {queued} queued: {:.2?}", begin.elapsed());

    let begin = Instant::now();
    let already = started.lock().unwrap().len();
    for number in 1..agents {
        tokio::spawn(serve(url.clone(), agent.clone(), number, started.clone()));
    }
    until(|| started.lock().unwrap().len() >= queued).await;
    let (time, count) = (begin.elapsed(), queued - already);
    println!(
        "{count} runs taken by {agents} agents (their connecting included) in {time:.2?}: {:.0} per second",
        per_second(count, time)
    );
    // What the last of them left to do is not idleness.
    tokio::time::sleep(watched).await;
    usage("idle, all agents connected", pid, watched).await;

    // The server has closed the silent connection.
    let mut http = Http::connect(&authority, admin).await;
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    let mut arrivals = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    let mut sent = Vec::new();
    for _ in 0..runs {
        arrivals.tick().await;
        let begin = Instant::now();
        let run = http.call("POST", "/api/v1/runs", "application/json", request.as_bytes()).await;
        sent.push((run["runId"].as_str().unwrap().to_owned(), begin, Instant::now()));
    }
    until(|| sent.iter().all(|(run, ..)| started.lock().unwrap().contains_key(run))).await;
    for (run, begin, answered) in &sent {
        let at = started.lock().unwrap()[run];
        whole.push(at - *begin);
        after.push(at.saturating_duration_since(*answered));
    }
    // The agents stay until the server has heard of every end.
    for (run, ..) in &sent {
        while http.call("GET", &format!("/api/v1/runs/{run}"), "", b"").await["status"] != "Succeeded" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    show("from the request sent to the step at its agent", whole);
    show("from the request answered to the step at its agent", after);
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{what}, ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2}", at(0.5), at(0.9), at(0.99), at(1.0));
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !condition() {
        assert!(Instant::now() < deadline, "it takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the server's process uses, in a while.
async fn usage(what: &str, pid: &str, time: Duration) {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> = stat.rsplit(") ").next().unwrap().split(' ').map(|f| f.parse().unwrap_or(0)).collect();
        fields[11] + fields[12]
    };
    let before = ticks();
    tokio::time::sleep(time).await;
    let share = (ticks() - before) as f64 / time.as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let rss =
        status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().split_once(':').unwrap().1.trim();
    println!("server {what}: {share:.1} % of a core, {rss} resident");
}

/// One agent: takes what it is offered, and says at once that it is done.
async fn serve(url: String, token: String, number: usize, started: Started) {
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let (say, queue) = mpsc::channel(64);
    let hello = wire::Hello {
        protocol: PROTOCOL_VERSION,
        name: format!("scripted-{number:05}"),
        incarnation: "1".to_owned(),
        version: "bench".to_owned(),
        engine: "scripted".to_owned(),
        native_platforms: vec!["linux/amd64".to_owned()],
        slots: 4,
        ..wire::Hello::default()
    };
    let hello = wire::AgentMessage { message: Some(agent_message::Message::Hello(hello)) };
    say.send(hello).await.unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut incoming = AgentServiceClient::new(channel).connect(request).await.unwrap().into_inner();
    let mut held: BTreeMap<PlacementKey, Vec<AttemptNumber>> = BTreeMap::new();
    let mut heartbeat = tokio::time::interval(Duration::from_secs(5));
    loop {
        let message = tokio::select! {
            message = incoming.message() => message.unwrap().expect("the server goes on").message.unwrap(),
            _ = heartbeat.tick() => {
                let report = held.iter().map(|(key, attempts)| Held { key: *key, attempts: attempts.clone() }).collect();
                say.send(to_server(ToServer::Holding(report))).await.unwrap();
                continue;
            }
        };
        match message {
            server_message::Message::Offer(offer) => {
                let key = offer.key.unwrap().read().unwrap();
                held.entry(key).or_default();
                say.send(to_server(ToServer::Accepted(key))).await.unwrap();
            }
            server_message::Message::StartStep(start) => {
                let (key, attempt) = (start.key.unwrap().read().unwrap(), AttemptNumber(start.attempt));
                started.lock().unwrap().entry(key.run.to_string()).or_insert_with(Instant::now);
                held.entry(key).or_default().push(attempt);
                say.send(to_server(ToServer::StepStarted(key, attempt))).await.unwrap();
                let output = StepOutput::Built {
                    image: Digest::sha256(b"image"),
                    bases: Vec::new(),
                    frontend: None,
                    context: None,
                };
                let result = StepResult::Succeeded { output };
                say.send(to_server(ToServer::StepEnded(key, attempt, result))).await.unwrap();
            }
            server_message::Message::Stop(key) => {
                let key = key.read().unwrap();
                held.remove(&key);
                say.send(to_server(ToServer::Stopped(key))).await.unwrap();
            }
            _ => {}
        }
    }
}

/// One connection that asks one thing after the other.
struct Http {
    stream: TcpStream,
    authority: String,
    token: String,
}

impl Http {
    async fn connect(authority: &str, token: &str) -> Self {
        let stream = TcpStream::connect(authority).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, authority: authority.to_owned(), token: token.to_owned() }
    }

    async fn call(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> serde_json::Value {
        let (host, token, length) = (&self.authority, &self.token, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let mut piece = [0; 8192];
            let count = self.stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "the server closed the connection");
            answer.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim();
            if body.len() >= length.parse().unwrap() {
                assert!(head.starts_with("http/1.1 2"), "{text}");
                return serde_json::from_str(body).unwrap_or_default();
            }
        }
    }
}
