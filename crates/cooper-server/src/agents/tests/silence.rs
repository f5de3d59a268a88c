//! When an agent counts as silent: what it sent and the server has not read yet is no silence.

use std::time::Duration;

use async_trait::async_trait;
use cooper_ports::access::{AccessStore, CreateTokenError, NewToken, RevokeTokenError, Token};
use cooper_ports::store_error::StoreError;
use cooper_store::Store;
use cooper_types::PrincipalName;

use super::super::service::read_messages;
use super::*;

/// A store in which finding a token takes long.
struct Slow {
    store: Store,
    delay: Duration,
}

#[async_trait]
impl AccessStore for Slow {
    async fn ensure_principal(&self, name: &PrincipalName) -> Result<(), StoreError> {
        self.store.ensure_principal(name).await
    }

    async fn create_token(&self, token: NewToken) -> Result<Token, CreateTokenError> {
        self.store.create_token(token).await
    }

    async fn find_token(&self, id: &TokenId) -> Result<Option<Token>, StoreError> {
        tokio::time::sleep(self.delay).await;
        self.store.find_token(id).await
    }

    async fn list_tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.store.list_tokens().await
    }

    async fn tokens_of(&self, principal: &PrincipalName) -> Result<Vec<Token>, StoreError> {
        self.store.tokens_of(principal).await
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<Token, RevokeTokenError> {
        self.store.revoke_token(id).await
    }
}

#[tokio::test]
async fn an_agent_that_does_not_report_is_not_kept() {
    let fixture = Fixture::new().await;
    let token = token(&fixture.core, "builders", &["agent"]).await;
    let mut session = Session::new(fixture.core.clone(), agent_ref("one"), token_id(&token));
    for _ in 0..3 {
        session.watch(false).await.expect("still patient");
    }
    session.receive(to_server(ToServer::Holding(Vec::new()))).await.expect("heard");
    for _ in 0..3 {
        session.watch(false).await.expect("patient again");
    }
    assert_eq!(session.watch(false).await.expect_err("silent").code(), Code::DeadlineExceeded);
    session.receive(to_server(ToServer::Holding(Vec::new()))).await.expect("heard");
    fixture.core.access.store().revoke_token(&token_id(&token)).await.expect("revoked");
    assert_eq!(session.watch(false).await.expect_err("revoked").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn what_a_server_that_is_behind_has_not_read_is_no_silence() {
    let heartbeat = Duration::from_millis(10);
    let slow = |store| Arc::new(Slow { store, delay: 3 * heartbeat }) as Arc<dyn AccessStore>;
    let (core, _data) = testing::core_over(SpokenByServer::THIS, slow).await;
    let token = token(&core, "builders", &["agent"]).await;
    let mut session = Session::new(core, agent_ref("one"), token_id(&token));
    // Everything is there from the beginning, and to look takes as long as several looks are apart.
    let sent = futures::stream::iter((0..8).map(|_| Ok(to_server(ToServer::Holding(Vec::new())))));
    let ended = read_messages(&mut session, sent, heartbeat, &CancellationToken::new()).await;
    assert!(ended.is_none(), "{ended:?}");
}

#[tokio::test]
async fn messages_without_end_are_no_report() {
    let fixture = Fixture::new().await;
    let token = token(&fixture.core, "builders", &["agent"]).await;
    let mut session = Session::new(fixture.core.clone(), agent_ref("one"), token_id(&token));
    for _ in 0..24 {
        session.watch(true).await.expect("the server is behind");
    }
    assert_eq!(session.watch(true).await.expect_err("flooded").code(), Code::DeadlineExceeded);
}
