//! The secrets service: values for `RUN --mount=type=secret`, each only by its exact id.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use cooper_types::SecretBytes;
use tonic::{Request, Response, Status};

/// The secrets of one build.
pub(super) struct BuildSecrets(BTreeMap<String, SecretBytes>);

impl BuildSecrets {
    pub(super) fn new(secrets: BTreeMap<String, SecretBytes>) -> Self {
        Self(secrets)
    }
}

#[tonic::async_trait]
impl Secrets for BuildSecrets {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.get(&id) {
            Some(secret) => Ok(Response::new(GetSecretResponse { data: secret.expose().to_vec() })),
            // The engine turns this status into a mount that is left out, or into an error where it is required.
            None => Err(Status::not_found(format!("secret {id} not found"))),
        }
    }
}
