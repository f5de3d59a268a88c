//! What the registry needs to know of a manifest: its media type and what it refers to. The bytes stay as they came.

use std::collections::HashSet;

use cooper_ports::registry::{ManifestReference, ReferenceKind};
use cooper_types::Digest;
use serde::Deserialize;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media types that the registry stores, and clients accept.
const KNOWN: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// A manifest's media type and references.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ManifestView {
    pub(crate) media_type: &'static str,
    pub(crate) references: Vec<ManifestReference>,
}

/// Why bytes are not a manifest that the registry stores.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestViewError {
    #[error("media type `{0}` is none of those that the registry stores: {known}", known = KNOWN.join(", "))]
    MediaType(String),
    #[error("the manifest says that its media type is `{inner}`, the request says `{outer}`")]
    OtherMediaType { outer: &'static str, inner: String },
    #[error("the manifest is not the JSON that its media type stands for: {0}")]
    Json(String),
    #[error("schemaVersion is {0}, not 2")]
    SchemaVersion(i64),
    #[error("the manifest has `{0}`, which its media type does not")]
    Mixed(&'static str),
    #[error("the manifest lacks `{0}`")]
    Lacks(&'static str),
    #[error("the manifest refers to more than {MAX_REFERENCES} things")]
    TooMany,
}

/// How many references a manifest may have. 4 MiB hold some 30,000.
const MAX_REFERENCES: usize = 30_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: i64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    // Of schema 1, which no longer is stored: its `layers` are of another kind.
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl ManifestView {
    /// Reads a manifest. `content_type` is the request's; without one, the manifest must name its own.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestViewError> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| ManifestViewError::Json(error.to_string()))?;
        let named = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        let named = named.filter(|text| !text.is_empty()).or(document.media_type.as_deref()).unwrap_or_default();
        let media_type = *KNOWN
            .iter()
            .find(|known| named.eq_ignore_ascii_case(known))
            .ok_or_else(|| ManifestViewError::MediaType(named.chars().take(160).collect()))?;
        if let Some(inner) = document.media_type.as_deref().filter(|inner| *inner != media_type) {
            let inner = inner.chars().take(160).collect();
            return Err(ManifestViewError::OtherMediaType { outer: media_type, inner });
        }
        if document.schema_version != 2 {
            return Err(ManifestViewError::SchemaVersion(document.schema_version));
        }
        let references = match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => document.of_image()?,
            _ => document.of_index()?,
        };
        Ok(Self { media_type, references })
    }
}

impl Document {
    fn of_image(self) -> Result<Vec<ManifestReference>, ManifestViewError> {
        // A document that can be read in two ways would be one image to us and another to a client (CVE-2021-41190).
        if self.manifests.is_some() {
            return Err(ManifestViewError::Mixed("manifests"));
        }
        if self.fs_layers.is_some() {
            return Err(ManifestViewError::Mixed("fsLayers"));
        }
        let config = self.config.ok_or(ManifestViewError::Lacks("config"))?;
        let mut references = References::default();
        references.add(config.digest, ReferenceKind::Blob)?;
        // Artifacts may come without layers.
        for layer in self.layers.unwrap_or_default() {
            let kind = if layer.is_foreign() { ReferenceKind::ForeignBlob } else { ReferenceKind::Blob };
            references.add(layer.digest, kind)?;
        }
        references.finish(self.subject)
    }

    fn of_index(self) -> Result<Vec<ManifestReference>, ManifestViewError> {
        for (name, present) in [
            ("config", self.config.is_some()),
            ("layers", self.layers.is_some()),
            ("fsLayers", self.fs_layers.is_some()),
        ] {
            if present {
                return Err(ManifestViewError::Mixed(name));
            }
        }
        let mut references = References::default();
        for entry in self.manifests.ok_or(ManifestViewError::Lacks("manifests"))? {
            // BuildKit's old cache format puts layers into an index.
            let kind =
                if KNOWN.contains(&entry.media_type.as_str()) { ReferenceKind::Manifest } else { ReferenceKind::Blob };
            references.add(entry.digest, kind)?;
        }
        references.finish(self.subject)
    }
}

