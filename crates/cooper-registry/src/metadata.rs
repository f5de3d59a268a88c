//! What the registry holds and since when, as Azure Container Registry's own API tells it: `/acr/v1/…`, with
//! `/v2/_catalog` beside it. Times are RFC 3339 in UTC.
//!
//! Everything may be deleted and written here, so the attributes that lock things in ACR say so always.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use cooper_ports::registry::{ManifestDetails, RepositoryDetails, TagDetails};
use cooper_types::{Access, Digest, RepositoryName, Tag};
use http::header::LINK;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::deletion::{self, Delete};
use crate::error::OciError;
use crate::identity::Identity;
use crate::own::OWN_REPOSITORY;
use crate::query::Pairs;
use crate::service::RegistryService;
use crate::token::CATALOG;

/// The most entries in an answer, and how many there are where the client names no number.
const MOST: u32 = 1000;
const USUAL: u32 = 100;

/// How many pages of repositories are looked through for those that the caller may see before the answer is cut.
const CATALOG_PAGES: u32 = 16;

/// What a path under `/acr/v1/` names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// `_catalog`
    Catalog,
    /// A repository.
    Repository(RepositoryName),
    /// `NAME/_tags`
    Tags(RepositoryName),
    /// `NAME/_tags/TAG`
    Tag(RepositoryName, Tag),
    /// `NAME/_manifests`
    Manifests(RepositoryName),
    /// `NAME/_manifests/DIGEST`
    Manifest(RepositoryName, Digest),
}

impl Named {
    /// Reads a raw path after `/acr/v1/`. No part of a repository's name begins with an underscore.
    fn parse(path: &str) -> Result<Self, OciError> {
        let decoded = path.split('/').map(|part| percent_decode_str(part).decode_utf8().ok());
        let parts = decoded.collect::<Option<Vec<_>>>().ok_or_else(OciError::not_found)?;
        let parts: Vec<&str> = parts.iter().map(|part| part.as_ref()).collect();
        let name = |parts: &[&str]| {
            RepositoryName::parse(&parts.join("/"))
                .map_err(|error| OciError::bad_request("NAME_INVALID", error.to_string()))
        };
        match parts.as_slice() {
            ["_catalog"] => Ok(Self::Catalog),
            [parts @ .., "_tags"] => Ok(Self::Tags(name(parts)?)),
            [parts @ .., "_manifests"] => Ok(Self::Manifests(name(parts)?)),
            [parts @ .., "_tags", tag] => {
                let tag = Tag::parse(tag).map_err(|error| OciError::bad_request("TAG_INVALID", error.to_string()))?;
                Ok(Self::Tag(name(parts)?, tag))
            }
            [parts @ .., "_manifests", digest] => Ok(Self::Manifest(name(parts)?, crate::route::parse_digest(digest)?)),
            parts => Ok(Self::Repository(name(parts)?)),
        }
    }

    fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Catalog => None,
            Self::Repository(name)
            | Self::Tags(name)
            | Self::Tag(name, _)
            | Self::Manifests(name)
            | Self::Manifest(name, _) => Some(name),
        }
    }
}

/// Answers a request under `/acr/v1/`.
pub(crate) async fn answer(service: &RegistryService, request: Parts) -> Result<Response, OciError> {
    let path = request.uri.path();
    let named = Named::parse(path.strip_prefix("/acr/v1/").ok_or_else(OciError::not_found)?)?;
    let identity = service.identify(&request).await?;
    let deletes = request.method == Method::DELETE;
    match named.repository() {
        Some(repository) => {
            let access = if deletes { Access::Delete } else { Access::Pull };
            service.authorize(&request, &identity, repository, access)?;
        }
        None => return catalog(service, &identity, &request).await,
    }
    match (request.method.clone(), named) {
        (Method::DELETE, Named::Tag(repository, tag)) => {
            let writer = identity.writer().ok_or_else(|| service.challenge(&request, None, None))?;
            let delete = Delete::new(&request, repository, writer)?;
            let key = cooper_ports::registry::ManifestKey::Tag(tag);
            service.detached(deletion::manifest(service.clone(), delete, key)).await
        }
        (Method::DELETE, Named::Repository(repository)) => {
            let writer = identity.writer().ok_or_else(|| service.challenge(&request, None, None))?;
            service.detached(deletion::repository(service.clone(), repository, writer)).await
        }
        (Method::DELETE, _) => Err(OciError::method_not_allowed("GET, HEAD")),
        (Method::GET | Method::HEAD, named) => read(service, &request, named).await,
        _ => Err(OciError::method_not_allowed("GET, HEAD, DELETE")),
    }
}

