//! A line split into words as a shell splits it, and never handed to one.
//!
//! ACR gives a step's text to a shell on its agent, which would also run pipes, redirections and substitutions there.
//! Here they are errors with a way out. A `$NAME` is nothing that we replace: it reaches the container as it is written.

use std::ops::Range;

/// What a line holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// Where each word stands, in bytes of the line.
    pub(super) places: Vec<Range<usize>>,
    /// What a shell would have replaced and is left as it stands: `$HOME`, `$(date)`.
    pub(super) left: Vec<String>,
    /// Where the first of those stands.
    pub(super) first_left: Option<Range<usize>>,
}

/// A line that can't be split, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misread {
    pub(super) error: WordsError,
    /// In bytes of the line.
    pub(super) at: Range<usize>,
}

/// Why a line can't be split.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum WordsError {
    #[error("a {0} quote is not closed")]
    NotClosed(&'static str),
    #[error("`{0}` is a shell's, and no shell reads this text")]
    Operator(String),
    #[error("`{0}` would run a command on the agent, and no shell reads this text")]
    Substitution(&'static str),
    #[error("the text has a second command in line {0} of it")]
    SecondLine(usize),
}

impl WordsError {
    /// The way out.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::NotClosed(_) => "close it, or put a backslash before it if it is meant itself",
            Self::Operator(_) => {
                "quote it if it is meant itself; let the container's shell do it with `IMAGE sh -c 'COMMAND'`"
            }
            Self::Substitution(_) => "let the container's shell do it with `IMAGE sh -c 'COMMAND'`",
            Self::SecondLine(_) => {
                "write a step for each command, fold the lines with `>`, or end a line that goes on with a backslash"
            }
        }
    }
}

/// How lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Whether a backslash is an ordinary character, as paths on Windows have it.
    pub(super) windows: bool,
    /// Whether a line's end is a blank like others, or ends the command.
    pub(super) lines_go_on: bool,
}

/// Splits a text.
pub(super) fn split(text: &str, rules: Rules) -> Result<Words, Misread> {
    let start = text.len() - text.trim_start().len();
    let mut found = Words::default();
    match read(text.trim(), rules, &mut found) {
        Ok(()) => {
            let places = found.places.iter_mut().chain(&mut found.first_left);
            places.for_each(|place| *place = place.start + start..place.end + start);
            Ok(found)
        }
        Err((error, at)) => Err(Misread { error, at: at.start + start..at.end + start }),
    }
}

fn read(text: &str, rules: Rules, found: &mut Words) -> Result<(), (WordsError, Range<usize>)> {
    // A word that is quoted is one even if nothing stands in it.
    let mut word: Option<String> = None;
    let mut begun = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        if word.is_none() {
            begun = index;
        }
        let here = index..index + c.len_utf8();
        match c {
            '\n' if !rules.lines_go_on => {
                return Err((WordsError::SecondLine(text[..=index].matches('\n').count() + 1), here));
            }
            c if c.is_whitespace() => found.add(word.take(), begun..index),
            '\\' if !rules.windows => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, next)) => word.get_or_insert_default().push(next),
                None => word.get_or_insert_default().push('\\'),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some((_, '\'')) => break,
                        Some((_, c)) => word.push(c),
                        None => return Err((WordsError::NotClosed("single"), here)),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some((_, '"')) => break,
                        Some((_, '\\')) => match chars.peek() {
                            Some((_, '\n')) if !rules.windows => {
                                chars.next();
                            }
                            Some((_, next @ ('"' | '$' | '`' | '\\'))) if !rules.windows || *next == '"' => {
                                word.push(*next);
                                chars.next();
                            }
                            _ => word.push('\\'),
                        },
                        Some((at, c)) => {
                            if c == '$' || c == '`' {
                                found.leave(&text[at..], at);
                            }
                            word.push(c);
                        }
                        None => return Err((WordsError::NotClosed("double"), here)),
                    }
                }
            }
            '#' if word.is_none() => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            '|' | '&' | ';' | '<' | '>' | '(' | ')' => {
                let operator: String = text[index..].chars().take_while(|next| "|&;<>()".contains(*next)).collect();
                let length = operator.len();
                return Err((WordsError::Operator(operator.chars().take(3).collect()), index..index + length));
            }
            '`' => return Err((WordsError::Substitution("`"), here)),
            '$' if text[index..].starts_with("$(") => return Err((WordsError::Substitution("$("), index..index + 2)),
            '$' => {
                found.leave(&text[index..], index);
                word.get_or_insert_default().push('$');
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    found.add(word, begun..text.len());
    Ok(())
}

