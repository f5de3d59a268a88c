//! Several machines: a server on one, agents with engines of their own on others, and cables between them.

use std::time::{Duration, Instant};

use cooper_e2e::{Cable, Namespace, PrivateEngine, RemoteAgent, ServerOptions, Submission, TestServer, wait_until};

use crate::machine::END;

/// A machine with an agent, its engine, and the cable to the server.
pub(crate) struct Far {
    pub(crate) agent: RemoteAgent,
    pub(crate) engine: PrivateEngine,
    pub(crate) cable: Cable,
    pub(crate) namespace: Namespace,
}

/// A server on a machine of its own.
pub(crate) struct Near {
    pub(crate) server: TestServer,
    pub(crate) namespace: Namespace,
}

impl Near {
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        let arguments = vec!["--no-agent".to_owned()];
        let options = ServerOptions { arguments, namespace: Some(namespace.clone()), ..Default::default() };
        Self { server: TestServer::with(options), namespace }
    }

    pub(crate) fn machine(&self, name: &str) -> Far {
        let namespace = Namespace::new();
        let cable = self.namespace.connect(&namespace);
        let engine = PrivateEngine::start(&namespace);
        let url = format!("http://{}:{}", cable.first, self.server.port());
        let socket = engine.socket().display().to_string();
        let more = ["--engine", &socket, "--insecure"];
        let agent = RemoteAgent::start(&self.server, name, &url, Some(&namespace), &more);
        Far { agent, engine, cable, namespace }
    }

    pub(crate) fn submit(&self, dockerfile: &str, images: &[&str]) -> Submission {
        let mut submission = Submission::new(dockerfile, images);
        assert!(submission.submit(&self.server));
        submission
    }

    /// The run has ended well, with one attempt at each step.
    pub(crate) fn ends_at_the_first_try(&self, mut submission: Submission) {
        let record = submission.end(&self.server, END);
        let log = submission.check(&self.server, &record);
        assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
        assert!(!log.contains("loss 1 of 3"), "{record:#}\n{log}");
    }
}

/// Lets time pass.
pub(crate) fn pass(time: Duration) {
    let start = Instant::now();
    wait_until("time passes", time * 2, || start.elapsed() > time);
}
