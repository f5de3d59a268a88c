//! The settings as `cooper config show` shows them: every key with its value and where that comes from.
//!
//! No setting is a secret: keys, tokens and certificates are files, of which the settings hold the paths.

use std::path::Path;

use serde::Serialize;

use super::{Flags, Key, Layers, Origin, docker_host, read_file, resolve};
use crate::environment::Environment;
use crate::fault::Fault;

/// A setting for people and programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShownSetting {
    /// Its name in the configuration file.
    pub(crate) name: &'static str,
    /// Its value, as it was written.
    pub(crate) value: String,
    /// The flag, the variable, `FILE:LINE`, or `default`.
    pub(crate) origin: String,
}

/// Every setting of `cooper serve`, in the order of its help; the same faults as a start has.
pub(crate) fn shown(
    flags: &Flags,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<ShownSetting>, Vec<Fault>> {
    let resolved = resolve(flags, file, environment)?;
    let mut faults = Vec::new();
    let file = read_file(file, environment, &mut faults);
    let mut layers = Layers { flags, environment, file: &file, faults, flag: Key::flag };
    let settings = Key::ALL.into_iter().filter(|key| !key.is_agents_own()).map(|key| {
        let (value, origin) = match layers.find(key) {
            Some((Origin::Flag, text)) => (text, key.flag()),
            Some((Origin::Variable(name), text)) => (text, name),
            Some((Origin::File(line), text)) => (text, line),
            None => match (key, docker_host(environment)) {
                (Key::Engine, Some(socket)) => (socket, "DOCKER_HOST".to_owned()),
                (Key::DataDir, _) => (resolved.server.data_dir.display().to_string(), "default".to_owned()),
                _ => (key.default_text().to_owned(), "default".to_owned()),
            },
        };
        ShownSetting { name: key.name(), value, origin }
    });
    Ok(settings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_origin() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("c.toml"), "# comment\nslots = 7\nlog = \"debug\"\n").expect("write");
        let environment = Environment::of(&[
            ("HOME", "/home/dev"),
            ("COOPER_LOG", "warn"),
            ("COOPER_LISTEN", "127.0.0.1:1"),
            ("DOCKER_HOST", "unix:///run/e.sock"),
        ]);
        let flags = vec![(Key::Listen, "127.0.0.1:2".to_owned())];
        let file = folder.path().join("c.toml");
        let settings = shown(&flags, Some(&file), &environment).expect("valid");
        assert_eq!(settings.len(), Key::ALL.iter().filter(|key| !key.is_agents_own()).count());
        let check = |name: &str, value: &str, origin: &str| {
            let setting = settings.iter().find(|setting| setting.name == name).expect(name);
            assert_eq!((setting.value.as_str(), setting.origin.as_str()), (value, origin), "{name}");
        };
        check("listen", "127.0.0.1:2", "--listen");
        check("log", "warn", "COOPER_LOG");
        check("slots", "7", &format!("{}:2", file.display()));
        check("engine", "/run/e.sock", "DOCKER_HOST");
        check("data-dir", "/home/dev/.local/share/cooper", "default");
        check("shutdown-grace", "20", "default");
    }

    /// Defaults are told as text here and held as values there: both must say the same.
    #[test]
    fn a_default_that_is_shown_is_the_one_that_holds() {
        let environment = Environment::of(&[("HOME", "/home/dev")]);
        let plain = resolve(&Vec::new(), None, &environment).expect("valid");
        for key in Key::ALL {
            // These stand for something that only the machine or the start knows.
            if matches!(key, Key::DataDir | Key::RegistryName | Key::Engine) || key.default_text().contains(' ') {
                continue;
            }
            let said = resolve(&vec![(key, key.default_text().to_owned())], None, &environment);
            assert_eq!(said.as_ref(), Ok(&plain), "{}", key.name());
        }
    }
}