impl Descriptor {
    /// Whether the registry need not hold the layer: it is one that must not be distributed, or lies elsewhere.
    fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

/// References in order, each once.
#[derive(Default)]
struct References {
    list: Vec<ManifestReference>,
    seen: HashSet<ManifestReference>,
}

impl References {
    fn add(&mut self, digest: Digest, kind: ReferenceKind) -> Result<(), ManifestViewError> {
        let reference = ManifestReference { digest, kind };
        if self.seen.insert(reference.clone()) {
            self.list.push(reference);
        }
        if self.list.len() > MAX_REFERENCES { Err(ManifestViewError::TooMany) } else { Ok(()) }
    }

    fn finish(mut self, subject: Option<Descriptor>) -> Result<Vec<ManifestReference>, ManifestViewError> {
        if let Some(subject) = subject {
            self.add(subject.digest, ReferenceKind::Subject)?;
        }
        Ok(self.list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn descriptor(content: &str, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::sha256(content.as_bytes()), "size": content.len() })
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<Vec<(String, &'static str)>, String> {
        let view = ManifestView::parse(document.to_string().as_bytes(), content_type);
        let names = ["config", "layer", "foreign", "image", "subject"];
        let name = |digest: &Digest| {
            names.iter().find(|name| Digest::sha256(name.as_bytes()) == *digest).expect("one of ours").to_string()
        };
        let show = |reference: &ManifestReference| (name(&reference.digest), reference.kind.name());
        view.map(|view| view.references.iter().map(show).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn finds_what_manifests_refer_to() {
        let layer = descriptor("layer", "application/vnd.oci.image.layer.v1.tar+gzip");
        let foreign = descriptor("foreign", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let image = json!({
            "schemaVersion": 2, "config": descriptor("config", "x"), "layers": [layer, layer, foreign],
            "subject": descriptor("subject", OCI_MANIFEST), "annotations": { "a": "b" },
        });
        let expect = [("config", "blob"), ("layer", "blob"), ("foreign", "foreign_blob"), ("subject", "subject")];
        let expect: Vec<_> = expect.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
        assert_eq!(parse(&image, Some(OCI_MANIFEST)), Ok(expect.clone()));
        assert_eq!(parse(&image, Some(&format!("{DOCKER_MANIFEST}; charset=utf-8"))), Ok(expect));

        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [descriptor("image", OCI_MANIFEST), descriptor("layer", "application/octet-stream")],
        });
        let expect = vec![("image".to_owned(), "manifest"), ("layer".to_owned(), "blob")];
        assert_eq!(parse(&index, Some(OCI_INDEX)), Ok(expect.clone()));
        assert_eq!(parse(&index, None), Ok(expect));
        let empty = json!({ "schemaVersion": 2, "manifests": [] });
        assert_eq!(parse(&empty, Some(DOCKER_LIST)), Ok(vec![]));
    }

    #[test]
    fn refuses_what_is_ambiguous_or_no_manifest() {
        let config = descriptor("config", "x");
        let cases = [
            (
                json!({ "schemaVersion": 2, "config": config }),
                Some("application/json"),
                "media type `application/json`",
            ),
            (json!({ "schemaVersion": 2, "config": config }), None, "media type ``"),
            (json!({ "schemaVersion": 1, "config": config }), Some(OCI_MANIFEST), "schemaVersion is 1"),
            (json!({ "schemaVersion": 2 }), Some(OCI_MANIFEST), "lacks `config`"),
            (json!({ "schemaVersion": 2 }), Some(OCI_INDEX), "lacks `manifests`"),
            (json!({ "schemaVersion": 2, "config": config, "manifests": [] }), Some(OCI_MANIFEST), "has `manifests`"),
            (json!({ "schemaVersion": 2, "layers": [], "manifests": [] }), Some(OCI_INDEX), "has `layers`"),
            (json!({ "schemaVersion": 2, "config": config, "fsLayers": [] }), Some(DOCKER_MANIFEST), "has `fsLayers`"),
            (
                json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }),
                Some(DOCKER_LIST),
                "the request says",
            ),
            (json!({ "schemaVersion": 2, "config": { "digest": "sha256:bad" } }), Some(OCI_MANIFEST), "not the JSON"),
            (json!([]), Some(OCI_MANIFEST), "not the JSON"),
        ];
        for (document, content_type, expect) in cases {
            let error = parse(&document, content_type).expect_err(expect);
            assert!(error.contains(expect), "{error}");
        }
    }
}