/// `GET /acr/v1/_catalog` and `GET /v2/_catalog`: the repositories that the caller may pull from.
pub(crate) async fn catalog(
    service: &RegistryService,
    identity: &Identity,
    request: &Parts,
) -> Result<Response, OciError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(OciError::method_not_allowed("GET, HEAD"));
    }
    let Some(listed) = identity.catalog() else {
        let reason = (!identity.is_anonymous()).then_some("insufficient_scope");
        return Err(service.challenge(request, Some(CATALOG), reason));
    };
    let page = Page::of(request)?;
    let (mut names, mut after, mut more) = (Vec::new(), page.last.clone(), true);
    for _ in 0..CATALOG_PAGES {
        let found = service.parts().store.repositories(after.as_deref(), MOST).await?;
        more = found.len() == MOST as usize;
        for name in found {
            if names.len() == page.count as usize {
                more = true;
                break;
            }
            after = Some(name.to_string());
            // The server's own is no content of anybody's.
            if name.as_str() != OWN_REPOSITORY && listed.iter().any(|pattern| pattern.covers(&name)) {
                names.push(name);
            }
        }
        if !more || names.len() == page.count as usize {
            break;
        }
    }
    let next = after.filter(|_| more);
    Ok(page.answer(request, json!({ "repositories": names }), next.as_deref()))
}

async fn read(service: &RegistryService, request: &Parts, named: Named) -> Result<Response, OciError> {
    let (store, registry) = (&service.parts().store, &service.options().name);
    let unknown = |code, what: String| Err(OciError::new(StatusCode::NOT_FOUND, code, what));
    match named {
        Named::Catalog => Err(OciError::not_found()),
        Named::Repository(name) => match store.repository_details(&name).await? {
            Some(details) => Ok(Json(repository_json(service, &details)).into_response()),
            None => unknown("NAME_UNKNOWN", format!("repository {name} is not known to the registry")),
        },
        Named::Tags(name) => {
            let page = Page::of(request)?;
            let mut tags = store.tag_details(&name, page.last.as_deref(), page.count + 1).await?;
            let next = page.cut(&mut tags).map(|tag| tag.tag.to_string());
            let tags: Vec<Value> = tags.iter().map(tag_json).collect();
            let body = json!({ "registry": registry, "imageName": name, "tags": tags });
            Ok(page.answer(request, body, next.as_deref()))
        }
        Named::Tag(name, tag) => {
            // The one after the text before it.
            let found = store.tag_details(&name, before(tag.as_str()).as_deref(), 1).await?;
            match found.into_iter().find(|found| found.tag == tag) {
                Some(found) => {
                    let body = json!({ "registry": registry, "imageName": name, "tag": tag_json(&found) });
                    Ok(Json(body).into_response())
                }
                None => unknown("TAG_UNKNOWN", format!("repository {name} has no tag {tag}")),
            }
        }
        Named::Manifests(name) => {
            let page = Page::of(request)?;
            let manifests = store.manifest_details(&name, page.last.as_deref(), page.count).await?;
            // It may be shorter than it was asked for.
            let last = manifests.last().map(|manifest| manifest.digest.to_string());
            let next = match last {
                Some(last) if !store.manifest_details(&name, Some(&last), 1).await?.is_empty() => Some(last),
                _ => None,
            };
            let manifests: Vec<Value> = manifests.iter().map(manifest_json).collect();
            let body = json!({ "registry": registry, "imageName": name, "manifests": manifests });
            Ok(page.answer(request, body, next.as_deref()))
        }
        Named::Manifest(name, digest) => {
            let found = store.manifest_details(&name, before(digest.as_str()).as_deref(), 1).await?;
            match found.into_iter().find(|found| found.digest == digest) {
                Some(found) => {
                    let body = json!({ "registry": registry, "imageName": name, "manifest": manifest_json(&found) });
                    Ok(Json(body).into_response())
                }
                None => unknown("MANIFEST_UNKNOWN", format!("repository {name} holds no manifest {digest}")),
            }
        }
    }
}

/// A text before `text` in byte order with no other tag or digest between the two.
fn before(text: &str) -> Option<String> {
    let (last, rest) = (text.chars().last()?, &text[..text.len() - 1]);
    let earlier = char::from_u32(u32::from(last) - 1)?;
    // What follows the earlier character must be beyond all that names may hold.
    Some(format!("{rest}{earlier}\u{7f}"))
}

