//! What authors write into a commit's message when they want no run.

/// The spellings that forges document, in lower case; any case counts.
const MARKERS: &[&str] = &[
    // All of them.
    "[skip ci]",
    "[ci skip]",
    // GitHub, Gitea and Forgejo.
    "[no ci]",
    "[skip actions]",
    "[actions skip]",
    // Azure DevOps.
    "***no_ci***",
    "[skip azurepipelines]",
    "[azurepipelines skip]",
    "[skip azpipelines]",
    "[azpipelines skip]",
    "[skip azp]",
    "[azp skip]",
];
/// GitHub's and Azure DevOps' trailer, a line of its own.
const TRAILERS: &[&str] = &["skip-checks: true", "skip-checks:true"];

/// The marker in a message that asks for no run.
pub fn skip_marker(message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    MARKERS
        .iter()
        .find(|marker| message.contains(**marker))
        .or_else(|| TRAILERS.iter().find(|trailer| message.lines().any(|line| line.trim() == **trailer)))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_spellings_are_known_in_any_case() {
        for (message, expect) in [
            ("Fix typo [skip ci]", Some("[skip ci]")),
            ("[CI SKIP] Fix", Some("[ci skip]")),
            ("Fix\n\nlong text [No CI]\n", Some("[no ci]")),
            ("x [skip actions]", Some("[skip actions]")),
            ("x ***NO_CI***", Some("***no_ci***")),
            ("x [Skip AzurePipelines]", Some("[skip azurepipelines]")),
            ("x [azp skip]", Some("[azp skip]")),
            ("Fix\n\n\nskip-checks: true", Some("skip-checks: true")),
            ("Fix\n\nSkip-Checks:true\n", Some("skip-checks:true")),
            ("Explain skip-checks: true in the docs", None),
            ("skip ci", None),
            ("[skip  ci]", None),
            ("", None),
        ] {
            assert_eq!(skip_marker(message), expect, "{message:?}");
        }
    }
}
