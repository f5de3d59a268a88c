//! The client as the port for requests of others than sources.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cooper_ports::outgoing::{Outgoing, OutgoingError, OutgoingRequest};
use http::{Method, Response};
use reqwest::Url;
use reqwest::header::AUTHORIZATION;

use super::{Egress, EgressError, EgressRequest, host_of};

fn unreachable(host: &str, error: EgressError) -> OutgoingError {
    OutgoingError::Unreachable { host: host.to_owned(), transient: error.is_transient(), source: error.into() }
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
