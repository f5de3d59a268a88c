//! What `acr purge` would delete: its filters, its ages, and the choice of tags and manifests (contract §8.1).
//!
//! Who lists and who deletes is the caller's business. Filters are matched in linear time: there is no lookaround and no
//! back-reference, and so no limit for the time of one.

mod ago;
mod choice;
mod filter;

pub use ago::{Ago, AgoError};
pub use choice::{About, ManifestFacts, TagFacts, manifests, tags};
pub use filter::{Filter, FilterError};
