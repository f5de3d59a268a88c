//! Faults of a task file on standard error: a line that says it all, the line of the file, and a sign under the place.

use cooper_spec::task::{Fault, Faults, Place};

use crate::output;

/// Shows all that is wrong.
pub(crate) fn show_faults(faults: &Faults) {
    faults.faults.iter().for_each(|fault| show("error", fault));
    if faults.more > 0 {
        output::note(&format!("error: and {} more", faults.more));
    }
    show_warnings(&faults.warnings);
}

/// Shows what its author should know.
pub(crate) fn show_warnings(warnings: &[Fault]) {
    warnings.iter().for_each(|fault| show("warning", fault));
}

fn show(kind: &str, fault: &Fault) {
    lines(kind, fault).iter().for_each(|line| output::note(line));
}

fn lines(kind: &str, fault: &Fault) -> Vec<String> {
    let mut lines = vec![format!("{kind}: {fault}")];
    // Of a line that is far too long, only the beginning is here.
    let is_here = |place: &&Place| place.column <= place.start + place.text.chars().count();
    if let Some(place) = fault.place.as_deref().filter(is_here) {
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let text: String = place.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let room = text.chars().count();
        // A long line is shown around the place.
        let start = if place.column > 100 { (place.column - 40).max(place.start) } else { place.start };
        let shown: String = text.chars().skip(start - place.start).take(120).collect();
        let length = place.length.min((place.start + room).saturating_sub(place.column)).clamp(1, 80);
        lines.push(format!("  {number} | {shown}"));
        lines.push(format!("  {margin} | {}{}", " ".repeat(place.column - start), "^".repeat(length)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(column: usize, length: usize, text: &str) -> Fault {
        let place = Place {
            file: "t.yaml".to_owned(),
            line: 12,
            column,
            length,
            text: text.to_owned(),
            start: 1,
            rendered: false,
        };
        Fault { place: Some(Box::new(place)), message: "`x` is wrong".to_owned(), help: Some("write y".to_owned()) }
    }

    #[test]
    fn the_place_is_under_the_line() {
        let expected = ["error: t.yaml:12:7: `x` is wrong; write y", "  12 | when: xyz", "     |       ^^^"];
        assert_eq!(lines("error", &fault(7, 3, "when: xyz")), expected);
        let far = format!("{}xyz", "a".repeat(400));
        let shown = lines("error", &fault(401, 900, &far));
        assert_eq!(shown[1].find("xyz"), shown[2].find('^'));
        assert!(shown[2].ends_with("^^^") && !shown[2].ends_with("^^^^"));
        let mut part = fault(5001, 3, "abcxyz");
        part.place.as_mut().expect("a place").start = 4998;
        assert_eq!(lines("error", &part)[1..], ["  12 | abcxyz", "     |    ^^^"]);
        assert_eq!(lines("error", &fault(5000, 3, "abc")), ["error: t.yaml:12:5000: `x` is wrong; write y"]);
        let bare = Fault { place: None, ..fault(1, 1, "") };
        assert_eq!(lines("warning", &bare), ["warning: `x` is wrong; write y"]);
    }
}
