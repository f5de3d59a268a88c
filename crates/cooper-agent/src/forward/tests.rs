//! Forwarders on real ports of this machine, before a server that tells what it was asked.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use cooper_api::rest::IDENTITY_HEADER;
use cooper_client::{ServerUrl, Trust};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A server that says who it is, and tells what it was asked.
struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(identity: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let answer = service_fn(move |request: Request<Incoming>| async move {
                    let text = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
                    Response::builder().header(IDENTITY_HEADER, identity).body(Full::new(Bytes::from(text)))
                });
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(served);
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }

    fn remote(&self) -> RemoteServer {
        RemoteServer::new(ServerUrl::parse(&self.address.to_string()).expect("a URL"), &Trust::default()).expect("http")
    }
}

/// An agent's forwarder under a registry's name.
struct Forwarding {
    conditions: Conditions,
    task: AbortOnDropHandle<()>,
}

impl Forwarding {
    fn start(name: &SocketAddr, server: &Server) -> Self {
        Self::named(name.to_string(), server)
    }

    fn named(name: String, server: &Server) -> Self {
        let conditions = Conditions::default();
        conditions.set(Condition::Registry, Some("not yet".to_owned()));
        let task = tokio::spawn(listen(name, server.remote(), conditions.clone()));
        Self { conditions, task: AbortOnDropHandle::new(task) }
    }

    /// Waits for the reason why no work is taken to be like this; `None` means that work is taken.
    async fn until(&self, reason: Option<&str>) {
        until(reason.unwrap_or("no reason"), || match (self.conditions.why(), reason) {
            (Some(why), Some(reason)) => why.contains(reason),
            (why, reason) => why.is_none() && reason.is_none(),
        })
        .await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), wait).await.is_ok(), "not within 60 s: {what}");
}

/// An address of this machine that nobody listens on.
async fn free() -> SocketAddr {
    // Other tests, on the usual address, don't get in the way.
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let ip = Ipv4Addr::new(127, 77, 77, NEXT.fetch_add(1, Ordering::Relaxed));
    let listener = TcpListener::bind((ip, 0)).await.expect("a port");
    listener.local_addr().expect("an address")
}

/// What comes back for a request.
async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer));
    read.await.expect("an answer in time").expect("an answer");
    answer
}

#[test]
fn loopback_names_have_addresses() {
    let check = |name: &str, expect: Option<&[&str]>| {
        let found = loopback_addresses(name).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            found.as_deref(),
            expect.map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>()).as_deref(),
            "{name}"
        );
    };
    check("localhost:5000", Some(&["127.0.0.1:5000", "[::1]:5000"]));
    check("127.0.0.2:80", Some(&["127.0.0.2:80"]));
    check("[::1]:5000", Some(&["[::1]:5000"]));
    check("localhost", None);
    check("registry.example.com:5000", None);
    check("10.0.0.1:5000", None);
}

