//! Clients that vanish: amid an upload of a context, amid a push, amid a log. Nothing of them stays, and whoever resumes
//! misses no byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_e2e::{Chance, Context, ServerOptions, TestServer, is_final, request, unique, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

fn without_agent() -> TestServer {
    TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() })
}

/// How many connections of clients the server has open, by the kernel's own list.
fn connections(server: &TestServer) -> usize {
    connections_in(server, &[ESTABLISHED, CLOSE_WAIT])
}

/// The kernel's numbers of a connection's states.
const ESTABLISHED: &str = "01";
/// The peer has closed it, and the server has not.
const CLOSE_WAIT: &str = "08";

fn connections_in(server: &TestServer, states: &[&str]) -> usize {
    let port = format!(":{:04X}", server.port().parse::<u16>().unwrap());
    let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() > 3 && words[1].ends_with(&port) && states.contains(&words[3])
    };
    list.lines().filter(is_open).count()
}

/// What the server's process has open of this folder.
fn open_files(server: &TestServer, folder: &Path) -> Vec<String> {
    let descriptors = format!("/proc/{}/fd", server.pid().unwrap().as_raw_nonzero());
    let links = std::fs::read_dir(descriptors).unwrap().flatten().filter_map(|it| std::fs::read_link(it.path()).ok());
    links.filter(|link| link.starts_with(folder)).map(|link| link.display().to_string()).collect()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Bytes that don't compress.
fn noise(length: usize) -> Vec<u8> {
    let mut chance = Chance::new(7);
    std::iter::repeat_with(|| chance.number().to_le_bytes()).take(length.div_ceil(8)).flatten().collect()
}

/// A way to the server that lets some bytes through at once and then only a trickle.
struct SlowWay {
    address: String,
    passed: Arc<AtomicU64>,
    /// Dropped, it ends the trickle.
    _open: Sender<()>,
}

impl SlowWay {
    fn to(server: &TestServer, at_once: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, closed) = channel();
        let passed = Arc::new(AtomicU64::new(0));
        let (authority, counter) = (server.authority().to_owned(), passed.clone());
        std::thread::spawn(move || {
            let closed = Arc::new(std::sync::Mutex::new(closed));
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&authority) else { return };
                let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut answers, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
                let (counter, closed) = (counter.clone(), closed.clone());
                std::thread::spawn(move || trickle(client, server, at_once, &counter, &closed.lock().unwrap()));
            }
        });
        Self { address, passed, _open: open }
    }
}