impl Words {
    fn add(&mut self, word: Option<String>, place: Range<usize>) {
        if let Some(word) = word {
            self.words.push(word);
            self.places.push(place);
        }
    }

    /// Notes what a shell would replace at the beginning of `text`, which stands at that byte of the line.
    fn leave(&mut self, text: &str, at: usize) {
        if let Some(left) = expansion(text) {
            self.first_left.get_or_insert(at..at + left.len());
            self.left.push(left);
        }
    }
}

/// What a shell would replace at the beginning of this text.
fn expansion(text: &str) -> Option<String> {
    if text.starts_with('`') {
        return Some("`".to_owned());
    }
    let rest = text.strip_prefix('$')?;
    let first = rest.chars().next()?;
    match first {
        '(' => Some("$(".to_owned()),
        '{' => Some(format!("{}}}", text.split('}').next().unwrap_or_default()).chars().take(60).collect()),
        c if c.is_ascii_alphabetic() || c == '_' => {
            let name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            Some(format!("${}", rest.chars().take_while(name).take(60).collect::<String>()))
        }
        c if c.is_ascii_digit() || "@*#?$!-".contains(c) => Some(format!("${c}")),
        _ => None,
    }
}

/// The text without a shell's quotes. Blanks stay, unlike in a line; a quote that is not closed is meant itself.
pub(super) fn unquoted(text: &str, windows: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' => match after.split_once('\'') {
                Some((inside, behind)) => {
                    out.push_str(inside);
                    rest = behind;
                    continue;
                }
                None => out.push(c),
            },
            '"' => match double_quoted(after, windows) {
                Some((inside, behind)) => {
                    out.push_str(&inside);
                    rest = behind;
                    continue;
                }
                None => out.push(c),
            },
            '\\' if !windows => {
                if let Some(next) = after.chars().next() {
                    out.push(next);
                    rest = &after[next.len_utf8()..];
                    continue;
                }
                out.push(c);
            }
            c => out.push(c),
        }
        rest = after;
    }
    out
}

