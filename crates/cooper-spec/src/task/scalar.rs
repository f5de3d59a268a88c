//! Where in a line of the file a part of a scalar stands: of scalars that begin and end in one line, and of others' first lines.

use std::ops::Range;

use super::yaml::At;

/// The place of a part of a scalar: `row` is the line that it stands in, `at` its whole place, `text` what it says, and
/// `part` the bytes of the text that are meant. The whole place where it can't be told, as in a block's later lines.
pub(super) fn part(row: &str, at: At, text: &str, part: Range<usize>) -> At {
    let raw: Vec<char> = row.chars().skip(at.column - 1).take(at.length).collect();
    let Some(columns) = columns(&raw, text).or_else(|| of_first_line(row, at, text)) else { return at };
    let before = |byte: usize| text.char_indices().take_while(|(index, _)| *index < byte).count();
    match (columns.get(before(part.start)), columns.get(before(part.end))) {
        (Some(first), Some(end)) if first < end => At { column: at.column + first, length: end - first, ..at },
        _ => at,
    }
}

/// The same of a block, whose place is that of its first character, and of a text that goes on in other lines.
fn of_first_line(row: &str, at: At, text: &str) -> Option<Vec<usize>> {
    let rest: String = row.chars().skip(at.column - 1).collect();
    let line = rest.trim_end();
    (!line.is_empty() && text.starts_with(line)).then(|| (0..=line.chars().count()).collect())
}

/// For each character of the text, and for its end, where in the raw text it stands; nothing if they don't say the same.
fn columns(raw: &[char], text: &str) -> Option<Vec<usize>> {
    let (quote, inner) = match raw {
        ['\'', .., '\''] => (Some('\''), 1..raw.len() - 1),
        ['"', .., '"'] => (Some('"'), 1..raw.len() - 1),
        _ => (None, 0..raw.len()),
    };
    let (mut columns, mut index) = (Vec::new(), inner.start);
    for wanted in text.chars() {
        if index >= inner.end {
            return None;
        }
        columns.push(index);
        let next = raw.get(index + 1).copied();
        index += match (quote, raw[index]) {
            (Some('\''), '\'') => 2,
            (Some('"'), '\\') => match next? {
                'x' => 4,
                'u' => 6,
                'U' => 10,
                _ => 2,
            },
            (_, found) if found == wanted => 1,
            _ => return None,
        };
    }
    columns.push(inner.end);
    (index == inner.end).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_in_each_style() {
        // The part is `bad`; the signs under it are expected.
        let table = [
            ("cmd: img bad x", 6, 9, "img bad x", "         ^^^"),
            ("cmd: 'img bad'", 6, 9, "img bad", "          ^^^"),
            ("cmd: 'it''s bad'", 6, 11, "it's bad", "            ^^^"),
            ("cmd: \"a\\\"b\\n\\x41 bad\" # x", 6, 16, "a\"b\nA bad", "                 ^^^"),
            ("cmd: üü bad", 6, 6, "üü bad", "        ^^^"),
            // A block, and a text that goes on in the next line.
            ("  img bad", 3, 1, "img bad\n", "      ^^^"),
            ("cmd: img bad", 6, 1, "img bad x", "         ^^^"),
            ("cmd: img", 6, 1, "img bad", "     ^"),
        ];
        for (row, column, length, text, expected) in table {
            let bad = text.find("bad").expect("a part");
            let at = part(row, At { line: 1, column, length }, text, bad..bad + 3);
            assert_eq!(format!("{}{}", " ".repeat(at.column - 1), "^".repeat(at.length)), expected, "{row}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_stays_within_the_scalar(
            row in "[a'\"\\\\ü x]{0,12}", text in "[a'\"\\\\ü x]{0,12}", column in 1_usize..8, length in 1_usize..8, start in 0_usize..20,
        ) {
            let at = At { line: 1, column, length };
            let found = part(&row, at, &text, start..start + 2);
            let end = (column + length).max(row.chars().count() + 1);
            proptest::prop_assert!(found.column >= column && found.length > 0 && found.column + found.length <= end);
        }
    }
}
