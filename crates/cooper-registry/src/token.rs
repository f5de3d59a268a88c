//! `/oauth2/token`: a credential in, a short-lived bearer token for what it allows of what was asked for out.
//!
//! Docker and its kin ask by GET with Basic; containerd and ACR's clients by POST with a form (the distribution
//! project's "Token Authentication" and "OAuth2").

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use cooper_types::{Access, RepositoryName, SecretString};
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::json;

use crate::error::OciError;
use crate::identity::{Identity, MAX_CREDENTIAL, log_in_first};
use crate::incoming::{self, Untaken};
use crate::query::Pairs;
use crate::service::RegistryService;
use crate::signing::{Grant, access};

/// How long a bearer token lasts. Clients come back with their credential by themselves.
const LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The longest form, in bytes: a credential and some scopes.
const MAX_FORM: usize = 64 * 1024;

/// The scope of the list of repositories.
pub(crate) const CATALOG: &str = "registry:catalog:*";

/// How many scopes a request may ask for. Docker asks for the repositories that it may mount from too.
const MAX_SCOPES: usize = 64;

/// What a token is asked for.
#[derive(Default)]
pub(crate) struct AskedFor {
    /// Accesses to repositories.
    pub(crate) grants: Vec<Grant>,
    /// The list of repositories.
    pub(crate) catalog: bool,
}

/// Answers a request for a token.
pub(crate) async fn token(service: &RegistryService, request: &Parts, body: Body) -> Result<Response, OciError> {
    let (identity, pairs) = match request.method {
        Method::GET => (service.identify_for_token(&request.headers).await?, Pairs::of(&request.uri)),
        Method::POST => {
            let form = incoming::whole(&request.headers, body, MAX_FORM).await.map_err(|untaken| match untaken {
                Untaken::TooLong => {
                    OciError::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "the form is too long")
                }
                Untaken::CutOff => OciError::bad_request("UNSUPPORTED", "the form was cut off"),
            })?;
            let form = Pairs::parse(&form);
            (from_form(service, &form).await?, form)
        }
        _ => return Err(OciError::method_not_allowed("GET, POST")),
    };
    let Some(identity) = identity else { return Err(unauthorized(service, "the user name or password is not valid")) };
    if identity.is_anonymous() && !service.options().anonymous_pull {
        return Err(unauthorized(service, log_in_first(&service.options().name)));
    }
    let asked = asked_for(&pairs)?;
    let now = service.parts().clock.now();
    let access_token = identity.exchange(asked, now.after(LIFETIME));
    // Clients are told less than the truth, so that a token does not end between their look at the clock and ours.
    let lifetime = access_token.expires.since(now).as_secs() * 4 / 5;
    let token = service.parts().key.mint_access(service.options().name.as_str(), &access_token, now);
    let token = token.expose();
    if token.len() + "Bearer ".len() > MAX_CREDENTIAL {
        // Handed out, it would be refused at each use.
        return Err(OciError::bad_request("UNSUPPORTED", "the scopes make too long a token; ask for fewer at once"));
    }
    // Two names for one thing: Docker's first protocol, and OAuth2. Without `issued_at` clients count from their own now,
    // which is right whatever their clock says.
    let answer = json!({ "token": token, "access_token": token, "expires_in": lifetime });
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

async fn from_form(service: &RegistryService, form: &Pairs) -> Result<Option<Identity>, OciError> {
    match form.get("grant_type") {
        Some("password") => {}
        Some(_) => return Err(OciError::bad_request("UNSUPPORTED", "grant_type must be `password`")),
        None => return Err(OciError::bad_request("UNSUPPORTED", "the form lacks grant_type")),
    }
    let (Some(username), Some(password)) = (form.get("username"), form.get("password")) else {
        return Err(OciError::bad_request("UNSUPPORTED", "the form lacks username or password"));
    };
    service.log_in(username, &SecretString::new(password.to_owned())).await
}

/// Reads `scope=repository:NAME:ACTIONS` and `scope=registry:catalog:*`, repeated or joined by spaces. What else may be
/// asked for is not granted.
fn asked_for(pairs: &Pairs) -> Result<AskedFor, OciError> {
    let scopes: Vec<&str> = pairs.all("scope").flat_map(str::split_whitespace).take(MAX_SCOPES + 1).collect();
    if scopes.len() > MAX_SCOPES {
        return Err(OciError::bad_request("UNSUPPORTED", format!("more than {MAX_SCOPES} scopes were asked for")));
    }
    let catalog = scopes.contains(&CATALOG);
    Ok(AskedFor { grants: scopes.into_iter().filter_map(grant).collect(), catalog })
}

fn grant(scope: &str) -> Option<Grant> {
    let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    let name = RepositoryName::parse(name).ok()?;
    let actions: BTreeSet<Access> = actions
        .split(',')
        .flat_map(|action| match action {
            "*" => vec![Access::Pull, Access::Push, Access::Delete],
            // ACR's clients ask for it to read tags and manifests.
            "metadata_read" => vec![Access::Pull],
            action => access(action).into_iter().collect(),
        })
        .collect();
    Some(Grant::new(name, actions))
}

fn unauthorized(service: &RegistryService, message: impl Into<String>) -> OciError {
    OciError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        .with_header(WWW_AUTHENTICATE, format!("Basic realm=\"{}\"", service.options().name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scopes_as_clients_write_them() {
        let asked = |text: &str| {
            let AskedFor { grants, catalog } = asked_for(&Pairs::parse(text.as_bytes())).expect(text);
            let show = |grant: Grant| {
                let actions: Vec<String> = grant.actions.iter().map(Access::to_string).collect();
                format!("{}={}", grant.name, actions.join("+"))
            };
            let grants = grants.into_iter().map(show).chain(catalog.then(|| "catalog".to_owned()));
            grants.collect::<Vec<_>>().join(" ")
        };
        for (text, expect) in [
            ("scope=repository:a/b:pull,push", "a/b=pull+push"),
            ("scope=repository%3Aa%3Apull&scope=repository:b:push,pull", "a=pull b=pull+push"),
            ("scope=repository:a:pull+repository:b:*", "a=pull b=pull+push+delete"),
            ("scope=repository:a:pull%20registry:catalog:*", "a=pull catalog"),
            ("scope=registry:catalog:pull", ""),
            ("scope=repository:A:pull&scope=repository::pull&scope=&scope=x", ""),
            ("scope=repository:a:metadata_read", "a=pull"),
            ("scope=repository:a:delete,metadata_read,metadata_write", "a=pull+delete"),
            ("", ""),
        ] {
            assert_eq!(asked(text), expect, "{text}");
        }
        let many = "scope=repository:a:pull&".repeat(MAX_SCOPES + 1);
        assert!(asked_for(&Pairs::parse(many.as_bytes())).is_err());
    }
}
