//! What differs between two YAML texts, in lines: each below what it is a part of.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffTag};

/// How long the shortest difference is looked for; after that, one that is longer does.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines that are in one text alone, in the order of the second: `-` before those of the first, `+` before the others. What
/// they are parts of stands above them.
pub(super) fn difference(before: &str, after: &str) -> Vec<String> {
    let mut places = HashMap::new();
    let (one, two) = (Outline::of(before, &mut places), Outline::of(after, &mut places));
    let (mut lines, mut around) = (Vec::new(), Vec::new());
    // What is on the way to a line, as far as it is not there yet.
    let mut show = |outline: &Outline<'_>, line: usize, mark: char| {
        let parents = outline.parents(line);
        let known = around.iter().zip(&parents).take_while(|(one, other)| one == other).count();
        lines.extend(parents.iter().skip(known).map(|parent| format!("  {parent}")));
        lines.push(format!("{mark} {}", outline.lines[line]));
        around = parents;
        around.push(outline.lines[line].to_owned());
    };
    let deadline = Some(Instant::now() + PATIENCE);
    for part in similar::capture_diff_slices_deadline(Algorithm::Myers, &one.places, &two.places, deadline) {
        let (tag, old, new) = part.as_tag_tuple();
        if tag != DiffTag::Equal {
            old.for_each(|line| show(&one, line, '-'));
            new.for_each(|line| show(&two, line, '+'));
        }
    }
    lines
}

/// The lines of a text, and what each is a part of by how far it is indented.
struct Outline<'a> {
    lines: Vec<&'a str>,
    parents: Vec<Option<usize>>,
    /// What a line says and where: lines of two texts have the same number where all that they are parts of is the same, too. A
    /// renamed map so differs as a whole, and not just in its first line.
    places: Vec<usize>,
}

impl<'a> Outline<'a> {
    fn of(text: &'a str, known: &mut HashMap<(Option<usize>, &'a str), usize>) -> Self {
        let mut outline = Self { lines: text.lines().collect(), parents: Vec::new(), places: Vec::new() };
        let indent = |line: &str| line.len() - line.trim_start().len();
        // The line that is being read and all that it may be a part of, the outermost first.
        let mut open: Vec<usize> = Vec::new();
        for (number, line) in outline.lines.iter().enumerate() {
            let is_empty = line.trim().is_empty();
            while !is_empty && open.last().is_some_and(|last| indent(outline.lines[*last]) >= indent(line)) {
                open.pop();
            }
            let parent = open.last().copied();
            let within = parent.map(|parent| outline.places[parent]);
            let next = known.len();
            outline.places.push(*known.entry((within, line)).or_insert(next));
            outline.parents.push(parent);
            if !is_empty {
                open.push(number);
            }
        }
        outline
    }

    /// The lines that a line is a part of, the outermost first.
    fn parents(&self, line: usize) -> Vec<String> {
        let above = std::iter::successors(self.parents[line], |parent| self.parents[*parent]);
        let mut parents: Vec<String> = above.map(|parent| self.lines[parent].to_owned()).collect();
        parents.reverse();
        parents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_differ_where_they_do() {
        assert_eq!(difference("a\nb\nc\n", "a\nc\n"), ["- b"]);
        assert_eq!(difference("a\nb\n", "a\nB\nc\n"), ["- b", "+ B", "+ c"]);
        assert_eq!(difference("a\n", "a\n"), [""; 0]);
        assert_eq!(difference("", "a\n"), ["+ a"]);
    }

    #[test]
    fn a_changed_line_stands_below_what_it_is_a_part_of() {
        let text = |schedule: &str, zone: &str| {
            format!("timers:\n  t1:\n    schedule: {schedule}\n  t2:\n    schedule: c\n    zone: {zone}\ncpu: 1\n")
        };
        assert_eq!(
            difference(&text("a", "u"), &text("b", "v")),
            [
                "  timers:",
                "    t1:",
                "-     schedule: a",
                "+     schedule: b",
                "    t2:",
                "-     zone: u",
                "+     zone: v"
            ]
        );
        let more = "timers:\n  t1:\n    schedule: a\n    zone: u\n";
        assert_eq!(
            difference("cpu: 1\n", &format!("cpu: 1\n{more}")),
            more.lines().map(|line| format!("+ {line}")).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_has_another_name_differs_as_a_whole() {
        let text = |name: &str| format!("timers:\n  {name}:\n    schedule: a\n\n    zone: u\n  t9:\n    schedule: a\n");
        assert_eq!(
            difference(&text("old"), &text("new")),
            [
                "  timers:",
                "-   old:",
                "-     schedule: a",
                "- ",
                "-     zone: u",
                "+   new:",
                "+     schedule: a",
                "+ ",
                "+     zone: u"
            ]
        );
    }

    #[test]
    fn texts_of_many_lines_are_compared() {
        let long = |mark: &str| (0..50_000).map(|n| format!("  line {n}{mark}\n")).collect::<String>();
        let lines = difference(&format!("text: |\n{}", long("")), &format!("text: |\n{}  more\n", long("")));
        assert_eq!(lines, ["  text: |", "+   more"]);
        assert_eq!(difference(&long(""), &long("x")).len(), 100_000);
    }
}
