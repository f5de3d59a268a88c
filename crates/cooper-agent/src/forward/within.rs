//! The registry under its loopback name inside containers that have a loopback of their own.

use std::io;
use std::sync::Arc;

use cooper_ports::engine::{Connection, Connector, RegistryForward};
use cooper_types::RegistryName;

use super::loopback_addresses;
use super::proxy::Proxy;
use crate::placement::Logins;
use crate::remote::RemoteServer;

/// Bytes on the way in each direction of a connection.
const DUPLEX_BYTES: usize = 256 << 10;

/// How containers reach the registry of this name; `None` where its name says the same everywhere. Requests for anything
/// but the registry are refused, as they are to the engine.
pub(crate) fn within_containers(
    name: &RegistryName,
    server: Option<&RemoteServer>,
    logins: Arc<Logins>,
) -> Option<RegistryForward> {
    let addresses = loopback_addresses(name.as_str())?;
    // Without another way the server is where its registry's name says: on this machine.
    let server = server.cloned().or_else(|| RemoteServer::on_this_machine(name.as_str()))?;
    let proxy = Proxy::logging_in(server, name.to_string(), logins);
    Some(RegistryForward { addresses, connector: Arc::new(ProxyConnector(proxy)) })
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
        let forward = within_containers(&name, Some(&server), Arc::clone(&logins)).expect("a loopback name");
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
        assert!(within_containers(&named, Some(&server), logins).is_none());
    }
}
