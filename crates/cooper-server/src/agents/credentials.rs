//! What live attempts may show hosts: a source's, or those of the registries that their steps need. One host at a time, for
//! the agent that has the attempt, and written to the log.

use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_engine::run::Run;
use cooper_ports::credentials::HostCredential;
use cooper_ports::runs::SecretsError;
use cooper_spec::plan::{CommandImage, Work};
use cooper_types::{AttemptNumber, ImageRef, SourceHost, StepId};
use tonic::Status;

use crate::core::Core;
use crate::orders::{credential_purpose, task_credential_purpose};
use crate::problem::chain;

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
        let kept = core.credentials.credential_for(run, attempt, &host).await.map_err(|error| match error {
            SecretsError::NotLive { .. } => Status::failed_precondition(error.to_string()),
            SecretsError::Store(error) => Status::unavailable(chain(&error)),
        })?;
        let sealed = match kept {
            HostCredential::Usable(sealed) => sealed,
            HostCredential::ForOthers => {
                tracing::info!(run = %run, attempt = %attempt, host = %host, "credential is not for this run's principal");
                return Ok(wire::SourceCredential { kept: true, ..wire::SourceCredential::default() });
            }
            HostCredential::Nothing => return Ok(wire::SourceCredential::default()),
        };
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
        Ok(wire::SourceCredential { found: true, username: sealed.username, password, kept: true })
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
