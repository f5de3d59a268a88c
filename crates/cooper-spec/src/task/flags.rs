//! Words read as Docker's command line reads them: `--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-it`.
//!
//! Owns the grammar and the words for what is not taken. Which flags there are is their users' tables.

use super::fields::clip;
use super::nearest::nearest;

/// A flag and what it means here.
#[derive(Debug)]
pub(super) struct Flag<K: 'static> {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes: Takes,
    pub(super) means: Means<K>,
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A value.
    Value,
}

/// What a flag means here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Means<K> {
    /// It counts.
    Is(K),
    /// It is taken and does nothing; why.
    Ignored(&'static str),
    /// It is an error; the way out.
    Refused(&'static str),
}

/// Something to tell of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) message: String,
    pub(super) help: String,
    /// An error, or a warning.
    pub(super) fault: bool,
    /// Which of the line's words is meant; absent for the line as a whole.
    pub(super) word: Option<usize>,
}

/// A flag that counts.
#[derive(Debug)]
pub(super) struct Given<K> {
    pub(super) kind: K,
    pub(super) value: String,
    /// The word that its value is, or stands in.
    pub(super) word: usize,
}

/// A line, read.
#[derive(Debug)]
pub(super) struct Parsed<K> {
    /// The flags that count, in order, with their values; a switch's is `true` or `false`.
    pub(super) given: Vec<Given<K>>,
    /// The words that are no flags.
    pub(super) rest: Vec<String>,
    /// Which of the line's words these are.
    pub(super) rest_places: Vec<usize>,
    pub(super) notes: Vec<Note>,
    /// Whether an unknown flag makes it doubtful which words are values.
    pub(super) doubtful: bool,
}

impl Note {
    pub(super) fn fault(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), fault: true, word: None }
    }

    pub(super) fn warning(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), fault: false, word: None }
    }

    /// The same, of one of the line's words.
    pub(super) fn at(self, word: usize) -> Self {
        Self { word: Some(word), ..self }
    }
}

