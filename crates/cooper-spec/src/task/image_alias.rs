//! The operator's names for images in task files (contract §4.4): `bash` for an image of this registry, say.

use cooper_types::ImageRef;

use super::alias::{PREDEFINED, is_name};

/// A name and the image that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageAlias {
    /// Letters and digits.
    pub name: String,
    /// A reference as it stands in a `cmd`.
    pub image: String,
}

/// A text is no image alias.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageAliasError {
    /// It has no two sides.
    #[error("`{0}` is not NAME=IMAGE")]
    Form(String),
    /// Aliases are found by letters and digits.
    #[error("`{0}` is not the name of an alias: write letters and digits alone")]
    Name(String),
    /// The name is a variable's of the run.
    #[error("`{0}` already stands for a variable of the run: choose another name")]
    Taken(String),
    /// The image is no reference.
    #[error("alias `{name}` stands for no image: {source}")]
    Image {
        /// The alias.
        name: String,
        /// Why.
        source: cooper_types::ImageRefError,
    },
}

impl ImageAlias {
    /// Parses `NAME=IMAGE`.
    pub fn parse(text: &str) -> Result<Self, ImageAliasError> {
        let clip = |text: &str| text.chars().take(160).collect::<String>();
        let (name, image) = text.split_once('=').ok_or_else(|| ImageAliasError::Form(clip(text)))?;
        let (name, image) = (name.trim(), image.trim());
        if !is_name(name) {
            return Err(ImageAliasError::Name(clip(name)));
        }
        if PREDEFINED.contains(&name) {
            return Err(ImageAliasError::Taken(name.to_owned()));
        }
        match ImageRef::parse(image) {
            Ok(_) => Ok(Self { name: name.to_owned(), image: image.to_owned() }),
            Err(source) => Err(ImageAliasError::Image { name: clip(name), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_letters_stands_for_an_image() {
        for text in [
            "bash=localhost:5000/tools/bash:5",
            "az = r.example.com/az@sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
        ] {
            assert!(ImageAlias::parse(text).is_ok(), "{text}");
        }
        for (text, says) in [
            ("bash", "not NAME=IMAGE"),
            ("=x", "letters and digits"),
            ("a-b=x", "letters and digits"),
            ("Registry=x", "variable of the run"),
            ("bash=", "no image"),
            ("bash=x y", "no image"),
            ("bash={{.Run.ID}}", "no image"),
        ] {
            let error = ImageAlias::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
