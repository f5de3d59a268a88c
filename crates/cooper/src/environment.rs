//! The environment as a value: read from the process in one place, given by tests.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::fault::Fault;

type Lookup = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;
type Names = Box<dyn Fn() -> Vec<OsString> + Send + Sync>;

/// Looks up environment variables, and what else a process finds around it. An empty variable counts as absent.
pub(crate) struct Environment {
    lookup: Lookup,
    names: Names,
    host_name: Option<String>,
}

impl Environment {
    /// The process's environment.
    pub(crate) fn process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let lookup = |name: &str| std::env::var_os(name);
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let names = || std::env::vars_os().map(|(name, _)| name).collect();
        #[cfg(unix)]
        let host_name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        #[cfg(windows)]
        let host_name = lookup("COMPUTERNAME").and_then(|name| name.into_string().ok());
        Self { lookup: Box::new(lookup), names: Box::new(names), host_name }
    }

    /// An environment of these variables only.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let variables: std::collections::HashMap<String, OsString> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let names: Vec<OsString> = variables.keys().map(Into::into).collect();
        let lookup = move |name: &str| variables.get(name).cloned();
        Self { lookup: Box::new(lookup), names: Box::new(move || names.clone()), host_name: None }
    }

    /// The machine's own name.
    pub(crate) fn host_name(&self) -> Option<String> {
        self.host_name.clone().filter(|name| !name.is_empty())
    }

    /// The names that begin so, of variables that are not empty.
    pub(crate) fn beginning_with(&self, prefix: &str) -> Vec<String> {
        let names = (self.names)().into_iter().filter_map(|name| name.into_string().ok());
        names.filter(|name| name.starts_with(prefix) && self.is_set(name)).collect()
    }

    /// A variable's bytes, empty or not.
    pub(crate) fn raw(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name)
    }

    /// A variable that is text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.raw(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Fault::usage(format!("environment variable {name} is not UTF-8 text"))),
            },
        }
    }

    /// A variable that is a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Whether a variable is there and not empty.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| !value.is_empty())
    }

    /// Where the login file and `cooper.toml` are: `COOPER_CONFIG_DIR`, else `cooper` in the XDG configuration folder.
    pub(crate) fn config_dir(&self) -> Option<PathBuf> {
        self.path("COOPER_CONFIG_DIR").or_else(|| self.xdg("XDG_CONFIG_HOME", ".config"))
    }

    /// Where a server keeps its data unless told otherwise: `cooper` in the XDG data folder.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        self.xdg("XDG_DATA_HOME", ".local/share")
    }

    /// Where an agent by itself keeps its data unless told otherwise: `cooper-agent` beside a server's.
    pub(crate) fn agent_data_dir(&self) -> Option<PathBuf> {
        Some(self.data_dir()?.with_file_name("cooper-agent"))
    }

    fn xdg(&self, name: &str, in_home: &str) -> Option<PathBuf> {
        // The XDG specification: a relative path is to be ignored.
        let set = self.path(name).filter(|path| path.is_absolute());
        let folder = set.or_else(|| Some(self.path("HOME")?.join(in_home)))?;
        Some(folder.join("cooper"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_xdg() {
        let check = |variables: &[(&str, &str)], config: Option<&str>, data: Option<&str>| {
            let environment = Environment::of(variables);
            assert_eq!(environment.config_dir(), config.map(PathBuf::from), "{variables:?}");
            assert_eq!(environment.data_dir(), data.map(PathBuf::from), "{variables:?}");
        };
        check(&[], None, None);
        check(&[("HOME", "/home/a")], Some("/home/a/.config/cooper"), Some("/home/a/.local/share/cooper"));
        check(
            &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "d")],
            Some("/c/cooper"),
            Some("/h/.local/share/cooper"),
        );
        check(&[("HOME", "/h"), ("COOPER_CONFIG_DIR", "/x")], Some("/x"), Some("/h/.local/share/cooper"));
        check(&[("HOME", "/h"), ("COOPER_CONFIG_DIR", "")], Some("/h/.config/cooper"), Some("/h/.local/share/cooper"));
    }
}
