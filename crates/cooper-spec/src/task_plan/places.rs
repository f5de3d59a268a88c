//! Where a step's paths lead: into the workspace, or into a mounted volume. Paths are of the step's platform.

use crate::task::{Task, TaskStep};

/// Where the workspace is in every container, by its parts.
const LINUX: &[&str] = &["workspace"];
const WINDOWS: &[&str] = &["c:", "workspace"];

/// A path of a step that works in `directory`, relative to the workspace's root, with `/` between its parts. None if it
/// leads out of the workspace.
pub(super) fn in_workspace(directory: &str, path: &str, windows: bool) -> Option<String> {
    let is_separator = |c: char| c == '/' || windows && c == '\\';
    let drive = |path: &str| windows && path.as_bytes().get(1) == Some(&b':');
    let whole = match path {
        path if drive(path) => path.to_owned(),
        // From the root of the drive that the step is on.
        path if path.starts_with(is_separator) && windows => format!("{}{path}", &directory[..2]),
        path if path.starts_with(is_separator) => path.to_owned(),
        path => format!("{directory}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split(is_separator) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let root = if windows { WINDOWS } else { LINUX };
    // Names on Windows are the same in any letter case.
    let same = |(have, want): (&&str, &&str)| if windows { have.eq_ignore_ascii_case(want) } else { have == want };
    let inside = parts.len() >= root.len() && parts.iter().zip(root).all(same);
    inside.then(|| parts[root.len()..].join("/"))
}

/// A path of the workspace as a build of `folder` names its Dockerfile: relative to the folder where it lies in it, else
/// absolute from the workspace's root.
pub(super) fn relative_to(folder: &str, path: &str) -> String {
    match folder {
        "" => path.to_owned(),
        folder => match path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => rest.to_owned(),
            None => format!("/{path}"),
        },
    }
}

/// The volume and the file in it that a path of the step's container names.
pub(super) fn mounted_file<'t>(task: &'t Task, step: &TaskStep, path: &str) -> Option<(&'t str, &'t str)> {
    step.volume_mounts.iter().find_map(|mount| {
        let file = path.strip_prefix(&mount.mount_path)?.strip_prefix('/')?;
        let volume = &task.volumes[mount.volume];
        let (file, _) = volume.files.get_key_value(file)?;
        Some((volume.name.as_str(), file.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_into_the_workspace_or_nowhere() {
        let table = [
            ("/workspace", ".", Some("")),
            ("/workspace/src", "app", Some("src/app")),
            ("/workspace/src", "../lib/./x", Some("lib/x")),
            ("/workspace/src", "/workspace/a", Some("a")),
            ("/workspace", r"a\b", Some(r"a\b")),
            ("/workspace", "..", None),
            ("/workspace", "../..", None),
            ("/workspace", "../../workspace", None),
            ("/workspace", "/workspaces", None),
            ("/opt", ".", None),
        ];
        for (directory, path, expected) in table {
            assert_eq!(in_workspace(directory, path, false).as_deref(), expected, "{directory} {path}");
        }
        let table = [
            (r"c:\workspace", ".", Some("")),
            (r"c:\workspace\src", "app", Some("src/app")),
            (r"c:\workspace\src", r"..\lib\.\x", Some("lib/x")),
            (r"c:\workspace\src", "../lib/x", Some("lib/x")),
            (r"c:\workspace", r"C:\Workspace\a", Some("a")),
            (r"c:\workspace\src", r"\workspace\a", Some("a")),
            (r"c:\workspace", "/workspace/a", Some("a")),
            (r"c:\workspace", "..", None),
            (r"c:\workspace", r"..\..\..\x", None),
            (r"c:\workspace", r"d:\workspace\a", None),
            (r"d:\build", ".", None),
            (r"d:\build", r"\workspace", None),
        ];
        for (directory, path, expected) in table {
            assert_eq!(in_workspace(directory, path, true).as_deref(), expected, "{directory} {path}");
        }
    }

    #[test]
    fn a_dockerfile_is_named_from_its_context() {
        for (folder, path, expected) in
            [("", "D", "D"), ("src", "src/D", "D"), ("src", "D", "/D"), ("src", "srcs/D", "/srcs/D")]
        {
            assert_eq!(relative_to(folder, path), expected, "{folder} {path}");
        }
    }
}