/// Reads words. `of` is the command, for messages. If flags stand only before the first other word, all that follows it is
/// left alone.
pub(super) fn parse<K: Copy>(words: &[String], table: &'static [Flag<K>], of: &str, only_before: bool) -> Parsed<K> {
    let mut parsed =
        Parsed { given: Vec::new(), rest: Vec::new(), rest_places: Vec::new(), notes: Vec::new(), doubtful: false };
    let mut words = words.iter().enumerate();
    while let Some((place, word)) = words.next() {
        if word == "--" {
            words.for_each(|(place, word)| parsed.other(word, place));
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            match table.iter().find(|flag| flag.long == name) {
                Some(flag) => parsed.take(flag, &format!("--{name}"), value, place, &mut words),
                None => parsed.unknown(&format!("--{name}"), table, of, place),
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            parsed.letters(letters, table, of, place, &mut words);
        } else {
            parsed.other(word, place);
            if only_before {
                words.for_each(|(place, word)| parsed.other(word, place));
                break;
            }
        }
    }
    parsed
}

impl<K: Copy> Parsed<K> {
    /// A word that is no flag.
    fn other(&mut self, word: &str, place: usize) {
        self.rest.push(word.to_owned());
        self.rest_places.push(place);
    }

    /// `-it`, `-tNAME`, `-t=NAME`, `-t NAME`.
    fn letters<'w>(
        &mut self,
        letters: &str,
        table: &'static [Flag<K>],
        of: &str,
        place: usize,
        words: &mut impl Iterator<Item = (usize, &'w String)>,
    ) {
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            let Some(flag) = table.iter().find(|flag| flag.short == Some(letter)) else {
                return self.unknown(&format!("-{letter}"), table, of, place);
            };
            let shown = format!("-{letter}");
            let attached = match flag.takes {
                _ if rest.is_empty() => None,
                Takes::Switch if !rest.starts_with('=') => {
                    self.take(flag, &shown, None, place, words);
                    continue;
                }
                _ => Some(rest.strip_prefix('=').unwrap_or(rest).to_owned()),
            };
            return self.take(flag, &shown, attached, place, words);
        }
    }

    fn take<'w>(
        &mut self,
        flag: &Flag<K>,
        shown: &str,
        value: Option<String>,
        place: usize,
        words: &mut impl Iterator<Item = (usize, &'w String)>,
    ) {
        let mut value_place = place;
        let value = match (flag.takes, value) {
            (Takes::Value, None) => match words.next() {
                Some((place, word)) => {
                    value_place = place;
                    word.clone()
                }
                None => {
                    let message = format!("flag `{shown}` has no value");
                    self.notes.push(Note::fault(message, "write its value behind it").at(place));
                    return;
                }
            },
            (Takes::Switch, None) => "true".to_owned(),
            (Takes::Value, Some(value)) => value,
            (Takes::Switch, Some(value)) => match value.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => "true".to_owned(),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => "false".to_owned(),
                _ => {
                    let message = format!("flag `{shown}` is `{}`", clip(&value));
                    self.notes.push(Note::fault(message, "write true or false, or nothing").at(place));
                    return;
                }
            },
        };
        match flag.means {
            Means::Is(kind) => self.given.push(Given { kind, value, word: value_place }),
            Means::Ignored(why) => {
                self.notes.push(Note::warning(format!("flag `{shown}` has no effect"), why).at(place));
            }
            Means::Refused(way) => {
                self.notes.push(Note::fault(format!("flag `{shown}` is not allowed"), way).at(place));
            }
        }
    }

    fn unknown(&mut self, shown: &str, table: &'static [Flag<K>], of: &str, place: usize) {
        self.doubtful = true;
        let names = || table.iter().filter(|flag| matches!(flag.means, Means::Is(_))).map(|flag| flag.long);
        let near = shown.strip_prefix("--").and_then(|name| nearest(name, names()));
        let help = match near {
            Some(name) => format!("did you mean `--{name}`?"),
            None => format!("allowed are {}", names().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ")),
        };
        self.notes.push(Note::fault(format!("`{of}` has no flag `{}`", clip(shown)), help).at(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: &[Flag<char>] = &[
        Flag { long: "tag", short: Some('t'), takes: Takes::Value, means: Means::Is('t') },
        Flag { long: "quiet", short: Some('q'), takes: Takes::Switch, means: Means::Is('q') },
        Flag { long: "rm", short: None, takes: Takes::Switch, means: Means::Ignored("it goes anyway") },
        Flag { long: "volume", short: Some('v'), takes: Takes::Value, means: Means::Refused("use volumeMounts") },
    ];

    fn read(line: &str, only_before: bool) -> (String, String, String) {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let parsed = parse(&words, TABLE, "docker build", only_before);
        let given = parsed.given.iter().map(|given| format!("{}={}", given.kind, given.value));
        let given = given.collect::<Vec<_>>().join(" ");
        let notes = parsed.notes.iter().map(|note| format!("{}; {}", note.message, note.help)).collect::<Vec<_>>();
        (given, parsed.rest.join(" "), notes.join("\n"))
    }

    #[test]
    fn flags_have_all_their_forms() {
        let table = [
            ("--tag a b", "t=a", "b"),
            ("--tag=a b", "t=a", "b"),
            ("-t a b", "t=a", "b"),
            ("-ta b", "t=a", "b"),
            ("-t=a b", "t=a", "b"),
            ("-qta b", "q=true t=a", "b"),
            ("-qt a b", "q=true t=a", "b"),
            ("-q=false b", "q=false", "b"),
            ("--quiet b", "q=true", "b"),
            ("--quiet=0 b", "q=false", "b"),
            ("b -q c -t a", "q=true t=a", "b c"),
            ("b -- -q", "", "b -q"),
            ("- -q", "q=true", "-"),
            ("--tag= b", "t=", "b"),
        ];
        for (line, given, rest) in table {
            assert_eq!(read(line, false), (given.to_owned(), rest.to_owned(), String::new()), "{line}");
        }
        assert_eq!(read("-q b -t a", true), ("q=true".to_owned(), "b -t a".to_owned(), String::new()));
    }

    #[test]
    fn what_is_not_taken_is_named_with_the_way_out() {
        let table = [
            ("--tga a", "`docker build` has no flag `--tga`; did you mean `--tag`?"),
            ("--frobnicate", "`docker build` has no flag `--frobnicate`; allowed are --tag, --quiet"),
            ("-qx", "`docker build` has no flag `-x`; allowed are --tag, --quiet"),
            ("-v /:/host", "flag `-v` is not allowed; use volumeMounts"),
            ("--volume=/:/host", "flag `--volume` is not allowed; use volumeMounts"),
            ("--rm", "flag `--rm` has no effect; it goes anyway"),
            ("-t", "flag `-t` has no value; write its value behind it"),
            ("--quiet=maybe", "flag `--quiet` is `maybe`; write true or false, or nothing"),
        ];
        for (line, expected) in table {
            assert_eq!(read(line, false).2, expected, "{line}");
        }
    }
}
