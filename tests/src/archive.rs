//! Context archives that no well-meaning client would send.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A tar.gz, written entry by entry with nothing checked.
#[derive(Default)]
pub struct Archive {
    tar: Vec<u8>,
}

impl Archive {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, text: &str) -> Self {
        self.entry(name, b'0', "", text.as_bytes())
    }

    /// Adds an entry of any type: `0` file, `1` hard link, `2` symbolic link, `3` character device, `5` folder.
    #[must_use]
    pub fn entry(mut self, name: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000001\0");
        put(337, b"0000003\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.tar.extend_from_slice(&header);
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The finished archive, as it is.
    pub fn tar(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }

    /// The finished archive, compressed.
    pub fn gzip(self) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.tar()).expect("compress into memory");
        gzip.finish().expect("compress into memory")
    }
}
