//! The server dies: at each commit point, while it recovers, and at random moments.

use std::time::{Duration, Instant};

use cooper_e2e::{Chance, Pause, Submission, TestServer, unique, wait_until};

/// How long a run may take from the restart to its end: three losses' pauses and three builds are well below.
const END: Duration = Duration::from_secs(180);

/// A server with a base image, and the Dockerfile of a build that nobody has built yet.
struct Scene {
    server: TestServer,
    base: String,
    builds: u32,
}

impl Scene {
    fn new() -> Self {
        let server = TestServer::start();
        let base = server.base_image();
        Self { server, base, builds: 0 }
    }

    fn submission(&mut self) -> Submission {
        self.submission_with("true")
    }

    /// A build that ends with this command.
    fn submission_with(&mut self, last: &str) -> Submission {
        self.builds += 1;
        let script = format!("for i in 1 2 3 4 5; do echo line-$i-{}; done; {last}", unique());
        let dockerfile = format!("FROM {}\nRUN {script}\n", self.base);
        let (one, two) = (format!("app:{}-one", self.builds), format!("app:{}-two", self.builds));
        Submission::new(&dockerfile, &[&one, &two])
    }

    /// The process dies at a failpoint while a build is asked for and made; then everything comes right.
    fn dies_at(&mut self, failpoint: &str) {
        let mut submission = self.submission();
        self.server.stop();
        if self.server.restart_to_die(failpoint) {
            wait_until(&format!("the server dies at {failpoint}"), Duration::from_secs(60), || {
                // A client that gets no answer asks again: the key makes it one run.
                if submission.run().is_none() {
                    submission.submit(&self.server);
                }
                submission.look(&self.server);
                self.server.has_died()
            });
        }
        self.died_at(failpoint);
        self.recovers(submission, failpoint);
    }

    fn died_at(&mut self, failpoint: &str) {
        let death = self.server.death(Duration::from_secs(20));
        let name = failpoint.split('@').next().unwrap();
        assert!(death.code.is_none() && death.stderr.contains(&format!("failpoint {name}: ")), "{failpoint}: {death}");
    }

    fn recovers(&mut self, mut submission: Submission, failpoint: &str) {
        self.server.restart();
        assert!(submission.submit(&self.server), "{failpoint}: no answer after the restart");
        let record = submission.end(&self.server, END);
        let log = submission.check(&self.server, &record);
        // One death is one loss at most, and the machinery's own: the build succeeds in the end.
        assert_eq!(record["status"], "Succeeded", "{failpoint}: {record:#}\n{log}");
        let runs = self.server.get("/api/v1/runs?top=1000");
        let runs: serde_json::Value = serde_json::from_str(&runs.body).unwrap();
        let expect = self.builds as usize + 1;
        assert_eq!(runs["value"].as_array().map(Vec::len), Some(expect), "{failpoint}: a run too many");
    }
}

#[test]
fn at_the_commit_points_of_a_request() {
    let mut scene = Scene::new();
    for failpoint in
        ["context-renamed", "context-recorded", "run-accepted", "writer-before-commit", "writer-after-commit"]
    {
        scene.dies_at(failpoint);
    }
}

#[test]
fn at_the_commits_of_a_run() {
    let mut scene = Scene::new();
    // The first commits are the client's; these are the offer's, the steps' and the log's.
    for pass in [4, 7, 11] {
        scene.dies_at(&format!("writer-before-commit@{pass}"));
        scene.dies_at(&format!("writer-after-commit@{pass}"));
    }
}

#[test]
fn between_what_is_stored_and_what_is_said() {
    let mut scene = Scene::new();
    for pass in 1..=6 {
        scene.dies_at(&format!("event-stored@{pass}"));
    }
}

#[test]
fn around_a_push() {
    let mut scene = Scene::new();
    for failpoint in ["context-fetched", "image-built", "blob-renamed", "image-pushed", "tags-published"] {
        scene.dies_at(failpoint);
    }
}

#[test]
fn while_it_recovers() {
    let mut scene = Scene::new();
    for failpoint in ["store-opened", "lease-extended"] {
        // An agent holds the run when the server dies, so that there is a lease to give time to.
        let mut pause = Pause::new();
        let mut submission = scene.submission_with(&pause.script());
        assert!(submission.submit(&scene.server));
        pause.begins();
        scene.server.crash();
        assert!(
            !scene.server.restart_to_die(failpoint) || {
                wait_until("the server dies", Duration::from_secs(20), || scene.server.has_died());
                true
            }
        );
        scene.died_at(failpoint);
        pause.end();
        scene.recovers(submission, failpoint);
    }
}

#[test]
fn at_random_moments() {
    let mut chance = Chance::from_environment();
    let mut scene = Scene::new();
    let mut submissions = Vec::new();
    for _ in 0..8 {
        submissions.push(scene.submission());
        let (start, life) = (Instant::now(), chance.millis(50, 2_500));
        wait_until("the moment of death", Duration::from_secs(60), || {
            for submission in &mut submissions {
                if submission.run().is_none() {
                    submission.submit(&scene.server);
                }
                submission.look(&scene.server);
            }
            start.elapsed() > life
        });
        scene.server.crash();
        scene.server.restart();
    }
    for submission in &mut submissions {
        assert!(submission.submit(&scene.server));
        let record = submission.end(&scene.server, END);
        let log = submission.check(&scene.server, &record);
        let expect = if log.contains("loss 3 of 3") { "Error" } else { "Succeeded" };
        assert_eq!(record["status"], expect, "{record:#}\n{log}");
    }
}
