//! What SOURCE is: a local folder, or something that is not supported yet.

use std::path::PathBuf;

use crate::fault::Fault;

/// The folder that SOURCE names; whether it exists is for the packing to say.
pub(crate) fn local_folder(source: &str) -> Result<PathBuf, Fault> {
    let remote = source.contains("://") || source.starts_with("git@") || source.starts_with("github.com/");
    if remote {
        return Err(Fault::usage(format!("source `{source}` is remote, which is not supported yet"))
            .with_hint("clone or unpack it, and build the folder"));
    }
    if matches!(source, "-" | "/dev/null") {
        return Err(Fault::usage(format!("source `{source}` is not a folder"))
            .with_hint("give the folder that holds the sources; `.` is the current one"));
    }
    if source.is_empty() {
        return Err(Fault::usage("source is empty").with_hint("give a folder; `.` is the current one"));
    }
    Ok(PathBuf::from(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_folders() {
        for text in
            ["https://github.com/a/b.git#main", "git@github.com:a/b", "git://x/y", "oci://r/a:1", "github.com/a/b"]
        {
            assert!(local_folder(text).expect_err(text).message.contains("not supported yet"), "{text}");
        }
        for text in [".", "..", "/src/app", "app", "git", "C:\\src"] {
            assert_eq!(local_folder(text), Ok(PathBuf::from(text)));
        }
        for text in ["", "-", "/dev/null"] {
            assert!(local_folder(text).is_err(), "{text}");
        }
    }
}
