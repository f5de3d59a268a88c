//! Each form of signature: made by others' tools and published examples, altered, doubled, missing, late.

use super::*;

const BODY: &[u8] = br#"{"ref":"refs/heads/main"}"#;
/// `printf %s BODY | openssl dgst -sha256 -hmac 's3cret'`.
const DIGITS: &str = "232a5e067b6a5aa567ed5a1d21a0dffaf6ef0eeecb6bd9bcf43b3d5ef3fc4f43";

fn secrets(texts: &[&str]) -> Vec<SecretBytes> {
    texts.iter().map(|text| SecretBytes::new(text.as_bytes().to_vec())).collect()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    map
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn check(provider: Provider, pairs: &[(&str, &str)], body: &[u8]) -> Result<(), Unsigned> {
    verify(provider, &secrets(&["s3cret"]), &headers(pairs), body, at(1_700_000_000))
}

#[test]
fn digits_over_the_body_are_githubs_giteas_and_bitbuckets() {
    let hub = format!("sha256={DIGITS}");
    let upper = format!("sha256={}", DIGITS.to_uppercase());
    for (provider, header, value) in [
        (Provider::GitHub, "X-Hub-Signature-256", &hub),
        (Provider::GitHub, "x-hub-signature-256", &upper),
        (Provider::Gitea, "X-Gitea-Signature", &DIGITS.to_owned()),
        (Provider::Gitea, "X-Forgejo-Signature", &DIGITS.to_owned()),
        (Provider::Gitea, "X-Hub-Signature-256", &hub),
        (Provider::BitbucketCloud, "X-Hub-Signature", &hub),
        (Provider::BitbucketServer, "X-Hub-Signature", &hub),
    ] {
        assert_eq!(check(provider, &[(header, value)], BODY), Ok(()), "{provider} {header}");
        let altered = check(provider, &[(header, value)], br#"{"ref":"refs/heads/mian"}"#);
        assert!(matches!(altered, Err(Unsigned::Mismatch { .. })), "{provider} {header}");
        let doubled = check(provider, &[(header, value), (header, value)], BODY);
        assert!(matches!(doubled, Err(Unsigned::Doubled { .. })), "{provider} {header}");
        for broken in [&value[..value.len() - 1], "", "sha256=", "sha1=0123", &value.replace('4', "x")] {
            let broken = check(provider, &[(header, broken)], BODY);
            assert!(matches!(broken, Err(Unsigned::Malformed { .. })), "{provider} {header}: {broken:?}");
        }
        assert!(matches!(check(provider, &[], BODY), Err(Unsigned::Missing { .. })));
        let others = verify(provider, &secrets(&["other", ""]), &headers(&[(header, value)]), BODY, at(0));
        assert!(matches!(others, Err(Unsigned::Mismatch { .. })));
        let rotated = verify(provider, &secrets(&["new", "s3cret"]), &headers(&[(header, value)]), BODY, at(0));
        assert_eq!(rotated, Ok(()));
        for none in [&[][..], &[""]] {
            let none = verify(provider, &secrets(none), &headers(&[(header, value)]), BODY, at(0));
            assert_eq!(none, Err(Unsigned::NoSecret));
        }
    }
}

#[test]
fn githubs_published_example_holds() {
    // From GitHub's page on validating webhook deliveries.
    let pairs = [("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")];
    let secrets = secrets(&["It's a Secret to Everybody"]);
    assert_eq!(verify(Provider::GitHub, &secrets, &headers(&pairs), b"Hello, World!", at(0)), Ok(()));
}

#[test]
fn sha1_alone_is_not_enough_for_github() {
    let pairs = [("X-Hub-Signature", "sha1=0000000000000000000000000000000000000000")];
    assert_eq!(check(Provider::GitHub, &pairs, BODY), Err(Unsigned::Missing { header: "X-Hub-Signature-256" }));
}

#[test]
fn a_wrong_header_is_not_made_good_by_another() {
    let wrong = "0".repeat(64);
    for pairs in [
        [("X-Forgejo-Signature", wrong.as_str()), ("X-Gitea-Signature", DIGITS)],
        [("X-Gitea-Signature", wrong.as_str()), ("X-Hub-Signature-256", DIGITS)],
    ] {
        assert!(matches!(check(Provider::Gitea, &pairs, BODY), Err(Unsigned::Mismatch { .. })));
    }
}

#[test]
fn gitlabs_token_is_the_secret() {
    assert_eq!(check(Provider::GitLab, &[("x-gitlab-token", "s3cret")], BODY), Ok(()));
    for (pairs, expect) in [
        (&[("X-Gitlab-Token", "s3cre")][..], Unsigned::Mismatch { header: "X-Gitlab-Token" }),
        (&[("X-Gitlab-Token", "s3crets")], Unsigned::Mismatch { header: "X-Gitlab-Token" }),
        (&[("X-Gitlab-Token", "")], Unsigned::Mismatch { header: "X-Gitlab-Token" }),
        (&[], Unsigned::Missing { header: "X-Gitlab-Token" }),
        (&[("X-Gitlab-Token", "s3cret"), ("X-Gitlab-Token", "x")], Unsigned::Doubled { header: "X-Gitlab-Token" }),
    ] {
        assert_eq!(check(Provider::GitLab, pairs, BODY), Err(expect));
    }
}

#[test]
fn what_gitlab_signs_with_a_token_of_its_own_takes_nothing_from_the_secret_token() {
    let signed = [("webhook-signature", "v1,AAAA"), ("webhook-id", "1"), ("webhook-timestamp", "1700000000")];
    let beside = |token: Option<&'static str>| {
        let token = token.map(|token| ("X-Gitlab-Token", token));
        signed.into_iter().chain(token).collect::<Vec<_>>()
    };
    let missing = Unsigned::Missing { header: "X-Gitlab-Token" };
    let wrong = Unsigned::Mismatch { header: "X-Gitlab-Token" };
    for (token, expect) in [(Some("s3cret"), Ok(())), (Some("guessed"), Err(wrong)), (None, Err(missing))] {
        let pairs = beside(token);
        assert_eq!(check(Provider::GitLab, &pairs, BODY), expect);
        let head = verify_head(Provider::GitLab, &secrets(&["s3cret"]), &headers(&pairs), at(1_700_000_000));
        assert_eq!(head, expect, "before the body is read");
    }
    // One that can sign, beside one that it replaced: either way will do, and the body is needed to know.
    let both = secrets(&["s3cret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let ask = |token| verify(Provider::GitLab, &both, &headers(&beside(token)), BODY, at(1_700_000_000));
    assert_eq!(ask(Some("s3cret")), Ok(()));
    assert_eq!(ask(Some("guessed")), Err(Unsigned::Mismatch { header: "webhook-signature" }));
    assert_eq!(verify_head(Provider::GitLab, &both, &headers(&beside(None)), at(1_700_000_000)), Ok(()));
}

#[test]
fn gitlabs_signing_token_follows_standard_webhooks() {
    // The example of the Standard Webhooks specification's libraries.
    let secrets = secrets(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    let body = br#"{"test": 2432232314}"#;
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let both = format!("v2,x {signature}");
    let ask = |signature: &str, id: &str, time: &str, now: i64| {
        let pairs = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        verify(Provider::GitLab, &secrets, &headers(&pairs), body, at(now))
    };
    let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
    for now in [1_614_265_330, 1_614_265_630, 1_614_265_030] {
        assert_eq!(ask(signature, id, time, now), Ok(()));
        assert_eq!(ask(&both, id, time, now), Ok(()));
    }
    let stale = Err(Unsigned::Stale { header: "webhook-timestamp" });
    assert_eq!(ask(signature, id, time, 1_614_265_631), stale);
    assert_eq!(ask(signature, id, time, 1_614_265_029), stale);
    let mismatch = Err(Unsigned::Mismatch { header: "webhook-signature" });
    assert_eq!(ask(signature, "msg_other", time, 1_614_265_330), mismatch);
    assert_eq!(ask(signature, id, "1614265331", 1_614_265_330), mismatch);
    assert!(matches!(ask(signature, id, "-5", 0), Err(Unsigned::Malformed { header: "webhook-timestamp", .. })));
    assert!(matches!(ask("v1,§", id, time, 0), Err(Unsigned::Malformed { .. })));
    assert!(matches!(ask("v2,AAAA", id, time, 0), Err(Unsigned::Malformed { .. })));
}

#[test]
fn azures_password_is_the_secret() {
    use base64::Engine as _;
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    for pair in ["cooper:s3cret", ":s3cret", "any one:s3cret"] {
        assert_eq!(check(Provider::AzureDevops, &[("Authorization", &basic(pair))], BODY), Ok(()), "{pair}");
    }
    for pair in ["cooper:s3cret ", "s3cret:cooper", "cooper:", "cooper:x:s3cret"] {
        let found = check(Provider::AzureDevops, &[("Authorization", &basic(pair))], BODY);
        assert_eq!(found, Err(Unsigned::Mismatch { header: "Authorization" }), "{pair}");
    }
    for value in ["s3cret", "Bearer s3cret", "Basic s3cret!", &basic("s3cret")] {
        let found = check(Provider::AzureDevops, &[("Authorization", value)], BODY);
        assert!(matches!(found, Err(Unsigned::Malformed { .. })), "{value}");
    }
}

#[test]
fn what_can_not_be_signed_is_refused_before_its_body() {
    use base64::Engine as _;
    let hub = format!("sha256={DIGITS}");
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let (right, wrong) = (basic("any:s3cret"), basic("any:guessed"));
    let ask = |provider, pairs: &[(&str, &str)]| {
        verify_head(provider, &secrets(&["s3cret"]), &headers(pairs), at(1_700_000_000))
    };
    for (provider, pairs) in [
        (Provider::GitHub, &[("X-Hub-Signature-256", hub.as_str())][..]),
        (Provider::Gitea, &[("X-Gitea-Signature", DIGITS)]),
        (Provider::GitLab, &[("X-Gitlab-Token", "s3cret")]),
        (Provider::AzureDevops, &[("Authorization", right.as_str())]),
    ] {
        assert_eq!(ask(provider, pairs), Ok(()), "{provider}");
    }
    for provider in Provider::ALL {
        assert!(matches!(ask(provider, &[]), Err(Unsigned::Missing { .. })), "{provider}");
    }
    assert!(matches!(ask(Provider::GitHub, &[("X-Hub-Signature-256", "sha256=1")]), Err(Unsigned::Malformed { .. })));
    // Where the secret is sent, nothing else is needed to know.
    assert!(matches!(ask(Provider::GitLab, &[("X-Gitlab-Token", "guessed")]), Err(Unsigned::Mismatch { .. })));
    assert!(matches!(ask(Provider::AzureDevops, &[("Authorization", &wrong)]), Err(Unsigned::Mismatch { .. })));
    let no_secret = verify_head(Provider::GitHub, &[], &headers(&[("X-Hub-Signature-256", &hub)]), at(0));
    assert_eq!(no_secret, Err(Unsigned::NoSecret));
}

#[test]
fn no_message_tells_a_secret() {
    for pairs in [&[("X-Gitlab-Token", "wr0ng")][..], &[], &[("X-Gitlab-Token", "wr0ng"), ("X-Gitlab-Token", "wr0ng")]]
    {
        let said = check(Provider::GitLab, pairs, BODY).unwrap_err();
        assert!(!format!("{said} {said:?}").contains("wr0ng") && !said.to_string().contains("s3cret"));
    }
}

proptest::proptest! {
    #[test]
    fn whatever_comes_unsigned_is_refused(
        which in 0..Provider::ALL.len(),
        values in proptest::collection::vec("[ -~]{0,80}", 8),
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
    ) {
        let names = [
            "X-Hub-Signature-256", "X-Hub-Signature", "X-Gitea-Signature", "X-Gitlab-Token", "Authorization", "Cooper-Signature",
            "Cooper-Timestamp", "webhook-timestamp",
        ];
        let pairs: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        proptest::prop_assert!(check(Provider::ALL[which], &pairs, &body).is_err());
    }

    #[test]
    fn what_is_signed_is_believed_and_nothing_beside_it(
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..200),
        secret in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..100),
        at in proptest::prelude::any::<proptest::sample::Index>(),
    ) {
        use hmac::Mac as _;
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.update(&body);
        let digits = format!("sha256={:x}", mac.finalize().into_bytes());
        let headers = headers(&[("X-Hub-Signature-256", &digits)]);
        let mut secrets = vec![SecretBytes::new(b"another".to_vec()), SecretBytes::new(secret)];
        proptest::prop_assert_eq!(verify(Provider::GitHub, &secrets, &headers, &body, at_zero()), Ok(()));
        let mut other = body.clone();
        let index = at.index(other.len());
        other[index] ^= 1;
        proptest::prop_assert!(verify(Provider::GitHub, &secrets, &headers, &other, at_zero()).is_err());
        secrets.pop();
        proptest::prop_assert!(verify(Provider::GitHub, &secrets, &headers, &body, at_zero()).is_err());
    }
}

fn at_zero() -> Timestamp {
    at(0)
}
