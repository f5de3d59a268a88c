//! Providers against a real store and a real HTTP server that speaks the part of Vault's API that is used. Vault itself is
//! in no package registry that tests may use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use cooper_ports::credentials::UsableBy;
use cooper_ports::secrets::PutSecret;
use cooper_types::{Scope, Scopes, SecretBytes};
use tempfile::TempDir;

use super::*;
use crate::core::Core;
use crate::problem::chain;
use crate::settings::{VaultAddress, VaultSettings};
use crate::testing;

const TOKEN: &str = "hvs.right";

fn asker(name: &str, scopes: &[&str]) -> Asker {
    let scopes = Scopes(scopes.iter().map(|text| Scope::parse(text).expect(text)).collect());
    Asker { principal: testing::principal(name), scopes }
}

fn wanted(places: &[&str]) -> Vec<Wanted> {
    let wanted = places.iter().enumerate();
    wanted.map(|(number, place)| Wanted { id: format!("s{number}"), place: (*place).to_owned() }).collect()
}

fn text(value: &str) -> SecretString {
    SecretString::new(value.to_owned())
}

/// Secrets over a store, with these settings.
struct Fixture {
    core: Arc<Core>,
    _data: TempDir,
    secrets: Secrets,
}

impl Fixture {
    async fn new(settings: SecretSettings) -> Self {
        let (core, data) = testing::core().await;
        let secrets = Secrets::open(&settings, core.secret_store.clone(), core.key.clone()).expect("opened");
        Self { core, _data: data, secrets }
    }

    async fn put(&self, name: &str, value: &str, usable_by: UsableBy) {
        let name = SecretName::parse(name).expect("valid");
        let sealed = self.core.key.seal(&secret_purpose(&name), &SecretBytes::new(value.as_bytes().to_vec()));
        let (sealed, usable_by) = (Some(sealed), Some(usable_by));
        let put = PutSecret { name, sealed, usable_by, set_by: testing::principal("boss") };
        self.core.secret_store.put_secret(put).await.expect("kept");
    }

    async fn had(&self, asker: &Asker, places: &[&str]) -> Vec<String> {
        let found =
            self.secrets.resolve(asker, &wanted(places)).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        found.iter().map(|one| format!("{} {} {}", one.id, one.value.expose(), one.place)).collect()
    }

    async fn refused(&self, asker: &Asker, place: &str, words: &[&str]) -> ResolveError {
        let error = self.secrets.resolve(asker, &wanted(&[place])).await.expect_err(place);
        let message = chain(&error);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!message.contains("hunter") && !message.contains(TOKEN), "{message}");
        error
    }
}

#[tokio::test]
async fn stored_secrets_and_variables_are_for_whom_they_are_for() {
    let principals = SecretUsers::Principals([testing::principal("alice")].into());
    let variables = [("CI_NPM_TOKEN".to_owned(), text("hunter-ci"))].into();
    let settings = SecretSettings {
        environment: [
            ("ONE".to_owned(), (Some(text("hunter-one")), principals.clone())),
            ("ADMINS".to_owned(), (Some(text("hunter-admins")), SecretUsers::Admins)),
            ("GONE".to_owned(), (None, SecretUsers::Everybody)),
        ]
        .into(),
        vaults: [
            ("mine.vault.azure.net".to_owned(), (VaultTarget::Store, SecretUsers::Admins)),
            (
                "ci".to_owned(),
                (VaultTarget::Environment { prefix: "CI_".to_owned(), variables }, SecretUsers::Everybody),
            ),
        ]
        .into(),
        ..SecretSettings::default()
    };
    let fixture = Fixture::new(settings).await;
    for value in ["hunter1", "hunter2"] {
        fixture.put("npm", value, UsableBy::Principals([testing::principal("alice")].into())).await;
    }
    let (alice, bob, boss) = (asker("alice", &["run"]), asker("bob", &["run"]), asker("boss", &["admin"]));

    let places = [
        "cooper://npm",
        "cooper://npm/1",
        "https://Mine.vault.azure.net/secrets/NPM",
        "env://ONE",
        "https://ci/secrets/npm-token",
    ];
    assert_eq!(
        fixture.had(&alice, &places).await,
        [
            "s0 hunter2 cooper://npm/2",
            "s1 hunter1 cooper://npm/1",
            "s2 hunter2 https://mine.vault.azure.net/secrets/npm/2",
            "s3 hunter-one env://ONE",
            "s4 hunter-ci https://ci/secrets/npm-token",
        ]
    );
    let found = fixture.secrets.resolve(&alice, &wanted(&places)).await.expect("had");
    assert_eq!(found[2].version, ResolvedVersion::Kept("2".to_owned()));
    let ResolvedVersion::Fingerprint(print) = &found[3].version else { panic!("variables have no versions") };
    assert!(!print.contains("hunter") && print.len() == 16, "{print}");
    assert!(!format!("{found:?}").contains("hunter"));

    fixture.refused(&bob, "cooper://npm", &["`s0`", "cooper://npm", "cooper secret allow npm --principal bob"]).await;
    fixture.refused(&boss, "cooper://npm", &["may not use it"]).await;
    fixture.refused(&alice, "cooper://npm/7", &["no version 7", "cooper secret list"]).await;
    fixture.refused(&alice, "https://mine.vault.azure.net/secrets/npm/0abc", &["versions are numbers"]).await;
    fixture.refused(&bob, "env://ONE", &["bob", "--secret-env"]).await;
    fixture.refused(&alice, "env://ADMINS", &["--secret-env"]).await;
    assert_eq!(fixture.had(&boss, &["env://ADMINS"]).await, ["s0 hunter-admins env://ADMINS"]);
    fixture.refused(&boss, "env://PATH", &["--secret-env"]).await;
    fixture.refused(&bob, "env://GONE", &["GONE was not set"]).await;
    fixture.refused(&bob, "https://ci/secrets/other", &["CI_OTHER was not set"]).await;
    fixture.refused(&bob, "https://ci/secrets/npm-token/1", &["no versions"]).await;
    fixture.refused(&bob, "https://other/secrets/a", &["`other`", "--secret-vault other=store"]).await;
    fixture.refused(&bob, "s3://x", &["`s0`", "cooper://NAME"]).await;
    assert!(fixture.secrets.resolve(&bob, &[]).await.expect("nothing is wanted").is_empty());

    // Another key opens nothing, and the message says what to do.
    let data = tempfile::tempdir().expect("temp dir");
    let other = Arc::new(ServerKey::load_or_create(&data.path().join("key")).expect("key"));
    let strange = Secrets::open(&SecretSettings::default(), fixture.core.secret_store.clone(), other).expect("opened");
    let error = strange.resolve(&alice, &wanted(&["cooper://npm"])).await.expect_err("sealed");
    assert!(chain(&error).contains("sealed with another key"), "{}", chain(&error));
}