fn trickle(mut client: TcpStream, mut server: TcpStream, at_once: u64, passed: &AtomicU64, closed: &Receiver<()>) {
    let mut chunk = vec![0; 32 * 1024];
    while let Ok(n @ 1..) = client.read(&mut chunk) {
        if server.write_all(&chunk[..n]).is_err() {
            break;
        }
        let passed = passed.fetch_add(n as u64, Ordering::Relaxed);
        let pace = closed.recv_timeout(Duration::from_millis(20));
        if passed > at_once && pace == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn a_build_killed_amid_its_upload_leaves_nothing() {
    let server = without_agent();
    let way = SlowWay::to(&server, 256 << 10);
    let context = Context::new("FROM scratch\nCOPY noise /\n").file("noise", noise(24 << 20));
    let contexts = server.data().join("contexts");
    let (url, token) = (format!("http://{}", way.address), server.token_file().display().to_string());
    let build = server.cooper_running(&[
        "build",
        "-t",
        "app:1",
        "--no-wait",
        "--server",
        &url,
        "--token-file",
        &token,
        &context.display(),
    ]);
    let is_half = || {
        let has_part = files(&contexts).iter().any(|name| name.ends_with(".part"));
        has_part && way.passed.load(Ordering::Relaxed) > 1 << 20
    };
    wait_until("the upload is on its way", Duration::from_secs(60), is_half);
    assert_eq!(open_files(&server, &contexts).len(), 1);

    build.signal(Signal::KILL);
    wait_until("the half upload is gone", LIMIT, || files(&contexts).is_empty());
    wait_until("its file is closed", LIMIT, || open_files(&server, &contexts).is_empty());
    wait_until("its connection is closed", LIMIT, || connections(&server) == 0);
    let runs: Value = server.cooper(&["runs", "list", "--output", "json"]).ok().json();
    assert_eq!(runs.as_array().or(runs["value"].as_array()).map(Vec::len), Some(0), "{runs:#}");
    server.expect_quiet_log();
}

/// A request whose body is longer than what is sent of it.
fn begin_request(server: &TestServer, method: &str, path: &str, token: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.authority()).unwrap();
    let authority = server.authority();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_push_cut_in_half_is_resumed_or_ended_by_another() {
    let server = without_agent();
    let uploads = server.data().join("uploads");
    let token = crate::backup::registry_token(&server, "app");
    let authorization = format!("Authorization: Bearer {token}");
    let ask = |method: &str, path: &str, body: &[u8]| {
        request(server.authority(), method, path, &[&authorization], body).unwrap()
    };
    let begin = || {
        let begun = ask("POST", "/v2/app/blobs/uploads/", b"");
        let place = begun.header("location").unwrap_or_else(|| panic!("{begun:?}")).to_owned();
        place.strip_prefix(&server.url()).unwrap_or(&place).to_owned()
    };
    let bytes = noise(4 << 20);
    let half = bytes.len() / 2;

    // Cut off in its midst: what came is kept for whoever goes on.
    let place = begin();
    let mut cut = begin_request(&server, "PATCH", &place, &token, bytes.len());
    cut.write_all(&bytes[..half]).unwrap();
    cut.shutdown(Shutdown::Both).unwrap();
    drop(cut);
    wait_until("the connection is closed", LIMIT, || connections(&server) == 0);
    let mut received = 0;
    wait_until("the upload is let go", LIMIT, || {
        let state = ask("GET", &place, b"");
        received =
            state.header("range").map_or(0, |range| range.rsplit('-').next().unwrap().parse::<usize>().unwrap() + 1);
        state.status == 204 && open_files(&server, &uploads).is_empty()
    });
    assert!(received <= half, "{received}");
    let put = ask("PATCH", &place, &bytes[received..]);
    assert_eq!(put.status, 202, "{put:?}");
    let place = put.header("location").map_or(place, str::to_owned);
    let place = place.strip_prefix(&server.url()).unwrap_or(&place).to_owned();
    let glue = if place.contains('?') { '&' } else { '?' };
    let put = ask("PUT", &format!("{place}{glue}digest={}", crate::backup::digest(&bytes)), b"");
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(files(&uploads), Vec::<String>::new());

    // Cut off and given up: the one who ends it takes its bytes away.
    let place = begin();
    let mut cut = begin_request(&server, "PATCH", &place, &token, bytes.len());
    cut.write_all(&bytes[..half]).unwrap();
    drop(cut);
    wait_until("the upload is ended", LIMIT, || ask("DELETE", &place, b"").status == 204);
    assert_eq!(files(&uploads), Vec::<String>::new());
    assert_eq!(ask("GET", &place, b"").status, 404);
    wait_until("nothing is open", LIMIT, || open_files(&server, &uploads).is_empty() && connections(&server) == 0);
    server.expect_quiet_log();
}

/// Follows a log for as long as `patience` bytes last; gives the text, the offset to go on from, and whether it is over.
fn follow(server: &TestServer, run: &str, offset: u64, patience: u64) -> (Vec<u8>, u64, bool) {
    let mut stream = TcpStream::connect(server.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (authority, token) = (server.authority(), server.token());
    // HTTP/1.0: the answer comes without chunks.
    let head = format!(
        "GET /api/v1/runs/{run}/log/events?offset={offset} HTTP/1.0\r\nHost: {authority}\r\n\
         Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream.take(patience));
    let (mut text, mut next, mut ended) = (Vec::new(), offset, false);
    let (mut event, mut data, mut id) = (String::new(), String::new(), String::new());
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
        match line.trim_end_matches(['\r', '\n']).split_once(':') {
            // An event counts when its empty line has come: what was cut off before is asked for again.
            None if line.ends_with('\n') && line.trim().is_empty() => {
                match event.as_str() {
                    "log" => {
                        let batch: Value = serde_json::from_str(&data).unwrap();
                        assert_eq!(batch["offset"], next, "an event begins where the last one ended");
                        for frame in batch["frames"].as_array().unwrap() {
                            assert_ne!(frame["stream"], "gap", "{frame}");
                            if frame["stream"] != "vertex" {
                                text.extend(STANDARD.decode(frame["data"].as_str().unwrap()).unwrap());
                            }
                        }
                        next = id.parse().unwrap();
                    }
                    "end" => ended = true,
                    _ => {}
                }
                event.clear();
                data.clear();
            }
            Some(("event", value)) => event = value.trim().to_owned(),
            Some(("data", value)) => data.push_str(value),
            Some(("id", value)) => id = value.trim().to_owned(),
            _ => {}
        }
        line.clear();
    }
    (text, next, ended)
}

#[test]
fn a_follower_cut_off_again_and_again_misses_no_byte() {
    let server = TestServer::start();
    let base = server.base_image();
    let word = unique();
    let lines = "i=0; while [ $i -lt 1200 ]; do echo line-$i-of-many-grüße; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.3; done; true";
    let context = Context::new(&format!("FROM {base}\nRUN echo {word}; {lines}\n"));
    server.cooper(&["build", "-t", "app:1", "--no-wait", &context.display()]).ok();
    // A client that is killed while it reads.
    let reader = server.cooper_running(&["logs", "ca2", "--follow"]);
    wait_until("the client reads", Duration::from_secs(60), || reader.output().0.contains("line-1-"));
    reader.signal(Signal::KILL);

    let mut chance = Chance::from_environment();
    let (mut text, mut offset, mut cuts) = (Vec::new(), 0, 0);
    loop {
        let patience = 200 + chance.below(20_000);
        let (part, next, ended) = follow(&server, "ca2", offset, patience);
        // One event may be longer than any patience; then it is read whole.
        let (part, next, ended) = match next == offset && !ended && cuts % 4 == 3 {
            true => follow(&server, "ca2", offset, 400_000),
            false => (part, next, ended),
        };
        text.extend(part);
        offset = next;
        if ended {
            break;
        }
        cuts += 1;
        assert!(cuts < 5000, "it does not end");
    }
    // The fourth look reads a long event whole, which may be the last one.
    assert!(cuts >= 3, "{cuts}");
    let run = server.run("ca2");
    assert!(is_final(&run) && run["status"] == "Succeeded", "{run:#}");
    let stored = server.cooper(&["logs", "ca2"]).ok().stdout;
    assert_eq!(String::from_utf8(text).unwrap(), stored);
    for line in [0, 1, 599, 1199] {
        assert!(stored.contains(&format!("line-{line}-of-many-grüße")), "{line}");
    }
    // The engine keeps some connections for its next push; those whose client is gone are closed.
    wait_until("all gone clients are let go", LIMIT, || connections_in(&server, &[CLOSE_WAIT]) == 0);
    server.expect_quiet_log();
}
