//! The client as the port for requests of others than sources.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cooper_ports::outgoing::{Outgoing, OutgoingError, OutgoingRequest};
use http::{Method, Response};
use reqwest::Url;
use reqwest::header::AUTHORIZATION;

use super::{Egress, EgressError, EgressRequest, host_of};

fn unreachable(host: &str, error: EgressError) -> OutgoingError {
    OutgoingError::Unreachable {
        host: host.to_owned(),
        told: error.told(),
        transient: error.is_transient(),
        source: error.into(),
    }
}

impl Egress {
    async fn exchange(&self, url: Url, asked: OutgoingRequest) -> Result<Response<Bytes>, OutgoingError> {
        let host = host_of(&url);
        let (head, body) = asked.request.into_parts();
        let authorization = head.headers.get(AUTHORIZATION).cloned();
        let headers = head.headers.iter().filter(|(name, _)| *name != AUTHORIZATION);
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let follow = matches!(head.method, Method::GET | Method::HEAD);
        let request = EgressRequest { method: head.method, url, headers, body, authorization, follow };
        let mut answer = self.send(request).await.map_err(|error| unreachable(&host, error))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&host, error))? {
            if body.len() + chunk.len() > asked.body_limit {
                return Err(OutgoingError::TooLarge { host: answer.host(), limit: asked.body_limit });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

#[async_trait]
impl Outgoing for Egress {
    async fn send(&self, request: OutgoingRequest) -> Result<Response<Bytes>, OutgoingError> {
        let uri = request.request.uri().to_string();
        let Ok(url) = Url::parse(&uri) else {
            return Err(unreachable(&uri, EgressError::Scheme { scheme: String::new() }));
        };
        let (host, deadline) = (host_of(&url), request.deadline);
        match tokio::time::timeout(deadline, self.exchange(url, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(OutgoingError::Late { host, deadline }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::super::{Cidr, EgressOptions, EgressPolicy};
    use super::*;

    async fn ask(egress: &Egress, url: &str, deadline: Duration) -> OutgoingError {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        let asked = OutgoingRequest { request, body_limit: 10, deadline };
        Outgoing::send(egress, asked).await.unwrap_err()
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline_and_private_places_are_not_reached() {
        // It accepts connections, as the system does for any listener, and says nothing.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let allow = vec![Cidr::parse("127.0.0.1").unwrap()];
        let open = Egress::new(EgressOptions { policy: EgressPolicy { allow }, ..EgressOptions::default() });
        let late = ask(&open, &format!("http://{address}/"), Duration::from_millis(200)).await;
        assert!(matches!(&late, OutgoingError::Late { host, .. } if *host == address.to_string()), "{late:?}");
        assert!(late.is_transient());
        let closed = Egress::new(EgressOptions::default());
        for url in [format!("http://{address}/"), "https://[::1]/".to_owned(), "https://169.254.169.254/".to_owned()] {
            let refused = ask(&closed, &url, Duration::from_secs(60)).await;
            assert!(!refused.is_transient(), "{refused:?}");
            let source = std::error::Error::source(&refused).unwrap().to_string();
            assert!(source.contains("which is not public"), "{source}");
            let told = refused.told();
            assert!(told.contains("which is not public") && told.contains("--allow-source"), "{told}");
        }
    }
}
