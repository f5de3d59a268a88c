//! Blobs that go away, and files that may be nobody's.

use std::io;
use std::time::Duration;

use cooper_types::Digest;

use super::Inner;
use super::layout::Layout;

/// Removes a blob's file; one that is gone is fine. Its name is gone for good when this returns: whoever is told that it
/// is gone forgets it.
pub(super) fn remove(inner: &Inner, digest: &Digest) -> io::Result<()> {
    let path = inner.layout.blob(digest);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Who found it gone may have been killed before its name was gone for good.
        Err(_) | Ok(()) => {}
    }
    inner.disk.sync_dir(path.parent().expect("a blob's path has a directory"))
}

/// The blobs in a part of the store whose files have been as they are for `age`. A time in the future has no age: such a
/// file stays.
pub(super) fn survey(layout: &Layout, part: u16, age: Duration) -> io::Result<Vec<Digest>> {
    let (directory, algorithm) = layout.part(part);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().and_then(|hex| Digest::parse(&format!("{}:{hex}", algorithm.name())).ok());
        // What has no such name is not ours.
        let Some(digest) = digest else { continue };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.modified()?.elapsed().is_ok_and(|old| old >= age) {
            found.push(digest);
        }
    }
    Ok(found)
}
