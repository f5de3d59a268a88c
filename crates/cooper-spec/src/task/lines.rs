//! Texts that remember where their lines come from: a fault in what aliases and templates made points at the file.
//!
//! Owns the way from a place in a derived text to one in the file. Aliases map line by line. What a template made is laid
//! beside what it was made of: equal lines belong together, and so do as many lines between two such pairs.

use super::fault::{Fault, Place};
use super::yaml::At;

/// A file as it was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    lines: Vec<String>,
}

/// Lines of a text, each with the number of the file's line that it stands for, if one does.
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    source: &'a Source,
    lines: Vec<(String, Option<usize>)>,
}

/// The most pairs of lines that are compared; beyond it, places are told by the rendered line.
const MAX_PAIRS: usize = 4 << 20;
/// The most characters of a line that a fault shows.
const MAX_SHOWN: usize = 400;
/// The longest line, in bytes, whose later characters are sought: it may have a fault in each of its words.
const MAX_SOUGHT: usize = 16 << 10;
/// How many of them stand before what is meant, if that is far to the right.
const BEFORE: usize = 100;

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        Self { name: name.to_owned(), lines }
    }

    /// All its lines.
    pub(super) fn lines(&self) -> Lines<'_> {
        let lines = self.lines.iter().enumerate().map(|(index, line)| (line.clone(), Some(index + 1))).collect();
        Lines { source: self, lines }
    }
}

impl<'a> Lines<'a> {
    /// The text, lines joined.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|(line, _)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The line that a place is in.
    pub(super) fn line(&self, at: At) -> &str {
        self.lines.get(at.line.saturating_sub(1)).map_or("", |(line, _)| line)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(line, _)| line.as_str())
    }

    /// The lines that are wanted.
    pub(super) fn filter(&self, mut wanted: impl FnMut(usize, &str) -> bool) -> Self {
        let lines = self.lines.iter().enumerate().filter(|(index, (line, _))| wanted(*index, line));
        Self { source: self.source, lines: lines.map(|(_, line)| line.clone()).collect() }
    }

    /// Each line changed by itself; what a line becomes may be several.
    pub(super) fn map<E>(&self, mut change: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        let mut lines = Vec::with_capacity(self.lines.len());
        for (line, origin) in &self.lines {
            lines.extend(change(line)?.split('\n').map(|part| (part.to_owned(), *origin)));
        }
        Ok(Self { source: self.source, lines })
    }

    /// What a template made of these lines.
    pub(super) fn rendered(&self, text: &str) -> Self {
        let new: Vec<&str> = text.split('\n').collect();
        let old: Vec<&str> = self.iter().collect();
        let origins = align(&old, &new);
        let lines = new
            .iter()
            .zip(origins)
            .map(|(line, origin)| ((*line).to_owned(), origin.and_then(|index| self.lines[index].1)));
        Self { source: self.source, lines: lines.collect() }
    }

    /// The place in the file that a place in this text stands for.
    pub(super) fn place(&self, at: At) -> Place {
        let file = self.source.name.clone();
        // Parsers find some faults behind the last line: that one's end is meant then, or the file's if none is left.
        let (line, origin, at) = match (self.lines.get(at.line.saturating_sub(1)), self.lines.last()) {
            (Some((line, origin)), _) => (line.as_str(), *origin, at),
            (None, Some((line, origin))) => {
                let at = At { line: self.lines.len(), column: line.chars().count() + 1, length: 1 };
                (line.as_str(), *origin, at)
            }
            (None, None) => ("", Some(1), At { line: 1, column: 1, length: 1 }),
        };
        match origin.and_then(|number| Some((number, self.source.lines.get(number - 1)?))) {
            Some((number, text)) => {
                let (column, length) = column(line, text, at);
                let (text, start) = shown(text, column, length);
                Place { file, line: number, column, length, text, start, rendered: false }
            }
            None => {
                let (column, length) = (at.column, at.length);
                let (text, start) = shown(line, column, length);
                Place { file, line: at.line, column, length, text, start, rendered: true }
            }
        }
    }

    /// A fault at a place of this text.
    pub(super) fn fault(&self, at: At, message: impl Into<String>, help: Option<String>) -> Fault {
        Fault { place: Some(Box::new(self.place(at))), message: message.into(), help }
    }
}

/// What is shown of a line, and the column that it begins at: what is meant stands in it, unless the line is far too long.
fn shown(line: &str, column: usize, length: usize) -> (String, usize) {
    let is_near = column + length <= MAX_SHOWN || line.len() > MAX_SOUGHT;
    let start = if is_near { 1 } else { column.saturating_sub(BEFORE).max(1) };
    (line.chars().skip(start - 1).take(MAX_SHOWN).collect(), start)
}

