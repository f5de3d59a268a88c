//! Small texts from disk: task files, values, aliases. What is too long or no text is refused by name.

use std::io::Read;
use std::path::Path;

use crate::fault::Fault;

/// The longest text that is read, in bytes.
const MAX: u64 = 1 << 20;

/// The text of a file, or of standard input where the name is `-`.
pub(crate) fn read_or_stdin(name: &str, what: &str) -> Result<String, Fault> {
    match name {
        "-" => text(std::io::stdin().lock(), what, "-"),
        name => read(Path::new(name), what),
    }
}

/// The text of a file.
pub(crate) fn read(path: &Path, what: &str) -> Result<String, Fault> {
    let name = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|it| it.is_dir()) => {
            Err(Fault::usage(format!("{what} `{name}` is a folder")).with_hint("name a file in it"))
        }
        Ok(file) => text(file, what, &name),
        Err(error) => Err(Fault::usage(format!("{what} `{name}` can't be read: {error}"))),
    }
}

fn text(from: impl Read, what: &str, name: &str) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    from.take(MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::usage(format!("{what} `{name}` can't be read: {error}")))?;
    if bytes.len() as u64 > MAX {
        return Err(Fault::usage(format!("{what} `{name}` is longer than {} KiB", MAX >> 10)));
    }
    String::from_utf8(bytes).map_err(|_| Fault::usage(format!("{what} `{name}` is not UTF-8 text")))
}
