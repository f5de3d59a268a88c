//! Real Git repositories, and a real Git server over HTTP on loopback: `git http-backend` behind a few lines of HTTP,
//! which can also ask for a password, stall, break off, redirect and lie. The tests of `cooper-source` use it, too.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a repository's address does besides serving it.
#[derive(Clone, Debug)]
pub enum GitBehaviour {
    /// Wants this user and password (Basic).
    Password(&'static str, &'static str),
    /// Serves versions 0 and 1 of the protocol alone.
    OldProtocol,
    /// Refuses requests for shallow commits.
    RefuseShallow,
    /// Says nothing at all, to requests of this method.
    Stall(&'static str),
    /// Says nothing more after so many bytes of a pack's answer.
    StallAfter(usize),
    /// Breaks the connection off after so many bytes of a pack's answer.
    DieAfter(usize),
    /// Sends one byte at a time.
    Trickle,
    /// Redirects the first request: this text comes before the path and query.
    Redirect(String),
    /// Redirects commands, too.
    RedirectAll(String),
    /// Answers requests of this method so: status line, content type, body.
    Answer(&'static str, &'static str, &'static str, Vec<u8>),
}

/// A request as it was seen.
#[derive(Clone, Debug)]
pub struct GitRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The body, as far as it is text.
    pub body: String,
}

/// A server for the repositories in one folder. It ends when it is dropped.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    behaviours: Mutex<HashMap<String, Vec<GitBehaviour>>>,
    seen: Mutex<Vec<GitRequest>>,
    ended: AtomicBool,
}

impl GitServer {
    /// Serves the repositories in `root` on a free port of 127.0.0.1.
    pub fn start(root: &Path) -> Self {
        Self::start_on("127.0.0.1:0", root)
    }

    /// Serves them on this address.
    pub fn start_on(address: &str, root: &Path) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            behaviours: Mutex::new(HashMap::new()),
            seen: Mutex::new(Vec::new()),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&accepting)) else { return };
                // Clients that leave in the middle are part of the tests.
                std::thread::spawn(move || drop(answer(&stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The URL of a repository, such as `app.git`.
    pub fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}", self.address)
    }

    /// Makes a repository's address behave like this from now on.
    pub fn behave(&self, repository: &str, behaviours: &[GitBehaviour]) {
        self.shared.behaviours.lock().expect("no panic").insert(repository.to_owned(), behaviours.to_vec());
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<GitRequest> {
        self.shared.seen.lock().expect("no panic").clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The accepting thread waits for a connection to look up from.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { method, path, query, headers, body })
}

fn answer(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let request = read_request(stream)?;
    shared.seen.lock().expect("no panic").push(GitRequest {
        method: request.method.clone(),
        target: format!("{}?{}", request.path, request.query),
        authorization: request.headers.get("authorization").cloned(),
        body: String::from_utf8_lossy(&request.body).into_owned(),
    });
    let repository = request.path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
    let behaviours = shared.behaviours.lock().expect("no panic").get(&repository).cloned().unwrap_or_default();
    let mut old = false;
    let mut cut = None;
    let mut trickle = false;
    for behaviour in behaviours {
        match behaviour {
            GitBehaviour::Password(user, password) => {
                let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                if request.headers.get("authorization") != Some(&expected) {
                    let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n";
                    return stream
                        .write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
                }
            }
            GitBehaviour::OldProtocol => old = true,
            GitBehaviour::RefuseShallow if request.body.windows(6).any(|part| part == b"deepen") => {
                let body = b"001fERR shallow is not allowed\n";
                return send(stream, "200 OK", "application/x-git-upload-pack-result", body);
            }
            GitBehaviour::RefuseShallow => {}
            GitBehaviour::Stall(method) if method == request.method => return wait_for_end(stream),
            GitBehaviour::Stall(_) => {}
            GitBehaviour::StallAfter(bytes) => cut = Some((bytes, true)),
            GitBehaviour::DieAfter(bytes) => cut = Some((bytes, false)),
            GitBehaviour::Trickle => trickle = true,
            GitBehaviour::Redirect(_) if request.method == "POST" => {}
            GitBehaviour::Redirect(to) | GitBehaviour::RedirectAll(to) => {
                let place = format!("{to}{}?{}", request.path, request.query);
                let head = format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n");
                return stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
            }
            GitBehaviour::Answer(method, status, kind, body) if method == request.method => {
                return send(stream, status, kind, &body);
            }
            GitBehaviour::Answer(..) => {}
        }
    }
    let (head, body) = backend(&request, shared, old)?;
    stream.write_all(head.as_bytes())?;
    let is_pack = body.windows(4).any(|part| part == b"PACK");
    match cut.filter(|_| is_pack) {
        Some((bytes, stalls)) => {
            stream.write_all(&body[..bytes.min(body.len())])?;
            if stalls { wait_for_end(stream) } else { Ok(()) }
        }
        None if trickle => body.chunks(1).try_for_each(|byte| stream.write_all(byte)),
        None => stream.write_all(&body),
    }
}

fn send(mut stream: &TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(body)
}

/// Holds the connection until the other side leaves.
fn wait_for_end(mut stream: &TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {}
    Ok(())
}

/// Runs `git http-backend` (CGI); gives the answer's head and body.
fn backend(request: &Request, shared: &Shared, old: bool) -> io::Result<(String, Vec<u8>)> {
    let mut command = git_command();
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("CONTENT_TYPE", request.headers.get("content-type").map_or("", String::as_str))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(version) = request.headers.get("git-protocol").filter(|_| !old) {
        command.env("GIT_PROTOCOL", version);
    }
    let mut child = command.spawn()?;
    // The backend reads all of its input before it writes much.
    child.stdin.take().expect("a pipe").write_all(&request.body)?;
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or("text/plain");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    Ok((format!("{head}Connection: close\r\n\r\n"), body))
}

/// A `git` that no configuration of this machine reaches.
#[expect(clippy::disallowed_methods, reason = "git is where the PATH says")]
fn git_command() -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@example.org"),
        ("GIT_COMMITTER_NAME", "c"),
        ("GIT_COMMITTER_EMAIL", "c@example.org"),
        ("GIT_AUTHOR_DATE", "2024-01-01T00:00:00Z"),
        ("GIT_COMMITTER_DATE", "2024-01-01T00:00:00Z"),
    ] {
        command.env(name, value);
    }
    command
}

