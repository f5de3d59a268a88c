//! The environment variables that mean something, to tell slips from them.

use super::Key;
use crate::environment::Environment;

/// Variables that are no setting's.
const OTHERS: [&str; 10] = [
    super::secrets::KEY_VARIABLE,
    // Given to `acr` in a step.
    "COOPER_REGISTRY_ADDRESS",
    "COOPER_REGISTRY_PASSWORD",
    "COOPER_SERVER",
    "COOPER_TOKEN",
    crate::commands::task::git_token::VARIABLE,
    "COOPER_CA_FILE",
    "COOPER_CONFIG",
    "COOPER_CONFIG_DIR",
    "COOPER_FAILPOINT",
];
/// What begins like this is for the project's own tests.
const TESTS: [&str; 4] = ["COOPER_TEST_", "COOPER_SIM_", "COOPER_FAULTS_", "COOPER_SOAK_"];

/// A line for each variable that looks like ours and means nothing, with the nearest that means something.
pub(crate) fn unknown_variables(environment: &Environment) -> Vec<String> {
    let known: Vec<String> = Key::ALL.into_iter().flat_map(Key::variables).chain(OTHERS.map(str::to_owned)).collect();
    let mut names = environment.beginning_with("COOPER_");
    names.retain(|name| !known.contains(name));
    names.retain(|name| !TESTS.iter().any(|prefix| name.starts_with(prefix)));
    names.sort();
    let line = |name: &String| {
        let distances = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
        let near = distances.min().filter(|(distance, _)| *distance <= (name.len() - "COOPER_".len()) / 3);
        let near = near.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
        let name: String = name.escape_debug().collect();
        format!("environment variable {name} means nothing to cooper{near}")
    };
    names.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_and_what_is_known_is_not() {
        let environment = Environment::of(&[
            ("COOPER_DATADIR", "x"),
            ("COOPER_SERVER", "x"),
            ("COOPER_GIT_ACCESS_TOKEN", "x"),
            ("COOPER_AGENT_POOL", "x"),
            ("COOPER_POOL", "x"),
            ("COOPER_ZZZZZZ", "x"),
            ("COOPER_SOAK_SECONDS", "1"),
            ("OTHER", "x"),
        ]);
        let lines = unknown_variables(&environment);
        let expect = [
            "environment variable COOPER_DATADIR means nothing to cooper; did you mean COOPER_DATA_DIR?",
            "environment variable COOPER_ZZZZZZ means nothing to cooper",
        ];
        assert_eq!(lines, expect);
    }
}
