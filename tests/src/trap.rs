//! A place that nobody may be led to, and one beside it that leads there: for everything that goes out to where users say.
//!
//! Both are on loopback under one port. The open side is what a test lists as allowed, in a public address's place; the inside
//! is listed nowhere. Whoever makes a connection to it has been led astray.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::FileServer;

const OPEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Where clouds keep what their machines may do.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// How often a port is looked for that both sides can have.
const PORTS: u32 = 50;

/// How the open side leads on.
#[derive(Clone)]
enum Lead {
    /// By redirects to the same path there.
    Redirect(String),
    /// The same, once it has answered well what it knows.
    Later(Arc<Answers>, String),
    /// By asking for a login there.
    Login(String),
}

/// What the open side knows of a request with this path and head.
type Answers = dyn Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync;

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect(to) => write!(f, "redirects to {to}"),
            Self::Later(_, to) => write!(f, "later redirects to {to}"),
            Self::Login(realm) => write!(f, "logins at {realm}"),
        }
    }
}

/// Whether a way in follows redirects, or says that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// It does, as far as they are allowed.
    Redirects,
    /// It follows none.
    Nothing,
}

/// Both sides.
pub struct Trap {
    inside: TcpListener,
    open: FileServer,
    port: u16,
    lead: Arc<Mutex<Option<Lead>>>,
    /// Whether the name that changes its mind has been asked for.
    rebound: Arc<AtomicBool>,
}

impl Trap {
    /// The address of the open side.
    pub const OPEN: &str = "127.0.0.2";