/// A bare repository in a server's folder, and a work tree to make commits from.
#[derive(Debug)]
pub struct GitRepository {
    bare: PathBuf,
    work: PathBuf,
}

impl GitRepository {
    /// Makes an empty repository `NAME` in `root`, whose default branch is `main`.
    pub fn new(root: &Path, name: &str) -> Self {
        let bare = root.join(name);
        let work = root.join(format!("{name}.work"));
        fs::create_dir_all(&work).expect("a folder");
        let own = Self { bare, work };
        own.git(["init", "-q", "--bare", "-b", "main", own.bare.to_str().expect("text")]);
        own
    }

    /// Runs git on the repository; gives what it says.
    pub fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let mut command = git_command();
        command.args(arguments).current_dir(&self.work);
        if self.bare.join("HEAD").exists() {
            command.env("GIT_DIR", &self.bare).env("GIT_WORK_TREE", &self.work);
        }
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The work tree.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().expect("inside the work tree")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// Commits the whole work tree; gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(["add", "-A", "-f"]);
        self.commit_index(message)
    }

    /// Commits what has been staged; gives the commit.
    pub fn commit_index(&self, message: &str) -> String {
        self.git(["commit", "-q", "--allow-empty", "-m", message]);
        self.git(["rev-parse", "HEAD"])
    }

    /// Writes files and commits them.
    pub fn commit_files(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            self.write(path, content);
        }
        self.commit("files")
    }

    /// Commits a submodule at `path`, pinned to a commit of `url`.
    pub fn add_submodule(&self, path: &str, url: &str, commit: &str) -> String {
        self.git(["config", "-f", ".gitmodules", &format!("submodule.{path}.path"), path]);
        self.git(["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), url]);
        self.git(["add", "-A"]);
        self.git(["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        self.commit_index("submodule")
    }
}
