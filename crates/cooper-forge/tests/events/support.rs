//! Fixtures: requests of forges, made after their public documentation, as headers, an empty line and a body.

use std::path::{Path, PathBuf};

use cooper_engine::trigger::provider::Provider;
use http::{HeaderMap, HeaderName, HeaderValue};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// The folder's and the file's name.
    pub(crate) name: String,
    /// Whose it is.
    pub(crate) provider: Provider,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Fixture {
    /// Reads `FOLDER/FILE`, where the folder is the provider's name.
    pub(crate) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.http"))).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap();
        let mut headers = HeaderMap::new();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        }
        let provider = Provider::parse(name.split_once('/').unwrap().0).unwrap();
        Self { name: name.to_owned(), provider, headers, body: body.as_bytes().to_vec() }
    }

    /// All there are, in order of their names.
    pub(crate) fn all() -> Vec<Self> {
        let mut names = Vec::new();
        for provider in Provider::ALL {
            for entry in std::fs::read_dir(folder().join(provider.as_str())).unwrap() {
                let file: PathBuf = entry.unwrap().path();
                names.push(format!("{provider}/{}", file.file_stem().unwrap().to_str().unwrap()));
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
