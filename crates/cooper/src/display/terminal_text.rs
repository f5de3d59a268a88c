//! The log's bytes for a terminal that is not painted on: text and its colours, nothing else that steers the terminal.
//!
//! What a build prints was written by others: it may not move the cursor, set the title, or reach the clipboard. Where
//! the log does not go to a terminal it stays as it is.

/// The longest sequence of colours that is let through, in bytes.
const MAX_COLOURS: usize = 64;

/// A stream of a log's bytes on the way to a terminal. Sequences may be cut anywhere between two calls.
#[derive(Debug, Default)]
pub(crate) struct TerminalText {
    state: State,
    /// A colour may still be on.
    coloured: bool,
}

/// Where in a control sequence the stream is (ECMA-48, 5.3 to 5.6).
#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// After an escape.
    Escape,
    /// In a control sequence, with its parameters.
    Sequence(Vec<u8>),
    /// In a title or another string.
    Quoted,
    /// After an escape in a string.
    QuotedEscape,
    /// After the first of the two bytes of U+0080 to U+00BF.
    Latin,
}

impl TerminalText {
    /// The bytes without what steers a terminal.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.byte(*byte, &mut out);
        }
        out
    }

    /// What takes back a colour that was left on.
    pub(crate) fn finish(&mut self) -> &'static [u8] {
        self.state = State::Text;
        if std::mem::take(&mut self.coloured) { b"\x1b[0m" } else { b"" }
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (std::mem::take(&mut self.state), byte) {
            // A line's end ends everything, so that nothing can swallow the rest of a log.
            (State::Latin, b'\n') => {
                out.extend([0xc2, b'\n']);
                State::Text
            }
            (_, b'\n') => {
                out.push(b'\n');
                State::Text
            }
            (State::Quoted, 0x1b) => State::QuotedEscape,
            (State::Quoted, 0x07) | (State::QuotedEscape, b'\\') => State::Text,
            (State::Quoted | State::QuotedEscape, _) => State::Quoted,
            (State::Latin, 0x9b) => State::Sequence(Vec::new()),
            (State::Latin, 0x90 | 0x98 | 0x9d..=0x9f) => State::Quoted,
            (State::Latin, 0x80..=0x9f) => State::Text,
            (State::Latin, byte) => {
                out.push(0xc2);
                self.text(byte, out)
            }
            (_, 0x1b) => State::Escape,
            (State::Escape, b'[') => State::Sequence(Vec::new()),
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Quoted,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape, _) => State::Text,
            (State::Sequence(mut parameters), 0x20..=0x3f) => {
                if parameters.len() <= MAX_COLOURS {
                    parameters.push(byte);
                }
                State::Sequence(parameters)
            }
            (State::Sequence(parameters), b'm') => {
                let plain = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
                if parameters.len() <= MAX_COLOURS && parameters.iter().all(plain) {
                    out.extend_from_slice(b"\x1b[");
                    out.extend_from_slice(&parameters);
                    out.push(b'm');
                    self.coloured = !matches!(parameters.as_slice(), b"" | b"0");
                }
                State::Text
            }
            (State::Sequence(_), _) => State::Text,
            (State::Text, byte) => self.text(byte, out),
        };
    }

    /// A byte outside control sequences; gives the state after it.
    fn text(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match byte {
            0xc2 => return State::Latin,
            0x1b => return State::Escape,
            // Programs count on one line with carriage returns.
            b'\t' | b'\r' => out.push(byte),
            0x00..=0x1f | 0x7f => {}
            byte => out.push(byte),
        }
        State::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_colours_stay_and_nothing_else() {
        let table: &[(&[u8], &[u8])] = &[
            (b"plain\ttext\r\n", b"plain\ttext\r\n"),
            ("größer § 😀\n".as_bytes(), "größer § 😀\n".as_bytes()),
            (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
            (b"\x1b[38:5:1mred\x1b[m", b"\x1b[38:5:1mred\x1b[m"),
            (b"a\x1b[2J\x1b[H\x1b[10Ab", b"ab"),
            (b"\x1b[>4;2mx\x1b[?25lx", b"xx"),
            (b"a\x1b]0;title\x07b\x1b]52;c;ZXZpbA==\x1b\\c", b"abc"),
            (b"a\x1bPq\x1b\\b\x1b_x\x1b\\c", b"abc"),
            (b"a\x1bcb\x1b(0c\x1b\x1b[6nd", b"abcd"),
            (b"a\x07\x08\x0b\x0e\x7fb", b"ab"),
            ("a\u{9b}2Jb\u{9d}0;title\u{7}c\u{85}d".as_bytes(), b"abcd"),
            (b"\x1b]0;never ended\nnext\x1b[\nline", b"\nnext\nline"),
            (b"\xc2\nx\xc2\xc2\xa7\xc2\x1b[2Jy", b"\xc2\nx\xc2\xc2\xa7\xc2y"),
            (b"\xff\xfe\x80 binary", b"\xff\xfe\x80 binary"),
        ];
        for (input, expect) in table {
            assert_eq!(TerminalText::default().feed(input), *expect, "{}", input.escape_ascii());
            let mut cut = TerminalText::default();
            let bytes: Vec<u8> = input.iter().flat_map(|byte| cut.feed(&[*byte])).collect();
            assert_eq!(bytes, *expect, "cut: {}", input.escape_ascii());
        }
    }

    #[test]
    fn a_colour_does_not_outlive_the_log() {
        let mut text = TerminalText::default();
        text.feed(b"\x1b[31mred");
        assert_eq!((text.finish(), text.finish()), (&b"\x1b[0m"[..], &b""[..]));
        text.feed(b"\x1b[31mred\x1b[0m");
        assert_eq!(text.finish(), b"");
        let long = [b"\x1b[".as_slice(), &[b'1'; 1000], b"mx"].concat();
        assert_eq!(text.feed(&long), b"x");
    }
}
