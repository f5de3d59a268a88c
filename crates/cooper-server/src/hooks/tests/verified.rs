//! What is looked at first: whether a delivery is signed, before anything in it is read.

use super::*;

#[tokio::test]
async fn a_delivery_is_verified_before_it_is_parsed_and_then_has_to_be_one() {
    let world = World::new().await;
    // One is read beside the runtime, for its length.
    let rubbish: [&[u8]; 3] = [b"{\"ref\": ", b"\xff\xfe", &[b'['; 1 << 18]];
    let forges = [
        ("https://github.com/acme/shop.git", Provider::GitHub),
        ("https://gitlab.example/team/app.git", Provider::GitLab),
        ("http://git.example:3000/team/app.git", Provider::Gitea),
        ("https://bitbucket.org/acme/shop.git", Provider::BitbucketCloud),
        ("https://bitbucket.example/scm/shop/app.git", Provider::BitbucketServer),
        ("https://dev.azure.com/acme/My%20Shop/_git/app", Provider::AzureDevops),
        (REPOSITORY, Provider::Generic),
    ];
    for (context, provider) in forges {
        let name = provider.as_str();
        let hook = world.task(name, context, json!({"provider": name})).await;
        let guessed = Known { secret: "guessed".to_owned(), ..hook.clone() };
        let sent = if provider == Provider::BitbucketServer { "refs-changed" } else { "push" };
        let (unsigned, _) = fixture(&format!("{name}/{sent}"));
        for body in rubbish {
            let sign = |hook: &Known| signed(hook, unsigned.clone(), body, world.clock.now());
            for (headers, expect) in [
                (unsigned.clone(), (StatusCode::UNAUTHORIZED, "\"unsigned\"")),
                (sign(&guessed), (StatusCode::UNAUTHORIZED, "\"unsigned\"")),
                (sign(&hook), (StatusCode::BAD_REQUEST, "\"invalid-request\"")),
            ] {
                let (status, text) = world.deliver(&hook, &headers, body).await;
                assert_eq!((status, text.contains(expect.1)), (expect.0, true), "{name}: {text}");
                let is_told = text.contains(&format!("the {name} delivery is no JSON"));
                assert_eq!(is_told, status == StatusCode::BAD_REQUEST, "{name}: {text}");
            }
        }
        let hooks = world.hooks(name).await;
        assert_eq!((hooks.deliveries.len(), hooks.value[0].refused, hooks.value[0].kept), (0, 9, 0), "{name}");
    }
    let metrics = world.core.metrics.text(&[], 0);
    for (outcome, each) in [("unsigned", 6), ("unreadable", 3)] {
        let line = format!("cooper_hook_deliveries_total{{outcome=\"{outcome}\"}} {}\n", each * forges.len());
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}
