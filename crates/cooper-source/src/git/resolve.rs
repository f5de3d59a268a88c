//! From what a user names to what a server has: which reference or commit is meant.

use cooper_spec::source::{GitReference, ReferenceKind};
use git2::Oid;

use super::advertisement::{RemoteRef, object_id};

/// How many references, and how long ones, a wrong name is compared with.
const COMPARED: usize = 10_000;
const COMPARED_LEN: usize = 100;

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A reference that the server has.
    Reference { name: String, id: Oid, branch: Option<String> },
    /// A commit by its whole name.
    Commit(Oid),
    /// A commit by the beginning of its name.
    Abbreviation(String),
    /// Nothing that the server has.
    Missing,
}

/// The beginnings of the names that decide what a reference means; the server need list no others.
pub(super) fn prefixes(reference: Option<&GitReference>) -> Vec<String> {
    match reference.map(GitReference::kind) {
        None | Some(ReferenceKind::Default) => vec!["HEAD".to_owned()],
        Some(ReferenceKind::Full(name)) => vec![name],
        Some(ReferenceKind::Commit(_)) => Vec::new(),
        Some(ReferenceKind::Named { candidates, .. }) => candidates,
    }
}

/// What a reference means, given what the server has.
pub(super) fn target(reference: Option<&GitReference>, have: &[RemoteRef]) -> Target {
    let find = |name: &str| have.iter().find(|one| one.name == name);
    let found = |one: &RemoteRef| {
        let name = one.symref.as_deref().unwrap_or(&one.name);
        let branch = name.strip_prefix("refs/heads/").map(str::to_owned);
        Target::Reference { name: name.to_owned(), id: one.id, branch }
    };
    match reference.map(GitReference::kind) {
        None | Some(ReferenceKind::Default) => find("HEAD").map_or(Target::Missing, found),
        Some(ReferenceKind::Full(name)) => find(&name).map_or(Target::Missing, found),
        Some(ReferenceKind::Commit(id)) => object_id(&id).map_or(Target::Missing, Target::Commit),
        Some(ReferenceKind::Named { candidates, abbreviation }) => {
            match (candidates.iter().find_map(|name| find(name)), abbreviation) {
                (Some(one), _) => found(one),
                (None, Some(text)) => Target::Abbreviation(text),
                (None, None) => Target::Missing,
            }
        }
    }
}

/// The branch or tag that a wrong name was most likely meant to be. A server may list very many and very long ones: only
/// the first and short ones are compared.
pub(super) fn nearest(name: &str, have: &[RemoteRef]) -> Option<String> {
    if name.len() > COMPARED_LEN {
        return None;
    }
    fn short(one: &RemoteRef) -> Option<&str> {
        let name = one.name.strip_prefix("refs/heads/").or_else(|| one.name.strip_prefix("refs/tags/"))?;
        (name.len() <= COMPARED_LEN).then_some(name)
    }
    have.iter()
        .take(COMPARED)
        .filter_map(short)
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags_and_names_before_commits() {
        let id = |digit: char| Oid::from_str(&digit.to_string().repeat(40)).unwrap();
        let reference =
            |name: &str, digit: char| RemoteRef { name: name.to_owned(), id: id(digit), symref: None, peeled: None };
        let mut head = reference("HEAD", '1');
        head.symref = Some("refs/heads/main".to_owned());
        let have = [
            head,
            reference("refs/heads/main", '1'),
            reference("refs/tags/main", '2'),
            reference("refs/tags/v1", '3'),
            reference("refs/pull/1/head", '4'),
            reference("refs/heads/abc1234", '5'),
        ];
        let got = |text: &str| {
            let reference = (!text.is_empty()).then(|| GitReference::parse(text).unwrap());
            target(reference.as_ref(), &have)
        };
        let is = |name: &str, digit: char, branch: Option<&str>| Target::Reference {
            name: name.to_owned(),
            id: id(digit),
            branch: branch.map(str::to_owned),
        };
        assert_eq!(got(""), is("refs/heads/main", '1', Some("main")));
        assert_eq!(got("HEAD"), got(""));
        assert_eq!(got("main"), is("refs/heads/main", '1', Some("main")));
        assert_eq!(got("refs/tags/main"), is("refs/tags/main", '2', None));
        assert_eq!(got("tags/main"), is("refs/tags/main", '2', None));
        assert_eq!(got("v1"), is("refs/tags/v1", '3', None));
        assert_eq!(got("pull/1/head"), is("refs/pull/1/head", '4', None));
        assert_eq!(got("abc1234"), is("refs/heads/abc1234", '5', Some("abc1234")));
        assert_eq!(got("abc12345"), Target::Abbreviation("abc12345".to_owned()));
        assert_eq!(got(&"a".repeat(40)), Target::Commit(id('a')));
        assert_eq!(got("mian"), Target::Missing);
        assert_eq!(nearest("mian", &have).as_deref(), Some("main"));
        assert_eq!(nearest("zzz", &have), None);
        let long = reference(&format!("refs/heads/{}", "m".repeat(COMPARED_LEN + 1)), '6');
        assert_eq!(nearest(&"m".repeat(COMPARED_LEN), std::slice::from_ref(&long)), None);
        assert_eq!(target(None, &[]), Target::Missing);
    }
}
