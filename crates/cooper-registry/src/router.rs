//! From a request to the handler of its path and method, behind one gate: who is it, and may they.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use cooper_types::{Access, RepositoryName};
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method};

use crate::error::OciError;
use crate::route::{Resource, Route};
use crate::service::RegistryService;
use crate::{blobs, deletion, manifests, metadata, tags, token, uploads};

/// The registry's routes: `/v2/`, `/acr/v1/` and `/oauth2/token`. Paths are taken raw, and no body is limited by the router.
pub fn router(service: RegistryService) -> Router {
    Router::new()
        .route("/v2", any(serve))
        .route("/v2/", any(serve))
        .route("/v2/{*path}", any(serve))
        .route("/acr/v1/{*path}", any(serve_metadata))
        .route("/oauth2/token", any(serve_token))
        .with_state(service)
}

async fn serve_token(State(service): State<RegistryService>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    token::token(&service, &request, body).await.unwrap_or_else(OciError::into_response)
}

async fn serve_metadata(State(service): State<RegistryService>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    metadata::answer(&service, request).await.unwrap_or_else(OciError::into_response)
}

async fn serve(State(service): State<RegistryService>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let mut response = answer(&service, request, body).await.unwrap_or_else(OciError::into_response);
    let headers = response.headers_mut();
    // Old Docker clients look for this name before they speak on.
    let version = HeaderName::from_static("docker-distribution-api-version");
    headers.insert(version, HeaderValue::from_static("registry/2.0"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn answer(service: &RegistryService, request: Parts, body: Body) -> Result<Response, OciError> {
    match Route::parse(request.uri.path())? {
        Route::Ping => ping(service, &request).await,
        Route::Catalog => {
            let identity = service.identify(&request).await?;
            metadata::catalog(service, &identity, &request).await
        }
        Route::In(repository, resource) => in_repository(service, request, body, repository, resource).await,
    }
}

/// `GET /v2/`: whether this is a registry, and whether the credential is one of ours. Nobody learns the latter without
/// showing one, which is how clients find out where to log in.
async fn ping(service: &RegistryService, request: &Parts) -> Result<Response, OciError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(OciError::method_not_allowed("GET, HEAD"));
    }
    if service.identify(request).await?.is_anonymous() {
        return Err(service.challenge(request, None, None));
    }
    Ok(([(CONTENT_TYPE, "application/json")], "{}").into_response())
}

async fn in_repository(
    service: &RegistryService,
    request: Parts,
    body: Body,
    repository: RepositoryName,
    resource: Resource,
) -> Result<Response, OciError> {
    let method = request.method.clone();
    let reads = matches!(method, Method::GET | Method::HEAD) && !matches!(resource, Resource::Upload(_));
    let deletes = method == Method::DELETE && !matches!(resource, Resource::Upload(_));
    let access = match (reads, deletes) {
        (true, _) => Access::Pull,
        (_, true) => Access::Delete,
        _ => Access::Push,
    };
    let identity = service.identify(&request).await?;
    service.authorize(&request, &identity, &repository, access)?;
    match (resource, method) {
        (Resource::Manifest(key), Method::GET | Method::HEAD) => {
            manifests::get(service, &identity, &repository, &key).await
        }
        (Resource::Blob(digest), Method::GET) => blobs::get(service, &request, &repository, &digest).await,
        (Resource::Blob(digest), Method::HEAD) => blobs::head(service, &repository, &digest).await,
        (Resource::Tags, Method::GET | Method::HEAD) => tags::list(service, &identity, &request, &repository).await,
        (Resource::Blob(_), method) if method != Method::DELETE => {
            Err(OciError::method_not_allowed("GET, HEAD, DELETE"))
        }
        (Resource::Tags, _) => Err(OciError::method_not_allowed("GET, HEAD")),
        (resource, method) => {
            let writer = identity.writer().ok_or_else(|| service.challenge(&request, None, None))?;
            match (resource, method) {
                (Resource::Manifest(key), Method::PUT) => {
                    let put = manifests::Put { repository, key, writer };
                    service.detached(manifests::put(service.clone(), put, request, body)).await
                }
                (Resource::Manifest(key), Method::DELETE) => {
                    let delete = deletion::Delete::new(&request, repository, writer)?;
                    service.detached(deletion::manifest(service.clone(), delete, key)).await
                }
                (Resource::Blob(digest), Method::DELETE) => {
                    let delete = deletion::Delete::new(&request, repository, writer)?;
                    service.detached(deletion::blob(service.clone(), delete, digest)).await
                }
                (Resource::Manifest(_), _) => Err(OciError::method_not_allowed("GET, HEAD, PUT, DELETE")),
                (Resource::Uploads, Method::POST) => {
                    let begin = uploads::Begin { repository, writer, identity };
                    service.detached(uploads::begin(service.clone(), begin, request, body)).await
                }
                (Resource::Uploads, _) => Err(OciError::method_not_allowed("POST")),
                (Resource::Upload(id), method) => {
                    let at = uploads::find(service, &repository, id, &writer).await?;
                    match method {
                        Method::GET | Method::HEAD => uploads::status(service, at).await,
                        Method::PATCH => service.detached(uploads::patch(service.clone(), at, request, body)).await,
                        Method::PUT => service.detached(uploads::finish(service.clone(), at, request, body)).await,
                        Method::DELETE => service.detached(uploads::cancel(service.clone(), at)).await,
                        _ => Err(OciError::method_not_allowed("GET, PATCH, PUT, DELETE")),
                    }
                }
                (Resource::Blob(_) | Resource::Tags, _) => Err(OciError::method_not_allowed("GET, HEAD")),
            }
        }
    }
}
