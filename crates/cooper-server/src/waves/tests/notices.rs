//! What the owner of a task sees of what its endpoint is told.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cooper_api::rest::{DeliveryStatus, NotificationKind, NotificationList};
use cooper_engine::task::TaskEndpoint;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::api::{ApiState, router};

impl World {
    async fn call(&self, method: &str, path: &str, token: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let router = router(ApiState { core: self.core.clone(), shutdown: CancellationToken::new() });
        let response = router.oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    async fn notifications(&self, token: &str) -> (String, NotificationList) {
        let (status, text) = self.call("GET", "/api/v1/tasks/watcher/notifications", token).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let list = serde_json::from_str(&text).expect("notifications");
        (text, list)
    }
}

#[tokio::test]
async fn an_owner_sees_what_the_endpoint_is_told_and_has_it_sent_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}/t0ken?sig=hunter2", listener.local_addr().expect("an address"));
    let answer = async || (StatusCode::SERVICE_UNAVAILABLE, "what only the server can read");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    let world = World::new().await;
    let base_image = BaseImageChange { endpoint: Some(Some(TaskEndpoint::Plain(uri))), ..follows(true) };
    world.make("watcher", base_image).await;
    let first = world.push("1", "one").await;
    world.run("watcher", "1", &first).await;
    world.push("1", "two").await;
    world.pass().await;
    let run = world.member_run(1, "watcher").await;

    let token = async |name: &str, scope: &str| testing::token(&world.core, name, &[scope]).await.expose().to_owned();
    let (reader, runner) = (token("ann", "read").await, token("ann", "run").await);
    let (text, list) = world.notifications(&reader).await;
    let [waiting] = &list.value[..] else { panic!("{text}") };
    assert_eq!((waiting.kind, waiting.run_id, waiting.attempts), (NotificationKind::UpdateTrigger, run, 0));
    let stop = CancellationToken::new();
    let sending = tokio::spawn(crate::outbox::run(world.core.clone(), stop.clone()));
    let tried = async {
        loop {
            let (text, list) = world.notifications(&reader).await;
            if list.value[0].last_attempt_time.is_some() {
                return (text, list);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (text, list) = tokio::time::timeout(Duration::from_secs(60), tried).await.expect("it is tried");
    stop.cancel();
    sending.await.expect("no panic");
    let one = &list.value[0];
    assert_eq!((one.status, one.attempts, one.last_status_code), (DeliveryStatus::Waiting, 1, Some(503)));
    assert!(one.next_attempt_time.is_some() && one.reason.is_none() && !one.redelivery, "{text}");
    for secret in ["hunter2", "t0ken", "only the server"] {
        assert!(!text.contains(secret), "{text}");
    }

    let redeliver = format!("/api/v1/tasks/watcher/notifications/{}/redeliver", one.id.as_ref().expect("an id"));
    assert_eq!(world.call("POST", &redeliver, &reader).await.0, StatusCode::FORBIDDEN);
    let (status, text) = world.call("POST", &redeliver, &runner).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let (text, list) = world.notifications(&runner).await;
    let again: Vec<_> = list.value.iter().map(|one| (one.redelivery, one.id.clone())).collect();
    assert_eq!(again, [(true, one.id.clone()), (false, one.id.clone())], "{text}");
    let unknown = "/api/v1/tasks/watcher/notifications/0f3c9f0e-7d3c-4f60-b0e5-5a8f4e1d2c3b/redeliver";
    let (status, text) = world.call("POST", unknown, &runner).await;
    assert!(status == StatusCode::NOT_FOUND && text.contains("`cooper task notifications watcher`"), "{text}");

    let other = token("bob", "run").await;
    for (method, path) in [("GET", "/api/v1/tasks/watcher/notifications"), ("POST", &redeliver)] {
        let (status, text) = world.call(method, path, &other).await;
        assert!(status == StatusCode::FORBIDDEN && text.contains("ann"), "{text}");
    }
    assert_eq!(world.notifications(&token("root", "admin").await).await.1, list);
}
