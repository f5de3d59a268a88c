//! A machine of its own: a network, an engine to break, and a server with its agent beside it.

use std::time::Duration;

use cooper_e2e::{Namespace, Pause, PrivateEngine, ServerOptions, Submission, TestServer, unique, wait_until};
use serde_json::Value;

/// How long a run may take to end once nothing is broken any more.
pub(crate) const END: Duration = Duration::from_secs(120);

/// A server with an engine of its own.
pub(crate) struct Machine {
    // In the order in which they have to go.
    pub(crate) server: TestServer,
    pub(crate) engine: PrivateEngine,
    pub(crate) base: String,
    builds: u32,
}

impl Machine {
    pub(crate) fn start() -> Self {
        Self::with(ServerOptions::default())
    }

    pub(crate) fn with(mut options: ServerOptions) -> Self {
        let namespace = Namespace::new();
        let engine = PrivateEngine::start(&namespace);
        options.arguments.extend(["--engine".to_owned(), engine.socket().display().to_string()]);
        options.namespace = Some(namespace);
        let server = TestServer::with(options);
        let base = server.base_image();
        Self { server, engine, base, builds: 0 }
    }

    /// A build that runs `script`, pushed under two tags.
    pub(crate) fn submission(&mut self, script: &str) -> Submission {
        self.builds += 1;
        let (one, two) = (format!("app:{}-one", self.builds), format!("app:{}-two", self.builds));
        let dockerfile = format!("FROM {}\nRUN {script} && echo {}\n", self.base, unique());
        let mut submission = Submission::new(&dockerfile, &[&one, &two]);
        assert!(submission.submit(&self.server));
        submission
    }

    /// A build that pauses already.
    pub(crate) fn pausing(&mut self) -> (Submission, Pause) {
        let pause = Pause::new();
        let submission = self.submission(&pause.script());
        pause.begins();
        (submission, pause)
    }

    /// Waits until the run's log holds a text.
    pub(crate) fn says(&self, submission: &mut Submission, text: &str, deadline: Duration) {
        wait_until(&format!("the log says {text:?}"), deadline, || {
            submission.look(&self.server);
            submission.log().contains(text)
        });
    }

    /// The run ends well by itself, and so does another one.
    pub(crate) fn ends_well(&mut self, mut submission: Submission) -> (Value, String) {
        let record = submission.end(&self.server, END);
        let log = submission.check(&self.server, &record);
        assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
        let mut next = self.submission("true");
        let after = next.end(&self.server, END);
        next.check(&self.server, &after);
        assert_eq!(after["status"], "Succeeded", "{after:#}");
        (record, log)
    }
}
