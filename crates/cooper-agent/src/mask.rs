//! Masking of secret values in streams of bytes, across all edges of chunks.
//!
//! Without IO. A [`MaskSet`] knows what to look for, a [`Masker`] is one stream's state. Everything that an agent says of a
//! step passes through here; what the step itself does with a secret (reversing it, say) is beyond masking.

mod patterns;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{AhoCorasick, Anchored, MatchKind};

/// What stands in place of a secret.
const MASK: &[u8] = b"***";
/// The most bytes of patterns in one set. A byte costs up to a hundred of memory while a set is made; an engine takes
/// secrets of 500 KB.
const MAX_PATTERN_BYTES: usize = 2 * 1024 * 1024;
/// Up to so many bytes of patterns are looked for far ahead, too: that takes tables of its own.
const MAX_AHEAD_BYTES: usize = 64 * 1024;

/// What to look for. Cheap to clone; what is added to one is looked for by all its clones, and by their maskers.
#[derive(Clone)]
pub(crate) struct MaskSet(Arc<Shared>);

struct Shared {
    /// Grows with every addition.
    generation: AtomicU64,
    known: RwLock<Known>,
}

#[derive(Clone, Default)]
struct Known {
    patterns: BTreeSet<Vec<u8>>,
    tables: Option<Arc<Tables>>,
    too_short: usize,
}

struct Tables {
    automaton: NFA,
    start: StateID,
    /// Finds the next whole secret fast.
    ahead: Option<AhoCorasick>,
    /// How long the longest secret is.
    longest: usize,
    /// Whether a byte may begin a secret.
    begins: [bool; 256],
    /// How many bytes of the input a state stands for: so many may still become part of a match.
    depths: HashMap<StateID, usize>,
}

/// The secrets of a step take more than can be looked for.
#[derive(Debug, thiserror::Error)]
#[error("the secrets of this step are too large to be masked: their forms take more than {MAX_PATTERN_BYTES} bytes")]
pub(crate) struct TooLarge;

impl MaskSet {
    /// A set for these values in all their forms.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TooLarge> {
        let known = RwLock::new(Known::default().with(values)?);
        Ok(Self(Arc::new(Shared { generation: AtomicU64::new(0), known })))
    }

    /// Has more values looked for, from now on.
    pub(crate) fn add<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> Result<(), TooLarge> {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = known.with(values)?;
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How many of the values are too short to be masked.
    pub(crate) fn too_short(&self) -> usize {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).too_short
    }

    /// What is looked for now, and since which addition.
    fn tables(&self) -> (u64, Option<Arc<Tables>>) {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        (self.0.generation.load(Ordering::Acquire), known.tables.clone())
    }

    /// A text that is whole, masked.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut masker = Masker::new(self.clone());
        if masker.tables.is_none() {
            return text.to_owned();
        }
        let mut out = Vec::with_capacity(text.len());
        masker.feed(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        // A secret of arbitrary bytes can end inside a character.
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Known {
    /// The same and these values in all their forms.
    fn with<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TooLarge> {
        let mut known = self.clone();
        for value in values {
            known.too_short += usize::from(patterns::add(value, &mut known.patterns));
            if known.patterns.iter().map(Vec::len).sum::<usize>() > MAX_PATTERN_BYTES {
                return Err(TooLarge);
            }
        }
        known.tables = Tables::new(&known.patterns)?.map(Arc::new);
        Ok(known)
    }
}

impl Tables {
    fn new(patterns: &BTreeSet<Vec<u8>>) -> Result<Option<Self>, TooLarge> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let automaton =
            NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(patterns).map_err(|_| TooLarge)?;
        let start = automaton.start_state(Anchored::No).map_err(|_| TooLarge)?;
        let is_small = patterns.iter().map(Vec::len).sum::<usize>() <= MAX_AHEAD_BYTES;
        let ahead = is_small.then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(patterns));
        let ahead = ahead.transpose().map_err(|_| TooLarge)?;
        let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
        let mut begins = [false; 256];
        patterns.iter().filter_map(|pattern| pattern.first()).for_each(|byte| begins[usize::from(*byte)] = true);
        let mut depths = HashMap::from([(start, 0)]);
        for pattern in patterns {
            let mut state = start;
            for (index, byte) in pattern.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state, index + 1);
            }
        }
        Ok(Some(Self { automaton, start, ahead, longest, begins, depths }))
    }
}

