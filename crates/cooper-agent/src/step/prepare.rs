//! A source that is to be fetched: from its host to an archive, from the archive to the server.
//!
//! The server keeps what was fetched, so that everything after this builds the same bytes, on whatever agent. A host's
//! credential is asked of the server when the host wants one, shown to that host alone, and masked from then on. What the
//! user or the repository has wrong fails the step. So does a host that is away, or the network on the way to it, after a few
//! tries: to start again on another agent would help neither. What the agent itself has wrong is a loss.

mod aliases;
mod upload;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cooper_api::agent::{MAX_PREPARED_BYTES, MAX_PREPARED_FILE_BYTES, PrepareOrder, RegistryAccess};
use cooper_engine::message::{DefinitionPin, PreparedFile, PreparedSource, StepOutput};
use cooper_source::git::{self, CredentialSource, FetchEvent, FetchRequest, GitCredential, GitError, Snapshot};
use cooper_source::{
    Cidr, Egress, EgressOptions, EgressPolicy, FetchLimits, RemoteError, RemoteRequest, RemoteSnapshot, fetch_archive,
    fetch_artifact, read_context,
};
use cooper_spec::source::{GitReference, GitSource, RemoteSource};
use cooper_types::{Digest, RegistryName};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::credentials::HostCredentials;
use super::own_tries::OwnTries;
use super::{Attempt, Ended};

/// Lines of progress that may wait for the log; a host that says more is not shown in full.
const LINE_QUEUE: usize = 256;
/// How often a source is fetched where the network or its host breaks off.
const TRIES: u32 = 3;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A source on this agent's disk, packed.
pub(super) struct Packed {
    pub(super) archive: PathBuf,
    digest: Digest,
    size: u64,
    pub(super) commit: Option<String>,
    branch: Option<String>,
    tag: Option<String>,
    pub(super) pinned: Option<Digest>,
    pub(super) dockerfile: Option<String>,
    definition: Option<String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Packed {
    /// What is no repository.
    fn of(snapshot: RemoteSnapshot) -> Self {
        let RemoteSnapshot { pinned, archive, digest, size, dockerfile, files } = snapshot;
        let pinned = Some(pinned);
        Self {
            archive,
            digest,
            size,
            commit: None,
            branch: None,
            tag: None,
            pinned,
            dockerfile,
            definition: None,
            files,
        }
    }
}

impl Attempt<'_> {
    /// Fetches, packs and uploads a source.
    pub(super) async fn prepare(&self, order: PrepareOrder, registry: &RegistryAccess) -> Result<StepOutput, Ended> {
        let credentials = HostCredentials::new(self);
        let found = self.prepare_with(&order, registry, &credentials).await?;
        // The host's own words may repeat what it was shown.
        Ok(StepOutput::Prepared(masked(found, |text| self.log.masks().text(text))))
    }

