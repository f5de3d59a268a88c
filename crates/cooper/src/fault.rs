//! Why a command stopped early: a line that names the object, what to try next, and the exit code.

use std::error::Error;

use cooper_api::problem::ProblemCode;
use cooper_client::{ClientError, ServerUrlError};

use crate::exit::Exit;

/// Why a command stopped before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something is wrong.
    Fault(Box<Fault>),
    /// Several things are wrong, and all are told at once.
    Faults(Vec<Fault>),
    /// Whoever read our output has seen enough: no fault.
    OutputClosed,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    /// A fault of the user's input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// A fault of this machine or of the system.
    pub(crate) fn machinery(message: impl Into<String>) -> Self {
        Self { exit: Exit::Machinery, message: message.into(), hint: None }
    }

    /// The same fault with what to try next.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let exit = Exit::of_client_error(&error);
        let hint = match &error {
            ClientError::Unreachable { .. } => {
                Some("start a server with `cooper serve`, or name the right one with --server".to_owned())
            }
            ClientError::Refused { problem } => problem.hint.clone().or_else(|| match problem.code {
                ProblemCode::Unauthorized => Some("log in with `cooper login URL`, or set COOPER_TOKEN".to_owned()),
                ProblemCode::Forbidden => Some("ask for a token with that scope: `cooper token create`".to_owned()),
                _ => None,
            }),
            ClientError::ContextTooLarge { .. } => {
                Some("leave out what the build doesn't need with lines in .dockerignore".to_owned())
            }
            ClientError::Certificate { fault, .. } => Some(fault.way_out().to_owned()),
            ClientError::Setup(_) => {
                let remedy = "install root certificates, on Debian with the package ca-certificates, or name the \
                              server's CA with --ca-file";
                Some(remedy.to_owned())
            }
            ClientError::Protocol { .. } | ClientError::ReadContext(_) => None,
        };
        Self { exit, message: chain(&error), hint }
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Fault::from(error).into()
    }
}

impl From<ServerUrlError> for Fault {
    fn from(error: ServerUrlError) -> Self {
        let fault = Self::usage(error.to_string());
        match error {
            ServerUrlError::PlainHttp(_) => fault.with_hint("use https, or accept the risk with --insecure"),
            ServerUrlError::Extra(_) => fault.with_hint("pass a token with --token-file or COOPER_TOKEN"),
            ServerUrlError::Form(_) => fault,
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
