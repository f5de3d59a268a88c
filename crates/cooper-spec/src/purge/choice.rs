//! Which tags and manifests of a repository go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{Digest, Timestamp};

use super::Filter;

/// What is known of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagFacts {
    /// Its name.
    pub name: String,
    /// Where it points.
    pub digest: Digest,
    /// When it was last pushed.
    pub updated: Timestamp,
    /// Whether it may not be deleted or written.
    pub is_locked: bool,
}

/// What is known of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its media type; empty if it is not known.
    pub media_type: String,
    /// When it was last pushed, or got a tag.
    pub updated: Timestamp,
    /// The manifests that it is an index of.
    pub manifests: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Whether a run has pushed it and is not over.
    pub is_staged: bool,
    /// Whether it may not be deleted or written.
    pub is_locked: bool,
}

/// The tags that go, the newest first: those that one of the filters finds and that were last pushed before `before`,
/// without the newest `keep` of them.
pub fn tags<'t>(
    all: &'t [TagFacts],
    filters: &[&Filter],
    before: Timestamp,
    keep: usize,
    include_locked: bool,
) -> Vec<&'t TagFacts> {
    let goes = |tag: &&TagFacts| {
        tag.updated < before && (include_locked || !tag.is_locked) && filters.iter().any(|it| it.finds(&tag.name))
    };
    let mut going: Vec<&TagFacts> = all.iter().filter(goes).collect();
    going.sort_by(|one, other| other.updated.cmp(&one.updated).then_with(|| one.name.cmp(&other.name)));
    going.split_off(keep.min(going.len()))
}

/// The manifests without a tag that go, in waves: what is in one wave is part of no index in a later one. What `tagged`
/// holds stays, and so do manifests about others, staged ones, those of unknown type, what was changed since `before`, the
/// newest `keep` of the rest, and everything that something that stays is an index of.
pub fn manifests(
    all: &[ManifestFacts],
    tagged: &BTreeSet<Digest>,
    before: Timestamp,
    keep: usize,
    include_locked: bool,
) -> Vec<Vec<Digest>> {
    let known: BTreeMap<&Digest, &ManifestFacts> = all.iter().map(|it| (&it.digest, it)).collect();
    let stays = |it: &&ManifestFacts| {
        tagged.contains(&it.digest)
            || it.subject.is_some()
            || it.is_staged
            || it.media_type.is_empty()
            || it.updated >= before
            || (it.is_locked && !include_locked)
    };
    let mut kept = BTreeSet::new();
    keep_whole(&known, all.iter().filter(stays).map(|it| &it.digest), &mut kept);
    let mut going: Vec<&ManifestFacts> = all.iter().filter(|it| !kept.contains(&it.digest)).collect();
    going.sort_by_key(|it| (Reverse(it.updated), &it.digest));
    keep_whole(&known, going.iter().take(keep).map(|it| &it.digest), &mut kept);
    going.retain(|it| !kept.contains(&it.digest));

    let mut waves = Vec::new();
    while !going.is_empty() {
        let needed: BTreeSet<&Digest> = going.iter().flat_map(|it| &it.manifests).collect();
        let (wave, later): (Vec<_>, Vec<_>) = going.into_iter().partition(|it| !needed.contains(&it.digest));
        going = later;
        if wave.is_empty() {
            // No digest is its own part; a registry that says so is not believed.
            break;
        }
        waves.push(wave.into_iter().map(|it| it.digest.clone()).collect());
    }
    waves
}

/// What goes with manifests that go: the registry deletes what is about them, such as signatures, whatever its age.
pub struct About<'m>(BTreeMap<&'m Digest, Vec<&'m Digest>>);

impl<'m> About<'m> {
    /// What is about what, without what stays by itself: what has a tag, is staged, or is a part of an index.
    pub fn new(all: &'m [ManifestFacts], tagged: &BTreeSet<Digest>) -> Self {
        let parts: BTreeSet<&Digest> = all.iter().flat_map(|it| &it.manifests).collect();
        let mut about: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        for it in all {
            let stays = tagged.contains(&it.digest) || it.is_staged || parts.contains(&it.digest);
            if let Some(subject) = it.subject.as_ref().filter(|_| !stays) {
                about.entry(subject).or_default().push(&it.digest);
            }
        }
        Self(about)
    }

    /// What goes with this one, and with what goes with it.
    pub fn of(&self, digest: &Digest) -> Vec<&'m Digest> {
        let mut found: Vec<&Digest> = self.0.get(digest).cloned().unwrap_or_default();
        let mut looked = 0;
        while let Some(digest) = found.get(looked).copied() {
            // No digest is about itself; a registry that says so is not believed.
            let more = self.0.get(digest).into_iter().flatten().filter(|it| !found.contains(it));
            let more: Vec<&Digest> = more.copied().collect();
            found.extend(more);
            looked += 1;
        }
        found
    }
}

