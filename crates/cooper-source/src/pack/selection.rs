//! Which Dockerfile and which ignore file a build uses, by docker's precedence, and what each is called in the archive.
//!
//! A Dockerfile that is a plain file inside the folder keeps its path. One that lies outside, or is a link, is added at
//! the root under a reserved name, and with it an ignore file of that name, which the engine's frontend prefers: it
//! holds the rules in use and hides the two added files, so that `COPY . .` sees what it sees with docker.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cooper_spec::ignore::IgnoreRules;
use cooper_types::Digest;

use super::{PackError, PackOptions};

/// More than any Dockerfile, and little enough to hold in memory.
const TEXT_LIMIT: u64 = 16 << 20;

/// What was found.
pub(super) struct Selection {
    /// The folder as it was given.
    pub(super) folder: PathBuf,
    /// The Dockerfile's path inside the archive.
    pub(super) dockerfile_name: String,
    pub(super) ignore_file: Option<PathBuf>,
    pub(super) rules: IgnoreRules,
    /// Paths in the folder that go in though a rule ignores them.
    pub(super) always: Vec<String>,
    /// Files that are not in the folder: name and content.
    pub(super) added: Vec<(String, Vec<u8>)>,
}

impl Selection {
    pub(super) fn find(options: &PackOptions) -> Result<Self, PackError> {
        let folder = options.folder.clone();
        match fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(PackError::NotAFolder { folder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(PackError::FolderMissing { folder }),
            Err(source) => return Err(PackError::InputUnreadable { path: folder, source }),
        }
        if options.whole {
            let of_folder = folder.join(".dockerignore");
            let text = read_ignore_file(&of_folder)?;
            let rules = IgnoreRules::parse(&of_folder.display().to_string(), text.as_deref().unwrap_or_default())?;
            let ignore_file = text.map(|_| of_folder);
            // A step that builds the folder reads these, ignored or not, as `docker build` does.
            let always = [".dockerignore", "Dockerfile"].map(str::to_owned).into();
            let (dockerfile_name, added) = (String::new(), Vec::new());
            return Ok(Self { folder, dockerfile_name, ignore_file, rules, always, added });
        }
        let dockerfile = find_dockerfile(&folder, options.dockerfile.as_deref())?;
        let inside = path_inside(&folder, &dockerfile)?;
        let beside = with_suffix(&dockerfile, ".dockerignore");
        let (ignore_file, ignore_text) = match read_ignore_file(&beside)? {
            Some(text) => (Some(beside), text),
            None => {
                let of_folder = folder.join(".dockerignore");
                match read_ignore_file(&of_folder)? {
                    Some(text) => (Some(of_folder), text),
                    None => (None, String::new()),
                }
            }
        };
        let shown = ignore_file.as_deref().unwrap_or(Path::new(".dockerignore")).display().to_string();
        let rules = IgnoreRules::parse(&shown, &ignore_text)?;
        let mut always = vec![".dockerignore".to_owned()];
        let mut added = Vec::new();
        let dockerfile_name = match inside {
            Some(name) => {
                always.push(format!("{name}.dockerignore"));
                always.push(name.clone());
                name
            }
            None => {
                let content = read_limited(&dockerfile)?;
                let (name, files) = replacement(content, &ignore_text);
                added = files;
                name
            }
        };
        Ok(Self { folder, dockerfile_name, ignore_file, rules, always, added })
    }

    /// Whether this path goes in whatever the rules say.
    pub(super) fn is_always_in(&self, path: &str) -> bool {
        self.always.iter().any(|always| always == path)
    }

    /// Whether something inside this directory goes in whatever the rules say.
    pub(super) fn leads_to_always_in(&self, directory: &str) -> bool {
        self.always.iter().any(|path| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Whether an entry of the folder must give way to an added file.
    pub(super) fn is_replaced(&self, path: &str) -> bool {
        self.added.iter().any(|(name, _)| name == path)
    }
}

/// A Dockerfile that is no plain file of the context, as files at its root: its name there, and what is to be added.
pub(crate) fn replacement(content: Vec<u8>, ignore_text: &str) -> (String, Vec<(String, Vec<u8>)>) {
    let hex: String = Digest::sha256(&content).hex().chars().take(16).collect();
    // The name comes from the content, so that the same build has the same archive.
    let name = format!(".cooper.{hex}.Dockerfile");
    let hidden = format!("{}\n/{name}\n/{name}.dockerignore\n", ignore_text.trim_end());
    let added = vec![(name.clone(), content), (format!("{name}.dockerignore"), hidden.into_bytes())];
    (name, added)
}

fn find_dockerfile(folder: &Path, given: Option<&Path>) -> Result<PathBuf, PackError> {
    let looked = match given {
        None => vec![folder.join("Dockerfile")],
        Some(path) if path.is_absolute() => vec![path.to_owned()],
        Some(path) if folder == Path::new(".") => vec![path.to_owned()],
        Some(path) => vec![path.to_owned(), folder.join(path)],
    };
    for path in &looked {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Err(PackError::DockerfileIsDirectory { path: path.clone() }),
            Ok(_) => return Ok(path.clone()),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(PackError::InputUnreadable { path: path.clone(), source }),
        }
    }
    Err(PackError::NoDockerfile { looked })
}

/// The Dockerfile's path inside the folder, if it is a plain file there.
fn path_inside(folder: &Path, dockerfile: &Path) -> Result<Option<String>, PackError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| PackError::InputUnreadable { path, source }
    };
    let kind = fs::symlink_metadata(dockerfile).map_err(unreadable(dockerfile))?;
    let Some(name) = dockerfile.file_name().filter(|_| kind.is_file()) else { return Ok(None) };
    let parent = match dockerfile.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let root = folder.canonicalize().map_err(unreadable(folder))?;
    let full = parent.canonicalize().map_err(unreadable(parent))?.join(name);
    let Ok(relative) = full.strip_prefix(&root) else { return Ok(None) };
    let parts: Option<Vec<&str>> = relative.components().map(|part| part.as_os_str().to_str()).collect();
    match parts {
        Some(parts) => Ok(Some(parts.join("/"))),
        None => Err(PackError::NameNotUtf8 { path: relative.to_string_lossy().into_owned() }),
    }
}

fn read_ignore_file(path: &Path) -> Result<Option<String>, PackError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {}
        Ok(_) => return Ok(None),
        Err(error) if is_absent(&error) => return Ok(None),
        Err(source) => return Err(PackError::InputUnreadable { path: path.to_owned(), source }),
    }
    let content = read_limited(path)?;
    String::from_utf8(content).map(Some).map_err(|_| PackError::IgnoreNotText { path: path.to_owned() })
}

fn read_limited(path: &Path) -> Result<Vec<u8>, PackError> {
    let unreadable = |source| PackError::InputUnreadable { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).map_err(unreadable)?.take(TEXT_LIMIT + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > TEXT_LIMIT {
        return Err(PackError::DockerfileTooLarge { path: path.to_owned(), limit: TEXT_LIMIT });
    }
    Ok(content)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

/// Not there, or behind something that is no directory: both mean that there is no such file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
