//! Whose fault a container is that was not created or did not start: the engine's error texts, sorted.
//!
//! Each pattern was seen from Docker Engine 20.10, or read in the sources of later ones.

use bollard::errors::Error;
use cooper_ports::engine::{ContainerError, ContainerFailure, ContainerRequest, EngineError, Privileges};

use crate::engine::engine_error;
use crate::socket::EngineSocket;
use crate::wire::one_line;

/// The error of a request to create or start a container.
pub(super) fn refusal(
    request: &ContainerRequest,
    socket: &EngineSocket,
    operation: &'static str,
    error: Error,
) -> ContainerError {
    let Error::DockerResponseServerError { status_code, message } = error else {
        return engine_error(socket, operation, error).into();
    };
    let message = one_line(&message);
    if message.contains("no space left on device") {
        return EngineError::DiskFull { message }.into();
    }
    match sort(request, &message) {
        Some(failure) => failure.into(),
        // A conflict or a thing that is gone is none of the user's doing.
        None if status_code == 400 => ContainerFailure::Invalid { message }.into(),
        None => EngineError::Refused { operation, message }.into(),
    }
}

fn sort(request: &ContainerRequest, message: &str) -> Option<ContainerFailure> {
    let image = || request.image.clone();
    if message.starts_with("No such image") {
        return Some(ContainerFailure::ImageMissing { image: image() });
    }
    if let Some(wanted) = request.platform.clone()
        && ["does not match the specified platform", "does not provide the specified platform", "no match for platform"]
            .iter()
            .any(|text| message.contains(text))
    {
        return Some(ContainerFailure::WrongPlatform { image: image(), wanted, message: its_platform(message) });
    }
    if message.contains("no command specified") || message.starts_with("No command specified") {
        return Some(ContainerFailure::NoCommand);
    }
    let has_port = message.contains("port is already allocated") || message.contains("address already in use");
    if has_port && let Some(port) = port(message) {
        return Some(ContainerFailure::PortTaken { port });
    }
    if message.contains("unable to find user") || message.contains("unable to find group") {
        return Some(ContainerFailure::UserMissing { user: request.user.clone().unwrap_or_default() });
    }
    // What no engine could do for anybody: a folder that is a file, a number that no user has, an address that the
    // machine has not, a variable that can't be one.
    let never = (message.starts_with("Cannot mkdir: ") && message.ends_with("is not a directory"))
        || message.contains("uids and gids must be in range")
        || message.contains("bind: cannot assign requested address")
        || message.contains("can't contain null")
        || message.to_ascii_lowercase().contains("invalid isolation");
    if never {
        return Some(ContainerFailure::Invalid { message: message.to_owned() });
    }
    if request.privileges == Privileges::All && message.contains("operation not permitted") {
        let message = format!("the agent's machine does not let its engine give all privileges: {message}");
        return Some(ContainerFailure::Invalid { message });
    }
    // `… starting container process caused: exec: "x": executable file not found in $PATH: unknown`; 23 and later have
    // `unable to start container process` instead.
    let (_, reason) = message.split_once("container process")?;
    let (_, exec) = reason.split_once("exec: ")?;
    // The quotes are Go's: a command with quotes of its own is shown as it is written there.
    let command = exec.strip_prefix('"').and_then(|rest| rest.split_once("\":")).map_or("", |(command, _)| command);
    let command = command.to_owned();
    let why = exec.rsplit_once("\": ").map_or(exec, |(_, why)| why).trim_end_matches(": unknown");
    if why.contains("executable file not found") || why.ends_with("no such file or directory") {
        return Some(ContainerFailure::CommandMissing { command });
    }
    Some(ContainerFailure::NotExecutable { command, message: why.to_owned() })
}

/// What the image is for, where the engine says that, else all that it says.
///
/// `image with reference X was found but does not match the specified platform: wanted A, actual: B`, and since 23 `…was
/// found but its platform (B) does not match the specified platform (A)`.
fn its_platform(message: &str) -> String {
    let late = || message.split_once("its platform (")?.1.split_once(") does not").map(|(platform, _)| platform);
    let platform = message.rsplit_once("actual: ").map(|(_, platform)| platform).or_else(late);
    platform.unwrap_or(message).to_owned()
}

