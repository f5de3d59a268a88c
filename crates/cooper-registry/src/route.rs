//! Which repository and which thing in it a path under `/v2/` names.
//!
//! A repository's name holds slashes and may hold words such as `blobs` and `manifests`, so paths are read from the
//! right, on the raw path: a slash that a client encoded is not one that separates.

use cooper_ports::blobs::UploadId;
use cooper_ports::registry::ManifestKey;
use cooper_types::{Digest, RepositoryName, Tag};
use percent_encoding::percent_decode_str;

use crate::error::OciError;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Ping,
    /// `/v2/_catalog`
    Catalog,
    /// Something in a repository.
    In(RepositoryName, Resource),
}

/// A thing in a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `manifests/<tag or digest>`
    Manifest(ManifestKey),
    /// `blobs/<digest>`
    Blob(Digest),
    /// `blobs/uploads/`
    Uploads,
    /// `blobs/uploads/<id>`
    Upload(UploadId),
    /// `tags/list`
    Tags,
}

impl Route {
    /// Reads a request's raw path.
    pub(crate) fn parse(path: &str) -> Result<Self, OciError> {
        let Some(rest) = path.strip_prefix("/v2") else { return Err(OciError::not_found()) };
        if matches!(rest, "" | "/") {
            return Ok(Self::Ping);
        }
        if rest == "/_catalog" {
            return Ok(Self::Catalog);
        }
        let Some(rest) = rest.strip_prefix('/') else { return Err(OciError::not_found()) };
        let parts: Vec<String> = rest.split('/').map(decode).collect::<Option<_>>().ok_or_else(OciError::not_found)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (name, resource) = match parts.as_slice() {
            [name @ .., "tags", "list"] => (name, Resource::Tags),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => (name, Resource::Uploads),
            [name @ .., "blobs", "uploads", id] => {
                (name, Resource::Upload(UploadId::parse(id).map_err(|_| OciError::unknown_upload())?))
            }
            [name @ .., "blobs", digest] => (name, Resource::Blob(parse_digest(digest)?)),
            [name @ .., "manifests", key] => (name, Resource::Manifest(manifest_key(key)?)),
            _ => return Err(OciError::not_found()),
        };
        let name = RepositoryName::parse(&name.join("/"))
            .map_err(|error| OciError::bad_request("NAME_INVALID", error.to_string()))?;
        Ok(Self::In(name, resource))
    }
}

/// Reads a digest that a client sent.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, OciError> {
    Digest::parse(text).map_err(|error| OciError::bad_request("DIGEST_INVALID", error.to_string()))
}

fn manifest_key(text: &str) -> Result<ManifestKey, OciError> {
    if text.contains(':') {
        return parse_digest(text).map(ManifestKey::Digest);
    }
    match Tag::parse(text) {
        Ok(tag) => Ok(ManifestKey::Tag(tag)),
        Err(error) => Err(OciError::bad_request("TAG_INVALID", error.to_string())),
    }
}

/// Decodes one part of a path. A part that holds a slash after that names nothing.
fn decode(part: &str) -> Option<String> {
    let part = percent_decode_str(part).decode_utf8().ok()?;
    (!part.contains('/')).then(|| part.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_paths_from_the_right() {
        let digest = Digest::parse(&format!("sha256:{HEX}")).expect("valid");
        let tag = |text| Resource::Manifest(ManifestKey::Tag(Tag::parse(text).expect("valid")));
        let id = "0123456789abcdef0123456789abcdef";
        let upload = Resource::Upload(UploadId::parse(id).expect("valid"));
        let table = [
            ("/v2/a/tags/list".to_owned(), "a", Resource::Tags),
            ("/v2/a/manifests/latest".to_owned(), "a", tag("latest")),
            ("/v2/tags/list/tags/list".to_owned(), "tags/list", Resource::Tags),
            ("/v2/a/blobs/uploads/manifests/uploads".to_owned(), "a/blobs/uploads", tag("uploads")),
            ("/v2/manifests/manifests/manifests".to_owned(), "manifests", tag("manifests")),
            ("/v2/blobs/blobs/uploads/".to_owned(), "blobs", Resource::Uploads),
            ("/v2/a/b/c/blobs/uploads".to_owned(), "a/b/c", Resource::Uploads),
            (format!("/v2/a/blobs/uploads/{id}"), "a", upload),
            (format!("/v2/a/blobs/sha256:{HEX}"), "a", Resource::Blob(digest.clone())),
            (format!("/v2/a/blobs/sha256%3a{HEX}"), "a", Resource::Blob(digest.clone())),
            (format!("/v2/a/manifests/sha256%3A{HEX}"), "a", Resource::Manifest(ManifestKey::Digest(digest))),
        ];
        for (path, name, resource) in table {
            let expect = Route::In(RepositoryName::parse(name).expect("valid"), resource);
            assert_eq!(Route::parse(&path).expect(&path), expect, "{path}");
        }
        assert_eq!(Route::parse("/v2").expect("pings"), Route::Ping);
        assert_eq!(Route::parse("/v2/").expect("pings"), Route::Ping);
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_found_again(parts in proptest::collection::vec("[a-z]{1,3}|blobs|uploads|manifests|tags|list", 1..5)) {
            let name = RepositoryName::parse(&parts.join("/")).expect("valid");
            let digest = format!("sha256:{HEX}");
            for tail in ["tags/list", "manifests/latest", "blobs/uploads/", &format!("blobs/{digest}")] {
                match Route::parse(&format!("/v2/{name}/{tail}")) {
                    Ok(Route::In(found, _)) => proptest::prop_assert_eq!(&found, &name, "{}", tail),
                    other => proptest::prop_assert!(false, "{}: {:?}", tail, other),
                }
            }
        }

        #[test]
        fn no_path_is_too_odd(path in "(/v2/)?[%/a-z0-9.:-]{0,40}") {
            let _ = Route::parse(&path);
        }
    }

    #[test]
    fn says_what_is_wrong_with_other_paths() {
        for (path, code) in [
            ("/v2/a", "UNSUPPORTED"),
            ("/v2x/", "UNSUPPORTED"),
            ("/v2//tags/list", "NAME_INVALID"),
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/../tags/list", "NAME_INVALID"),
            ("/v2/a%2Fb/tags/list", "UNSUPPORTED"),
            ("/v2/a/manifests/", "TAG_INVALID"),
            ("/v2/a/manifests/.x", "TAG_INVALID"),
            ("/v2/a/manifests/sha256:bad", "DIGEST_INVALID"),
            ("/v2/a/blobs/latest", "DIGEST_INVALID"),
            ("/v2/a/blobs/uploads/..", "BLOB_UPLOAD_UNKNOWN"),
            ("/v2/a/referrers/sha256:bad", "UNSUPPORTED"),
            ("/v2/tags/list", "NAME_INVALID"),
            ("/v2/%ff/tags/list", "UNSUPPORTED"),
        ] {
            assert_eq!(Route::parse(path).expect_err(path).code, code, "{path}");
        }
    }
}
