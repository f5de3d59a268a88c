//! What live attempts may show hosts: a source's, or those of the registries that their steps need. One host at a time, for
//! the agent that has the attempt, and written to the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_engine::run::Run;
use cooper_ports::credentials::HostCredential;
use cooper_spec::plan::{CommandImage, Work};
use cooper_types::{AttemptNumber, ImageRef, RunId, SourceHost, StepId};
use tonic::Status;

use super::service::got_nothing;
use crate::core::Core;
use crate::orders::{credential_purpose, task_credential_purpose};
use crate::problem::chain;

/// The most hosts whose credentials one attempt gets: no real build's bases and submodules are on more.
const MAX_HOSTS: usize = 64;
/// Attempts whose hosts are remembered; far more than are live.
const MAX_ATTEMPTS: usize = 4096;

/// Which hosts' credentials attempts were given. A restart of the server forgets them.
#[derive(Debug, Default)]
pub(crate) struct HostsAsked(Mutex<BTreeMap<(RunId, AttemptNumber), BTreeSet<SourceHost>>>);

impl HostsAsked {
    /// Notes that an attempt is given a host's credential; says whether it may be.
    fn note(&self, run: RunId, attempt: AttemptNumber, host: &SourceHost) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ATTEMPTS && !all.contains_key(&(run, attempt)) {
            // Of the oldest run, whose attempts are most likely over.
            all.pop_first();
        }
        let hosts = all.entry((run, attempt)).or_default();
        hosts.contains(host) || (hosts.len() < MAX_HOSTS && hosts.insert(host.clone()))
    }
}

/// An attempt that was found to be the asking agent's, live, and at a step that needs the host.
#[derive(Debug)]
pub(super) struct NeededHost {
    key: PlacementKey,
    attempt: AttemptNumber,
    step: StepId,
    host: SourceHost,
    /// Its code is a stranger's, who gets none.
    untrusted: bool,
}

impl NeededHost {
    /// Refused for hosts that the step does not need.
    pub(super) fn new(
        run: &Run,
        step: usize,
        key: PlacementKey,
        attempt: AttemptNumber,
        host: &str,
    ) -> Result<Self, Status> {
        let host = SourceHost::parse(host).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let planned = &run.plan.steps[step];
        if !needs(&planned.work, &host) {
            let why = format!("step {} of run {} has nothing to do with {host}", planned.id, key.run);
            return Err(Status::permission_denied(why));
        }
        Ok(Self { key, attempt, step: planned.id.clone(), host, untrusted: run.origin.untrusted })
    }

    /// The credential for the host, if the run's principal may use one.
    pub(super) async fn credential(self, core: &Core) -> Result<wire::SourceCredential, Status> {
        let Self { key, attempt, step, host, untrusted } = self;
        let run = key.run;
        if untrusted {
            return Ok(wire::SourceCredential::default());
        }
        let kept = core.credentials.credential_for(run, attempt, &host).await.map_err(got_nothing)?;
        let sealed = match kept {
            HostCredential::Usable(sealed) => sealed,
            HostCredential::ForOthers => {
                tracing::info!(run = %run, attempt = %attempt, host = %host, "credential is not for this run's principal");
                return Ok(wire::SourceCredential { kept: true, ..wire::SourceCredential::default() });
            }
            HostCredential::Nothing => return docker_login(core, run, attempt, &step, &host).await,
        };
        if !core.hosts_asked.note(run, attempt, &host) {
            tracing::warn!(run = %run, attempt = %attempt, host = %host, "an attempt asks for credentials of too many hosts");
            let why =
                format!("attempt {attempt} of run {run} has had credentials for {MAX_HOSTS} hosts, and gets no more");
            return Err(Status::permission_denied(why));
        }
        let unreadable = |why: String| {
            tracing::error!(host = %host, why, "stored credential can't be read");
            // Asking again would not help.
            Status::data_loss(format!("the credential for {host} can't be read; set it again"))
        };
        let purpose = match &sealed.task {
            Some(task) => task_credential_purpose(task, &host),
            None => credential_purpose(&host),
        };
        let value = core.key.unseal(&purpose, &sealed.sealed).map_err(|error| unreadable(chain(&error)))?;
        let password =
            String::from_utf8(value.expose().to_vec()).map_err(|_| unreadable("it is no text".to_owned()))?;
        tracing::info!(
            run = %run, attempt = %attempt, step = %step, host = %host, principal = %sealed.principal,
            "credential handed to a step"
        );
        Ok(wire::SourceCredential { found: true, username: sealed.username, password, kept: true, own: false })
    }
}

