//! What a `push` step publishes, and what a stage leaves in registries for other placements.

use cooper_types::{ImageRef, Platform};
use serde::{Deserialize, Serialize};

/// A `push` step, or a stage: a push that gives nobody a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct PushWork {
    /// The names that are pushed, in order.
    pub names: Vec<PushedName>,
    /// Whether it is a stage: what it pushes to the embedded registry is there for the run's other placements, which name
    /// it by its digest, and no tag moves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_stage: bool,
}

/// An image under one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedName {
    /// Where it goes: the reference names its registry and its tag. A stage's has no tag in the embedded registry.
    pub image: ImageRef,
    /// What goes there.
    #[serde(flatten)]
    pub from: PushedFrom,
}

/// What is pushed under a name. Steps are named by their indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushedFrom {
    /// What a step of the same placement built.
    #[serde(rename = "built_by")]
    Built(usize),
    /// What a stage of another placement left in the name's repository.
    #[serde(rename = "staged_by")]
    Staged(usize),
    /// An index of what stages left in the name's repository.
    #[serde(rename = "index_of")]
    Index(Vec<IndexPart>),
}

/// One platform's part of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// What it is for.
    pub platform: Platform,
    /// Index of the stage that left it there.
    pub staged_by: usize,
    /// Index of the step that built it.
    pub built_by: usize,
}

/// The forms that are found in records: a push of one image's names was written in another form once.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Names {
        names: Vec<PushedName>,
        #[serde(default)]
        is_stage: bool,
    },
    OneImage {
        built_by: usize,
        images: Vec<ImageRef>,
    },
}

impl From<Stored> for PushWork {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Names { names, is_stage } => Self { names, is_stage },
            Stored::OneImage { built_by, images } => Self::of_one(built_by, images),
        }
    }
}

impl PushWork {
    /// A push of names, in order.
    pub fn new(names: Vec<PushedName>) -> Self {
        Self { names, is_stage: false }
    }

    /// The push of one step's image under several names.
    pub fn of_one(built_by: usize, images: impl IntoIterator<Item = ImageRef>) -> Self {
        let from = PushedFrom::Built(built_by);
        Self::new(images.into_iter().map(|image| PushedName { image, from: from.clone() }).collect())
    }

    /// A stage of one step's image.
    pub fn stage_of(built_by: usize, images: impl IntoIterator<Item = ImageRef>) -> Self {
        Self { is_stage: true, ..Self::of_one(built_by, images) }
    }
}

impl PushedFrom {
    /// The steps whose success it stands on.
    pub fn steps(&self) -> Vec<usize> {
        match self {
            Self::Built(step) | Self::Staged(step) => vec![*step],
            Self::Index(parts) => parts.iter().map(|part| part.staged_by).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_written_forms_are_read() {
        let image = || ImageRef::parse("localhost:5000/app:v1").expect("valid");
        let old = format!(r#"{{"built_by":2,"images":[{}]}}"#, serde_json::to_string(&image()).expect("json"));
        let work = PushWork::of_one(2, [image()]);
        assert_eq!(serde_json::from_str::<PushWork>(&old).expect("the old form"), work);
        let new = serde_json::to_string(&work).expect("json");
        assert_eq!(new, format!(r#"{{"names":[{{"image":"{}","built_by":2}}]}}"#, image()));
        assert_eq!(serde_json::from_str::<PushWork>(&new).expect("the new form"), work);
    }

    #[test]
    fn every_source_is_written_and_read() {
        let image = || ImageRef::parse("localhost:5000/app:v1").expect("valid");
        let part = |platform: &str, staged_by| IndexPart {
            platform: Platform::parse(platform).expect("valid"),
            staged_by,
            built_by: 0,
        };
        let index = PushedFrom::Index(vec![part("linux/amd64", 1), part("linux/arm/v7", 3)]);
        for from in [PushedFrom::Built(0), PushedFrom::Staged(4), index] {
            let work = PushWork { names: vec![PushedName { image: image(), from }], is_stage: true };
            let json = serde_json::to_string(&work).expect("json");
            assert_eq!(serde_json::from_str::<PushWork>(&json).expect("its own form"), work, "{json}");
        }
    }
}
