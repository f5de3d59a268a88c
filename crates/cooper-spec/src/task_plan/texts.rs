//! The secret texts of a plan: told from others by what they are with other secrets, and kept under names.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_types::{SecretBytes, SecretString, StepId};

use crate::plan::Text;
use crate::task::TaskInputs;

/// Collects the secret texts of a plan.
pub(super) struct Texts(BTreeMap<String, SecretString>);

impl Texts {
    /// Begins with the secrets themselves, which are masked wherever they stand.
    pub(super) fn new(inputs: &TaskInputs) -> Self {
        let secrets = inputs.secrets.iter().map(|(id, value)| (format!("secret/{id}"), value.clone()));
        let set = inputs.set.iter().filter(|set| set.secret);
        let set = set.map(|set| (format!("set/{}", set.name), SecretString::new(set.value.clone())));
        Self(secrets.chain(set).filter(|(_, value)| !value.expose().is_empty()).collect())
    }

    /// A text, and what it is with other secrets.
    pub(super) fn text(&mut self, step: &StepId, place: &str, real: &str, shown: Option<&str>) -> Text {
        if shown == Some(real) {
            return Text::Plain(real.to_owned());
        }
        let name = format!("step/{step}/{place}");
        self.0.insert(name.clone(), SecretString::new(real.to_owned()));
        Text::Secret(name)
    }

    /// Several texts that stand in a row. If there are more or fewer of them with other secrets, the first one that differs
    /// and all behind it are secret.
    pub(super) fn row(&mut self, step: &StepId, place: &str, real: &[String], shown: &[String]) -> Vec<Text> {
        let mut same = true;
        real.iter()
            .enumerate()
            .map(|(index, text)| {
                let other = shown.get(index).filter(|_| same || real.len() == shown.len());
                same &= other == Some(text);
                self.text(step, &format!("{place}/{index}"), text, other.map(String::as_str))
            })
            .collect()
    }

    /// A file of a secret volume: all of them are secret.
    pub(super) fn file(&mut self, volume: &str, file: &str, data: &SecretBytes) -> Text {
        let name = format!("volume/{volume}/{file}");
        self.0.insert(name.clone(), SecretString::new(STANDARD.encode(data.expose())));
        // What a step shows of it is the file's own text, not its encoding.
        if let Ok(text) = std::str::from_utf8(data.expose())
            && !text.is_empty()
        {
            self.0.insert(format!("content/{volume}/{file}"), SecretString::new(text.to_owned()));
        }
        Text::Secret(name)
    }

    pub(super) fn into_inner(self) -> BTreeMap<String, SecretString> {
        self.0
    }
}
