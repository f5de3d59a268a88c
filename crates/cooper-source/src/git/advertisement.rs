//! What a server says of itself and of its references: the old advertisement, and version 2's capabilities and list.

use std::collections::HashMap;
use std::str;

use cooper_spec::source::GitReference;
use git2::Oid;

use super::packet::line;

/// The most references that are held in memory.
const MAX_REFERENCES: usize = 1_000_000;

/// Which protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// References come at once (versions 0 and 1).
    Old,
    /// Commands.
    Two,
}

/// A server's abilities, as it lists them.
#[derive(Clone, Debug, Default)]
pub(super) struct Capabilities(Vec<String>);

/// One reference of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteRef {
    pub(super) name: String,
    pub(super) id: Oid,
    /// The reference that this one stands for.
    pub(super) symref: Option<String>,
    /// What an annotated tag leads to, where the server was asked for that or says it anyhow.
    pub(super) peeled: Option<Oid>,
}

/// The answer to the first request.
#[derive(Clone, Debug)]
pub(super) struct Advertisement {
    pub(super) version: Version,
    pub(super) capabilities: Capabilities,
    /// All references, if the version lists them here.
    pub(super) references: Vec<RemoteRef>,
}

impl Capabilities {
    /// Whether the server has this ability, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Whether a value of this ability holds this word: `fetch=shallow filter`.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.values(name).any(|value| value.split(' ').any(|other| other == word))
    }

    /// The values of an ability, empty where it has none.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |text| {
            let rest = text.strip_prefix(name)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('=') }
        })
    }
}

impl Advertisement {
    /// Reads the lines of an advertisement, without its `# service` line.
    pub(super) fn read(lines: &[bytes::Bytes]) -> Result<Self, &'static str> {
        let lines: Vec<&[u8]> = lines.iter().map(|data| line(data)).collect();
        match lines.split_first() {
            Some((first, rest)) if *first == b"version 2" => {
                let texts = rest.iter().filter_map(|text| str::from_utf8(text).ok());
                let capabilities = Capabilities(texts.map(str::to_owned).collect());
                Ok(Self { version: Version::Two, capabilities, references: Vec::new() })
            }
            Some((first, rest)) if *first == b"version 1" => Self::read_old(rest),
            _ => Self::read_old(&lines),
        }
    }

    fn read_old(lines: &[&[u8]]) -> Result<Self, &'static str> {
        let mut capabilities = Capabilities::default();
        let mut references = Vec::new();
        for (index, text) in lines.iter().enumerate() {
            let mut text = *text;
            if index == 0
                && let Some(at) = text.iter().position(|byte| *byte == 0)
            {
                let list = str::from_utf8(text.get(at + 1..).unwrap_or_default()).unwrap_or_default();
                capabilities = Capabilities(list.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect());
                text = text.get(..at).unwrap_or_default();
            }
            // `shallow` lines tell that the server itself has no whole history.
            if !text.starts_with(b"shallow ") {
                add(&mut references, text)?;
            }
        }
        let symrefs: HashMap<&str, &str> =
            capabilities.values("symref").filter_map(|value| value.split_once(':')).collect();
        for one in &mut references {
            one.symref = symrefs.get(one.name.as_str()).and_then(|target| sound(target));
        }
        Ok(Self { version: Version::Old, capabilities, references })
    }
}

/// A reference's name, if it is one by git's rules: it goes into logs and into variables of runs.
fn sound(name: &str) -> Option<String> {
    GitReference::parse(name).is_ok().then(|| name.to_owned())
}

/// Adds a line of version 2's list: `ID NAME [ATTRIBUTE]…`. What is no name is passed over: nobody can ask for it.
pub(super) fn add(references: &mut Vec<RemoteRef>, text: &[u8]) -> Result<(), &'static str> {
    let Ok(text) = str::from_utf8(text) else { return Ok(()) };
    let mut parts = text.split(' ');
    let (Some(id), Some(name)) = (parts.next(), parts.next()) else { return Err("a reference without a name") };
    if id == "unborn" {
        return Ok(());
    }
    let id = object_id(id).ok_or("a reference without an object's name")?;
    // The older protocol tells what a tag leads to in a line of its own, behind the tag's.
    if let (Some(tag), Some(last)) = (name.strip_suffix("^{}"), references.last_mut())
        && last.name == tag
    {
        last.peeled = Some(id);
        return Ok(());
    }
    let (mut symref, mut peeled) = (None, None);
    for part in parts {
        symref = symref.or_else(|| part.strip_prefix("symref-target:").and_then(sound));
        peeled = peeled.or_else(|| part.strip_prefix("peeled:").and_then(object_id));
    }
    let Some(name) = sound(name) else { return Ok(()) };
    if references.len() >= MAX_REFERENCES {
        return Err("more references than anybody has");
    }
    references.push(RemoteRef { name, id, symref, peeled });
    Ok(())
}

/// A whole object name.
pub(super) fn object_id(text: &str) -> Option<Oid> {
    (text.len() == 40).then(|| Oid::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn read(lines: &[&str]) -> Result<Advertisement, &'static str> {
        let lines: Vec<_> = lines.iter().map(|text| bytes::Bytes::from(format!("{text}\n"))).collect();
        Advertisement::read(&lines)
    }

    #[test]
    fn both_versions() {
        let two = read(&["version 2", "agent=git/2", "fetch=shallow filter", "object-format=sha1"]).unwrap();
        assert_eq!(two.version, Version::Two);
        assert!(two.capabilities.has_word("fetch", "shallow") && !two.capabilities.has("ls-refs"));
        let head = format!("{A} HEAD\0side-band-64k symref=HEAD:refs/heads/main");
        let old = read(&[&head, &format!("{A} refs/tags/v1"), &format!("{A} refs/tags/v1^{{}}")]).unwrap();
        let names: Vec<_> = old.references.iter().map(|one| (one.name.as_str(), one.symref.as_deref())).collect();
        assert_eq!(names, [("HEAD", Some("refs/heads/main")), ("refs/tags/v1", None)]);
        let zero = format!("{} capabilities^{{}}\0side-band-64k", "0".repeat(40));
        assert_eq!(read(&[&zero]).unwrap().references, []);
        // Names go into logs and variables: a server chooses no control characters and no other syntax for them.
        let evil = format!("{A} HEAD\0symref=HEAD:refs/heads/a\x1b[2J");
        let evil = read(&[&evil, &format!("{A} refs/heads/b\x07")]).unwrap().references;
        assert_eq!(
            evil.iter().map(|one| (one.name.as_str(), one.symref.as_deref())).collect::<Vec<_>>(),
            [("HEAD", None)]
        );
        let mut listed = Vec::new();
        add(&mut listed, format!("{A} HEAD symref-target:refs/heads/x\ny").as_bytes()).unwrap();
        assert_eq!(listed[0].symref, None);
        assert_eq!(read(&[]).unwrap().references, []);
        assert!(read(&["<html>"]).is_err());
        assert!(read(&["abc refs/heads/x"]).is_err());
    }
}
