//! What a `push` step publishes.

use cooper_types::ImageRef;
use serde::{Deserialize, Serialize};

/// A `push` step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct PushWork {
    /// The names that are pushed, in order.
    pub names: Vec<PushedName>,
}

/// An image under one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedName {
    /// Where it goes: the reference names its registry and its tag.
    pub image: ImageRef,
    /// Index of the step that built it.
    pub built_by: usize,
}

/// The forms that are found in records: a push of one image's names was written in another form once.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Names { names: Vec<PushedName> },
    OneImage { built_by: usize, images: Vec<ImageRef> },
}

impl From<Stored> for PushWork {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Names { names } => Self { names },
            Stored::OneImage { built_by, images } => Self::of_one(built_by, images),
        }
    }
}

impl PushWork {
    /// The push of one step's image under several names.
    pub fn of_one(built_by: usize, images: impl IntoIterator<Item = ImageRef>) -> Self {
        Self { names: images.into_iter().map(|image| PushedName { image, built_by }).collect() }
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
        assert_eq!(serde_json::from_str::<PushWork>(&new).expect("the new form"), work);
    }
}
