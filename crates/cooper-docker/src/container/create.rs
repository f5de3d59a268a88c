//! The creation of a container, steps' and helpers' alike, past what an engine can't do in one moment and can in the next.

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptions;

/// What containerd says where layers that it has just unpacked were taken away by the end of another image. It ends in
/// `not found`, and yet no image is missing.
pub(crate) const LOST_SNAPSHOT: &str = "parent snapshot ";
/// An engine that goes on losing what it has unpacked has another fault.
const TRIES: usize = 4;

/// Creates it; its id.
///
/// Docker Engine with containerd's image store makes sure that the image is unpacked, then mounts what it unpacked. In
/// between, the end of another image with the same layers may take that away: `parent snapshot sha256:… does not exist: not
/// found`. Asked again, the engine unpacks the image anew.
pub(crate) async fn create(
    docker: &Docker,
    options: CreateContainerOptions,
    body: ContainerCreateBody,
) -> Result<String, Error> {
    let mut tries = 1;
    loop {
        match docker.create_container(Some(options.clone()), body.clone()).await {
            Ok(created) => return Ok(created.id),
            Err(Error::DockerResponseServerError { message, .. })
                if tries < TRIES && message.contains(LOST_SNAPSHOT) =>
            {
                tracing::debug!(message, tries, "the engine lost what it had unpacked of the image");
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bollard::query_parameters::CreateContainerOptionsBuilder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a creation on an engine that fails so often, and how often it was asked.
    async fn created(fails: usize, message: &'static str) -> (Result<String, String>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let engine = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    stream.read_buf(&mut request).await.expect("a request");
                }
                let (status, body) = match count.fetch_add(1, Ordering::Relaxed) < fails {
                    true => ("404 Not Found", format!("{{\"message\":\"{message}\"}}")),
                    false => ("201 Created", "{\"Id\":\"c0ffee\",\"Warnings\":[]}".to_owned()),
                };
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n");
                let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.expect("it is heard");
            }
        });
        let docker = Docker::connect_with_http(&address, 60, bollard::API_DEFAULT_VERSION).expect("an address");
        let options = CreateContainerOptionsBuilder::default().name("x").build();
        let result = create(&docker, options, ContainerCreateBody::default()).await;
        engine.abort();
        (result.map_err(|error| error.to_string()), asked.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn an_engine_that_lost_what_it_unpacked_is_asked_again() {
        let lost = "parent snapshot sha256:7a does not exist: not found";
        assert_eq!(created(1, lost).await, (Ok("c0ffee".into()), 2));
        let (result, asked) = created(100, lost).await;
        assert!(result.expect_err("it stays lost").contains(lost));
        assert_eq!(asked, TRIES);
        let (result, asked) = created(1, "No such image: x").await;
        assert!(result.is_err());
        assert_eq!(asked, 1);
    }
}