/// Keeps manifests with everything that they are indexes of.
fn keep_whole<'m>(
    known: &BTreeMap<&'m Digest, &'m ManifestFacts>,
    from: impl Iterator<Item = &'m Digest>,
    kept: &mut BTreeSet<&'m Digest>,
) {
    let mut open: Vec<&Digest> = from.collect();
    while let Some(digest) = open.pop() {
        if kept.insert(digest)
            && let Some(manifest) = known.get(digest)
        {
            open.extend(&manifest.manifests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_micros(minute * 60_000_000)
    }

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn tag(name: &str, minute: i64) -> TagFacts {
        TagFacts { name: name.to_owned(), digest: digest(name), updated: at(minute), is_locked: false }
    }

    fn manifest(name: &str, minute: i64, manifests: &[&str]) -> ManifestFacts {
        ManifestFacts {
            digest: digest(name),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            updated: at(minute),
            manifests: manifests.iter().map(|name| digest(name)).collect(),
            subject: None,
            is_staged: false,
            is_locked: false,
        }
    }

    #[test]
    fn old_tags_that_a_filter_finds_go_and_the_newest_are_kept() {
        let all = [tag("dev-1", 1), tag("dev-2", 2), tag("v1", 1), tag("dev-3", 3), tag("dev-9", 9), tag("rc", 2)];
        let filters: [Filter; 2] = ["app:^dev".parse().expect("valid"), "app:^rc$".parse().expect("valid")];
        let names = |filters: &[&Filter], before, keep| {
            tags(&all, filters, at(before), keep, false).iter().map(|tag| tag.name.clone()).collect::<Vec<_>>()
        };
        let [dev, rc] = &filters;
        assert_eq!(names(&[dev], 9, 0), ["dev-3", "dev-2", "dev-1"]);
        assert_eq!(names(&[dev], 3, 0), ["dev-2", "dev-1"]);
        assert_eq!(names(&[dev], 9, 2), ["dev-1"]);
        assert_eq!(names(&[dev], 9, 5), [] as [&str; 0]);
        assert_eq!(names(&[dev, rc], 9, 0), ["dev-3", "dev-2", "rc", "dev-1"]);
        assert_eq!(names(&[], 9, 0), [] as [&str; 0]);
        let locked = [TagFacts { is_locked: true, ..tag("dev-1", 1) }];
        assert_eq!(tags(&locked, &[dev], at(9), 0, false).len(), 0);
        assert_eq!(tags(&locked, &[dev], at(9), 0, true).len(), 1);
    }

    #[test]
    fn what_something_needs_stays() {
        let all = [
            manifest("tagged", 1, &["child"]),
            manifest("child", 1, &[]),
            manifest("new index", 9, &["old child"]),
            manifest("old child", 1, &[]),
            ManifestFacts { subject: Some(digest("elsewhere")), ..manifest("signature", 1, &["part of it"]) },
            manifest("part of it", 1, &[]),
            ManifestFacts { is_staged: true, ..manifest("staged", 1, &[]) },
            ManifestFacts { media_type: String::new(), ..manifest("unknown", 1, &[]) },
            ManifestFacts { is_locked: true, ..manifest("locked", 1, &[]) },
            manifest("outer", 1, &["inner", "absent"]),
            manifest("inner", 1, &["leaf"]),
            manifest("leaf", 2, &[]),
            manifest("alone", 3, &[]),
        ];
        let tagged = BTreeSet::from([digest("tagged")]);
        let waves = |keep, locked| manifests(&all, &tagged, at(9), keep, locked);
        let named = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<Vec<_>>();
        assert_eq!(waves(0, false), [named(&["alone", "outer"]), named(&["inner"]), named(&["leaf"])]);
        assert_eq!(waves(1, false), [named(&["outer"]), named(&["inner"]), named(&["leaf"])]);
        assert_eq!(waves(2, false), [named(&["outer"]), named(&["inner"])]);
        assert_eq!(waves(0, true).concat().len(), 5);
        assert_eq!(waves(9, false), Vec::<Vec<Digest>>::new());
    }

    #[test]
    fn what_is_about_one_that_goes_goes_with_it() {
        let about =
            |name: &str, subject: &str| ManifestFacts { subject: Some(digest(subject)), ..manifest(name, 9, &[]) };
        let all = [
            manifest("image", 1, &[]),
            about("signature", "image"),
            about("of the signature", "signature"),
            about("tagged", "image"),
            about("of the tagged", "tagged"),
            about("part", "image"),
            manifest("index", 9, &["part"]),
            ManifestFacts { is_staged: true, ..about("staged", "image") },
            about("circle", "circle"),
        ];
        let found = About::new(&all, &BTreeSet::from([digest("tagged")]));
        let named = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<Vec<_>>();
        let of = |name: &str| {
            let digest = digest(name);
            let known = all.iter().find(|it| it.digest == digest).expect("there");
            found.of(&known.digest).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(of("image"), named(&["signature", "of the signature"]));
        assert_eq!(of("index"), named(&[]));
        assert_eq!(of("circle"), named(&["circle"]));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_stays_loses_a_part(
            edges in proptest::collection::vec((0_usize..12, 0_usize..12), 0..24),
            tagged in proptest::collection::btree_set(0_usize..12, 0..4),
            minutes in proptest::collection::vec(0_i64..6, 12),
            keep in 0_usize..4,
        ) {
            let name = |n: usize| format!("m{n:02}");
            let all: Vec<ManifestFacts> = (0..12).map(|n| {
                // As digests force it, an index comes after its parts.
                let parts: Vec<String> = edges.iter().filter(|(from, to)| *from == n && to < from).map(|(_, to)| name(*to)).collect();
                manifest(&name(n), minutes[n], &parts.iter().map(String::as_str).collect::<Vec<_>>())
            }).collect();
            let tagged: BTreeSet<Digest> = tagged.iter().map(|n| digest(&name(*n))).collect();
            let waves = manifests(&all, &tagged, at(4), keep, false);
            let mut gone = BTreeSet::new();
            for wave in &waves {
                gone.extend(wave.iter().cloned());
                for stays in all.iter().filter(|it| !gone.contains(&it.digest)) {
                    // Whatever moment it stops at.
                    proptest::prop_assert!(stays.manifests.iter().all(|part| !gone.contains(part)));
                }
            }
            proptest::prop_assert!(gone.is_disjoint(&tagged));
            let old = all.iter().filter(|it| it.updated < at(4));
            proptest::prop_assert!(gone.len() <= old.count().saturating_sub(keep));
        }
    }
}
