//! What `acr purge` would delete: its filters, its ages, and the choice of tags and manifests (contract §8.1).
//!
//! Who lists and who deletes is the caller's business. Filters have lookaround and back-references, as ACR's have; what
//! bounds one is a number of steps for each name, not a time.

mod ago;
mod choice;
mod filter;

pub use ago::{Ago, AgoError};
pub use choice::{About, ManifestFacts, TagFacts, manifests, tags};
pub use filter::{Filter, FilterError};