impl Tables {
    /// Up to where no secret begins in `bytes[at..]`, be it whole or cut off at their end. `next` is where the next whole
    /// one begins, or their end, as far as that is known.
    fn clear(&self, bytes: &[u8], at: usize, next: &mut Option<usize>) -> usize {
        let mut clear = at;
        if let Some(ahead) = &self.ahead {
            let next = match *next {
                Some(known) if known >= at => known,
                _ => *next.insert(ahead.find(&bytes[at..]).map_or(bytes.len(), |found| at + found.start())),
            };
            clear = next.min(bytes.len().saturating_sub(self.longest - 1)).max(at);
        }
        let begins = |byte: &u8| self.begins[usize::from(*byte)];
        bytes[clear..].iter().position(begins).map_or(bytes.len(), |more| clear + more)
    }

    /// How long the longest secret is that ends in this state.
    fn longest_match(&self, state: StateID) -> Option<usize> {
        if !self.automaton.is_match(state) {
            return None;
        }
        (0..self.automaton.match_len(state))
            .map(|index| self.automaton.pattern_len(self.automaton.match_pattern(state, index)))
            .max()
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables")
    }
}

impl std::fmt::Debug for MaskSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskSet")
    }
}

/// One stream being masked. It holds back what may be the beginning of a secret.
#[derive(Debug)]
pub(crate) struct Masker {
    set: MaskSet,
    /// Since which addition `tables` are what is looked for.
    generation: u64,
    tables: Option<Arc<Tables>>,
    state: Option<StateID>,
    held: Vec<u8>,
    /// Secrets within `held`, in order, apart from each other.
    spans: VecDeque<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    /// Its mask is out already; only its rest is still held.
    said: bool,
}

impl Masker {
    /// The start of a stream.
    pub(crate) fn new(set: MaskSet) -> Self {
        let (generation, tables) = set.tables();
        let state = tables.as_ref().map(|tables| tables.start);
        Self { set, generation, tables, state, held: Vec::new(), spans: VecDeque::new() }
    }

    /// Takes up what has been added since; what is held back is looked through once more.
    fn look_for_more(&mut self) {
        if self.set.0.generation.load(Ordering::Acquire) == self.generation {
            return;
        }
        (self.generation, self.tables) = self.set.tables();
        let Some(tables) = self.tables.clone() else { return };
        let mut state = tables.start;
        for index in 0..self.held.len() {
            state = tables.automaton.next_state(Anchored::No, state, self.held[index]);
            if let Some(longest) = tables.longest_match(state) {
                self.cover(index + 1 - longest, index + 1);
            }
        }
        self.state = Some(state);
    }

    /// Takes the next bytes of the stream and appends to `out` what is certain by now.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.look_for_more();
        let (Some(tables), Some(mut state)) = (self.tables.clone(), self.state) else {
            out.extend_from_slice(bytes);
            return;
        };
        let mut at = 0;
        let mut next = None;
        loop {
            if state == tables.start && self.held.is_empty() {
                // Most output is far from any secret.
                let clear = tables.clear(bytes, at, &mut next);
                out.extend_from_slice(&bytes[at..clear]);
                at = clear;
            }
            let Some(byte) = bytes.get(at) else { break };
            at += 1;
            self.held.push(*byte);
            state = tables.automaton.next_state(Anchored::No, state, *byte);
            if let Some(longest) = tables.longest_match(state) {
                self.cover(self.held.len() - longest, self.held.len());
            }
            if state == tables.start {
                self.release(self.held.len(), out);
            }
        }
        self.state = Some(state);
        let open = tables.depths.get(&state).copied().unwrap_or(self.held.len());
        self.release(self.held.len() - open, out);
    }

    /// Ends the stream, appending what was held back. Another may begin after it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.look_for_more();
        self.release(self.held.len(), out);
        self.spans.clear();
        self.state = self.tables.as_ref().map(|tables| tables.start);
    }

    /// Marks a secret. What overlaps becomes one: neither's rest may show.
    fn cover(&mut self, start: usize, end: usize) {
        let mut span = Span { start, end, said: false };
        while let Some(last) = self.spans.pop_back_if(|last| last.end > span.start) {
            span.start = span.start.min(last.start);
            span.end = span.end.max(last.end);
            span.said |= last.said;
        }
        self.spans.push_back(span);
    }

    /// Lets out the first `length` held bytes: no later match can begin there.
    fn release(&mut self, length: usize, out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(span) = self.spans.front_mut().filter(|span| span.start < length) {
            out.extend_from_slice(&self.held[at..span.start]);
            if !span.said {
                out.extend_from_slice(MASK);
            }
            if span.end > length {
                span.said = true;
                span.start = length;
                at = length;
                break;
            }
            at = span.end;
            self.spans.pop_front();
        }
        out.extend_from_slice(&self.held[at..length]);
        self.held.drain(..length);
        for span in &mut self.spans {
            span.start -= length;
            span.end -= length;
        }
    }
}

#[cfg(test)]
mod tests;
