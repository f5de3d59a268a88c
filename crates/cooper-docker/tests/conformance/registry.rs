//! A registry in memory on a port of the loopback: just enough to be pushed to and pulled from, with a login, and with
//! faults on demand.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use cooper_ports::engine::RegistryCredential;
use cooper_types::{Digest, SecretString};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

const USER: &str = "somebody";
const PASSWORD: &str = "correct horse";

pub(crate) struct TestRegistry {
    address: String,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

/// What may be held back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Uploads,
    /// Of blobs: whoever asks for one has been told what a tag stands for.
    Downloads,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// What is held back.
    held: watch::Sender<Option<Held>>,
    waiting: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    login: bool,
    /// By `repository@digest`, and for manifests also `repository:tag`.
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    /// What every manifest's PUT is answered with instead.
    refuse: Option<(StatusCode, &'static str)>,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = format!("127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                let service = hyper::service::service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        }));
        Self { address, shared, _server: server }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on wants a login.
    pub(crate) fn require_login(&self) {
        self.state().login = true;
    }

    /// The login that is right.
    pub(crate) fn credential(&self) -> Option<RegistryCredential> {
        let password = SecretString::new(PASSWORD.into());
        self.state().login.then(|| RegistryCredential { username: USER.into(), password })
    }

    /// Answers every manifest with this from now on.
    pub(crate) fn refuse(&self, status: StatusCode, body: &'static str) {
        self.state().refuse = Some((status, body));
    }

    /// From now on, uploads wait for ever.
    pub(crate) fn hold(&self) {
        self.shared.held.send_replace(Some(Held::Uploads));
    }

    /// From now on, downloads of blobs wait until they are let go.
    pub(crate) fn hold_downloads(&self) {
        self.shared.held.send_replace(Some(Held::Downloads));
    }

    /// Lets go what waits.
    pub(crate) fn let_go(&self) {
        self.shared.held.send_replace(None);
    }

    /// Returns when somebody waits.
    pub(crate) async fn somebody_waits(&self) {
        let _ = self.shared.waiting.subscribe().wait_for(|waiting| *waiting).await;
    }

    /// Has a tag stand for what another one does.
    pub(crate) fn move_tag(&self, name: &str, to: &str) {
        let mut state = self.state();
        let manifest = state.manifests.get(to).cloned().expect("there is such a tag");
        state.manifests.insert(name.to_owned(), manifest);
    }

    /// The digest behind a tag.
    pub(crate) fn tag(&self, name: &str) -> Option<Digest> {
        self.state().manifests.get(name).map(|(_, bytes)| Digest::sha256(bytes))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics in here")
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let what = match parts.method {
            Method::POST => Some(Held::Uploads),
            Method::GET if parts.uri.path().contains("/blobs/") => Some(Held::Downloads),
            _ => None,
        };
        if what.is_some() {
            self.waiting.send_replace(*self.held.borrow() == what);
            let _ = self.held.subscribe().wait_for(|held| *held != what).await;
        }
        let mut state = self.state.lock().expect("no test panics in here");
        if state.login && !logged_in(&parts.headers) {
            let error = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header("www-authenticate", "Basic realm=\"test\"")
                .body(Full::from(error))
                .expect("a response");
        }
        state.serve(&parts.method, &parts.uri, &parts.headers, body)
    }
}

fn logged_in(headers: &HeaderMap) -> bool {
    let right = base64::prelude::BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    headers.get("authorization").is_some_and(|value| value.as_bytes() == format!("Basic {right}").as_bytes())
}

impl State {
    fn serve(&mut self, method: &Method, uri: &http::Uri, headers: &HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode| Response::builder().status(status);
        let empty = |status| plain(status).body(Full::default()).expect("a response");
        let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
        let Some((rest, last)) = path.rsplit_once('/') else { return empty(StatusCode::OK) };
        if let Some(repository) = rest.strip_suffix("/manifests") {
            let separator = if last.contains(':') { '@' } else { ':' };
            let key = format!("{repository}{separator}{last}");
            if method == Method::PUT {
                if let Some((status, body)) = self.refuse {
                    return plain(status).body(Full::from(body)).expect("a response");
                }
                let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let digest = Digest::sha256(&body);
                self.manifests.insert(format!("{repository}@{digest}"), (kind.into(), body.clone()));
                self.manifests.insert(key, (kind.into(), body));
                let answer = plain(StatusCode::CREATED).header("docker-content-digest", digest.as_str());
                return answer.body(Full::default()).expect("a response");
            }
            let Some((kind, bytes)) = self.manifests.get(&key) else {
                let error = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                return plain(StatusCode::NOT_FOUND).body(Full::from(error)).expect("a response");
            };
            let answer = plain(StatusCode::OK)
                .header("content-type", kind)
                .header("content-length", bytes.len())
                .header("docker-content-digest", Digest::sha256(bytes).as_str());
            let bytes = if method == Method::HEAD { Bytes::new() } else { bytes.clone() };
            return answer.body(Full::new(bytes)).expect("a response");
        }
        if let Some(repository) = rest.strip_suffix("/blobs/uploads").or(path.strip_suffix("/blobs/uploads/")) {
            if method == Method::POST {
                let id = format!("{:x}", rand::random::<u64>());
                let location = format!("/v2/{repository}/blobs/uploads/{id}");
                self.uploads.insert(id, Vec::new());
                return plain(StatusCode::ACCEPTED).header("location", location).body(Full::default()).expect("one");
            }
            let upload = self.uploads.entry(last.to_owned()).or_default();
            upload.extend_from_slice(&body);
            if method == Method::PUT {
                let bytes = Bytes::from(std::mem::take(upload));
                let digest = Digest::sha256(&bytes);
                self.blobs.insert(format!("{repository}@{digest}"), bytes);
                let answer = plain(StatusCode::CREATED).header("docker-content-digest", digest.as_str());
                return answer.body(Full::default()).expect("a response");
            }
            let end = upload.len().saturating_sub(1);
            return plain(StatusCode::ACCEPTED)
                .header("location", uri.path())
                .header("range", format!("0-{end}"))
                .body(Full::default())
                .expect("a response");
        }
        let blob = rest.strip_suffix("/blobs").and_then(|repository| self.blobs.get(&format!("{repository}@{last}")));
        let Some(bytes) = blob else { return empty(StatusCode::NOT_FOUND) };
        let answer = plain(StatusCode::OK).header("content-length", bytes.len());
        let bytes = if method == Method::HEAD { Bytes::new() } else { bytes.clone() };
        answer.body(Full::new(bytes)).expect("a response")
    }
}
