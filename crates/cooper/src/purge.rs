//! A purge: lists, lets [`cooper_spec::purge`] choose, and deletes or says what would go.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use clap::Args;
use cooper_api::problem::ProblemCode;
use cooper_client::{ClientError, ListedManifest, ListedTag, RegistryClient};
use cooper_spec::purge::{self, About, Ago, Filter, ManifestFacts, TagFacts};
use cooper_types::{Digest, Timestamp};
use futures::StreamExt as _;

use crate::azure::boolean;
use crate::fault::{Fault, Stop};
use crate::output;

/// How much is deleted at a time, at most.
const MOST_AT_ONCE: usize = 32;

/// What is purged: the flags of `acr purge` but for those of its login. Its booleans take `=true` and `=false`, as Go's do.
#[derive(Args, Debug)]
pub(crate) struct PurgeFlags {
    /// Which tags of which repositories: REPOSITORY-REGEX:TAG-REGEX, where the first is the whole name and the second is
    /// found anywhere in the tag; may be repeated
    #[arg(long, short, value_name = "REPOSITORY:TAG")]
    filter: Vec<String>,
    /// How long ago a tag, or a manifest without one, must have been pushed last: days and a duration, such as 7d, 36h or 2d3h6m
    #[arg(long, value_name = "DURATION")]
    ago: Option<String>,
    /// How many of those that would go are kept in each repository, the newest ones: so many tags, and as many manifests
    /// without a tag
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    keep: usize,
    /// Delete manifests that have no tag, too
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true)]
    untagged: bool,
    /// Delete nothing but manifests that have no tag, of any age if there is no --ago, in all repositories if there is no
    /// filter
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true)]
    untagged_only: bool,
    /// Say what would go, and delete nothing
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true)]
    dry_run: bool,
    /// Delete what is locked, too
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true)]
    include_locked: bool,
    /// How many are deleted at a time, 1 to 32 [default: the number of processors]
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<usize>,
    /// How many repositories are listed at once
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    repository_page_size: u32,
    /// Has no effect: a filter that takes too many steps for a name is about nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    filter_timeout_seconds: u64,
    /// Has no effect: everything that is deleted is said
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true)]
    verbose: bool,
}

/// What the flags mean.
#[derive(Debug)]
struct Plan {
    filters: Vec<Filter>,
    ago: Option<Ago>,
    at_once: usize,
}

/// How much went, or would.
#[derive(Default)]
struct Counts {
    tags: usize,
    manifests: usize,
}

impl PurgeFlags {
    fn plan(&self) -> Result<Plan, Fault> {
        if self.untagged && self.untagged_only {
            return Err(Fault::usage("--untagged-only excludes --untagged: it deletes no tags"));
        }
        if self.filter.is_empty() && !self.untagged_only {
            let hint = "such as --filter 'team/app:^dev-' --ago 30d, or all manifests without a tag by --untagged-only";
            return Err(Fault::usage("--filter is missing: it says what is purged").with_hint(hint));
        }
        if self.ago.is_none() && !self.untagged_only {
            return Err(Fault::usage("--ago is missing: it says how old what is purged must be, such as --ago 30d"));
        }
        let filters = self.filter.iter().map(|text| text.parse::<Filter>());
        let filters = filters.collect::<Result<_, _>>().map_err(|error| Fault::usage(error.to_string()))?;
        let ago = self.ago.as_deref().map(str::parse::<Ago>).transpose();
        let ago = ago.map_err(|error| Fault::usage(format!("--ago: {error}")))?;
        let usual = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let at_once = self.concurrency.unwrap_or(usual).clamp(1, MOST_AT_ONCE);
        Ok(Plan { filters, ago, at_once })
    }

    /// Purges a registry, which is called `name` in what is said.
    pub(crate) async fn run(&self, client: &RegistryClient, name: &str) -> Result<(), Stop> {
        let plan = self.plan()?;
        let (mut repositories, now) = client.repositories(self.repository_page_size).await?;
        repositories.sort();
        for (filter, text) in plan.filters.iter().zip(&self.filter) {
            if !repositories.iter().any(|repository| filter.covers(repository)) {
                output::note(&format!(
                    "warning: filter `{text}`: no repository that you may list has such a whole name"
                ));
            }
        }
        repositories.retain(|repository| match plan.filters.as_slice() {
            [] => true,
            filters => filters.iter().any(|filter| filter.covers(repository)),
        });
        let before = plan.ago.map_or(now, |ago| ago.before(now));
        if self.dry_run {
            output::line("DRY RUN: nothing is deleted. This is what would be:")?;
        }
        let mut counts = Counts::default();
        for (done, repository) in repositories.iter().enumerate() {
            let purge = Purge { flags: self, plan: &plan, client, name, repository, before };
            match purge.run(&mut counts).await {
                Ok(()) => {}
                Err(Stop::Fault(fault)) => {
                    output::note(&format!("Purged: {}", listed(&repositories[..done])));
                    output::note(&format!("Not purged: {}", listed(&repositories[done..])));
                    return Err(Stop::Fault(fault));
                }
                Err(other) => return Err(other),
            }
        }
        let Counts { tags, manifests } = counts;
        match self.dry_run {
            true => {
                output::line(&format!("Number of tags to be deleted: {tags}"))?;
                output::line(&format!("Number of manifests to be deleted: {manifests}"))
            }
            false => {
                output::line(&format!("Number of deleted tags: {tags}"))?;
                output::line(&format!("Number of deleted manifests: {manifests}"))
            }
        }
    }
}