/// Column and length in the file's line of what stands in the line that was made of it.
fn column(line: &str, source: &str, at: At) -> (usize, usize) {
    if line == source {
        return (at.column, at.length);
    }
    let (new, old): (Vec<char>, Vec<char>) = (line.chars().collect(), source.chars().collect());
    let same = new.iter().zip(&old).take_while(|(a, b)| a == b).count();
    if at.column + at.length <= same + 1 {
        return (at.column, at.length);
    }
    let same_end = new.iter().rev().zip(old.iter().rev()).take_while(|(a, b)| a == b).count();
    let from_end = (new.len() + 1).saturating_sub(at.column);
    if from_end <= same_end {
        return (old.len() + 1 - from_end, at.length);
    }
    // It begins before, or within, what was replaced: point at where it begins, as far as it can be told.
    let column = at.column.min(same + 1);
    let length = (old.len() + 1).saturating_sub(column).saturating_sub(same_end.min(old.len() - same));
    (column, length.max(1))
}

/// For each new line, the index of the old line that it stands for.
fn align(old: &[&str], new: &[&str]) -> Vec<Option<usize>> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
    let mut origins = vec![None; new.len()];
    for (index, origin) in origins.iter_mut().enumerate().take(start) {
        *origin = Some(index);
    }
    for back in 1..=end {
        origins[new.len() - back] = Some(old.len() - back);
    }
    let (old_middle, new_middle) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let pairs = match old_middle.len().saturating_mul(new_middle.len()) {
        0..=MAX_PAIRS => common(old_middle, new_middle),
        _ => Vec::new(),
    };
    // Between two pairs, and before the first and after the last.
    let mut from = (0, 0);
    for to in pairs.iter().copied().chain([(old_middle.len(), new_middle.len())]) {
        let (olds, news) = (to.0 - from.0, to.1 - from.1);
        for step in 0..news {
            origins[start + from.1 + step] = match (olds, news) {
                _ if olds == news => Some(start + from.0 + step),
                (1, _) => Some(start + from.0),
                _ => None,
            };
        }
        if to.1 < new_middle.len() {
            origins[start + to.1] = Some(start + to.0);
        }
        from = (to.0 + 1, to.1 + 1);
    }
    origins
}

/// The longest sequence of lines that both have, in order, as pairs of indexes. Blank lines pair nothing.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    let equal = |i: usize, j: usize| old[i] == new[j] && !old[i].trim().is_empty();
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = match equal(i, j) {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if equal(i, j) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_rendered_text_find_those_of_the_file() {
        // One letter is one line; the expected string says which line of the old text each new one stands for.
        let check = |old: &str, new: &str, expected: &str| {
            let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
            let (old_lines, new_lines) = (lines(old), lines(new));
            let old: Vec<&str> = old_lines.iter().map(String::as_str).collect();
            let new_refs: Vec<&str> = new_lines.iter().map(String::as_str).collect();
            let shown = align(&old, &new_refs).into_iter().map(|origin| match origin {
                Some(index) => char::from_digit(index as u32 + 1, 10).expect("few lines"),
                None => '?',
            });
            assert_eq!(shown.collect::<String>(), expected, "{old:?} → {new}");
        };
        check("abc", "abc", "123");
        check("a$c", "axc", "123");
        check("a$c", "axyzc", "12223");
        check("a{b}c", "abc", "135");
        check("a{b}c", "a b c", "12345");
        check("a{b}c", "abbbc", "13445");
        check("{a}", "", "");
        check("", "abc", "???");
        check("a$b$c", "axbyc", "12345");
        check("a$b$c", "axybzc", "122345");
    }

    #[test]
    fn columns_pass_what_was_replaced() {
        let at = |column, length| At { line: 1, column, length };
        assert_eq!(column("a: xyz", "a: xyz", at(4, 3)), (4, 3));
        // `when` stands before what changed.
        assert_eq!(column("when: a-1", "when: a-{{.Run.ID}}", at(1, 4)), (1, 4));
        // `b` stands behind it.
        assert_eq!(column("[a-1, b]", "[a-{{.Run.ID}}, b]", at(7, 1)), (17, 1));
        // The value that changed.
        assert_eq!(column("id: a-1", "id: a-{{.Run.ID}}", at(5, 3)), (5, 13));
    }

    proptest::proptest! {
        #[test]
        fn every_origin_is_a_line_of_the_old_text_and_they_never_go_back(
            old in proptest::collection::vec("[a-c]?", 0..12), new in proptest::collection::vec("[a-c]?", 0..12),
        ) {
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let origins = align(&old, &new);
            proptest::prop_assert_eq!(origins.len(), new.len());
            let known: Vec<usize> = origins.into_iter().flatten().collect();
            proptest::prop_assert!(known.is_sorted() && known.iter().all(|index| *index < old.len()));
        }
    }
}
