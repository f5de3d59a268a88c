//! `cooper purge` against a scripted registry, in which something is pushed between the list and the deletion.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use serde_json::{Value, json};

use super::Cooper;

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const TIME: &str = "2020-01-01T00:00:00.000001Z";

/// A registry of one repository with two old tags and two old manifests without one, of which the first each were pushed
/// again; and what it is asked to delete.
async fn registry() -> (String, Arc<Mutex<Vec<String>>>) {
    let [one, two] = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)));
    let tags = ["again", "old"].map(|name| json!({ "name": name, "digest": one, "lastUpdateTime": TIME }));
    let manifests =
        [&one, &two].map(|digest| json!({ "digest": digest, "mediaType": MEDIA_TYPE, "lastUpdateTime": TIME }));
    let info = json!({
        "version": "0", "registryName": "localhost:5000", "principal": "dev", "scopes": ["repository:*:delete"],
        "imageAliases": {},
    });
    let answer = |body: Value| get(async move || axum::Json(body));
    let tags = Arc::new(Mutex::new(Some(json!({ "tags": tags }))));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let deleted = Arc::clone(&asked);
    let router = Router::new()
        .route("/api/v1/info", answer(info))
        .route("/acr/v1/_catalog", answer(json!({ "repositories": ["app"] })))
        // Somebody else has deleted the tags before they are listed again.
        .route(
            "/acr/v1/app/_tags",
            get(async move || axum::Json(tags.lock().expect("lock").take().unwrap_or(json!({})))),
        )
        .route("/acr/v1/app/_manifests", answer(json!({ "manifests": manifests })))
        .route(
            "/v2/app/manifests/{reference}",
            delete(async move |uri: Uri, headers: HeaderMap| -> Response {
                let digest = headers.get(header::IF_MATCH).map(|value| value.to_str().expect("text").to_owned());
                deleted.lock().expect("lock").push(format!("{uri} {}", digest.unwrap_or_default()));
                if !uri.path().ends_with("/again") && !uri.path().ends_with('1') {
                    return StatusCode::ACCEPTED.into_response();
                }
                let error = json!({ "code": "DENIED", "message": "it was pushed again meanwhile" });
                (StatusCode::PRECONDITION_FAILED, axum::Json(json!({ "errors": [error] }))).into_response()
            }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

#[tokio::test]
async fn what_was_pushed_again_is_kept_and_the_rest_goes() {
    let (url, asked) = registry().await;
    let cooper = Cooper::new();
    let purge = ["purge", "--server", &url, "--filter", "app:.*", "--ago", "1d", "--untagged", "--concurrency", "1"];
    let ended = cooper.command(purge).env("COOPER_TOKEN", "hunter2").output().await.expect("the binary runs");
    let ended = super::Ended::new(ended);
    ended.succeeds();
    let [one, two] = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)));
    for line in [
        "Kept: localhost:5000/app:again: it was pushed again meanwhile",
        "Deleted: localhost:5000/app:old",
        &format!("Kept: localhost:5000/app@{one}: it was pushed again meanwhile"),
        &format!("Deleted: localhost:5000/app@{two}"),
        "Number of deleted tags: 1",
        "Number of deleted manifests: 1",
    ] {
        assert!(ended.stdout.lines().any(|said| said == line), "`{line}` is not said\n{ended:#?}");
    }
    let tag = |tag: &str| format!("/v2/app/manifests/{tag}?updated={TIME} \"{one}\"");
    let manifest = |digest: &str| format!("/v2/app/manifests/{digest}?untagged=true&updated={TIME} ");
    let mut asked = asked.lock().expect("lock").clone();
    asked.sort();
    let mut expected = [tag("again"), tag("old"), manifest(&one), manifest(&two)];
    expected.sort();
    assert_eq!(asked, expected, "each with the time that it was listed with");
}
