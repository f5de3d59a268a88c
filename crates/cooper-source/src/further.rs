//! Files of a source that are only known by what others of it hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a source was found to be, before it is packed. Nothing of it is known of archives and artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The commit, 40 hexadecimal digits.
    pub commit: Option<String>,
    /// The branch, if one was named or the default branch was taken.
    pub branch: Option<String>,
    /// The full name of the reference that was taken.
    pub reference: Option<String>,
}

type Name = dyn Fn(&Found, &BTreeMap<String, Vec<u8>>) -> Vec<String> + Send + Sync;

/// Names more files to be read, once those that were named first have been. By default none.
#[derive(Clone, Default)]
pub struct FurtherFiles(Option<Arc<Name>>);

impl FurtherFiles {
    /// What `name` says, from what the source was found to be and from the files that are there.
    pub fn named_by(name: impl Fn(&Found, &BTreeMap<String, Vec<u8>>) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(name)))
    }

    /// The names.
    pub(crate) fn after(&self, found: &Found, files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        self.0.as_ref().map(|name| name(found, files)).unwrap_or_default()
    }
}

impl fmt::Debug for FurtherFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FurtherFiles")
    }
}