    /// Sets it up.
    pub fn start() -> Self {
        let (open, inside, port) = (0..PORTS).find_map(|_| both()).expect("a port is free on both addresses");
        let lead = Arc::new(Mutex::new(None));
        let own = Arc::clone(&lead);
        let open = FileServer::over(open, move |path, head| {
            match own.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                Some(Lead::Redirect(to)) => redirect(&to, path),
                Some(Lead::Later(answers, to)) => answers(path, head).unwrap_or_else(|| redirect(&to, path)),
                Some(Lead::Login(realm)) => {
                    let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}/token\",service=\"s\"");
                    FileServer::answer("401 Unauthorized", &[&challenge], b"")
                }
                None => FileServer::answer("404 Not Found", &[], b""),
            }
        });
        Self { inside, open, port, lead, rebound: Arc::default() }
    }

    /// What resolves the names of both sides: `open.localhost`, `inside.localhost` and others for the inside; and
    /// `rebind.localhost`, which is the open side for who asks first, and the inside from then on.
    pub fn names(&self) -> impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static + use<> {
        let rebound = Arc::clone(&self.rebound);
        move |name| {
            let address: IpAddr = match name {
                "open.localhost" => OPEN.into(),
                "rebind.localhost" if !rebound.swap(true, Ordering::SeqCst) => OPEN.into(),
                "inside.localhost" | "rebind.localhost" => INSIDE.into(),
                "mapped.localhost" => INSIDE.to_ipv6_mapped().into(),
                "metadata.localhost" => METADATA.into(),
                _ => return Vec::new(),
            };
            vec![address]
        }
    }

    /// Tries a way in with everything that leads to the inside. `goes` gets an authority (`HOST:PORT`) for plain http, and
    /// gives what the user is told; it is to go twice where it follows no redirects. `way_out` is the option that has to be named.
    ///
    /// # Panics
    ///
    /// Where the inside was reached, or the user is not told why not.
    pub async fn try_way(&self, way: &str, follows: Follows, way_out: &str, goes: impl AsyncFn(&str) -> String) {
        let port = self.port;
        for host in [
            format!("127.0.0.1:{port}"),
            format!("2130706433:{port}"),
            format!("0.0.0.0:{port}"),
            format!("[::1]:{port}"),
            format!("[::ffff:7f00:1]:{port}"),
            METADATA.to_string(),
            format!("inside.localhost:{port}"),
            format!("mapped.localhost:{port}"),
            format!("metadata.localhost:{port}"),
        ] {
            self.attack(way, way_out, (&host, None), &goes).await;
        }
        let open = format!("open.localhost:{port}");
        for to in [
            format!("http://127.0.0.1:{port}"),
            format!("http://[::ffff:7f00:1]:{port}"),
            format!("http://inside.localhost:{port}"),
        ] {
            let told = self.led(way, &open, Lead::Redirect(to), &goes).await;
            match follows {
                Follows::Redirects => assert!(is_refusal(&told, way_out), "{way}, redirected: {told}"),
                Follows::Nothing => assert!(told.contains("redirect"), "{way}, redirected: {told}"),
            }
        }
        let rebinding = format!("rebind.localhost:{port}");
        self.rebound.store(false, Ordering::SeqCst);
        let itself = Lead::Redirect(format!("http://{rebinding}"));
        self.attack(way, way_out, (&rebinding, Some(itself)), &goes).await;
    }

    /// Tries a way in to registries with logins that lead to the inside.
    ///
    /// # Panics
    ///
    /// Where the inside was reached, or the user is not told why not.
    pub async fn try_logins(&self, way: &str, way_out: &str, goes: impl AsyncFn(&str) -> String) {
        let port = self.port;
        let open = format!("open.localhost:{port}");
        for realm in [
            format!("http://127.0.0.1:{port}"),
            format!("http://inside.localhost:{port}"),
            format!("http://{METADATA}"),
        ] {
            self.attack(way, way_out, (&open, Some(Lead::Login(realm))), &goes).await;
        }
    }

    /// Tries a way in whose first request is answered well, and a later one with a redirect to the inside: `answers` are given
    /// by a request's path and head.
    ///
    /// # Panics
    ///
    /// Where the inside was reached, the user is not told why not, or there was no later request.
    pub async fn try_later(
        &self,
        way: &str,
        way_out: &str,
        answers: impl Fn(&str, &str) -> Option<Vec<u8>> + Send + Sync + 'static,
        goes: impl AsyncFn(&str) -> String,
    ) {
        let (port, answers) = (self.port, Arc::new(answers));
        let open = format!("open.localhost:{port}");
        for to in [
            format!("http://127.0.0.1:{port}"),
            format!("http://[::ffff:7f00:1]:{port}"),
            format!("http://inside.localhost:{port}"),
        ] {
            let before = self.open.seen().len();
            let told = self.led(way, &open, Lead::Later(answers.clone(), to), &goes).await;
            let seen = self.open.seen().split_off(before);
            assert!(seen.len() > 1, "{way}: {seen:?}: {told}");
            assert!(is_refusal(&told, way_out) || told.contains("redirect"), "{way}, redirected later: {told}");
        }
    }

    async fn attack(
        &self,
        way: &str,
        way_out: &str,
        (host, lead): (&str, Option<Lead>),
        goes: &impl AsyncFn(&str) -> String,
    ) {
        let shown = format!("{way} to {host}, led by {lead:?}");
        let told = match lead {
            Some(lead) => self.led(way, host, lead, goes).await,
            None => goes(host).await,
        };
        assert!(!self.is_sprung(), "{shown} reached the inside: {told}");
        assert!(is_refusal(&told, way_out), "{shown}: {told}");
    }

    /// Goes to the open side, which must have been reached.
    async fn led(&self, way: &str, host: &str, lead: Lead, goes: &impl AsyncFn(&str) -> String) -> String {
        let shown = format!("{way} to {host}, led by {lead:?}");
        *self.lead.lock().unwrap_or_else(PoisonError::into_inner) = Some(lead);
        let before = self.open.seen().len();
        let told = goes(host).await;
        assert!(!self.is_sprung(), "{shown} reached the inside: {told}");
        assert!(self.open.seen().len() > before, "{shown} did not get to where it was to be led from: {told}");
        told
    }

    /// Whether a connection was made to the inside: the system makes it for whoever listens.
    fn is_sprung(&self) -> bool {
        match self.inside.accept() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }
}

fn redirect(to: &str, path: &str) -> Vec<u8> {
    FileServer::answer("307 Temporary Redirect", &[&format!("Location: {to}{path}")], b"")
}

fn is_refusal(told: &str, way_out: &str) -> bool {
    told.contains("which is not public") && told.contains(way_out)
}

/// Listeners of both sides under one port, if it is free for both.
fn both() -> Option<(TcpListener, TcpListener, u16)> {
    let open = TcpListener::bind((OPEN, 0)).ok()?;
    let port = open.local_addr().ok()?.port();
    let inside = TcpListener::bind((INSIDE, port)).ok()?;
    inside.set_nonblocking(true).ok()?;
    Some((open, inside, port))
}