/// Which part of a list is asked for.
struct Page {
    count: u32,
    last: Option<String>,
}

impl Page {
    fn of(request: &Parts) -> Result<Self, OciError> {
        let query = Pairs::of(&request.uri);
        let count = match query.get("n").map(str::parse::<u64>) {
            None => USUAL,
            Some(Ok(count)) => u32::try_from(count).unwrap_or(MOST).min(MOST),
            Some(Err(_)) => return Err(OciError::bad_request("PAGINATION_NUMBER_INVALID", "n is not a number")),
        };
        Ok(Self { count, last: query.get("last").filter(|last| !last.is_empty()).map(str::to_owned) })
    }

    /// Cuts what was read beyond the page, and says after which entry the next one begins.
    fn cut<'l, T>(&self, list: &'l mut Vec<T>) -> Option<&'l T> {
        let more = list.len() > self.count as usize;
        list.truncate(self.count as usize);
        list.last().filter(|_| more)
    }

    fn answer(&self, request: &Parts, body: Value, next: Option<&str>) -> Response {
        let mut response = Json(body).into_response();
        if let Some(next) = next {
            let last: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            let link = format!("<{}?n={}&last={last}>; rel=\"next\"", request.uri.path(), self.count);
            if let Ok(link) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(LINK, link);
            }
        }
        response
    }
}

fn unlocked() -> Value {
    json!({ "deleteEnabled": true, "writeEnabled": true, "readEnabled": true, "listEnabled": true })
}

fn repository_json(service: &RegistryService, details: &RepositoryDetails) -> Value {
    json!({
        "registry": service.options().name,
        "imageName": details.name,
        "createdTime": details.created.to_string(),
        "lastUpdateTime": details.updated.to_string(),
        "manifestCount": details.manifests,
        "tagCount": details.tags,
        "changeableAttributes": unlocked(),
    })
}

fn tag_json(tag: &TagDetails) -> Value {
    json!({
        "name": tag.tag,
        "digest": tag.digest,
        "createdTime": tag.created.to_string(),
        "lastUpdateTime": tag.updated.to_string(),
        "signed": false,
        "changeableAttributes": unlocked(),
    })
}

/// ACR's fields; `subject` and `staged` are ours.
fn manifest_json(manifest: &ManifestDetails) -> Value {
    let references: Vec<Value> = manifest.manifests.iter().map(|digest| json!({ "digest": digest })).collect();
    let mut value = json!({
        "digest": manifest.digest,
        "imageSize": manifest.size,
        "createdTime": manifest.created.to_string(),
        "lastUpdateTime": manifest.updated.to_string(),
        "mediaType": manifest.media_type,
        "tags": manifest.tags,
        "references": references,
        "staged": manifest.is_staged,
        "changeableAttributes": unlocked(),
    });
    if let Some(subject) = &manifest.subject {
        value["subject"] = json!(subject);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_acr_s_do() {
        let digest = Digest::sha256(b"");
        let name = |text: &str| RepositoryName::parse(text).expect("valid");
        let tag = Tag::parse("v1").expect("valid");
        for (path, expect) in [
            ("_catalog".to_owned(), Named::Catalog),
            ("team/app".to_owned(), Named::Repository(name("team/app"))),
            ("app/_tags".to_owned(), Named::Tags(name("app"))),
            ("team/app/_tags/v1".to_owned(), Named::Tag(name("team/app"), tag)),
            ("app/_manifests".to_owned(), Named::Manifests(name("app"))),
            (format!("app/_manifests/{digest}"), Named::Manifest(name("app"), digest.clone())),
            (format!("app/_manifests/sha256%3A{}", digest.hex()), Named::Manifest(name("app"), digest)),
        ] {
            assert_eq!(Named::parse(&path).expect(&path), expect, "{path}");
        }
        for path in ["", "_tags", "App", "app/_tags/", "app/_manifests/v1", "app//x", "../app", "app/_other"] {
            assert!(Named::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn before_a_text_comes_nothing_but_what_is_before_it() {
        for (text, others) in [("v1", ["v0", "v0.9", "v"]), ("a-b", ["a-a", "a-", "a"]), ("v0", ["v", "v.", "v-9"])] {
            let before = before(text).expect("there is one");
            assert!(before.as_str() < text, "{before}");
            assert!(others.iter().all(|other| *other < before.as_str()), "{before}");
        }
    }
}