/// Requests as they were seen: the target, and the token.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// The API of Vault as far as it is used: two mounts, `kv` of version 2 and `old` of version 1.
async fn vault() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let answer = async move |request: Request| {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = header("authorization").strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let namespace = header("x-vault-namespace").to_owned();
        let target = request.uri().to_string();
        log.lock().expect("lock").push((target.clone(), token.clone()));
        if token != TOKEN || namespace != "team" {
            return (StatusCode::FORBIDDEN, r#"{"errors":["permission denied"]}"#.to_owned()).into_response();
        }
        let two =
            |data: &str, version: u32| format!(r#"{{"data":{{"data":{data},"metadata":{{"version":{version}}}}}}}"#);
        let (status, body) = match target.as_str() {
            "/v1/kv/data/ci/npm" => (200, two(r#"{"value":"hunter2","other":"x"}"#, 2)),
            "/v1/kv/data/ci/npm?version=1" => (200, two(r#"{"value":"hunter1"}"#, 1)),
            "/v1/kv/data/ci/npm?version=3" => (404, two("null", 3)),
            "/v1/kv/data/ci/single" => (200, two(r#"{"password":"hunter-single"}"#, 1)),
            "/v1/kv/data/ci/several" => (200, two(r#"{"a":"hunter","b":"hunter"}"#, 1)),
            "/v1/kv/data/ci/number" => (200, two(r#"{"value":42}"#, 1)),
            "/v1/kv/data/ci/html" => (200, "<hunter>".to_owned()),
            "/v1/kv/data/ci/large" => (200, format!(r#"{{"data":"{}"}}"#, "x".repeat(2 << 20))),
            "/v1/kv/data/ci/long" => (200, two(&format!(r#"{{"value":"{}"}}"#, "x".repeat(MAX_VALUE_BYTES + 1)), 1)),
            "/v1/kv/data/ci/sealed" => (503, r#"{"errors":["Vault is sealed"]}"#.to_owned()),
            "/v1/kv/data/ci/moved" => {
                let elsewhere = [("location", "http://127.0.0.1:9/v1/kv/data/ci/npm")];
                return (StatusCode::TEMPORARY_REDIRECT, elsewhere).into_response();
            }
            "/v1/old/npm" => (200, r#"{"data":{"value":"hunter-old"}}"#.to_owned()),
            _ => (404, r#"{"errors":[]}"#.to_owned()),
        };
        (StatusCode::from_u16(status).expect("a status"), body).into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (address, seen)
}

#[tokio::test]
async fn vault_is_read_in_both_forms_and_trusted_with_nothing_more() {
    let (address, seen) = vault().await;
    let data = tempfile::tempdir().expect("temp dir");
    let token_file = data.path().join("token");
    std::fs::write(&token_file, format!("{TOKEN}\n")).expect("written");
    let settings = |address: String| SecretSettings {
        vaults: BTreeMap::from([
            (
                "team.vault.azure.net".to_owned(),
                (VaultTarget::Kv2 { mount: "kv".to_owned(), path: vec!["ci".to_owned()] }, SecretUsers::Everybody),
            ),
            ("old".to_owned(), (VaultTarget::Kv1 { mount: "old".to_owned(), path: Vec::new() }, SecretUsers::Admins)),
        ]),
        vault: Some(VaultSettings {
            address: VaultAddress::parse(&address).expect("valid"),
            token_file: token_file.clone(),
            namespace: Some("team".to_owned()),
            ca_file: None,
        }),
        ..SecretSettings::default()
    };
    let fixture = Fixture::new(settings(format!("http://{address}/"))).await;
    let (alice, boss) = (asker("alice", &["run"]), asker("boss", &["admin"]));
    let at = |name: &str| format!("https://team.vault.azure.net/secrets/{name}");
    let (npm, first, single) = (at("npm"), at("npm/1"), at("single"));
    assert_eq!(
        fixture.had(&boss, &[&npm, &first, &single, "https://old/secrets/npm"]).await,
        [
            format!("s0 hunter2 {npm}/2"),
            format!("s1 hunter1 {first}"),
            format!("s2 hunter-single {single}/1"),
            "s3 hunter-old https://old/secrets/npm".to_owned(),
        ]
    );
    let asked = seen.lock().expect("lock").len();
    fixture.refused(&alice, "https://old/secrets/npm", &["alice", "--secret-vault"]).await;
    fixture.refused(&boss, "https://old/secrets/npm/1", &["no versions"]).await;
    fixture.refused(&boss, &at("npm/abc"), &["versions are numbers"]).await;
    assert_eq!(seen.lock().expect("lock").len(), asked, "nothing of these needs Vault");

    fixture
        .refused(&boss, &at("npm/3"), &["Vault at http://127.0.0.1", "version 3 of kv/data/ci/npm has been deleted"])
        .await;
    fixture.refused(&boss, &at("none"), &["there is no secret kv/data/ci/none"]).await;
    fixture.refused(&boss, &at("several"), &["2 fields", "`value`"]).await;
    fixture.refused(&boss, &at("number"), &["is not text"]).await;
    fixture.refused(&boss, &at("html"), &["not of the expected form"]).await;
    fixture.refused(&boss, &at("large"), &["larger than 1048576"]).await;
    fixture.refused(&boss, &at("long"), &["larger than 65536"]).await;
    let sealed = fixture.refused(&boss, &at("sealed"), &["can't be asked", "status 503"]).await;
    assert!(sealed.may_pass());
    let before = seen.lock().expect("lock").len();
    fixture.refused(&boss, &at("moved"), &["redirects to `127.0.0.1:9`", "name the new address"]).await;
    assert_eq!(seen.lock().expect("lock").len(), before + 1, "a redirect is not followed");

    // The token is read at each use; one that is wrong is not shown.
    std::fs::write(&token_file, "hunter-wrong-token").expect("written");
    fixture.refused(&boss, &npm, &["may not read kv/data/ci/npm", "policy"]).await;
    std::fs::write(&token_file, " \n").expect("written");
    fixture.refused(&boss, &npm, &["holds no token"]).await;
    std::fs::remove_file(&token_file).expect("removed");
    fixture.refused(&boss, &npm, &["token file", "can't be asked"]).await;
    std::fs::write(&token_file, TOKEN).expect("written");
    // A port that was free a moment ago: nobody listens.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let absent = Fixture::new(settings(format!("http://{free}"))).await;
    assert!(absent.refused(&boss, &npm, &["can't be asked", "refuses connections"]).await.may_pass());
}

/// A provider that answers when five ask at once, and one question never.
struct Slow {
    five: tokio::sync::Barrier,
    /// How many ask now, and at most.
    asking: Mutex<(usize, usize)>,
}

#[async_trait::async_trait]
impl SecretProvider for Slow {
    fn describe(&self) -> String {
        "a slow vault".to_owned()
    }

    async fn provide(&self, _: &Asker, name: &SecretName, _: Option<&str>) -> Result<ProvidedSecret, ProvideError> {
        let change = |by: isize| {
            let mut asking = self.asking.lock().expect("lock");
            asking.0 = asking.0.saturating_add_signed(by);
            asking.1 = asking.1.max(asking.0);
        };
        change(1);
        match name.as_str() {
            "never" => std::future::pending().await,
            _ => self.five.wait().await,
        };
        change(-1);
        Ok(ProvidedSecret { value: text("hunter2"), version: None })
    }
}

#[tokio::test]
async fn five_are_asked_for_at_a_time_and_none_for_ever() {
    let mut fixture = Fixture::new(SecretSettings::default()).await;
    assert_eq!(fixture.secrets.timeout, Duration::from_secs(120));
    let slow = Arc::new(Slow { five: tokio::sync::Barrier::new(5), asking: Mutex::default() });
    fixture.secrets.vaults.insert("v".to_owned(), Vault { provider: slow.clone(), users: None });
    let alice = asker("alice", &["run"]);
    assert_eq!(fixture.had(&alice, &["https://v/secrets/a"; 15]).await.len(), 15);
    assert_eq!(slow.asking.lock().expect("lock").1, 5);
    fixture.secrets.timeout = Duration::from_millis(20);
    let error = fixture.refused(&alice, "https://v/secrets/never", &["a slow vault", "did not come"]).await;
    assert!(error.may_pass());
}
