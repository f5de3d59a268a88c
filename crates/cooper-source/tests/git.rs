//! Fetches from a real Git server over HTTP on loopback.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

#[path = "git/definition.rs"]
mod definition;
#[path = "git/faults.rs"]
mod faults;
#[path = "git/references.rs"]
mod references;
#[path = "git/submodules.rs"]
mod submodules;
#[path = "git/tls.rs"]
mod tls;
#[path = "git/trees.rs"]
mod trees;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cooper_e2e::{GitRepository, GitServer};
use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_source::git::{
    CredentialSource, FetchLimits, FetchRequest, GitCredential, ListedReference, NoCredentials, fetch, references,
};
use cooper_source::{
    Cidr, Egress, EgressOptions, EgressPolicy, FurtherFiles, GitError, Snapshot, UnpackLimits, unpack,
};
use cooper_spec::source::GitSource;
use cooper_types::SecretString;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A server, its folder, and a client that may reach loopback.
struct World {
    server: GitServer,
    egress: Egress,
    root: TempDir,
}

/// What was fetched, kept as long as it is looked at.
#[derive(Debug)]
struct Done {
    snapshot: Snapshot,
    events: Vec<String>,
    tree: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

fn egress(allow: &[&str]) -> Egress {
    let allow = allow.iter().map(|range| Cidr::parse(range).unwrap()).collect();
    Egress::new(EgressOptions { policy: EgressPolicy { allow }, ..EgressOptions::default() })
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { server: GitServer::start(root.path()), egress: egress(&["127.0.0.1"]), root }
    }

    fn repository(&self, name: &str) -> GitRepository {
        GitRepository::new(self.root.path(), name)
    }

    /// A repository with a Dockerfile and a file.
    fn simple(&self, name: &str) -> (GitRepository, String) {
        let repository = self.repository(name);
        let commit = repository.commit_files(&[("Dockerfile", "FROM scratch\n"), ("src/a.txt", "a\n")]);
        (repository, commit)
    }

    fn request(&self, place: &str, scratch: &Path) -> FetchRequest {
        let source = GitSource::parse(&self.server.url(place)).unwrap();
        let scratch = scratch.to_owned();
        FetchRequest {
            source,
            dockerfile: None,
            files: Vec::new(),
            further: FurtherFiles::default(),
            definition: None,
            scratch,
            limits: FetchLimits::default(),
        }
    }

    async fn fetch(&self, place: &str) -> Result<Done, GitError> {
        self.fetch_with(place, &NoCredentials, |_| {}).await
    }

    async fn fetch_with(
        &self,
        place: &str,
        credentials: &dyn CredentialSource,
        change: impl FnOnce(&mut FetchRequest),
    ) -> Result<Done, GitError> {
        let scratch = tempfile::tempdir().unwrap();
        let mut request = self.request(place, scratch.path());
        change(&mut request);
        let events = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let events = Arc::clone(&events);
            Arc::new(move |event: cooper_source::FetchEvent| events.lock().unwrap().push(event.to_string()))
        };
        let snapshot = fetch(&self.egress, credentials, request, listener, &CancellationToken::new()).await?;
        let bytes = std::fs::read(&snapshot.archive).unwrap();
        assert_eq!(cooper_types::Digest::sha256(&bytes), snapshot.digest);
        assert_eq!(bytes.len() as u64, snapshot.size);
        let spool = tempfile::tempfile().unwrap();
        let tree = unpack(bytes.as_slice(), spool, &UnpackLimits::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!(tree.entries().len() as u64, snapshot.entries);
        let events = events.lock().unwrap().clone();
        Ok(Done { snapshot, events, tree: shown(&tree), bytes })
    }

    /// The error's line of a fetch that must fail.
    async fn fails(&self, place: &str) -> String {
        match self.fetch(place).await {
            Ok(done) => panic!("{place}: {:?}", done.tree),
            Err(error) => error.line(),
        }
    }
}

/// The tree as texts: `/` for a directory, `>` for a link, `MODE content` for a file.
fn shown(tree: &ContextTree) -> BTreeMap<String, String> {
    let content = |offset, size: u64| {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let file: &File = tree.contents();
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, offset).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    tree.entries()
        .iter()
        .map(|entry| {
            let text = match &entry.kind {
                EntryKind::Directory => "/".to_owned(),
                EntryKind::Symlink { target } => format!("> {target}"),
                EntryKind::File { offset, size } => format!("{:o} {}", entry.mode, content(*offset, *size)),
            };
            (entry.path.clone(), text)
        })
        .collect()
}

/// Credentials for some hosts; remembers who was asked for.
#[derive(Default)]
struct Stored {
    credentials: Vec<(String, GitCredential)>,
    asked: Mutex<Vec<String>>,
}

impl Stored {
    fn one(host: String, username: &str, password: &str) -> Self {
        let password = SecretString::new(password.to_owned());
        let credential = GitCredential { username: username.to_owned(), password };
        Self { credentials: vec![(host, credential)], asked: Mutex::default() }
    }
}

#[async_trait]
impl CredentialSource for Stored {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        self.asked.lock().unwrap().push(host.to_owned());
        Ok(self.credentials.iter().find(|(known, _)| known == host).map(|(_, credential)| credential.clone()))
    }
}
