//! Where hooks are said to be.

use super::*;

#[tokio::test]
async fn a_hook_is_shown_where_the_server_is_reached_from_outside() {
    for public in [Some("https://ci.example/sub"), None] {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let (core, store) = testing::core_of(data.path(), clock.clone(), |parts, _| {
            parts.is_public = public.is_some();
            parts.public_url = public.unwrap_or("http://localhost:7070").to_owned();
        })
        .await;
        let admin = testing::token(&core, "root", &["admin"]).await.expose().to_owned();
        let mut world = World::over(core, store, clock, data).await;
        let expect = |path: &str| public.map(|public| format!("{public}{path}"));
        let hook = world.task("nightly", REPOSITORY, json!({})).await;
        let shown = world.hooks("nightly").await.value.remove(0).hook;
        assert_eq!(shown.path, format!("/hooks/{}", hook.id));
        assert_eq!(shown.url, expect(&shown.path));
        world.token = admin;
        let (status, text) = world.call("GET", "/api/v1/registry-hook", None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let shown: RegistryHookView = serde_json::from_str(&text).expect("a hook");
        assert_eq!(shown.url, expect(&shown.path));
    }
}
