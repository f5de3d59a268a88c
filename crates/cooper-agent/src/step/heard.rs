//! Looking for texts in output that comes in pieces, with memory that has a bound.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;

/// Streams of output that are told apart; what more there are are looked at piece by piece.
const MAX_STREAMS: usize = 1000;

/// What was heard of the texts that make a failure worth another try (`retryOnErrors`): case counts, and a text may lie
/// across pieces of one stream.
pub(super) struct Heard {
    texts: Option<AhoCorasick>,
    longest: usize,
    found: bool,
    /// The last bytes of each stream, where a text may have begun.
    tails: HashMap<String, Vec<u8>>,
}

impl Heard {
    pub(super) fn new(texts: &[String]) -> Self {
        let wanted = texts.iter().filter(|text| !text.is_empty());
        Self {
            texts: if texts.is_empty() { None } else { AhoCorasick::new(wanted).ok() },
            longest: texts.iter().map(String::len).max().unwrap_or(0),
            // Every output holds the empty text.
            found: texts.iter().any(String::is_empty),
            tails: HashMap::new(),
        }
    }

    /// Whether one of the texts was there.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next bytes of a stream, as they are before anything is masked.
    pub(super) fn feed(&mut self, stream: &str, bytes: &[u8]) {
        let Some(texts) = self.texts.as_ref().filter(|_| !self.found) else { return };
        self.found = texts.is_match(bytes);
        if !self.tails.contains_key(stream) {
            if self.tails.len() >= MAX_STREAMS {
                return;
            }
            self.tails.insert(stream.to_owned(), Vec::new());
        }
        let Some(tail) = self.tails.get_mut(stream) else { return };
        // What lies across the edge: the end of the last piece and the beginning of this one.
        let keep = self.longest.saturating_sub(1);
        tail.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        self.found |= texts.is_match(&tail[..]);
        if bytes.len() >= keep {
            tail.clear();
            tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            let excess = tail.len().saturating_sub(keep);
            tail.drain(..excess);
        }
    }
}
