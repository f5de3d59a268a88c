//! Where steps start: relative paths stand in the workspace, and all are cleaned as Go cleans them.

/// Where the workspace is in a step's container.
pub(super) const WORKSPACE: &str = "/workspace";
/// Where the steps' home is in a container that runs on Linux.
pub(super) const HOME: &str = "/acb/home";
const WORKSPACE_WINDOWS: &str = r"c:\workspace";

/// A step's directory as an absolute path.
pub(super) fn working_directory(path: Option<&str>, windows: bool) -> String {
    let path = path.unwrap_or_default();
    if windows { on_windows(path) } else { on_linux(path) }
}

/// Where a volume is mounted: an absolute path, cleaned. None if it is none, or the root, or no engine would take it.
pub(super) fn mount_path(path: &str) -> Option<String> {
    // A colon is the end of a path to engines.
    let is_wrong = |c: char| c == ':' || c.is_control();
    let cleaned = on_linux(path);
    (path.starts_with('/') && cleaned != "/" && !path.contains(is_wrong)).then_some(cleaned)
}

fn on_linux(path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{WORKSPACE}/{path}") };
    format!("/{}", cleaned(joined.split('/')).join("/"))
}

fn on_windows(path: &str) -> String {
    let path = path.replace('/', "\\");
    let absolute = path.starts_with('\\') || path.as_bytes().get(1) == Some(&b':');
    let joined = if absolute { path } else { format!(r"{WORKSPACE_WINDOWS}\{path}") };
    let (drive, rest) = match joined.as_bytes().get(1) {
        Some(b':') => joined.split_at(2),
        _ => ("c:", joined.as_str()),
    };
    format!(r"{drive}\{}", cleaned(rest.split('\\')).join(r"\"))
}

/// The parts without `.`, empty ones, and those that `..` takes away.
fn cleaned<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut clean = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_stand_in_the_workspace() {
        let table = [
            ("", "/workspace", r"c:\workspace"),
            (".", "/workspace", r"c:\workspace"),
            ("src/app", "/workspace/src/app", r"c:\workspace\src\app"),
            ("./src//app/", "/workspace/src/app", r"c:\workspace\src\app"),
            ("src/../lib", "/workspace/lib", r"c:\workspace\lib"),
            ("../..", "/", r"c:\"),
            ("/", "/", r"c:\"),
            ("/opt/./x", "/opt/x", r"c:\opt\x"),
        ];
        for (path, linux, windows) in table {
            assert_eq!(working_directory(Some(path), false), linux, "{path}");
            assert_eq!(working_directory(Some(path), true), windows, "{path}");
        }
        assert_eq!(working_directory(Some(r"d:\x\..\y"), true), r"d:\y");
        assert_eq!(working_directory(Some(r"a\b"), true), r"c:\workspace\a\b");
        assert_eq!(working_directory(None, false), "/workspace");
    }

    #[test]
    fn volumes_are_mounted_at_absolute_paths() {
        assert_eq!(mount_path("/run/./keys/").as_deref(), Some("/run/keys"));
        assert_eq!(mount_path("/a?").as_deref(), Some("/a?"));
        for path in ["", ".", "keys", "/", "/..", r"c:\keys", r"\keys", "/a:b", "/a\nb"] {
            assert_eq!(mount_path(path), None, "{path}");
        }
    }
}
