//! The exit codes, and the one place that says which outcome has which.

use std::process::ExitCode;

use cooper_api::problem::ProblemCode;
use cooper_api::rest::RunStatus;
use cooper_client::ClientError;

/// How a command ended. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Success = 0,
    /// The user's build, or a step of the user's task, failed.
    BuildFailed = 1,
    /// Wrong usage, or a file or value that is not valid.
    Usage = 2,
    /// The run was cancelled.
    Canceled = 3,
    /// The run took longer than it may.
    TimedOut = 4,
    /// The server can't be reached, or refused.
    Server = 5,
    /// The machinery failed.
    Machinery = 6,
    /// Ctrl-C ended the waiting for a run that goes on.
    Interrupted = 130,
    /// A signal to end did.
    Terminated = 143,
}

/// What `--help` says of them.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  success
  1  the run failed: its build, or one of its steps
  2  wrong usage, or a file or value that is not valid
  3  the run was cancelled
  4  the run timed out
  5  the server can't be reached, or refused
  6  the machinery failed
  130, 143  waiting was ended by Ctrl-C, or by a signal to end: the run goes on";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code for a run that stands like this. A run that goes on is no failure of the command that left it.
    pub(crate) fn of_run(status: RunStatus) -> Self {
        match status {
            RunStatus::Queued | RunStatus::Started | RunStatus::Running | RunStatus::Succeeded => Self::Success,
            RunStatus::Failed => Self::BuildFailed,
            RunStatus::Canceled => Self::Canceled,
            RunStatus::Timeout => Self::TimedOut,
            RunStatus::Error => Self::Machinery,
        }
    }

    /// The code for a call that did not succeed.
    pub(crate) fn of_client_error(error: &ClientError) -> Self {
        match error {
            ClientError::Refused { problem } => Self::of_problem(&problem.code, problem.status),
            ClientError::Unreachable { .. } | ClientError::Certificate { .. } | ClientError::Protocol { .. } => {
                Self::Server
            }
            ClientError::ContextTooLarge { .. } => Self::Usage,
            ClientError::ReadContext(_) | ClientError::Setup(_) => Self::Machinery,
        }
    }

    fn of_problem(code: &ProblemCode, status: u16) -> Self {
        match code {
            ProblemCode::InvalidRequest
            | ProblemCode::InvalidReference
            | ProblemCode::InvalidTemplate
            | ProblemCode::InvalidContext
            | ProblemCode::UnsupportedPlatform
            | ProblemCode::ContextTooLarge
            | ProblemCode::RequestTooLarge => Self::Usage,
            ProblemCode::Internal => Self::Machinery,
            ProblemCode::Unauthorized
            | ProblemCode::Unsigned
            | ProblemCode::Forbidden
            | ProblemCode::NotFound
            | ProblemCode::MethodNotAllowed
            | ProblemCode::UnsupportedMediaType
            | ProblemCode::ContextNotFound
            | ProblemCode::Conflict
            | ProblemCode::IdempotencyConflict
            | ProblemCode::TooManyRequests
            | ProblemCode::StorageFull
            | ProblemCode::Unavailable => Self::Server,
            ProblemCode::Other(_) => match status {
                400 | 413 | 422 => Self::Usage,
                500 => Self::Machinery,
                _ => Self::Server,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use cooper_api::problem::Problem;

    use super::*;

    #[test]
    fn runs_have_the_codes_of_the_design() {
        let codes = RunStatus::ALL.map(|status| (status.name(), Exit::of_run(status) as u8));
        let expect = [
            ("Queued", 0),
            ("Started", 0),
            ("Running", 0),
            ("Succeeded", 0),
            ("Failed", 1),
            ("Canceled", 3),
            ("Error", 6),
            ("Timeout", 4),
        ];
        assert_eq!(codes, expect);
    }

    #[test]
    fn refusals_are_told_apart() {
        let check = |code: ProblemCode, expect: u8| {
            let error = ClientError::Refused { problem: Box::new(Problem::new(code, "no")) };
            assert_eq!(Exit::of_client_error(&error) as u8, expect, "{error:?}");
        };
        check(ProblemCode::InvalidReference, 2);
        check(ProblemCode::UnsupportedPlatform, 2);
        check(ProblemCode::Unauthorized, 5);
        check(ProblemCode::StorageFull, 5);
        check(ProblemCode::NotFound, 5);
        check(ProblemCode::Internal, 6);
        let unreachable = ClientError::Unreachable { url: "http://localhost".to_owned(), source: "refused".into() };
        assert_eq!(Exit::of_client_error(&unreachable) as u8, 5);
        let large = ClientError::ContextTooLarge { size: 2, max: 1 };
        assert_eq!(Exit::of_client_error(&large) as u8, 2);
    }

    #[test]
    fn the_help_names_every_code() {
        for (number, line) in EXIT_CODES_HELP.lines().skip(1).take(7).enumerate() {
            assert!(line.starts_with(&format!("  {number}  ")), "{line}");
        }
        let signals = format!("  {}, {}  ", Exit::Interrupted as u8, Exit::Terminated as u8);
        assert!(EXIT_CODES_HELP.lines().last().is_some_and(|line| line.starts_with(&signals)));
        assert_eq!(EXIT_CODES_HELP.lines().count(), 9);
    }
}
