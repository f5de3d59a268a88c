//! Over https: who is trusted, and that a redirect does not lead out of it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use cooper_e2e::GitBehaviour as Behaviour;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// A private certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Takes TLS off in front of a server, under a certificate for `name`; gives `127.0.0.1:PORT`.
    fn front(&self, server: &GitServer, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (config, behind) = (Arc::new(config), server.host());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, behind) = (Arc::clone(&config), behind.clone());
                // A client that trusts nobody leaves in the middle.
                std::thread::spawn(move || drop(pass_on(config, stream, &behind)));
            }
        });
        host
    }

    fn client(&self) -> Egress {
        let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.1").unwrap()] };
        let extra_roots = Some(self.0.pem().into_bytes());
        Egress::new(EgressOptions { policy, extra_roots, ..EgressOptions::default() })
    }
}

/// Passes one request on, and its answer back.
fn pass_on(config: Arc<ServerConfig>, stream: TcpStream, behind: &str) -> std::io::Result<()> {
    let mut front = StreamOwned::new(ServerConnection::new(config).map_err(std::io::Error::other)?, stream);
    let mut request = Vec::new();
    let end = loop {
        let mut buffer = [0; 4096];
        let read = front.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..read]);
        if let Some(end) = request.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        if read == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let missing = end + length.unwrap_or(0_usize) - request.len();
    let mut rest = vec![0; missing];
    front.read_exact(&mut rest)?;
    let mut back = TcpStream::connect(behind)?;
    back.write_all(&request)?;
    back.write_all(&rest)?;
    std::io::copy(&mut back, &mut front)?;
    front.conn.send_close_notify();
    front.flush()?;
    front.sock.shutdown(Shutdown::Write)
}

#[tokio::test]
async fn only_trusted_certificates_for_the_right_name_are_taken() {
    let mut world = World::new();
    let (_, commit) = world.simple("app.git");
    let authority = Authority::new();
    let host = authority.front(&world.server, "127.0.0.1");
    let source = GitSource::parse(&format!("https://{host}/app.git")).unwrap();
    let line = https(&world, &source).await.unwrap_err().line();
    assert!(line.starts_with(&format!("the TLS connection to `{host}` failed:")), "{line}");
    assert!(world.server.seen().is_empty());
    world.egress = authority.client();
    assert_eq!(https(&world, &source).await.unwrap().snapshot.commit, commit);

    let wrong = authority.front(&world.server, "example.org");
    let wrong = GitSource::parse(&format!("https://{wrong}/app.git")).unwrap();
    let error = https(&world, &wrong).await.unwrap_err();
    assert!(error.line().starts_with("the TLS connection to"), "{}", error.line());
    assert!(!error.is_transient());

    world.server.behave("app.git", &[Behaviour::Redirect(format!("http://{}", world.server.host()))]);
    let line = https(&world, &source).await.unwrap_err().line();
    assert_eq!(line, format!("`{host}` redirects to plain http on `{}`, which is refused", world.server.host()));
}

async fn https(world: &World, source: &GitSource) -> Result<Done, GitError> {
    world.fetch_with("x.git", &NoCredentials, |request| request.source = source.clone()).await
}
