//! A quick build as a patient client asks for it: over plain HTTP, again and again until it is answered, with one key.
//!
//! It keeps what it was told, and [`Submission::check`] compares that with what the server shows in the end: the oracle
//! of the tests that break things. It reads the API and the registry only.

use std::time::Duration;

use serde_json::{Value, json};

use crate::archive::Archive;
use crate::context::unique;
use crate::http::Answer;
use crate::outcome::wait_until;
use crate::server::TestServer;

/// A build that is to be asked for, and what is known of it.
#[derive(Debug)]
pub struct Submission {
    archive: Vec<u8>,
    images: Vec<String>,
    key: String,
    context: Option<String>,
    uploaded: bool,
    run: Option<String>,
    /// The log as far as it was read.
    seen: String,
}

/// Whether a run's record says that it is over.
pub fn is_final(run: &Value) -> bool {
    !matches!(run["status"].as_str(), Some("Queued" | "Started" | "Running"))
}

impl Submission {
    /// A build of this Dockerfile, to be pushed under these names (`REPOSITORY:TAG`), which nothing else uses.
    pub fn new(dockerfile: &str, images: &[&str]) -> Self {
        Self {
            archive: Archive::new().file("Dockerfile", dockerfile).gzip(),
            images: images.iter().map(|image| (*image).to_owned()).collect(),
            key: unique(),
            context: None,
            uploaded: false,
            run: None,
            seen: String::new(),
        }
    }

    /// The run's id, once it was told.
    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// The log as far as it was read.
    pub fn log(&self) -> &str {
        &self.seen
    }

    /// Goes on as far as the server answers. `true` once the run is accepted.
    ///
    /// A request that was answered before is sent again too: the answer must be the same run.
    #[track_caller]
    pub fn submit(&mut self, server: &TestServer) -> bool {
        if self.context.is_none() {
            let Ok(answer) = server.ask("POST", "/api/v1/contexts", &[], b"") else { return false };
            assert_eq!(answer.status, 201, "{answer:?}");
            self.context = parse(&answer)["contextId"].as_str().map(str::to_owned);
        }
        let context = self.context.clone().expect("a made context has an id");
        if !self.uploaded {
            let path = format!("/api/v1/contexts/{context}");
            let Ok(answer) = server.ask("PUT", &path, &[], &self.archive) else { return false };
            // Without an answer to the first try it is not known whether that one counted.
            assert!(matches!(answer.status, 201 | 409), "{answer:?}");
            self.uploaded = true;
        }
        let body = json!({ "type": "DockerBuildRequest", "imageNames": self.images, "sourceLocation": context });
        let key = format!("Idempotency-Key: {}", self.key);
        let headers = [key.as_str(), "Content-Type: application/json"];
        let Ok(answer) = server.ask("POST", "/api/v1/runs", &headers, body.to_string().as_bytes()) else {
            return false;
        };
        assert_eq!(answer.status, 201, "{answer:?}");
        let run = parse(&answer)["runId"].as_str().expect("a run has an id").to_owned();
        if let Some(known) = &self.run {
            assert_eq!(*known, run, "the same key made two runs");
        }
        self.run = Some(run);
        true
    }

    /// Reads on in the log: what was read once must never change.
    pub fn look(&mut self, server: &TestServer) {
        let Some(run) = &self.run else { return };
        let path = format!("/api/v1/runs/{run}/log?offset={}", self.seen.len());
        if let Ok(answer) = server.ask("GET", &path, &[], b"")
            && answer.status == 200
        {
            self.seen.push_str(&answer.body);
        }
    }

    /// The run's record now; nothing while the server is away.
    pub fn record(&self, server: &TestServer) -> Option<Value> {
        let path = format!("/api/v1/runs/{}", self.run.as_ref()?);
        let answer = server.ask("GET", &path, &[], b"").ok()?;
        (answer.status == 200).then(|| parse(&answer))
    }

    /// Waits for the run's end and gives its record.
    #[track_caller]
    pub fn end(&mut self, server: &TestServer, deadline: Duration) -> Value {
        let mut last = None;
        let run = self.run.clone();
        wait_until(&format!("{run:?} ends"), deadline, || {
            self.look(server);
            last = self.record(server);
            last.as_ref().is_some_and(is_final)
        });
        last.expect("an ended run has a record")
    }

    /// Checks what was promised against what is there, for a run that has ended. Gives its log.
    #[track_caller]
    pub fn check(&self, server: &TestServer, record: &Value) -> String {
        let run = self.run.as_ref().expect("the run was accepted");
        let succeeded = record["status"] == "Succeeded";

        // All tags of a step together, and only when it succeeded.
        let digests: Vec<Option<String>> = self.images.iter().map(|image| digest(server, image)).collect();
        let there = digests.iter().flatten().count();
        assert_eq!(there, if succeeded { self.images.len() } else { 0 }, "tags {digests:?} of {record:#}");
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "tags differ: {digests:?}");
        let told: Vec<Option<&str>> = record["outputImages"]
            .as_array()
            .map(|images| images.iter().map(|image| image["digest"].as_str()).collect())
            .unwrap_or_default();
        let expect: Vec<Option<&str>> = digests.iter().flatten().map(|digest| Some(digest.as_str())).collect();
        assert_eq!(told, expect, "{record:#}");

        // What was once read of the log is still there, at its place.
        let answer = server.get(&format!("/api/v1/runs/{run}/log"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cooper-log-complete"), Some("true"), "{}", answer.headers);
        assert!(
            answer.body.starts_with(&self.seen),
            "the log of {run} lost what it had\n--- seen\n{}\n--- now\n{}",
            self.seen,
            answer.body
        );
        // What the machinery lost is told, and marked where output may be missing.
        let again = record["steps"].as_array().into_iter().flatten().any(|step| step["attempts"].as_u64() > Some(1));
        let marks = answer.body.matches("output may be missing here").count();
        assert!(!again || marks > 0, "a step was begun twice, and nothing says so: {record:#}\n{}", answer.body);
        answer.body
    }
}

/// The digest of an image in the registry, if its tag is there.
fn digest(server: &TestServer, image: &str) -> Option<String> {
    let (repository, tag) = image.split_once(':').expect("images of tests have tags");
    let answer = server.registry(&format!("/v2/{repository}/manifests/{tag}"));
    match answer.status {
        200 => Some(answer.header("docker-content-digest").expect("a manifest has a digest").to_owned()),
        404 => None,
        _ => panic!("{answer:?}"),
    }
}

#[track_caller]
fn parse(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("no JSON ({error}): {answer:?}"))
}
