//! How a connection to a port with TLS begins: by the first byte it is told whether the client speaks TLS.
//!
//! A container engine speaks to a registry on a loopback address in clear, whatever is there (BuildKit knows no other
//! way), so whoever is on this machine may. Everybody else hears what to do instead.

use std::net::SocketAddr;
use std::time::Duration;

use cooper_api::problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to begin, and then to shake hands.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first byte of a TLS connection: a record with a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// How much of a request in clear is read before it is answered, in bytes.
const MAX_PLAIN: u64 = 64 << 10;

/// A connection to serve.
pub(super) enum Opened {
    /// It is encrypted.
    Secure(Box<TlsStream<TcpStream>>),
    /// It comes from this machine, in clear.
    Local(TcpStream),
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpeningError {
    #[error("the client said nothing in time")]
    Silent,
    #[error("the client speaks in clear")]
    Plain,
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
}

/// Takes a new connection as far as its first request.
pub(super) async fn open(stream: TcpStream, peer: SocketAddr, tls: &TlsAcceptor) -> Result<Opened, OpeningError> {
    open_within(PATIENCE, stream, peer, tls).await
}

async fn open_within(
    patience: Duration,
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsAcceptor,
) -> Result<Opened, OpeningError> {
    let timed = |_| OpeningError::Silent;
    let mut first = [0];
    let count = tokio::time::timeout(patience, stream.peek(&mut first)).await.map_err(timed)??;
    match first {
        _ if count == 0 => Err(OpeningError::Silent),
        [HANDSHAKE] => {
            let stream = tokio::time::timeout(patience, tls.accept(stream)).await.map_err(timed)??;
            Ok(Opened::Secure(Box::new(stream)))
        }
        _ if peer.ip().to_canonical().is_loopback() => Ok(Opened::Local(stream)),
        _ => {
            // Told or not, it is over.
            let _ = tokio::time::timeout(patience, refuse(stream)).await;
            Err(OpeningError::Plain)
        }
    }
}

/// Tells a client that speaks in clear what to do instead. What it sent is not looked at.
async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let problem =
        Problem::new(ProblemCode::InvalidRequest, "this port speaks https only, and the request came in clear")
            .with_hint("begin the server's address with https://");
    let body = serde_json::to_string(&problem)?;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the client has read the answer and closes; a reset would take the answer from it.
    tokio::io::copy(&mut stream.take(MAX_PLAIN), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cooper_types::RegistryName;
    use tokio::net::TcpListener;

    use super::*;
    use crate::settings::TlsSettings;
    use crate::tls::ServerTls;

    /// The two ends of a connection.
    async fn connection() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connected");
        let (server, peer) = listener.accept().await.expect("accepted");
        (client, server, peer)
    }

    #[tokio::test]
    async fn who_is_slow_with_a_handshake_is_not_waited_for() {
        let data = tempfile::tempdir().expect("folder");
        let registry = RegistryName::parse("localhost:5000").expect("name");
        let settings = TlsSettings::SelfSigned { names: Vec::new() };
        let tls = ServerTls::open(&settings, data.path(), None, &registry).expect("TLS").acceptor();
        let (_silent, server, peer) = connection().await;
        let short = Duration::from_secs(1);
        assert!(matches!(open_within(short, server, peer, &tls).await, Err(OpeningError::Silent)));

        // A byte now and then puts nothing off.
        let (mut slow, server, peer) = connection().await;
        let trickle = async move {
            // The head of a record of 512 bytes, then what is in it.
            slow.write_all(&[HANDSHAKE, 3, 1, 2, 0]).await.expect("written");
            while slow.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let opened = tokio::select! {
            opened = open_within(short, server, peer, &tls) => opened,
            () = trickle => panic!("cut off before it was given up"),
        };
        assert!(opened.is_err(), "a handshake that never ends");

        let (mut far, server, _) = connection().await;
        far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        let elsewhere = "10.1.2.3:4".parse().expect("address");
        let (opened, answer) = tokio::join!(open_within(Duration::from_secs(60), server, elsewhere, &tls), async {
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.expect("an answer");
            drop(far);
            answer
        });
        assert!(matches!(opened, Err(OpeningError::Plain)));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    }
}
