//! What SOURCE is: a local folder, or a place that an agent fetches.

use std::path::{Component, Path, PathBuf};

use cooper_spec::source::{RemoteSource, SourceLocation};

use crate::fault::{Fault, chain};

/// Where the files of a build are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder of this machine; whether it exists is for the packing to say.
    Folder(PathBuf),
    /// A tar archive on the standard input.
    Stdin,
    /// A place that an agent fetches. Nothing of it comes through this machine.
    Remote(RemoteSource),
}

impl Source {
    /// Reads SOURCE.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        match SourceLocation::parse(text) {
            Ok(SourceLocation::Local(path)) => Ok(Self::Folder(PathBuf::from(path))),
            Ok(SourceLocation::Remote(source)) => Ok(Self::Remote(source)),
            Ok(SourceLocation::Stdin) => Ok(Self::Stdin),
            Ok(SourceLocation::Nothing) => Err(Fault::usage(format!("source `{text}` holds no Dockerfile"))
                .with_hint("give the folder that holds the sources; `.` is the current one")),
            Err(error) => Err(Fault::usage(chain(&error))),
        }
    }
}

/// The path of a Dockerfile inside a fetched source's folder, from `--file`.
pub(crate) fn dockerfile_in_source(file: Option<&Path>) -> Result<String, Fault> {
    let Some(file) = file else { return Ok("Dockerfile".to_owned()) };
    let fault = |why: &str| {
        Fault::usage(format!("--file `{}` {why}", file.display()))
            .with_hint("with a source that is no folder of this machine, it is a path inside the source")
    };
    let mut parts = Vec::new();
    for part in file.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(|| fault("is not UTF-8 text"))?),
            Component::ParentDir => return Err(fault("leads out of the source's folder")),
            Component::RootDir | Component::Prefix(_) => return Err(fault("is a path of this machine")),
        }
    }
    if parts.is_empty() { Err(fault("names no file")) } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_folders() {
        for text in ["https://github.com/a/b.git#main", "https://git.example/x/y.git#v1:sub", "http://10.0.0.1/x.git"] {
            let source = Source::parse(text).expect(text);
            assert!(matches!(&source, Source::Remote(source) if source.to_string() == text), "{source:?}");
        }
        assert!(matches!(Source::parse("github.com/a/b"), Ok(Source::Remote(RemoteSource::Git(_)))));
        assert!(matches!(Source::parse("https://h.example/a.tgz"), Ok(Source::Remote(RemoteSource::Archive(_)))));
        assert!(matches!(Source::parse("oci://r.example/a:1"), Ok(Source::Remote(RemoteSource::Artifact(_)))));
        for text in [".", "..", "/src/app", "app", "git", "C:\\src"] {
            assert_eq!(Source::parse(text), Ok(Source::Folder(PathBuf::from(text))));
        }
        assert_eq!(Source::parse("-"), Ok(Source::Stdin));
        for (text, expect) in [
            ("", "empty"),
            ("/dev/null", "no Dockerfile"),
            ("git@github.com:a/b", "https://github.com/a/b"),
            ("ssh://git@git.example/a.git", "https://git.example/a.git"),
            ("oci://a:1", "oci"),
            ("file:///src", "file"),
            ("https://git.example/a.tar.gz#v1", "a.tar.gz"),
            ("https://git.example/a.git#..", "`..`"),
            ("https://git.example/a.git#:../b", "`..`"),
        ] {
            let fault = Source::parse(text).expect_err(text);
            assert_eq!(fault.exit, crate::exit::Exit::Usage);
            assert!(fault.message.contains(expect), "{text}: {}", fault.message);
        }
        let fault = Source::parse("https://ann:hunter2@git.example/a.git").expect_err("credentials");
        assert!(fault.message.contains("cooper credential set git.example") && !fault.message.contains("hunter2"));
    }

    #[test]
    fn a_dockerfile_lies_in_the_sources_folder() {
        assert_eq!(dockerfile_in_source(None), Ok("Dockerfile".to_owned()));
        assert_eq!(dockerfile_in_source(Some(Path::new("./a/./B.Dockerfile"))), Ok("a/B.Dockerfile".to_owned()));
        for path in ["/etc/Dockerfile", "../Dockerfile", "a/../b", ".", ""] {
            assert!(dockerfile_in_source(Some(Path::new(path))).is_err(), "{path}");
        }
    }
}
