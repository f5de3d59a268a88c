//! `--secret id=ID[,src=FILE|env=NAME]`, as docker's: where a build secret's value comes from.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use cooper_api::rest::{BuildSecret, SecretValue};
use cooper_types::SecretBytes;

use crate::environment::Environment;
use crate::fault::Fault;

/// BuildKit takes no larger secret, in bytes.
const MAX_SECRET: u64 = 500 * 1024;

/// A secret that is named and not read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecretFlag {
    pub(super) id: String,
    pub(super) origin: SecretOrigin,
}

/// Where a secret's value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SecretOrigin {
    File(PathBuf),
    Variable(String),
}

impl SecretFlag {
    /// Parses the flag's value. Without `src` and `env`, the variable of the id's name is meant.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |what: &str| {
            // The text may hold a secret that was given in place of a name: it is not shown.
            Fault::usage(format!("--secret {what}"))
                .with_hint("write --secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE")
        };
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| fault("has a part without `=`"))?;
            let slot = match key.trim().to_ascii_lowercase().as_str() {
                "id" => &mut id,
                "src" | "source" => &mut file,
                "env" => &mut variable,
                "type" => &mut kind,
                key => return Err(fault(&format!("has a key `{key}`, which is none of id, src and env"))),
            };
            if value.is_empty() || slot.replace(value).is_some() {
                return Err(fault(&format!("has `{}` empty or twice", key.trim())));
            }
        }
        let id = id.ok_or_else(|| fault("has no id"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.len() > 128 || !id.chars().all(plain) {
            return Err(fault("has an id that is not 1 to 128 letters, digits, `-`, `_` and `.`"));
        }
        // Docker's `type=env,src=NAME` means a variable.
        let (file, variable) = match kind {
            None | Some("file") => (file, variable),
            Some("env") => (None, variable.or(file)),
            Some(_) => return Err(fault("has a type that is neither file nor env")),
        };
        let origin = match (file, variable) {
            (Some(_), Some(_)) => return Err(fault(&format!("id={id} has both src and env"))),
            (Some(file), None) => SecretOrigin::File(PathBuf::from(file)),
            (None, Some(variable)) => SecretOrigin::Variable(variable.to_owned()),
            (None, None) => SecretOrigin::Variable(id.to_owned()),
        };
        Ok(Self { id: id.to_owned(), origin })
    }

    /// Reads the value.
    pub(super) fn read(self, environment: &Environment) -> Result<BuildSecret, Fault> {
        let id = &self.id;
        let value = match &self.origin {
            SecretOrigin::File(path) => {
                let fault =
                    |error| Fault::usage(format!("secret `{id}`: file {} can't be read: {error}", path.display()));
                let mut value = Vec::new();
                fs::File::open(path)
                    .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut value))
                    .map_err(fault)?;
                value
            }
            SecretOrigin::Variable(name) => {
                let value = environment.raw(name).ok_or_else(|| {
                    Fault::usage(format!("secret `{id}`: environment variable {name} is not set"))
                        .with_hint(format!("set it, or say where the value is: --secret id={id},src=FILE"))
                })?;
                value.into_encoded_bytes()
            }
        };
        if value.len() as u64 > MAX_SECRET {
            return Err(Fault::usage(format!("secret `{id}` is larger than {MAX_SECRET} bytes")));
        }
        Ok(BuildSecret { id: self.id, value: SecretValue(SecretBytes::new(value)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_dockers() {
        let check = |text: &str, id: &str, origin: SecretOrigin| {
            assert_eq!(SecretFlag::parse(text), Ok(SecretFlag { id: id.to_owned(), origin }), "{text}");
        };
        let file = |path: &str| SecretOrigin::File(path.into());
        let variable = |name: &str| SecretOrigin::Variable(name.to_owned());
        check("id=npm,src=.npmrc", "npm", file(".npmrc"));
        check("src=a=b,id=npm", "npm", file("a=b"));
        check("id=npm,source=.npmrc,type=file", "npm", file(".npmrc"));
        check("id=token,env=TOKEN", "token", variable("TOKEN"));
        check("type=env,id=token,src=TOKEN", "token", variable("TOKEN"));
        check("id=TOKEN", "TOKEN", variable("TOKEN"));
        for bad in [
            "",
            "npm",
            "src=a",
            "id=",
            "id=a,id=b",
            "id=a,src=",
            "id=a,src=b,env=C",
            "id=a,mode=1",
            "id=a b",
            "id=a,type=x",
            "id=../a",
        ] {
            assert!(SecretFlag::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        let fault = SecretFlag::parse("hunter2").expect_err("no key");
        assert!(!fault.message.contains("hunter2"), "{}", fault.message);
    }

    #[test]
    fn values_come_from_files_and_variables() {
        let environment = Environment::of(&[("TOKEN", "hunter2"), ("EMPTY", "")]);
        let read = |text: &str| SecretFlag::parse(text).expect(text).read(&environment);
        assert_eq!(read("id=t,env=TOKEN").expect("read").value.0.expose(), b"hunter2");
        assert_eq!(read("id=EMPTY").expect("read").value.0.expose(), b"");
        assert!(read("id=t,env=NONE").expect_err("unset").message.contains("variable NONE is not set"));
        let file = tempfile::NamedTempFile::new().expect("file");
        fs::write(file.path(), [0, 159, 146, 150]).expect("write");
        let flag = format!("id=t,src={}", file.path().display());
        assert_eq!(read(&flag).expect("read").value.0.expose(), [0, 159, 146, 150]);
        fs::write(file.path(), vec![0; 500 * 1024 + 1]).expect("write");
        assert!(read(&flag).expect_err("large").message.contains("larger than"));
        assert!(read("id=t,src=/nonexistent/x").expect_err("absent").message.contains("/nonexistent/x"));
    }
}