    async fn prepare_with(
        &self,
        order: &PrepareOrder,
        registry: &RegistryAccess,
        credentials: &HostCredentials,
    ) -> Result<PreparedSource, Ended> {
        // Removed with everything in it, however this ends.
        let (_scratch, mut packed) = self.fetched(order, registry, credentials).await?;
        if packed.size > order.max_bytes {
            let reason = format!(
                "the source packs to {} bytes, and this server takes {}; leave files out with a .dockerignore",
                packed.size, order.max_bytes
            );
            return Err(Ended::Failed { exit_code: None, reason });
        }
        let all = packed.files.values().map(Vec::len).sum::<usize>();
        if all > MAX_PREPARED_BYTES {
            let reason = format!("the run's files have {all} bytes together; at most {MAX_PREPARED_BYTES} are taken");
            return Err(Ended::Failed { exit_code: None, reason });
        }
        let context = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            context = self.upload(&packed) => context?,
        };
        let wanted = wanted_files(order);
        let wanted = wanted.into_iter().map(|name| PreparedFile { content: packed.files.remove(&name), name });
        let mut files: Vec<PreparedFile> = wanted.collect();
        // Those that the task file names.
        let further = std::mem::take(&mut packed.files);
        files.extend(further.into_iter().map(|(name, content)| PreparedFile { name, content: Some(content) }));
        let Packed { commit, branch, tag, pinned, digest, size, dockerfile, definition, .. } = packed;
        let definition = definition.map(|commit| Box::new(DefinitionPin { commit }));
        let dockerfile = dockerfile.filter(|name| order.dockerfile.as_ref() != Some(name));
        Ok(PreparedSource { commit, branch, tag, context, digest, size, dockerfile, pinned, definition, files })
    }

    /// Fetches and packs a source into a folder of its own.
    pub(super) async fn fetched(
        &self,
        order: &PrepareOrder,
        registry: &RegistryAccess,
        credentials: &HostCredentials,
    ) -> Result<(TempDir, Packed), Ended> {
        if let RemoteSource::Uploaded(_) = &order.source {
            return self.read_uploaded(order, registry).await;
        }
        if let RemoteSource::Archive(source) = &order.source {
            let query = source.url.query().unwrap_or_default();
            if self.log.masks().add([query.as_bytes()]).is_err() {
                let reason = "the source's URL has a query that is too long to be kept out of the log".to_owned();
                return Err(Ended::Failed { exit_code: None, reason });
            }
        }
        let dir = self.runner.placement_dir(self.key);
        let disk = |error: &std::io::Error| Ended::lost("agent's work folder can't be used", error);
        tokio::fs::create_dir_all(&dir).await.map_err(|error| disk(&error))?;
        let egress = self.egress(&order.allowed_networks)?;
        let mut tries = OwnTries::new(TRIES, FIRST_PAUSE);
        loop {
            let scratch = tempfile::tempdir_in(&dir).map_err(|error| disk(&error))?;
            let fetched = match &order.source {
                RemoteSource::Git(source) => {
                    self.fetch_git(&egress, source, order, &registry.name, scratch.path(), credentials).await
                }
                RemoteSource::Archive(_) | RemoteSource::Artifact(_) | RemoteSource::Uploaded(_) => {
                    self.fetch_remote(&egress, order, registry, scratch.path(), credentials).await
                }
            };
            let fault = match fetched {
                Ok(packed) => return Ok((scratch, packed)),
                Err(fault) => fault,
            };
            let pause = if fault.may_pass { tries.next_pause() } else { None };
            let Some(pause) = pause else { return Err(fault.ended) };
            let line = format!("{}; trying again in {} s", fault.line, pause.as_secs());
            self.log.service(&line).await;
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn fetch_git(
        &self,
        egress: &Egress,
        source: &GitSource,
        order: &PrepareOrder,
        registry: &RegistryName,
        scratch: &Path,
        credentials: &HostCredentials,
    ) -> Result<Packed, Fault> {
        let unpack = &self.runner.settings.unpack;
        let definition = order.definition.as_deref().map(GitReference::parse).transpose();
        let definition = definition.map_err(|error| Fault::new(error.to_string(), false, false, false))?;
        let request = FetchRequest {
            source: source.clone(),
            definition,
            dockerfile: order.dockerfile.clone(),
            files: wanted_files(order),
            further: aliases::named_by(order, self.key.run, registry),
            scratch: scratch.to_owned(),
            limits: FetchLimits {
                entries: unpack.entries,
                bytes: unpack.bytes,
                named_file_len: MAX_PREPARED_FILE_BYTES as u64,
                ..FetchLimits::default()
            },
        };
        let (lines, shown) = mpsc::channel(LINE_QUEUE);
        let listener = Arc::new(move |event: FetchEvent| {
            // A full queue loses progress and nothing else.
            let _ = lines.try_send(event.to_string());
        });
        let fetch = Box::pin(git::fetch(egress, credentials, request, listener, &self.stop));
        let (fetched, ()) = tokio::join!(fetch, self.show_lines(shown));
        let Snapshot { commit, branch, reference, archive, digest, size, dockerfile, definition, files, .. } =
            fetched.map_err(|error| Fault::of_git(&error, |host| credentials.way_out(&order.source, host)))?;
        let tag = reference.and_then(|name| name.strip_prefix("refs/tags/").map(str::to_owned));
        Ok(Packed {
            archive,
            digest,
            size,
            commit: Some(commit),
            branch,
            tag,
            pinned: None,
            dockerfile,
            definition,
            files,
        })
    }

    async fn fetch_remote(
        &self,
        egress: &Egress,
        order: &PrepareOrder,
        registry: &RegistryAccess,
        scratch: &Path,
        credentials: &HostCredentials,
    ) -> Result<Packed, Fault> {
        let request = self.remote_request(order, &registry.name, scratch);
        let is_own = matches!(&order.source, RemoteSource::Artifact(source) if *source.registry() == registry.name);
        let (lines, shown) = mpsc::channel(LINE_QUEUE);
        let fetch = async move {
            let say = |line: String| {
                let _ = lines.try_send(line);
            };
            let fetch = async {
                match &order.source {
                    RemoteSource::Archive(source) => fetch_archive(egress, credentials, source, request, &say).await,
                    RemoteSource::Artifact(source) if is_own => {
                        // The server's own registry is where this agent reaches it, and is no place that a user chose.
                        let (egress, login) = own_registry(registry);
                        fetch_artifact(&egress, &login, source, request, &say).await
                    }
                    RemoteSource::Artifact(source) => fetch_artifact(egress, credentials, source, request, &say).await,
                    // They have ways of their own.
                    RemoteSource::Git(_) | RemoteSource::Uploaded(_) => Err(RemoteError::Cancelled),
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => Err(RemoteError::Cancelled),
                fetched = fetch => fetched,
            }
        };
        let (fetched, ()) = tokio::join!(fetch, self.show_lines(shown));
        fetched.map(Packed::of).map_err(|error| {
            // The server's own registry is asked with what the run may do there.
            let way_out = |host: &str| (!is_own).then(|| credentials.way_out(&order.source, host));
            Fault::of_remote(&error, is_own, way_out)
        })
    }

    /// A context that the server has is read like any other source, so that all that follows is the same.
    async fn read_uploaded(&self, order: &PrepareOrder, registry: &RegistryAccess) -> Result<(TempDir, Packed), Ended> {
        let tree = self.context().await?;
        let scratch = tempfile::tempdir_in(self.runner.placement_dir(self.key));
        let scratch = scratch.map_err(|error| Ended::lost("agent's work folder can't be used", &error))?;
        let request = self.remote_request(order, &registry.name, scratch.path());
        let read = tokio::select! {
            () = self.stop.cancelled() => Err(RemoteError::Cancelled),
            read = read_context(tree, request) => read,
        };
        match read {
            Ok(snapshot) => Ok((scratch, Packed::of(snapshot))),
            Err(error) => Err(Fault::of_remote(&error, false, |_| None).ended),
        }
    }

    /// A client for places that users name.
    pub(super) fn egress(&self, allowed_networks: &[String]) -> Result<Egress, Ended> {
        let allow = allowed_networks.iter().map(|text| Cidr::parse(text)).collect::<Result<_, _>>();
        let allow = allow.map_err(|error| Ended::lost("the server's list of networks can't be read", &error))?;
        let (extra_roots, names) = (self.runner.settings.source_roots.clone(), self.runner.settings.names.clone());
        Ok(Egress::new(EgressOptions {
            policy: EgressPolicy { allow },
            extra_roots,
            names,
            ..EgressOptions::default()
        }))
    }

    fn remote_request(&self, order: &PrepareOrder, registry: &RegistryName, scratch: &Path) -> RemoteRequest {
        let settings = &self.runner.settings;
        RemoteRequest {
            dockerfile: order.dockerfile.clone(),
            files: wanted_files(order),
            further: aliases::named_by(order, self.key.run, registry),
            scratch: scratch.to_owned(),
            unpack: settings.unpack.clone(),
            received: settings.max_archive_bytes,
            named_file_len: MAX_PREPARED_FILE_BYTES as u64,
        }
    }

    /// Puts progress into the log, until there is no more.
    async fn show_lines(&self, mut lines: mpsc::Receiver<String>) {
        while let Some(line) = lines.recv().await {
            self.log.service(&line).await;
        }
    }
}

/// The files that the result holds.
fn wanted_files(order: &PrepareOrder) -> Vec<String> {
    order.task_file.iter().chain(&order.files).cloned().collect()
}

/// A client for the server's registry alone, with the attempt's credential.
fn own_registry(registry: &RegistryAccess) -> (Egress, RegistryLogin) {
    (own_registry_egress(), RegistryLogin(registry.clone()))
}

/// A client that goes wherever the server's registry is.
pub(super) fn own_registry_egress() -> Egress {
    let everywhere = ["0.0.0.0/0", "::/0"].map(|range| Cidr::parse(range).expect("it is a range"));
    let policy = EgressPolicy { allow: everywhere.to_vec() };
    Egress::new(EgressOptions { policy, ..EgressOptions::default() })
}

/// The attempt's credential, for the server's registry and no other host.
struct RegistryLogin(RegistryAccess);

#[async_trait]
impl CredentialSource for RegistryLogin {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn Error + Send + Sync>> {
        let RegistryAccess { name, username, password } = &self.0;
        let own = host.eq_ignore_ascii_case(name.as_str());
        Ok(own.then(|| GitCredential { username: username.clone(), password: password.clone() }))
    }
}

/// A source with the names that its host gave it, without what must not be seen.
fn masked(found: PreparedSource, mask: impl Fn(&str) -> String) -> PreparedSource {
    let name = |text: Option<String>| text.map(|text| mask(&text));
    PreparedSource { branch: name(found.branch), tag: name(found.tag), dockerfile: name(found.dockerfile), ..found }
}

/// Why a source was not fetched.
struct Fault {
    /// The same in a line.
    line: String,
    /// Whether another try may do better.
    may_pass: bool,
    /// How the attempt ends, if there is no other try.
    ended: Ended,
}

impl Fault {
    /// `way_out` is what can be done about a host that wants a credential.
    fn of_git(error: &GitError, way_out: impl Fn(&str) -> String) -> Self {
        let line = error.line();
        let line = match error {
            GitError::CredentialsNeeded { host, .. } | GitError::CredentialsRefused { host, .. } => {
                format!("{line}, or {}", way_out(host))
            }
            GitError::RepositoryNotFound { host, .. } => format!("{line}: if so, {}", way_out(host)),
            _ => line,
        };
        let cancelled = matches!(error, GitError::Cancelled);
        Self::new(line, error.is_transient(), cancelled, error.is_fetchers_own())
    }

    /// `is_own` says whether it was the server's own registry, whose absence is the machinery's trouble.
    fn of_remote(error: &RemoteError, is_own: bool, way_out: impl Fn(&str) -> Option<String>) -> Self {
        let line = error.line();
        let line = match error {
            RemoteError::Unauthorized { host, .. } => match way_out(host) {
                Some(way_out) => format!("{line}; {way_out}"),
                None => line,
            },
            _ => line,
        };
        let (cancelled, may_pass) = (matches!(error, RemoteError::Cancelled), error.is_transient());
        Self::new(line, may_pass, cancelled, error.is_fetchers_own() || (is_own && may_pass))
    }

    fn new(line: String, may_pass: bool, cancelled: bool, lost: bool) -> Self {
        let ended = match (cancelled, lost) {
            (true, _) => Ended::Stopped,
            (false, true) => Ended::Lost(format!("source can't be fetched: {line}")),
            (false, false) => Ended::Failed { exit_code: None, reason: line.clone() },
        };
        Self { line, may_pass, ended }
    }
}

#[cfg(test)]
mod tests {
    use cooper_types::ContextId;

    use super::*;

    #[test]
    fn a_source_that_wants_a_credential_says_where_one_is_given() {
        let (host, url) = ("git.example".to_owned(), "https://git.example/a.git".to_owned());
        let way_out = |host: &str| format!("log in to {host}");
        let line = |error: GitError| Fault::of_git(&error, way_out).line;
        let needed = line(GitError::CredentialsNeeded { host: host.clone(), url: url.clone() });
        assert!(needed.ends_with("check the URL, or log in to git.example"), "{needed}");
        let gone = line(GitError::RepositoryNotFound { host: host.clone(), url: url.clone() });
        assert!(gone.ends_with("whether it is private: if so, log in to git.example"), "{gone}");
        assert!(!line(GitError::Empty { url: url.clone() }).contains("log in"));
        let error = RemoteError::Unauthorized { what: url, host, shown: false };
        assert!(Fault::of_remote(&error, false, |host| Some(way_out(host))).line.ends_with("; log in to git.example"));
        assert!(Fault::of_remote(&error, true, |_| None).line.ends_with("wants a credential"));
    }

    #[test]
    fn a_host_does_not_get_a_secret_into_the_record_by_a_name() {
        let name = || Some("heads/s3cret".to_owned());
        let found = PreparedSource {
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            branch: name(),
            tag: name(),
            context: ContextId::parse("c").expect("valid"),
            digest: Digest::sha256(b"archive"),
            size: 7,
            dockerfile: name(),
            pinned: None,
            definition: None,
            files: Vec::new(),
        };
        let found = masked(found, |text| text.replace("s3cret", "***"));
        assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
    }
}
