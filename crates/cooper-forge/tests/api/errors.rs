//! What forges refuse: each refusal says what to do, and none shows the token.

use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_forge::api::{ForgeError, NewHook, RetryAt, StatusState};
use cooper_types::{SecretBytes, Timestamp};
use serde_json::json;

use super::forge::{FakeForge, Said};
use super::{PLACES, SHA, status};

/// The error of setting a status where the forge says this, with its causes.
async fn refused(provider: Provider, place: &str, said: Said) -> (ForgeError, String) {
    let server = FakeForge::start(move |_| said.clone()).await;
    let api = server.api(provider, place);
    let error = api.set_status(&CommitId::parse(SHA).unwrap(), &status(StatusState::Success)).await.unwrap_err();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    assert!(!text.contains("t0ken") && !format!("{error:?}").contains("t0ken"), "{text}");
    let text = text.replace(&server.host(), "HOST");
    (error, text)
}

#[tokio::test]
async fn a_token_that_is_not_known_is_told_with_what_it_needs() {
    for (provider, place) in PLACES {
        let (error, text) = refused(provider, place, Said::json(401, &json!({"message": "Bad credentials"}))).await;
        assert!(matches!(error, ForgeError::Token { .. }) && !error.is_retryable(), "{provider}: {text}");
        assert!(
            text.starts_with("HOST does not take the token (401): it is wrong, expired or revoked; make one with ")
        );
    }
    let (_, text) = refused(Provider::GitHub, "acme/shop", Said::empty(401)).await;
    assert!(text.ends_with("make one with `repo:status`, or of a fine-grained token Commit statuses: write"), "{text}");
    // Azure DevOps answers with a page to sign in.
    let (error, _) = refused(Provider::AzureDevops, "acme/shop/_git/app", Said::text(203, "<html>")).await;
    assert!(matches!(error, ForgeError::Token { .. }));
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_again() {
    let said = json!({"message": "API rate limit exceeded for user ID 9."});
    let limited = Said::json(403, &said).with("x-ratelimit-remaining", "0").with("x-ratelimit-reset", "1777888800");
    let (error, text) = refused(Provider::GitHub, "acme/shop", limited).await;
    assert_eq!(text, "HOST takes no more requests with this token until 2026-05-04T10:00:00Z");
    let ForgeError::RateLimited { retry, .. } = &error else { panic!("{text}") };
    assert_eq!(*retry, RetryAt::At(Timestamp::from_micros(1_777_888_800_000_000)));
    assert!(error.is_retryable());
    // GitHub's secondary limit, and everybody else's.
    let secondary = Said::json(403, &json!({"message": "You have exceeded a secondary rate limit"}));
    let (_, text) = refused(Provider::GitHub, "acme/shop", secondary.clone().with("retry-after", "60")).await;
    assert_eq!(text, "HOST takes no more requests with this token for 60 s");
    let (_, text) = refused(Provider::GitHub, "acme/shop", secondary).await;
    assert_eq!(text, "HOST takes no more requests with this token for now");
    for (provider, place) in PLACES {
        let (error, _) = refused(provider, place, Said::text(429, "Retry later").with("retry-after", "7")).await;
        assert!(matches!(error, ForgeError::RateLimited { .. }), "{provider}");
    }
}

#[tokio::test]
async fn refusals_name_the_repository_and_what_to_do() {
    for (provider, place, said, expect) in [
        (
            Provider::GitHub,
            "acme/shop",
            Said::json(403, &json!({"message": "Resource not accessible by personal access token", "status": "403"})),
            "HOST does not let the token set a commit's status for acme/shop (403): Resource not accessible by personal access \
             token; it needs `repo:status`, or of a fine-grained token Commit statuses: write",
        ),
        (
            Provider::GitHub,
            "acme/shop",
            Said::json(404, &json!({"message": "Not Found"})),
            "HOST can't set a commit's status for acme/shop: it finds none that the token can see (404); check the URL, and \
             that the token has `repo:status`, or of a fine-grained token Commit statuses: write",
        ),
        (
            Provider::GitHub,
            "acme/shop",
            Said::json(
                422,
                &json!({"message": "Validation Failed", "errors": [{"message": "This SHA and context has reached the maximum"}]}),
            ),
            "HOST can't set a commit's status for acme/shop (status 422): Validation Failed; This SHA and context has reached \
             the maximum",
        ),
        (
            Provider::GitLab,
            "team/app",
            Said::json(403, &json!({"message": "403 Forbidden"})),
            "HOST does not let the token set a commit's status for team/app (403): 403 Forbidden; it needs the scope `api` and \
             the role Developer",
        ),
        (
            Provider::BitbucketCloud,
            "acme/shop",
            Said::json(400, &json!({"type": "error", "error": {"message": "Enter a valid URL."}})),
            "HOST can't set a commit's status for acme/shop (status 400): Enter a valid URL.",
        ),
        (
            Provider::BitbucketServer,
            "scm/SHOP/app",
            Said::json(
                400,
                &json!({"errors": [{"context": "url", "message": "The URL is wrong.", "exceptionName": null}]}),
            ),
            "HOST can't set a commit's status for SHOP/app (status 400): The URL is wrong.",
        ),
        (
            Provider::Gitea,
            "team/app",
            Said::text(502, "\n<html>\u{7}Bad Gateway</html>"),
            "HOST can't set a commit's status for team/app (status 502): <html>\\u{7}Bad Gateway</html>",
        ),
        (
            Provider::Gitea,
            "team/app",
            Said::text(200, "<html>"),
            "HOST answers what is not understood when asked to set a commit's status: expected value at line 1 column 1; is it \
             gitea?",
        ),
    ] {
        let (error, text) = refused(provider, place, said).await;
        assert_eq!(text, expect);
        assert_eq!(error.is_retryable(), text.contains("502"), "{text}");
    }
}

#[tokio::test]
async fn octocrab_can_not_read_what_is_no_answer_of_github() {
    let (_, text) = refused(Provider::GitHub, "acme/shop", Said::text(201, "<html>")).await;
    assert!(text.starts_with("HOST answers what is not understood when asked to set a commit's status: "), "{text}");
    assert!(text.ends_with("; is it github?") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_hook_that_is_there_already_is_told() {
    let said = json!({"message": "Validation Failed", "errors": [{"resource": "Hook", "code": "custom",
        "message": "Hook already exists on this repository"}]});
    let server = FakeForge::start(move |_| Said::json(422, &said)).await;
    let secret = SecretBytes::new(b"s3cret".to_vec());
    let url = "https://cooper.example/hooks/abc".to_owned();
    let hook = NewHook { url, secret, commits: true, tags: false, pull_requests: false };
    let error = server.api(Provider::GitHub, "acme/shop").create_hook(&hook).await.unwrap_err();
    assert!(matches!(error, ForgeError::Exists { .. }), "{error}");
    let expect = "has such a hook for acme/shop already: Validation Failed; Hook already exists on this repository; remove the \
                  old one or keep it";
    assert!(error.to_string().ends_with(expect), "{error}");
    assert_eq!(server.last().json()["events"], json!(["push"]));
}

#[tokio::test]
async fn no_request_goes_where_the_operator_has_not_allowed_it() {
    let server = FakeForge::start(|_| Said::empty(204)).await;
    for (provider, place) in PLACES {
        for allow in [&[][..], &["10.0.0.0/8"]] {
            let api = server.api_within(provider, place, allow);
            let error = api.hooks().await.unwrap_err();
            assert!(matches!(error, ForgeError::Outgoing { .. }) && !error.is_retryable(), "{provider}: {error:?}");
            let error = api.set_status(&CommitId::parse(SHA).unwrap(), &status(StatusState::Error)).await.unwrap_err();
            assert!(format!("{error:?}").contains("Refused"), "{provider}: {error:?}");
        }
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn redirects_lead_neither_a_status_nor_the_token_away() {
    let other = FakeForge::start(|_| Said::json(200, &json!([]))).await;
    let target = format!("http://{}/elsewhere", other.host());
    let server = FakeForge::start(move |_| Said::empty(307).with("location", &target)).await;
    for (provider, place) in PLACES {
        let api = server.api(provider, place);
        let error = api.set_status(&CommitId::parse(SHA).unwrap(), &status(StatusState::Error)).await.unwrap_err();
        assert!(matches!(error, ForgeError::Outgoing { .. }), "{provider}: {error}");
    }
    assert_eq!(other.count(), 0);
    // What only reads is followed, without the token.
    server.api(Provider::GitHub, "acme/shop").hooks().await.unwrap();
    assert_eq!(other.last().header("authorization"), "");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let server = FakeForge::start(|_| Said::text(200, &format!("[{}", " ".repeat(5 << 20)))).await;
    let error = server.api(Provider::GitHub, "acme/shop").hooks().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.ends_with("answers with more than 4194304 bytes"), "{source}");
}
