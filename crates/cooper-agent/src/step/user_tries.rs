//! Retries and repeats of a step's work: what comes after each try. Pure.
//!
//! ```text
//! repetition 0 ── try, try… ──▶ repetition 1 ── try… ──▶ … ──▶ all of them well, or the failures of those that were not
//! ```
//! Each repetition has retries of its own, and runs although the one before it failed (ACR contract §1.4).

use std::time::Duration;

use cooper_spec::plan::Tries;

/// How a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TryFailure {
    /// The failing process's exit code, where there was one.
    pub(super) exit_code: Option<i32>,
    /// What failed, in a line.
    pub(super) reason: String,
    /// Whether the try's output held one of the texts that make it worth another one.
    pub(super) has_retryable_output: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another try of the same repetition, after this pause.
    Retry(Duration),
    /// The first try of the next repetition.
    Repeat,
    /// Nothing: this is how it all ended. The exit code is the first failure's.
    Done(Result<(), TryFailure>),
}

/// Why a failed try is the last one of its repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// No retries are left.
    NoneLeft,
    /// Its output has nothing that makes it worth another try.
    OtherError,
}

/// How far the tries have come.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    tries: &'a Tries,
    retries_left: u32,
    repeats_left: u32,
    failures: Vec<TryFailure>,
    /// How many tries have begun.
    pub(super) begun: u32,
}

impl<'a> Progress<'a> {
    pub(super) fn new(tries: &'a Tries) -> Self {
        Self { tries, retries_left: tries.retries, repeats_left: tries.repeat, failures: Vec::new(), begun: 1 }
    }

    /// Why a try that failed so is not followed by another one, if it is not.
    pub(super) fn is_last(&self, failure: &TryFailure) -> Option<Last> {
        if self.retries_left == 0 {
            Some(Last::NoneLeft)
        } else if !self.tries.retry_on_errors.is_empty() && !failure.has_retryable_output {
            Some(Last::OtherError)
        } else {
            None
        }
    }

    /// Takes the end of a try.
    pub(super) fn after(&mut self, ended: Result<(), TryFailure>) -> Next {
        if let Err(failure) = ended {
            if self.is_last(&failure).is_none() {
                self.retries_left -= 1;
                self.begun += 1;
                return Next::Retry(self.tries.retry_delay);
            }
            self.failures.push(failure);
        }
        if self.repeats_left > 0 {
            self.repeats_left -= 1;
            self.retries_left = self.tries.retries;
            self.begun += 1;
            return Next::Repeat;
        }
        let Some(first) = self.failures.first() else { return Next::Done(Ok(())) };
        let exit_code = first.exit_code;
        let has_retryable_output = first.has_retryable_output;
        let reasons = self.failures.iter().map(|failure| failure.reason.as_str()).collect::<Vec<_>>();
        Next::Done(Err(TryFailure { exit_code, reason: reasons.join(", "), has_retryable_output }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(retries: u32, repeat: u32, retry_on_errors: &[&str]) -> Tries {
        Tries {
            start_delay: Duration::ZERO,
            retries,
            retry_delay: Duration::from_secs(5),
            retry_on_errors: retry_on_errors.iter().map(|text| (*text).to_owned()).collect(),
            repeat,
        }
    }

    /// Plays ends of tries (`+` well, `-` a failure, `!` one with a retryable text); gives how often it was tried, and
    /// the end. Tries beyond the script go well.
    fn play(tries: &Tries, script: &str) -> (usize, Result<(), String>) {
        let mut progress = Progress::new(tries);
        let mut ends = script.chars();
        for count in 1.. {
            let end = match ends.next().unwrap_or('+') {
                '+' => Ok(()),
                sign => Err(TryFailure {
                    exit_code: Some(count),
                    reason: format!("e{count}"),
                    has_retryable_output: sign == '!',
                }),
            };
            if let Next::Done(end) = progress.after(end) {
                let count = usize::try_from(count).expect("small");
                return (count, end.map_err(|failure| failure.reason));
            }
        }
        unreachable!("the loop has no end of its own")
    }

    #[test]
    fn tries_go_as_the_contract_says() {
        let check = |retries, repeat, texts: &[&str], script: &str, count: usize, end: Result<(), &str>| {
            let got = play(&tries(retries, repeat, texts), script);
            assert_eq!(got, (count, end.map_err(str::to_owned)), "{retries} {repeat} {texts:?} {script}");
        };
        check(0, 0, &[], "+", 1, Ok(()));
        check(0, 0, &[], "-", 1, Err("e1"));
        check(2, 0, &[], "-+", 2, Ok(()));
        check(2, 0, &[], "---", 3, Err("e3"));
        check(2, 0, &["x"], "-", 1, Err("e1"));
        check(2, 0, &["x"], "!-", 2, Err("e2"));
        check(2, 0, &["x"], "!!!", 3, Err("e3"));
        // Repeats run although earlier ones failed, each with its own retries.
        check(0, 2, &[], "+++", 3, Ok(()));
        check(0, 2, &[], "-+-", 3, Err("e1, e3"));
        check(1, 1, &[], "-+--", 4, Err("e4"));
        check(1, 1, &[], "----", 4, Err("e2, e4"));
        check(1, 1, &["x"], "-!-", 3, Err("e1, e3"));
    }
}
