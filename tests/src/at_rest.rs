//! What a server has written below its data directory, as who gets hold of a copy would read it: byte for byte.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Fails where a file below a data directory holds one of these secrets, as it is or in base64: the database among them,
/// with what waits beside it to be taken into it.
///
/// `beside` is what the database keeps in clear where the secrets would be: that it is found says that this looks there.
#[track_caller]
pub fn expect_sealed(data: &Path, beside: &str, secrets: &[&str]) {
    let files = files(data);
    let is_database =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cooper.db"));
    let is_seen = files.iter().any(|(path, content)| is_database(path) && contains(content, beside.as_bytes()));
    assert!(is_seen, "`{beside}` is nowhere in the database below {}", data.display());
    for (path, content) in &files {
        for secret in secrets {
            let is_held = forms(secret).iter().any(|form| contains(content, form));
            assert!(!is_held, "{} holds `{secret}` in clear", path.display());
        }
    }
}

/// The files below a directory with their content; what goes away meanwhile is not there.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(self::files(&path)),
            Ok(kind) if kind.is_file() => files.extend(std::fs::read(&path).ok().map(|content| (path, content))),
            _ => {}
        }
    }
    files
}

/// A text as it is, and the digits in the middle of its base64, wherever it begins in what is encoded.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let encoded = |before: usize| {
        let digits = STANDARD_NO_PAD.encode([vec![0; before].as_slice(), text.as_bytes()].concat());
        let (begin, end) = ((8 * before).div_ceil(6), 8 * (before + text.len()) / 6);
        digits.as_bytes()[begin..end].to_vec()
    };
    let mut forms: Vec<Vec<u8>> = (0..3).map(encoded).collect();
    forms.push(text.as_bytes().to_vec());
    forms
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    let Some((first, rest)) = part.split_first() else { return true };
    let mut left = content;
    while let Some(place) = left.iter().position(|byte| byte == first) {
        left = &left[place + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_secret_is_found_however_deep_it_lies_and_wherever_its_base64_begins() {
        let data = tempfile::tempdir().unwrap();
        let log = data.path().join("cooper.db-wal");
        std::fs::write(data.path().join("cooper.db"), "").unwrap();
        std::fs::write(&log, "name of the row").unwrap();
        let is_sealed = || {
            let looked = std::panic::catch_unwind(|| expect_sealed(data.path(), "of the row", &["other", "hunter22"]));
            looked.map_err(|fault| *fault.downcast::<String>().unwrap())
        };
        is_sealed().unwrap();
        let deep = data.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let encoded =
            ["", "u:", "u", "user:", "huhunter2 "].map(|before| STANDARD.encode(format!("{before}hunter22, and more")));
        for content in encoded.into_iter().chain(["xhhunter22".to_owned(), "hunter22".to_owned()]) {
            std::fs::write(deep.join("file"), &content).unwrap();
            assert!(is_sealed().is_err_and(|said| said.contains("a/b/file holds `hunter22`")), "{content}");
        }
        std::fs::write(deep.join("file"), "hunter2 2").unwrap();
        is_sealed().unwrap();
        std::fs::write(&log, "").unwrap();
        assert!(is_sealed().is_err_and(|said| said.contains("is nowhere in the database")));
    }
}