#[tokio::test]
async fn requests_for_the_registry_go_through_and_say_where_they_came_from() {
    let (server, name) = (Server::start("a").await, free().await);
    let forwarding = Forwarding::start(&name, &server);
    forwarding.until(None).await;
    // What a client says of its origin and of its connection goes no further.
    let head = format!(
        "GET http://elsewhere/v2/a/tags/list?n=1 HTTP/1.1\r\nhost: {name}\r\ncooper-origin: https://evil\r\nte: trailers"
    );
    let answer = ask(name, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nvia: 1.1 cooper-agent\r\n"), "{answer}");
    let told = answer.split("\r\n\r\n").nth(1).expect("a body");
    let headers = format!("{{\"host\": \"{}\", \"cooper-origin\": \"http://{name}\"}}", server.address);
    let mirrored = format!("{{\"cooper-origin\": \"http://{name}\", \"host\": \"{}\"}}", server.address);
    let expect = |headers| format!("GET /v2/a/tags/list?n=1 {headers}");
    assert!([expect(headers), expect(mirrored)].iter().any(|expect| told == expect), "{told}");
}

#[tokio::test]
async fn nothing_but_the_registry_is_reached() {
    let (server, name) = (Server::start("a").await, free().await);
    let forwarding = Forwarding::start(&name, &server);
    forwarding.until(None).await;
    for target in [
        "/",
        "/api/v1/info",
        "/v2x",
        "/v2/../api/v1/info",
        "/v2/%2E%2e/api/v1/info",
        "/oauth2/.%2e/api/v1/tokens",
        "/v2/a\\..\\..\\api",
        "/v2/./x",
        "//v2/",
        "/healthz/x",
        "/metrics",
        "/cooper.agent.v1.AgentService/Connect",
        "http://elsewhere/api/v1/info",
    ] {
        let answer = ask(name, &format!("GET {target} HTTP/1.1\r\nhost: {name}")).await;
        let refused = answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(refused, "{target}: {answer}");
    }
    let answer = ask(name, &format!("CONNECT {} HTTP/1.1\r\nhost: {name}", server.address)).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    for target in ["/v2", "/v2/", "/v2/a/b..c/tags/list", "/oauth2/token", "/healthz"] {
        let answer = ask(name, &format!("GET {target} HTTP/1.1\r\nhost: {name}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_told_of() {
    let (server, name) = (Server::start("a").await, free().await);
    let forwarding = Forwarding::start(&name, &server);
    forwarding.until(None).await;
    drop(server);
    let answer = ask(name, &format!("GET /v2/ HTTP/1.1\r\nhost: {name}")).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("UNAVAILABLE"), "{answer}");
    assert_eq!(forwarding.conditions.why(), None, "the stream to the server tells that");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_taken_when_that_ends() {
    let (server, name) = (Server::start("a").await, free().await);
    let other = TcpListener::bind(name).await.expect("the port");
    let closing = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            drop(other.accept().await);
        }
    }));
    let forwarding = Forwarding::start(&name, &server);
    forwarding.until(Some(&format!("another program has {name}, by which the registry {name} is reached"))).await;
    drop(closing);
    forwarding.until(None).await;
    let answer = ask(name, &format!("GET /v2/ HTTP/1.1\r\nhost: {name}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn another_server_is_another_program() {
    let (server, other) = (Server::start("a").await, Server::start("b").await);
    let forwarding = Forwarding::start(&other.address, &server);
    forwarding.until(Some("another program has")).await;
}

#[tokio::test]
async fn a_server_on_this_machine_keeps_its_port() {
    let server = Server::start("a").await;
    let forwarding = Forwarding::start(&server.address, &server);
    forwarding.until(None).await;
    until("the end of the search", || forwarding.task.is_finished()).await;
}

#[tokio::test]
async fn another_agents_forwarder_will_do_until_it_ends() {
    let (server, name) = (Server::start("a").await, free().await);
    let first = Forwarding::start(&name, &server);
    first.until(None).await;
    let second = Forwarding::start(&name, &server);
    second.until(None).await;
    assert!(!second.task.is_finished(), "it watches over the port");
    drop(first);
    let reached = async {
        while TcpStream::connect(name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the second one takes over");
    let answer = ask(name, &format!("GET /v2/ HTTP/1.1\r\nhost: {name}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn an_engine_that_tries_ipv6_first_meets_nobody_else() {
    let server = Server::start("a").await;
    // A machine without IPv6 has nobody there.
    let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let taken = other.local_addr().expect("an address");
    let closing = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            drop(other.accept().await);
        }
    }));
    let forwarding = Forwarding::named(format!("localhost:{}", taken.port()), &server);
    forwarding.until(Some(&format!("another program has {taken}"))).await;
    drop(closing);
    forwarding.until(None).await;
    let answer = ask(taken, "GET /v2/ HTTP/1.1\r\nhost: localhost").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