fn double_quoted(text: &str, windows: bool) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[index + 1..])),
            '\\' => {
                match chars.next_if(|(_, next)| matches!(next, '"' | '$' | '`' | '\\') && (!windows || *next == '"')) {
                    Some((_, next)) => out.push(next),
                    None => out.push('\\'),
                }
            }
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSIX: Rules = Rules { windows: false, lines_go_on: false };

    fn words(text: &str) -> Vec<String> {
        split(text, POSIX).expect(text).words
    }

    #[test]
    fn splits_as_a_shell_does() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  ", &[]),
            ("a b\tc", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("a'b c'd", &["ab cd"]),
            ("--x=\"a b\"", &["--x=a b"]),
            ("'' \"\" a", &["", "", "a"]),
            (r"a\ b \'x\' \\", &["a b", "'x'", "\\"]),
            (r#""a\"b\$c\`d\\e\n""#, &[r#"a"b$c`d\e\n"#]),
            (r"'a\b'", &[r"a\b"]),
            ("a \\\n b", &["a", "b"]),
            ("a\\\nb", &["ab"]),
            ("\"a\\\nb\"", &["ab"]),
            ("sh -c 'a && b | c > d; e'", &["sh", "-c", "a && b | c > d; e"]),
            ("sh -c \"a && b\"", &["sh", "-c", "a && b"]),
            ("echo a#b # rest", &["echo", "a#b"]),
            ("echo ü \u{a0}x", &["echo", "ü", "x"]),
            ("* ~ {a,b} a?b [c]", &["*", "~", "{a,b}", "a?b", "[c]"]),
            ("'a\nb'", &["a\nb"]),
            ("a\n", &["a"]),
            ("a\\", &["a\\"]),
        ];
        for (text, expected) in table {
            assert_eq!(words(text), *expected, "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_replace_is_left_and_told() {
        let table: &[(&str, &[&str])] = &[
            ("echo $HOME ${A} $1 $@ $", &["$HOME", "${A}", "$1", "$@"]),
            ("sh -c \"echo $(date) $X `y`\"", &["$(", "$X", "`", "`"]),
            ("sh -c 'echo $X'", &[]),
            (r#"\$X "\$X""#, &[]),
            ("a$ b", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(split(text, POSIX).expect(text).left, *expected, "{text}");
        }
        assert_eq!(words("sh -c \"echo $(date) $X\""), ["sh", "-c", "echo $(date) $X"]);
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused() {
        let operator = |text: &str| WordsError::Operator(text.to_owned());
        let table = [
            ("a | b", operator("|")),
            ("a && b", operator("&&")),
            ("a || b", operator("||")),
            ("a; b", operator(";")),
            ("a > b", operator(">")),
            ("a 2>&1", operator(">&")),
            ("a <<E", operator("<<")),
            ("(a)", operator("(")),
            ("a &", operator("&")),
            ("a $(b)", WordsError::Substitution("$(")),
            ("a `b`", WordsError::Substitution("`")),
            ("a 'b", WordsError::NotClosed("single")),
            ("a \"b", WordsError::NotClosed("double")),
            ("a \"b\\\"", WordsError::NotClosed("double")),
            ("a\nb", WordsError::SecondLine(2)),
            ("a\\\nb\nc", WordsError::SecondLine(3)),
        ];
        for (text, expected) in table {
            assert_eq!(split(text, POSIX).map_err(|misread| misread.error), Err(expected), "{text}");
        }
        let lines = Rules { lines_go_on: true, ..POSIX };
        assert_eq!(split("-t a\n.", lines).expect("words").words, ["-t", "a", "."]);
    }

    #[test]
    fn words_and_faults_know_their_places() {
        let text = " -t 'a b'c \\\n $X";
        let found = split(text, Rules { lines_go_on: true, ..POSIX }).expect("words");
        let shown: Vec<&str> = found.places.iter().map(|place| &text[place.clone()]).collect();
        assert_eq!(shown, ["-t", "'a b'c", "$X"]);
        assert_eq!(found.first_left.map(|place| &text[place]), Some("$X"));
        for (text, expected) in [(" a && b", "&&"), ("a  'b", "'"), ("a \"b", "\""), ("é $(x)", "$("), ("a `b`", "`")]
        {
            assert_eq!(split(text, POSIX).map_err(|misread| &text[misread.at]), Err(expected), "{text}");
        }
    }

    #[test]
    fn windows_paths_keep_their_backslashes() {
        let windows = Rules { windows: true, lines_go_on: false };
        let found = split(r#"image c:\app\run.exe "c:\a b" "say \"x\"""#, windows).expect("words");
        assert_eq!(found.words, ["image", r"c:\app\run.exe", r"c:\a b", "say \"x\""]);
    }

    #[test]
    fn quotes_are_taken_away_and_blanks_stay() {
        let table = [
            ("A=b", "A=b"),
            ("A='b c'", "A=b c"),
            ("A=b c", "A=b c"),
            ("A=\"b\\\"c\"", "A=b\"c"),
            ("A=it's", "A=it's"),
            ("A=\"", "A=\""),
            ("A='{\"a\": 1}'", "A={\"a\": 1}"),
            (r"A=a\ b\", "A=a b\\"),
            ("A=$HOME", "A=$HOME"),
            ("'A=b'c", "A=bc"),
        ];
        for (text, expected) in table {
            assert_eq!(unquoted(text, false), expected, "{text}");
        }
        assert_eq!(unquoted(r"A=c:\x", true), r"A=c:\x");
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_word_is_itself(word in "\\PC*") {
            let quoted = format!("'{}'", word.replace('\'', r"'\''"));
            proptest::prop_assert_eq!(words(&quoted), [word.clone()]);
            proptest::prop_assert_eq!(unquoted(&quoted, false), word);
        }

        #[test]
        fn no_text_makes_it_panic(text in "([ab'\"\\\\$`({})|# \n]|\\PC)*", windows: bool, lines_go_on: bool) {
            let _ = split(&text, Rules { windows, lines_go_on });
            let _ = unquoted(&text, windows);
        }
    }
}
