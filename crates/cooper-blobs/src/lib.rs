//! Blob stores behind the port `cooper_ports::blobs::BlobStore`: today one, on a local file system.
//!
//! Nothing here knows repositories, users or HTTP.

mod fs;

pub use fs::{FsBlobStore, OpenBlobStoreError, blob_file};
