//! The page that a commit's status links to.

use super::*;
use crate::api::run_page;

#[tokio::test]
async fn a_runs_page_is_shown_without_a_token_to_whoever_has_its_link() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "d1", "<script>alert(1)</script>", 'a'));
    world.take(&hook, &headers, &body).await;
    world.pass().await;
    let run = world.runs().await.remove(0).id;
    let open = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = world.router.clone().oneshot(request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (head, String::from_utf8(bytes.to_vec()).expect("text"))
    };
    let path = run_page::path(&world.core.key, run);
    let (head, page) = open(&path).await;
    assert_eq!(head.status, StatusCode::OK, "{page}");
    assert_eq!(head.headers["content-type"], "text/html; charset=utf-8");
    for (name, value) in [("referrer-policy", "no-referrer"), ("cache-control", "no-store")] {
        assert_eq!(head.headers[name], value);
    }
    let policy = head.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script"), "{policy}");
    for said in [&*format!("Run {run} is queued"), "nightly", &*"a".repeat(40), "branch &lt;script&gt;alert"] {
        assert!(page.contains(said), "{said}: {page}");
    }
    // Neither whose it is, where it comes from, nor what it makes.
    for hidden in ["<script", "ann", "git.example", "app:", "Dockerfile"] {
        assert!(!page.contains(hidden), "{hidden}: {page}");
    }
    // Another run's link, none, and one that is cut or longer.
    let other = run_page::path(&world.core.key, RunId::from_number(77));
    let key = other.rsplit_once('/').expect("a path").1;
    for path in [format!("/runs/{run}/{key}"), other.clone(), format!("/runs/{run}/"), format!("{path}0")] {
        let (head, page) = open(&path).await;
        assert_eq!(head.status, StatusCode::NOT_FOUND, "{path}: {page}");
    }
    // A run that nobody's commit has set off is no forge's business.
    let quick = testing::accept_git(&world.core).await;
    assert_eq!(open(&run_page::path(&world.core.key, quick)).await.0.status, StatusCode::NOT_FOUND);
}