fn listed(repositories: &[String]) -> String {
    if repositories.is_empty() { "none".to_owned() } else { repositories.join(", ") }
}

/// The purge of one repository.
struct Purge<'a> {
    flags: &'a PurgeFlags,
    plan: &'a Plan,
    client: &'a RegistryClient,
    name: &'a str,
    repository: &'a str,
    before: Timestamp,
}

impl Purge<'_> {
    async fn run(&self, counts: &mut Counts) -> Result<(), Stop> {
        let mut tags = self.client.tags(self.repository).await?;
        if !self.flags.untagged_only {
            let gone = self.tags(&tags).await?;
            counts.tags += gone.len();
            tags.retain(|tag| !gone.contains(&tag.name));
        }
        if self.flags.untagged || self.flags.untagged_only {
            if !self.flags.dry_run {
                // What was pushed meanwhile counts.
                tags = self.client.tags(self.repository).await?;
            }
            counts.manifests += self.manifests(&tags).await?;
        }
        Ok(())
    }

    /// Deletes tags, and says which are gone.
    async fn tags(&self, all: &[ListedTag]) -> Result<BTreeSet<String>, Stop> {
        let filters: Vec<&Filter> = self.plan.filters.iter().filter(|filter| filter.covers(self.repository)).collect();
        let facts: Vec<TagFacts> = all.iter().map(tag_facts).collect();
        let (keep, locked) = (self.flags.keep, self.flags.include_locked);
        let going = purge::tags(&facts, &filters, self.before, keep, locked);
        if !going.is_empty() {
            output::line(&format!("Deleting tags for repository: {}", self.repository))?;
        }
        let deletions = going.into_iter().map(|tag| async move {
            let what = format!("{}/{}:{}", self.name, self.repository, tag.name);
            let deletion = self.client.delete_tag(self.repository, &tag.name, Some(&tag.digest), Some(tag.updated));
            let is_gone = self.delete(&what, deletion).await?;
            Ok::<_, Stop>(is_gone.then(|| tag.name.clone()))
        });
        let mut gone = BTreeSet::new();
        let mut deletions = futures::stream::iter(deletions).buffered(self.plan.at_once);
        while let Some(deleted) = deletions.next().await {
            gone.extend(deleted?);
        }
        Ok(gone)
    }

    /// Deletes manifests that have none of these tags, and says how many.
    async fn manifests(&self, tags: &[ListedTag]) -> Result<usize, Stop> {
        let tagged: BTreeSet<Digest> = tags.iter().map(|tag| tag.digest.clone()).collect();
        let all: Vec<ManifestFacts> =
            self.client.manifests(self.repository).await?.into_iter().map(manifest_facts).collect();
        let (keep, locked) = (self.flags.keep, self.flags.include_locked);
        let waves = purge::manifests(&all, &tagged, self.before, keep, locked);
        if !waves.is_empty() {
            output::line(&format!("Deleting manifests for repository: {}", self.repository))?;
        }
        let updated: BTreeMap<&Digest, Timestamp> = all.iter().map(|facts| (&facts.digest, facts.updated)).collect();
        let (updated, about) = (&updated, &About::new(&all, &tagged));
        let mut count = 0;
        for wave in waves {
            let deletions = wave.iter().map(|digest| async move {
                let what = format!("{}/{}@{digest}", self.name, self.repository);
                let Some(updated) = updated.get(digest) else { return Ok(0) };
                if !self.delete(&what, self.client.delete_untagged(self.repository, digest, *updated)).await? {
                    return Ok(0);
                }
                // The registry deletes it with the one that it is about.
                let with_it = about.of(digest);
                let did = if self.flags.dry_run { "Would delete" } else { "Deleted" };
                for other in &with_it {
                    output::line(&format!(
                        "{did}: {}/{}@{other}, which is about {digest}",
                        self.name, self.repository
                    ))?;
                }
                Ok::<_, Stop>(1 + with_it.len())
            });
            let mut deletions = futures::stream::iter(deletions).buffered(self.plan.at_once);
            while let Some(deleted) = deletions.next().await {
                count += deleted?;
            }
        }
        Ok(count)
    }

    /// Deletes something, or says that it would, and whether it is gone. What has changed since it was listed stays.
    async fn delete(&self, what: &str, deletion: impl Future<Output = Result<(), ClientError>>) -> Result<bool, Stop> {
        if self.flags.dry_run {
            output::line(&format!("Would delete: {what}"))?;
            return Ok(true);
        }
        match deletion.await {
            Ok(()) => {
                output::line(&format!("Deleted: {what}"))?;
                Ok(true)
            }
            Err(ClientError::Refused { problem }) => match problem.code {
                ProblemCode::NotFound => Ok(false),
                // The registry's conditions: it was pushed, or got a tag, after it was listed.
                ProblemCode::Conflict => {
                    output::line(&format!("Kept: {what}: {}", problem.detail))?;
                    Ok(false)
                }
                ProblemCode::MethodNotAllowed => {
                    output::line(&format!("Skipped: {what}: {}", problem.detail))?;
                    Ok(false)
                }
                _ => Err(ClientError::Refused { problem }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

fn tag_facts(tag: &ListedTag) -> TagFacts {
    TagFacts { name: tag.name.clone(), digest: tag.digest.clone(), updated: tag.updated, is_locked: tag.is_locked }
}

fn manifest_facts(manifest: ListedManifest) -> ManifestFacts {
    ManifestFacts {
        digest: manifest.digest,
        media_type: manifest.media_type,
        updated: manifest.updated,
        manifests: manifest.manifests,
        subject: manifest.subject,
        is_staged: manifest.is_staged,
        is_locked: manifest.is_locked,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        purge: PurgeFlags,
    }

    fn plan(line: &str) -> Result<Plan, Fault> {
        let words = ["purge"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).purge.plan()
    }

    #[test]
    fn no_more_than_32_are_deleted_at_a_time_and_one_at_least() {
        let at_once = |flags: &str| plan(&format!("--untagged-only {flags}")).expect("a plan").at_once;
        for (count, expect) in [(0_usize, 1), (1, 1), (5, 5), (32, 32), (33, 32), (usize::MAX, 32)] {
            assert_eq!(at_once(&format!("--concurrency {count}")), expect, "{count}");
        }
        assert!((1..=MOST_AT_ONCE).contains(&at_once("")), "however many processors there are");
    }

    #[test]
    fn what_is_purged_has_to_be_said_but_for_what_has_no_tag() {
        for (line, expect) in [
            ("--ago 1d", "--filter is missing"),
            ("--untagged --ago 1d", "--filter is missing"),
            ("-f app:.*", "--ago is missing"),
            ("-f app:.* --ago soon", "--ago: "),
            ("--untagged-only --ago 1.5d", "--ago: "),
            ("--untagged-only -f app", "is not REPOSITORY-REGEX:TAG-REGEX"),
            ("--untagged --untagged-only", "excludes --untagged"),
        ] {
            let fault = plan(line).expect_err(line);
            assert!(fault.message.contains(expect), "{line}: {}", fault.message);
        }
        let whole = |line: &str| plan(line).map(|plan| (plan.filters.len(), plan.ago.is_some())).expect("a plan");
        assert_eq!(whole("--untagged-only"), (0, false));
        assert_eq!(whole("--untagged-only -f app:.* -f other:.* --ago 1d"), (2, true));
        assert_eq!(whole("-f app:.* --ago 1d --repository-page-size 7"), (1, true));
    }

    #[test]
    fn what_is_on_or_off_is_said_as_to_go() {
        let read = |line: &str| {
            let words = ["purge"].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).purge
        };
        type Flag = fn(&PurgeFlags) -> bool;
        let flags: [(&str, Flag); 5] = [
            ("--untagged", |purge| purge.untagged),
            ("--untagged-only", |purge| purge.untagged_only),
            ("--dry-run", |purge| purge.dry_run),
            ("--include-locked", |purge| purge.include_locked),
            ("--verbose", |purge| purge.verbose),
        ];
        for (name, flag) in flags {
            for (value, expect) in [("", true), ("=true", true), ("=1", true), ("=false", false), ("=F", false)] {
                assert_eq!(flag(&read(&format!("{name}{value}"))), expect, "{name}{value}");
            }
            assert!(!flag(&read("")), "{name}");
            assert!(Line::try_parse_from(["purge", &format!("{name}=soon")]).is_err(), "{name}");
            // What stands apart is no value, as in Go.
            assert!(Line::try_parse_from(["purge", name, "false"]).is_err(), "{name}");
        }
        assert!(plan("--untagged=false --untagged-only").is_ok());
    }
}