/// `Bind for 0.0.0.0:8080 failed: port is already allocated`, `listen tcp4 0.0.0.0:8080: bind: address already in use`.
fn port(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Bind for ").or_else(|| {
        let (_, rest) = message.split_once("listen ")?;
        rest.split_once(' ')
    })?;
    let address = rest.split(' ').next()?.trim_end_matches(':');
    let (_, port) = address.rsplit_once(':')?;
    Some(port.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_types::{Digest, Platform, StepId};

    fn check(status_code: u16, message: &str, expect: &str) {
        let mut request = ContainerRequest::new(StepId::parse("s").expect("an id"), Digest::sha256(b"image"));
        request.platform = Some(Platform::parse("linux/arm64").expect("a platform"));
        request.user = Some("ann:staff".into());
        let error = Error::DockerResponseServerError { status_code, message: message.into() };
        let error = refusal(&request, &EngineSocket::default(), "start a container", error);
        let text = match &error {
            ContainerError::Failed(failure) => format!("user: {failure}"),
            other => {
                format!("machinery: {}", std::error::Error::source(other).map(ToString::to_string).unwrap_or_default())
            }
        };
        assert!(text.starts_with(expect), "{message}\n  {text}\n  {expect}");
    }

    #[test]
    fn texts_of_the_engine_are_sorted() {
        let runc = "OCI runtime create failed: container_linux.go:380: starting container process caused: ";
        let late = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc \
                    create failed: unable to start container process: ";
        for before in [runc, late] {
            check(
                400,
                &format!("{before}exec: \"nope\": executable file not found in $PATH: unknown"),
                "user: command `nope` is not in the image",
            );
            check(
                400,
                &format!("{before}exec: \"/no/such\": stat /no/such: no such file or directory: unknown"),
                "user: command `/no/such` is not in the image",
            );
            check(
                400,
                &format!("{before}exec: \"/etc\": permission denied: unknown"),
                "user: command `/etc` can't be executed: permission denied",
            );
        }
        check(400, "no command specified", "user: image has no command");
        check(400, "No command specified", "user: image has no command");
        check(404, "No such image: sha256:12", "user: image sha256:");
        check(
            404,
            "image with reference sha256:12 was found but does not match the specified platform: wanted linux/arm64, \
             actual: linux/amd64",
            &format!("user: image {} is not for linux/arm64: linux/amd64", Digest::sha256(b"image")),
        );
        check(
            404,
            "image with reference sha256:12 was found but its platform (linux/amd64) does not match the specified platform \
             (linux/arm64)",
            &format!("user: image {} is not for linux/arm64: linux/amd64", Digest::sha256(b"image")),
        );
        check(
            404,
            "image with reference sha256:12 was found but does not provide the specified platform (linux/arm64)",
            &format!("user: image {} is not for linux/arm64: image with reference", Digest::sha256(b"image")),
        );
        check(
            500,
            "driver failed programming external connectivity on endpoint x (12): Bind for 0.0.0.0:8080 failed: port is \
             already allocated",
            "user: port 8080 of the agent's machine is taken",
        );
        check(
            500,
            "driver failed programming external connectivity on endpoint x (12): Error starting userland proxy: listen \
             tcp4 0.0.0.0:81: bind: address already in use",
            "user: port 81 of the agent's machine is taken",
        );
        check(
            500,
            "linux spec user: unable to find user ann: no matching entries in passwd file",
            "user: user `ann:staff`",
        );
        for message in [
            "Cannot mkdir: /etc/passwd is not a directory",
            "Invalid isolation: \"hyperv\" - linux only supports 'default'",
            "uids and gids must be in range 0-2147483647",
            "driver failed programming external connectivity on endpoint x (12): Error starting userland proxy: listen \
             tcp4 192.0.2.1:81: bind: cannot assign requested address",
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
             process: error during container init: environment variable value can't contain null(\\x00): \"A=b\\x00c\": \
             unknown",
        ] {
            check(500, message, &format!("user: container can't be started: {message}"));
        }
        check(
            400,
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            "user: container can't be",
        );
        check(500, "write /x: no space left on device", "machinery: container engine has no space left");
        check(500, "something broke", "machinery: container engine refused to start a container: something broke");
        check(409, "conflict", "machinery: ");
    }
}
