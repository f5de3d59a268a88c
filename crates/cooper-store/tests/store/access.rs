//! Conformance of the port for principals and tokens.

use std::time::Duration;

use cooper_ports::access::{AccessStore, CreateTokenError, NewToken, RevokeTokenError};
use cooper_ports::clock::Clock;
use cooper_types::{Digest, Scope, Scopes, TokenId};

use crate::fixture::{Fixture, principal};

fn token(id: &str) -> NewToken {
    NewToken {
        id: TokenId::parse(id).unwrap(),
        principal: principal("alice"),
        secret_hash: Digest::sha256(id.as_bytes()),
        scopes: Scopes(vec![Scope::Run, Scope::parse("repository:team/*:pull,push").unwrap()]),
        expires: None,
    }
}

#[tokio::test]
async fn a_token_is_found_as_it_was_made_and_survives_a_restart() {
    let mut fixture = Fixture::new().await;
    let expires = Some(fixture.clock.now().after(Duration::from_secs(60)));
    let made = fixture.store.create_token(NewToken { expires, ..token("t1") }).await.unwrap();
    assert_eq!(made.expires, expires);
    fixture.reopen().await;
    let found = fixture.store.find_token(&made.id).await.unwrap().unwrap();
    assert_eq!(found, made);
    assert!(found.is_active(fixture.clock.now()));
    fixture.clock.advance(Duration::from_secs(60));
    assert!(!found.is_active(fixture.clock.now()));
    assert_eq!(fixture.store.find_token(&TokenId::parse("t2").unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn an_id_is_given_once() {
    let fixture = Fixture::new().await;
    let first = fixture.store.create_token(token("t1")).await.unwrap();
    let second = NewToken { principal: principal("mallory"), scopes: Scopes(vec![Scope::Admin]), ..token("t1") };
    let refused = fixture.store.create_token(second).await.unwrap_err();
    assert!(matches!(refused, CreateTokenError::Taken(id) if id == first.id));
    assert_eq!(fixture.store.find_token(&first.id).await.unwrap(), Some(first));
    // The refused change took its principal with it.
    assert_eq!(fixture.count("SELECT count(*) FROM principals WHERE name = 'mallory'").await, 0);
}

#[tokio::test]
async fn revoking_is_final_and_keeps_its_first_time() {
    let fixture = Fixture::new().await;
    let id = fixture.store.create_token(token("t1")).await.unwrap().id;
    let revoked = fixture.store.revoke_token(&id).await.unwrap();
    assert_eq!(revoked.revoked, Some(fixture.clock.now()));
    assert!(!revoked.is_active(fixture.clock.now()));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.store.revoke_token(&id).await.unwrap(), revoked);
    let unknown = fixture.store.revoke_token(&TokenId::parse("t9").unwrap()).await.unwrap_err();
    assert!(matches!(unknown, RevokeTokenError::Unknown(_)));
}

#[tokio::test]
async fn tokens_are_listed_newest_first() {
    let fixture = Fixture::new().await;
    for id in ["t1", "t2", "t3"] {
        fixture.store.create_token(token(id)).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1));
    }
    fixture.store.revoke_token(&TokenId::parse("t2").unwrap()).await.unwrap();
    let ids: Vec<String> =
        fixture.store.list_tokens().await.unwrap().iter().map(|token| token.id.to_string()).collect();
    assert_eq!(ids, ["t3", "t2", "t1"]);
}

#[tokio::test]
async fn a_principal_is_made_once() {
    let fixture = Fixture::new().await;
    fixture.store.ensure_principal(&principal("admin")).await.unwrap();
    fixture.store.ensure_principal(&principal("admin")).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM principals").await, 1);
}
