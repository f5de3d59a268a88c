//! The login service: credentials for the registries of base images, each only for its exact host.

use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use cooper_ports::engine::RegistryLogins;
use cooper_types::RegistryName;
use tonic::{Request, Response, Status};

/// The logins of one build.
pub(super) struct Logins(Arc<dyn RegistryLogins>);

impl Logins {
    pub(super) fn new(logins: Arc<dyn RegistryLogins>) -> Self {
        Self(logins)
    }
}

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        // The engine asks by the host that it connects to.
        let login = match RegistryName::parse(&request.into_inner().host) {
            Ok(registry) => self.0.login(&registry).await.map_err(|error| Status::unavailable(error.to_string()))?,
            Err(_) => None,
        };
        // No login is an empty one: the engine then goes on as nobody.
        let answer = login.map(|login| CredentialsResponse {
            username: login.username.clone(),
            secret: login.password.expose().to_owned(),
        });
        Ok(Response::new(answer.unwrap_or_default()))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("the engine fetches tokens itself"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the engine fetches tokens itself"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("the engine fetches tokens itself"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use cooper_ports::engine::RegistryCredential;
    use cooper_types::SecretString;

    #[tokio::test]
    async fn a_login_goes_to_its_own_host_only() {
        let login = |name: &str| RegistryCredential { username: name.into(), password: SecretString::new("p".into()) };
        let hosts = ["docker.io", "r.io:5000"];
        let known: BTreeMap<_, _> =
            hosts.iter().map(|host| (RegistryName::parse(host).expect("a registry"), login(host))).collect();
        let logins = Logins::new(Arc::new(known));
        let check = async |host: &str, expect: &str| {
            let request = Request::new(CredentialsRequest { host: host.into() });
            let answer = logins.credentials(request).await.expect("an answer").into_inner();
            assert_eq!(answer.username, expect, "{host}");
            assert_eq!(answer.secret.is_empty(), expect.is_empty(), "{host}");
        };
        check("registry-1.docker.io", "docker.io").await;
        check("r.io:5000", "r.io:5000").await;
        for other in ["r.io", "evil.r.io:5000", "", "r.io:5000/", "\0"] {
            check(other, "").await;
        }
    }
}
