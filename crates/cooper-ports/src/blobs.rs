//! The blob store: content-addressed bytes, and the uploads that become them.
//!
//! It knows digests and sizes only. Which repository may see which blob is the registry store's business, and so is
//! who may append to which upload.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cooper_types::Digest;
use futures::stream::BoxStream;

/// Bytes on their way into the store. An error of the stream ends the append, and what came before it is kept.
pub type IncomingBytes = BoxStream<'static, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// Bytes on their way out of the store.
pub type OutgoingBytes = BoxStream<'static, Result<Bytes, BlobReadError>>;

/// Names one upload: 128 random bits as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(u128);

/// Why a text is not an upload's id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("upload id is not 32 lower-case hexadecimal digits")]
pub struct UploadIdError;

impl UploadId {
    /// The id made of these bits. They are the only thing that names the upload, so take them from a random source.
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self, UploadIdError> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(UploadIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| UploadIdError)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where and how much an append writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendAt {
    /// The offset that the first byte must have; `None` appends wherever the upload ends.
    pub offset: Option<u64>,
    /// How many bytes the stream was announced to have; another number undoes the append.
    pub length: Option<u64>,
}

/// Content-addressed bytes and the uploads that become them.
///
/// Dropping a future of this trait leaves nothing torn: an upload keeps the bytes that were written, and a commit that
/// has begun runs to its end.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Begins an empty upload. The id must be new.
    async fn begin_upload(&self, id: UploadId) -> Result<(), UploadError>;

    /// Appends a stream to an upload and returns the upload's new size. Memory stays flat whatever comes.
    async fn append(&self, id: UploadId, at: AppendAt, bytes: IncomingBytes) -> Result<u64, UploadError>;

    /// How many bytes an upload holds.
    async fn upload_size(&self, id: UploadId) -> Result<u64, UploadError>;

    /// Turns an upload into the blob `expected` and returns its size. When this returns, the blob is durable, whatever
    /// loses its power next. A blob that exists already is fine. Bytes with another digest end the upload.
    async fn commit(&self, id: UploadId, expected: &Digest) -> Result<u64, UploadError>;

    /// Ends an upload and frees its bytes. An unknown upload is fine.
    async fn discard(&self, id: UploadId) -> Result<(), UploadError>;

    /// The size of a blob, or `None` if there is no such blob.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobReadError>;

    /// Streams the bytes of a blob within `range`, which must lie inside the blob.
    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<OutgoingBytes, BlobReadError>;

    /// Removes a blob, durably when this returns. An unknown blob is fine, and those who read it get to its end. Nobody may
    /// commit the same blob meanwhile.
    async fn remove(&self, digest: &Digest) -> Result<(), BlobRemoveError>;

    /// The blobs of one of [`SURVEY_PARTS`] parts of the store whose bytes have been as they are for `age`.
    async fn survey(&self, part: u16, age: Duration) -> Result<Vec<Digest>, SurveyError>;
}

/// In how many parts a store can be surveyed.
pub const SURVEY_PARTS: u16 = 512;

/// How a step of an upload fails.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no such upload (any more).
    #[error("upload {0} is not known")]
    Unknown(UploadId),
    /// Another request is writing to the upload at this moment.
    #[error("upload {0} is being written by another request")]
    Busy(UploadId),
    /// The bytes offered do not start where the upload ends. The upload is as before.
    #[error("upload {id} ends at byte {size}, the next bytes must start there")]
    OutOfOrder {
        /// The upload.
        id: UploadId,
        /// How many bytes it holds.
        size: u64,
    },
    /// More or fewer bytes came than were announced. The upload is as before.
    #[error("upload {id} was announced {announced} bytes and got {received}")]
    WrongLength {
        /// The upload.
        id: UploadId,
        /// What was announced.
        announced: u64,
        /// What came; counting stops at the first byte too many.
        received: u64,
    },
    /// The stream of bytes broke off. What came before is kept.
    #[error("upload {id} was cut off")]
    Interrupted {
        /// The upload.
        id: UploadId,
        /// What the stream said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes are not those of the digest. The upload is gone.
    #[error("uploaded bytes have the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The file system takes no more bytes. The upload is gone, and with it the space that it held.
    #[error("no space is left for upload {0}")]
    StorageFull(UploadId),
    /// The store failed.
    #[error("failed to {operation} upload {id}")]
    Io {
        /// A verb.
        operation: &'static str,
        /// The upload.
        id: UploadId,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// How reading a blob fails.
#[derive(Debug, thiserror::Error)]
pub enum BlobReadError {
    /// There is no such blob.
    #[error("blob {0} is not stored")]
    Unknown(Digest),
    /// The blob is shorter than it must be: its file was cut by someone else.
    #[error("blob {0} ends too early")]
    Truncated(Digest),
    /// The store failed.
    #[error("failed to read blob {digest}")]
    Io {
        /// The blob.
        digest: Digest,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a blob was not removed.
#[derive(Debug, thiserror::Error)]
#[error("failed to remove blob {digest}")]
pub struct BlobRemoveError {
    /// The blob.
    pub digest: Digest,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// Why a part of the store could not be surveyed.
#[derive(Debug, thiserror::Error)]
#[error("failed to look through part {part} of the blobs")]
pub struct SurveyError {
    /// The part.
    pub part: u16,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_have_one_text_form() {
        let id = UploadId::from_bits(7);
        assert_eq!(UploadId::parse(&id.to_string()), Ok(id));
        for text in ["", "7", "../../../../../../../../etc/pass", &"A".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert!(UploadId::parse(text).is_err(), "{text}");
        }
    }
}