/// What the user's own Docker client would show the host, where the server is one user's own.
async fn docker_login(
    core: &Core,
    run: RunId,
    attempt: AttemptNumber,
    step: &StepId,
    host: &SourceHost,
) -> Result<wire::SourceCredential, Status> {
    let Some(logins) = &core.docker_logins else { return Ok(wire::SourceCredential::default()) };
    let nobody = wire::SourceCredential { own: true, ..wire::SourceCredential::default() };
    match logins.find(host).await {
        Ok(None) => Ok(nobody),
        Ok(Some(login)) => {
            tracing::info!(run = %run, attempt = %attempt, step = %step, host = %host, "login of the Docker client shown to a step");
            let password = login.password.expose().to_owned();
            // Kept by nobody here: what the engine has is its user's, as the login is.
            Ok(wire::SourceCredential { found: true, username: login.username, password, kept: false, own: true })
        }
        // It may not be needed: the registry says so then, and the user knows why there was none.
        Err(error) => {
            tracing::warn!(host = %host, error = chain(&error), "no login of the Docker client can be had");
            Ok(nobody)
        }
    }
}

/// Whether a step has to do with a host. Which hosts a source's submodules or a Dockerfile's bases are on is only known
/// where they are read.
fn needs(work: &Work, host: &SourceHost) -> bool {
    let is_host = |image: &ImageRef| SourceHost::of_image(image).as_ref() == Some(host);
    match work {
        Work::Prepare(_) | Work::Build(_) => true,
        Work::Push(push) => push.names.iter().any(|name| is_host(&name.image)),
        Work::Command(command) => is_pulled_from(&command.image, host),
    }
}

fn is_pulled_from(image: &CommandImage, host: &SourceHost) -> bool {
    match image {
        CommandImage::Named(name) | CommandImage::Pinned { name, .. } => {
            ImageRef::parse(name).is_ok_and(|image| SourceHost::of_image(&image).as_ref() == Some(host))
        }
        CommandImage::Built { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use cooper_spec::plan::PushWork;

    use super::*;

    #[test]
    fn an_attempt_gets_the_credentials_of_so_many_hosts() {
        let asked = HostsAsked::default();
        let host = |n: usize| SourceHost::parse(&format!("h{n}.example")).expect("valid");
        let (run, attempt) = (RunId::from_number(7), AttemptNumber(1));
        assert!((0..MAX_HOSTS).all(|n| asked.note(run, attempt, &host(n))));
        assert!(!asked.note(run, attempt, &host(MAX_HOSTS)));
        assert!(asked.note(run, attempt, &host(0)), "it has this one already");
        assert!(asked.note(run, AttemptNumber(2), &host(MAX_HOSTS)), "another attempt");
        for n in 0..2 * MAX_ATTEMPTS as u64 {
            assert!(asked.note(RunId::from_number(100 + n), attempt, &host(0)));
        }
        assert!(asked.0.lock().expect("unpoisoned").len() <= MAX_ATTEMPTS);
    }

    #[test]
    fn a_step_needs_the_hosts_of_its_own_images() {
        let image = |text: &str| ImageRef::parse(text).expect("valid");
        let push = Work::Push(PushWork::of_one(0, vec![image("r.io/a:1"), image("[::1]:5000/b:2")]));
        let host = |host: &str| SourceHost::parse(host).expect("valid");
        for (of, expect) in [("r.io", true), ("[0::1]:5000", true), ("docker.io", false)] {
            assert_eq!(needs(&push, &host(of)), expect, "{of}");
        }
        let named = |name: &str| CommandImage::Named(name.to_owned());
        for (image, of, expect) in [
            (named("busybox"), "registry-1.docker.io", true),
            (named("R.io/app"), "r.io", true),
            (named("r.io:444/app"), "r.io", false),
            (named("Not A Name"), "docker.io", false),
            (CommandImage::Built { step: 0 }, "docker.io", false),
        ] {
            assert_eq!(is_pulled_from(&image, &host(of)), expect, "{image:?}");
        }
    }
}
