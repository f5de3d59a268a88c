//! What is said of a name in a template that nobody has given a value: it renders as nothing, as in ACR (contract §4.2).

use crate::gotemplate::Missing;

use super::data::SHARED_VOLUME;
use super::fault::Fault;
use super::fields::clip;
use super::lines::Lines;
use super::nearest::nearest;
use super::yaml::At;

/// The most names that a message lists.
const MAX_LISTED: usize = 20;

/// The warnings of a template: `lines` is its text before it was rendered.
pub(super) fn warnings(lines: &Lines<'_>, missing: Vec<Missing>) -> Vec<Fault> {
    let warning = |missing: Missing| {
        let at = At { line: missing.line, column: missing.column, length: missing.length };
        let (message, help) = told(&missing);
        lines.fault(at, message, Some(help))
    };
    missing.into_iter().map(warning).collect()
}

fn told(missing: &Missing) -> (String, String) {
    let name = format!("{}.{}", missing.of, clip(&missing.key));
    if (missing.of.as_str(), missing.key.as_str()) == (".Run", SHARED_VOLUME) {
        let way =
            "every step has the workspace as its directory /workspace, and no engine that could mount it elsewhere";
        return (format!("`{name}` renders as nothing"), way.to_owned());
    }
    let is_not = match missing.of.as_str() {
        ".Secrets" => format!("secret `{}` is not declared", clip(&missing.key)),
        ".Run" | ".Build" | "" => format!("`{name}` is unknown"),
        _ => format!("`{name}` is not set"),
    };
    let known = || missing.known.iter().map(String::as_str);
    let way = match (nearest(&missing.key, known()), missing.of.as_str()) {
        (Some(meant), _) => format!("did you mean `{}.{meant}`?", missing.of),
        (None, ".Secrets") if missing.known.is_empty() => "declare it under `secrets`".to_owned(),
        (None, ".Secrets") => format!("declare it under `secrets`, where there is {}", listed(missing)),
        (None, ".Run" | ".Build" | "") => format!("known are {}", listed(missing)),
        (None, of) => {
            let set = match of {
                ".Values" => format!("set it with `--set {}=…` or in the values file", clip(&missing.key)),
                _ => "set it in the values file".to_owned(),
            };
            let there = if missing.known.is_empty() { String::new() } else { format!(" beside {}", listed(missing)) };
            format!("{set}{there}, or ask `{{{{if {name}}}}}` first")
        }
    };
    (format!("{is_not}, and renders as nothing"), way)
}

fn listed(missing: &Missing) -> String {
    let names = missing.known.iter().take(MAX_LISTED).map(|name| clip(name)).collect::<Vec<_>>().join(", ");
    match missing.known.len() > MAX_LISTED {
        true => format!("{names}, …"),
        false => names,
    }
}
