//! The registry under its loopback name inside containers that have a loopback of their own. One with another name has an
//! address there, too, for who is told of it: containers need not find that name, nor trust its certificate.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cooper_ports::engine::{Connection, Connector, RegistryForward};
use cooper_types::RegistryName;

use super::loopback_addresses;
use super::proxy::Proxy;
use crate::placement::Logins;
use crate::remote::RemoteServer;

/// Bytes on the way in each direction of a connection.
const DUPLEX_BYTES: usize = 256 << 10;

/// Where a registry is reached in containers whose name says nothing of this. Nobody is logged in there.
const NAMELESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4747);

/// The ways of an agent to its server.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'a> {
    /// The server by itself, where the agent is not in its process.
    pub(crate) server: Option<&'a RemoteServer>,
    /// Where the server of this process takes connections in clear.
    pub(crate) here: Option<SocketAddr>,
    /// Whether a registry is wanted whose name says nothing of this.
    pub(crate) by_address: bool,
}

/// How containers reach the registry of this name; `None` where only its name tells. Requests for anything but the registry
/// are refused, as they are to the engine.
pub(crate) fn within_containers(name: &RegistryName, ways: Ways<'_>, logins: Arc<Logins>) -> Option<RegistryForward> {
    let Ways { server, here, by_address } = ways;
    let (addresses, proxy) = match loopback_addresses(name.as_str()) {
        Some(addresses) => {
            // Without another way the server is where its registry's name says: on this machine.
            let server = server.cloned().or_else(|| RemoteServer::on_this_machine(name.as_str()))?;
            (addresses, Proxy::logging_in(server, name.to_string(), logins))
        }
        None if !by_address => return None,
        None => {
            let here = || RemoteServer::on_this_machine(&here?.to_string());
            let server = server.cloned().or_else(here)?;
            (vec![NAMELESS], Proxy::new(server, name.to_string()))
        }
    };
    Some(RegistryForward { addresses, connector: Arc::new(ProxyConnector(proxy)) })
}

/// Where containers reach the registry of this name, if that is nothing that its name tells.
pub(crate) fn address_within(name: &RegistryName, ways: Ways<'_>) -> Option<SocketAddr> {
    let is_there = ways.by_address && (ways.server.is_some() || ways.here.is_some());
    (is_there && loopback_addresses(name.as_str()).is_none()).then_some(NAMELESS)
}

/// Opens connections to a proxy in this process.
struct ProxyConnector(Proxy);

#[async_trait::async_trait]
impl Connector for ProxyConnector {
    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        // It ends with the container's end of the connection.
        tokio::spawn(self.0.clone().serve_one(theirs));
        Ok(Box::new(ours))
    }
}

#[cfg(test)]
mod tests {
    use cooper_client::{ServerUrl, Trust};
    use cooper_ports::engine::RegistryCredential;
    use cooper_types::{AttemptNumber, SecretString};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn containers_read_the_registry_by_the_attempts_credential() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let shown = request.headers().get("authorization").map(|value| value.to_str().map(str::to_owned));
                    let text = shown.and_then(Result::ok).unwrap_or_else(|| "nobody".to_owned());
                    Ok::<_, hyper::Error>(Response::new(Full::new(bytes::Bytes::from(text))))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        let url = ServerUrl::parse(&address.to_string()).expect("a URL");
        let server = RemoteServer::new(url, &Trust::default()).expect("http");
        let logins = Arc::new(Logins::default());
        let name = RegistryName::parse("localhost:5000").expect("valid");
        let ways = Ways { server: Some(&server), here: None, by_address: true };
        let forward = within_containers(&name, ways, Arc::clone(&logins)).expect("a loopback name");
        assert_eq!(address_within(&name, ways), None);
        let send = async |method: &str, path: &str, header: &str| {
            let mut connection = forward.connector.connect().await.expect("a connection");
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost:5000\r\nConnection: close\r\n{header}\r\n");
            connection.write_all(request.as_bytes()).await.expect("written");
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.expect("read");
            answer.rsplit("\r\n").next().map(str::to_owned).expect("a body")
        };
        let ask = async |path: &str, header: &str| send("GET", path, header).await;
        assert_eq!(ask("/v2/", "").await, "nobody");
        let credential = RegistryCredential { username: "run".into(), password: SecretString::new("a".into()) };
        let login = logins.add(AttemptNumber(1), &credential);
        assert_eq!(ask("/v2/", "").await, "Basic cnVuOmE=");
        assert_eq!(ask("/v2/", "Authorization: Bearer own\r\n").await, "Bearer own");
        assert_eq!(ask("/oauth2/token", "").await, "nobody");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(send(method, "/v2/app/manifests/v1", "").await, "nobody", "{method}");
        }
        assert_eq!(ask("/acr/v1/app/_tags", "").await, "Basic cnVuOmE=");
        assert!(ask("/api/v1/runs", "").await.contains("only the registry"));
        drop(login);
        assert_eq!(ask("/v2/", "").await, "nobody");
        let named = RegistryName::parse("registry.example.com").expect("valid");
        // Under another name it is there, too, for whoever is told where, and for nobody's credential but its own.
        let forward = within_containers(&named, ways, Arc::clone(&logins)).expect("a way");
        assert_eq!((forward.addresses, address_within(&named, ways)), (vec![NAMELESS], Some(NAMELESS)));
        let _login = logins.add(AttemptNumber(2), &credential);
        let mut connection = forward.connector.connect().await.expect("a connection");
        let request = b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:4747\r\nConnection: close\r\n\r\n";
        connection.write_all(request).await.expect("written");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("read");
        assert!(answer.ends_with("nobody"), "{answer}");
        let nowhere = Ways { server: None, here: None, by_address: true };
        let unasked = Ways { by_address: false, ..ways };
        assert!(within_containers(&named, unasked, Arc::clone(&logins)).is_none());
        assert!(within_containers(&named, nowhere, logins).is_none() && address_within(&named, nowhere).is_none());
    }
}
