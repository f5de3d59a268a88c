//! `--git-access-token`: what a task shows to the host of its context.

use cooper_api::rest::SetTaskCredential;
use cooper_spec::source::{RemoteSource, SourceLocation};
use cooper_types::SourceHost;

use crate::environment::Environment;
use crate::fault::{Fault, chain};

/// Where the token comes from where no flag gives one.
pub(crate) const VARIABLE: &str = "COOPER_GIT_ACCESS_TOKEN";

/// The token for the Git host of the context that is named now, or else of the one that the task has. The environment is that of
/// all commands of a script: its token counts only where the command names a Git repository itself.
pub(super) fn credential(
    flag: Option<&str>,
    named: Option<&str>,
    earlier: Option<&str>,
    environment: &Environment,
) -> Result<Option<(SourceHost, SetTaskCredential)>, Fault> {
    let (token, host) = match flag {
        Some("") => {
            return Err(Fault::usage("--git-access-token is empty")
                .with_hint("`cooper task credential remove` takes away the token that a task has"));
        }
        Some(token) => match git_host(named.or(earlier))? {
            Some(host) => (token.to_owned(), host),
            None => {
                return Err(Fault::usage("--git-access-token is for a Git repository, and the task's context is none")
                    .with_hint(
                        "name the repository with --context; other hosts' credentials are kept with `cooper task credential add`",
                    ));
            }
        },
        None => match (git_host(named)?, environment.text(VARIABLE)?) {
            (Some(host), Some(token)) => (token, host),
            (Some(_), None) | (None, _) => return Ok(None),
        },
    };
    Ok(Some((host, SetTaskCredential { username: "git".to_owned(), password: token })))
}

/// The host of a context that is a Git repository.
fn git_host(context: Option<&str>) -> Result<Option<SourceHost>, Fault> {
    let Some(Ok(SourceLocation::Remote(RemoteSource::Git(source)))) = context.map(SourceLocation::parse) else {
        return Ok(None);
    };
    let host = SourceHost::parse(&source.url.host()).map_err(|error| Fault::usage(chain(&error)))?;
    Ok(Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_the_context_that_is_named_or_was_there() {
        let none = Environment::of(&[]);
        let variable = Environment::of(&[(VARIABLE, "t0ken")]);
        let (git, other) = (Some("https://git.example/a.git#main"), Some("https://other.example/b.git"));
        let kept = |flag, named, earlier, environment: &Environment| {
            let kept = credential(flag, named, earlier, environment).map_err(|fault| fault.message)?;
            Ok::<_, String>(kept.map(|(host, kept)| format!("{host} {}", kept.password)))
        };
        for (named, earlier, expect) in [
            (git, None, "git.example"),
            (None, git, "git.example"),
            (other, git, "other.example"),
            (git, Some("oci://r.example/a:1"), "git.example"),
        ] {
            assert_eq!(
                kept(Some("x"), named, earlier, &variable),
                Ok(Some(format!("{expect} x"))),
                "{named:?} {earlier:?}"
            );
        }
        // A script's variable is about what the command names.
        assert_eq!(kept(None, git, other, &variable), Ok(Some("git.example t0ken".to_owned())));
        for named in [None, Some("/dev/null"), Some("oci://r.example/a:1"), Some("https://h.example/a.tar.gz")] {
            assert_eq!(kept(None, named, git, &variable), Ok(None), "{named:?}");
            assert_eq!(kept(None, named, git, &none), Ok(None), "{named:?}");
            let of_flag = kept(Some("x"), named, None, &none).expect_err("no Git repository");
            assert!(of_flag.contains("the task's context is none"), "{of_flag}");
        }
        assert_eq!(kept(None, git, None, &Environment::of(&[(VARIABLE, "")])), Ok(None));
    }

    #[test]
    fn no_token_is_taken_away_by_an_empty_one() {
        let fault = credential(Some(""), Some("https://git.example/a.git"), None, &Environment::of(&[]));
        assert!(fault.expect_err("empty").hint.expect("a hint").contains("credential remove"));
    }
}
