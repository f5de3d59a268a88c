//! `.gitmodules`: which path is which repository. A small reader of git's configuration syntax, which includes nothing,
//! expands nothing and runs nothing.

/// The most submodules that are read.
const MAX_MODULES: usize = 10_000;

/// One submodule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Module {
    name: String,
    pub(super) path: String,
    /// As it is written: to be read relative to the repository.
    pub(super) url: Option<String>,
    /// `update = none`: git leaves it empty.
    pub(super) skipped: bool,
}

/// Reads the submodules; lines that make no sense are passed over, as a missing one is reported where it is needed.
pub(super) fn parse(text: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    // The one that lines are for: a section may be opened again.
    let mut current = None;
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).replace("\\\n", "").lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            current = section(rest).and_then(|name| {
                let known = modules.iter().position(|module| module.name == name);
                if known.is_none() && modules.len() < MAX_MODULES {
                    modules.push(Module { name, ..Module::default() });
                    return Some(modules.len() - 1);
                }
                known
            });
            continue;
        }
        let module = current.and_then(|at| modules.get_mut(at));
        let (Some((key, text)), Some(module)) = (line.split_once('='), module) else { continue };
        let text = value(text.trim());
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => module.path = text.trim_matches('/').to_owned(),
            "url" => module.url = Some(text),
            "update" => module.skipped = text == "none",
            _ => {}
        }
    }
    modules
}

/// The name in `submodule "NAME"]`.
fn section(text: &str) -> Option<String> {
    let (head, rest) = text.split_once('"')?;
    if !head.trim().eq_ignore_ascii_case("submodule") {
        return None;
    }
    let name = rest.rsplit_once('"')?.0;
    Some(name.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// A value: quotes taken away, escapes resolved, a comment cut off.
fn value(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            '#' | ';' if !quoted => break,
            c => out.push(c),
        }
    }
    if quoted { out } else { out.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submodules_as_git_writes_them() {
        let text = "[core]\n\tpath = x\n[include]\n path = /etc/passwd\n[submodule \"a b\"]\n\tpath = lib/a b\n\turl = ../a.git\n\
                    # c\n[Submodule \"q\\\"q\"]\nPATH=\"q;q\" ; no\nurl = https://h/q.git # no\nupdate = none\n[submodule \"u\"]\n\
                    path = u/\nupdate = !sh -c x\n";
        let modules = parse(text);
        let got: Vec<_> =
            modules.iter().map(|m| (m.name.as_str(), m.path.as_str(), m.url.as_deref(), m.skipped)).collect();
        assert_eq!(
            got,
            [
                ("a b", "lib/a b", Some("../a.git"), false),
                ("q\"q", "q;q", Some("https://h/q.git"), true),
                ("u", "u", None, false),
            ]
        );
        // A section that is opened again is the same one: the last value counts, as with git.
        let again = parse("[submodule \"a\"]\npath=a\nurl=1\n[submodule \"b\"]\npath=b\n[submodule \"a\"]\nurl=2\n");
        let got: Vec<_> = again.iter().map(|m| (m.path.as_str(), m.url.as_deref())).collect();
        assert_eq!(got, [("a", Some("2")), ("b", None)]);
        assert_eq!(parse("]\n[\n=\n[submodule]\n[submodule \"\npath = x"), []);
    }
}
