//! Images that the server itself puts into its registry, where nobody else writes.

use std::time::Duration;

use cooper_ports::blobs::{AppendAt, IncomingBytes, UploadError, UploadId};
use cooper_ports::registry::{
    BeginUploadError, DeleteError, Manifest, ManifestKey, ManifestReference, NewManifest, PutManifestError,
    ReferenceKind, RegistryWriteError, Upload, Writer,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, PrincipalName, RepositoryName, Tag};
use futures::StreamExt as _;
use serde_json::json;

use crate::service::RegistryService;

/// The repository of the server's own images.
pub(crate) const OWN_REPOSITORY: &str = "cooperage/acr-cli";

/// In whose name they are pushed.
const OWNER: &str = "cooperage";

/// How long an old image is kept, and how many are looked at.
const STILL_WANTED: Duration = Duration::from_secs(24 * 3600);
const MOST_OLD: u32 = 100;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one layer.
pub struct OwnImage {
    /// Under which tag it is kept.
    pub tag: Tag,
    /// The configuration's JSON.
    pub config: Vec<u8>,
    /// The layer's bytes, an archive without compression.
    pub layer: IncomingBytes,
    /// The layer's digest.
    pub layer_digest: Digest,
    /// The layer's size in bytes.
    pub layer_size: u64,
}

/// Why an image was not put.
#[derive(Debug, thiserror::Error)]
pub enum OwnImageError {
    /// Its bytes could not be stored.
    #[error("failed to store the bytes of the server's own image")]
    Upload(#[from] UploadError),
    /// Its rows could not be stored.
    #[error("failed to write down the server's own image")]
    Store(#[from] StoreError),
    /// Its manifest could not be stored.
    #[error("failed to store the manifest of the server's own image")]
    Manifest(#[from] PutManifestError),
}

impl RegistryService {
    /// The repository of the server's own images: whoever has a credential pulls from it, and nobody writes.
    pub fn own_repository() -> RepositoryName {
        RepositoryName::parse(OWN_REPOSITORY).expect("a constant that is a valid name")
    }

    /// The digest of one of the server's own images.
    pub async fn find_own_image(&self, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let key = ManifestKey::Tag(tag.clone());
        let found = self.parts().store.manifest(&Self::own_repository(), &key, None).await?;
        Ok(found.map(|manifest| manifest.digest))
    }

    /// Puts one of the server's own images, and returns its digest.
    pub async fn put_own_image(&self, image: OwnImage) -> Result<Digest, OwnImageError> {
        let OwnImage { tag, config, layer, layer_digest, layer_size } = image;
        let config_digest = Digest::sha256(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": config_digest, "size": config.len() },
            "layers": [{ "mediaType": LAYER, "digest": layer_digest, "size": layer_size }],
        });
        let config = futures::stream::iter([Ok(config.into())]).boxed();
        self.put_own_blob(&config_digest, config).await?;
        self.put_own_blob(&layer_digest, layer).await?;
        let bytes = serde_json::to_vec(&manifest).expect("texts and numbers are JSON");
        let digest = Digest::sha256(&bytes);
        let reference = |digest| ManifestReference { digest, kind: ReferenceKind::Blob };
        let new = NewManifest {
            repository: Self::own_repository(),
            manifest: Manifest { digest: digest.clone(), media_type: MANIFEST.to_owned(), bytes: bytes.into() },
            references: vec![reference(config_digest), reference(layer_digest)],
            tag: Some(tag),
        };
        self.parts().store.put_manifest(new, &owner()).await?;
        Ok(digest)
    }

    /// Deletes the server's own images but this one: those of programs that it no longer is. Steps that were given one of
    /// them lately may still pull it.
    pub async fn forget_own_images(&self, keep: &Tag) -> Result<(), OwnImageError> {
        let (store, repository) = (&self.parts().store, Self::own_repository());
        let before = self.parts().clock.now().before(STILL_WANTED);
        for old in store.tag_details(&repository, None, MOST_OLD).await? {
            if old.tag == *keep || old.updated >= before {
                continue;
            }
            match store.delete_manifest(&repository, &old.digest, false, None, &owner()).await {
                Ok(()) => {}
                Err(DeleteError::Store(error)) => return Err(error.into()),
                // It is needed, or gone: both are fine.
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn put_own_blob(&self, digest: &Digest, bytes: IncomingBytes) -> Result<(), OwnImageError> {
        let (store, blobs) = (&self.parts().store, &self.parts().blobs);
        let id = UploadId::from_bits(uuid::Uuid::new_v4().as_u128());
        let upload = Upload { id, repository: Self::own_repository(), writer: owner() };
        store.begin_upload(&upload).await.map_err(|error| match error {
            BeginUploadError::Store(error) => error,
            other => StoreError::corrupt("begin upload", other),
        })?;
        blobs.begin_upload(id).await?;
        blobs.append(id, AppendAt::default(), bytes).await?;
        let _committing = self.committing(digest).await;
        let size = blobs.commit(id, digest).await?;
        store.complete_upload(&upload, digest, size).await.map_err(|error| match error {
            RegistryWriteError::Store(error) => error,
            other => StoreError::corrupt("complete upload", other),
        })?;
        Ok(())
    }
}

fn owner() -> Writer {
    Writer { principal: PrincipalName::parse(OWNER).expect("a constant that is a valid name"), attempt: None }
}
