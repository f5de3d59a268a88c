//! `.dockerignore` rules, exactly as Docker's own matcher (moby/patternmatcher) and its file reader understand them.
//!
//! This owns the text: reading a file's lines, compiling patterns, deciding paths. It reads no folder: the walks over a
//! folder or over an unpacked context ask [`IgnoreWalk`] about each entry. Paths are relative, cleaned, with `/`.
//!
//! Three accidents of moby's translation into Go regular expressions are not copied, because what they do depends on the
//! regular expression's syntax and not on the documented one: inside `[…]`, `*` and `?` stand for themselves here;
//! `\d` is the letter `d`, not a digit; and `^` outside `[…]` is a character, not an anchor. A bad pattern is refused at
//! once, where moby may pass over one that no path makes it try.

mod pattern;
mod walk;

pub use walk::{IgnoreVerdict, IgnoreWalk};

use pattern::Pattern;

use crate::slash_path::clean;

/// A list of ignore patterns, the last that matches wins; `!` patterns bring paths back.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    patterns: Vec<Pattern>,
}

/// Why a line of an ignore file is not a pattern.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}:{line}: ignore pattern `{pattern}` is not valid: {reason}")]
pub struct IgnoreError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The pattern as it is written.
    pub pattern: String,
    /// What is wrong with it, and what to write instead.
    pub reason: &'static str,
}

/// Which patterns matched a directory: what a walk hands down to the directory's children.
#[derive(Clone, Debug, Default)]
pub struct ParentMatches(Vec<bool>);

impl IgnoreRules {
    /// Reads an ignore file: a byte order mark and `#` lines are skipped, blanks around a pattern are trimmed, paths are
    /// cleaned (`a/./b//c/../d/` is `a/b/d`), one leading `/` is dropped. `file` is only for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // Only a `#` in the first column makes a comment.
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let pattern = Pattern::parse(&normalise(line.trim())).map_err(|reason| IgnoreError {
                file: file.to_owned(),
                line: index + 1,
                pattern: line.trim().chars().take(160).collect(),
                reason,
            })?;
            patterns.push(pattern);
        }
        Ok(Self { patterns })
    }

    /// Takes patterns that have been read from a file already, as a BuildKit frontend sends them (`exclude-patterns`).
    /// In an error, `line` is the pattern's place in the list.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut parsed = Vec::new();
        for (index, text) in patterns.into_iter().enumerate() {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            parsed.push(Pattern::parse(&clean(text)).map_err(|reason| IgnoreError {
                file: "exclude-patterns".to_owned(),
                line: index + 1,
                pattern: text.chars().take(160).collect(),
                reason,
            })?);
        }
        Ok(Self { patterns: parsed })
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether this path is ignored, by itself or through one of its parents (moby's `MatchesOrParentMatches`).
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
        let mut ignored = false;
        for pattern in &self.patterns {
            // A pattern that could not change the verdict is not tried.
            if pattern.is_exception == ignored && pattern.matches_with_parents(path) {
                ignored = !pattern.is_exception;
            }
        }
        ignored
    }

    /// A walk over a tree under these rules.
    pub fn walk(&self) -> IgnoreWalk<'_> {
        IgnoreWalk::new(self)
    }

    /// The verdict on one entry of a walk, given what its parent directory matched (moby's
    /// `MatchesUsingParentResults`, which is what every walk of Docker's uses). `None` stands for an entry of the root.
    ///
    /// It differs from [`Self::is_ignored`] in one case: after `a/b` and `!a`, a walk leaves `a/b` ignored, because the
    /// exception was not tried at `a`, where there was nothing to bring back.
    pub fn matches_in(&self, path: &str, parent: Option<&ParentMatches>) -> (bool, ParentMatches) {
        let mut ignored = false;
        let mut matches = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.and_then(|parent| parent.0.get(index)).copied().unwrap_or(false);
            let matched = inherited
                || (pattern.is_exception == ignored
                    && if parent.is_some() { pattern.matches(path) } else { pattern.matches_with_parents(path) });
            if let Some(slot) = matches.get_mut(index) {
                *slot = matched;
            }
            if matched {
                ignored = !pattern.is_exception;
            }
        }
        (ignored, ParentMatches(matches))
    }

    fn exceptions(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().filter(|pattern| pattern.is_exception)
    }
}

/// A file's line as a pattern: cleaned behind its `!`, relative to the context's root.
fn normalise(line: &str) -> String {
    let (mark, rest) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if rest.is_empty() {
        return mark.to_owned();
    }
    let cleaned = clean(rest);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    // The matcher cleans the whole pattern once more, which turns `!/` into a bare `!`.
    clean(&format!("{mark}{relative}"))
}

#[cfg(test)]
mod tests;
