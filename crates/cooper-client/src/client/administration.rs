//! Tokens, agents, pools, credentials and secrets.

use cooper_api::rest::{
    AgentList, AgentView, CheckSecrets, CheckedSecrets, CreatePool, CreateToken, CreatedToken, CredentialList,
    CredentialView, DeletePoolQuery, DeleteSecretQuery, DrainAgent, PoolList, PoolView, SecretList, SecretView,
    SetCredential, SetSecret, TokenList,
};
use cooper_types::{AgentName, PoolName, SecretName, SourceHost, TokenId};
use reqwest::Method;

use super::Client;
use crate::ClientError;

impl Client {
    /// All agents, connected or not.
    pub async fn list_agents(&self) -> Result<AgentList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/agents")).await
    }

    /// An agent.
    pub async fn get_agent(&self, name: &AgentName) -> Result<AgentView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/agents/{name}"))).await
    }

    /// Has an agent be offered nothing new, or ends that.
    pub async fn drain_agent(&self, name: &AgentName, draining: bool) -> Result<AgentView, ClientError> {
        let call = self.http.request(Method::POST, &format!("/api/v1/agents/{name}/drain"));
        self.http.json(call.json(&DrainAgent { draining })).await
    }

    /// Forgets an agent, and returns what it was.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<AgentView, ClientError> {
        self.http.json(self.http.request(Method::DELETE, &format!("/api/v1/agents/{name}"))).await
    }

    /// All pools.
    pub async fn list_pools(&self) -> Result<PoolList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/pools")).await
    }

    /// Makes a pool.
    pub async fn create_pool(&self, request: &CreatePool) -> Result<PoolView, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/pools").json(request)).await
    }

    /// Deletes a pool, and returns what it was. With `force` its runs are cancelled and its agents removed.
    pub async fn delete_pool(&self, name: &PoolName, force: bool) -> Result<PoolView, ClientError> {
        let call = self.http.request(Method::DELETE, &format!("/api/v1/pools/{name}"));
        self.http.json(call.query(&DeletePoolQuery { force })).await
    }

    /// All tokens that still work.
    pub async fn list_tokens(&self) -> Result<TokenList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/tokens")).await
    }

    /// Makes a token: the answer is the only place that it is ever shown.
    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/tokens").json(request)).await
    }

    /// The hosts that there are credentials for.
    pub async fn list_credentials(&self) -> Result<CredentialList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/credentials")).await
    }

    /// Keeps a credential for a host, in place of its earlier one.
    pub async fn set_credential(
        &self,
        host: &SourceHost,
        request: &SetCredential,
    ) -> Result<CredentialView, ClientError> {
        self.http.json(self.http.request(Method::PUT, &format!("/api/v1/credentials/{host}")).json(request)).await
    }

    /// Forgets a host's credential.
    pub async fn delete_credential(&self, host: &SourceHost) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/credentials/{host}"))).await?;
        Ok(())
    }

    /// The secrets that are kept for tasks, without their values.
    pub async fn list_secrets(&self) -> Result<SecretList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/secrets")).await
    }

    /// Adds a version to a secret, or changes whose runs may use it.
    pub async fn set_secret(&self, name: &SecretName, request: &SetSecret) -> Result<SecretView, ClientError> {
        self.http.json(self.http.request(Method::PUT, &format!("/api/v1/secrets/{name}")).json(request)).await
    }

    /// Has secrets looked for as for a run of the caller's.
    pub async fn check_secrets(&self, places: Vec<String>) -> Result<CheckedSecrets, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/secret-checks").json(&CheckSecrets { places })).await
    }

    /// Forgets a secret, or one version of it.
    pub async fn delete_secret(&self, name: &SecretName, version: Option<u64>) -> Result<(), ClientError> {
        let query = DeleteSecretQuery { version };
        let path = format!("/api/v1/secrets/{name}");
        self.http.send(self.http.request(Method::DELETE, &path).query(&query)).await?;
        Ok(())
    }

    /// Makes a token stop working.
    pub async fn revoke_token(&self, token: &TokenId) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/tokens/{token}"))).await?;
        Ok(())
    }
}
