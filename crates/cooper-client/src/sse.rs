//! Server-sent events: bytes in, events out (WHATWG HTML §9.2.6), with a bound on what one event may hold.

use std::borrow::Cow;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its name; `message` where none was sent.
    pub(crate) name: String,
    /// Its data lines, joined by newlines.
    pub(crate) data: String,
    /// The last id that was sent, by this event or an earlier one.
    pub(crate) id: Option<String>,
}

/// An event is larger than the parser's bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// An incremental parser.
#[derive(Debug)]
pub(crate) struct SseParser {
    max: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return, so a newline right after it belongs to it.
    after_return: bool,
    at_start: bool,
    name: String,
    data: String,
    has_data: bool,
    id: Option<String>,
}

impl SseParser {
    /// A parser that refuses events of more than `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            after_return: false,
            at_start: true,
            name: String::new(),
            data: String::new(),
            has_data: false,
            id: None,
        }
    }

    /// Takes some bytes, cut anywhere, and gives the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, TooLarge> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, tail) = (&rest[..end], &rest[end + 1..]);
            let continues_return = rest[end] == b'\n' && end == 0 && self.after_return && self.line.is_empty();
            self.after_return = rest[end] == b'\r';
            rest = tail;
            if continues_return {
                continue;
            }
            self.push(line)?;
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&line));
        }
        if !rest.is_empty() {
            self.after_return = false;
            self.push(rest)?;
        }
        Ok(events)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if self.line.len() + self.data.len() + bytes.len() > self.max {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Option<SseEvent> {
        // By far most lines are UTF-8, which is found out faster than what is to be replaced.
        let text = str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed);
        let mut text = text.as_ref();
        if std::mem::take(&mut self.at_start) {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            return self.dispatch();
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment (an empty field), `retry`, or a field of a later standard.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(SseEvent { name, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<SseEvent> {
        SseParser::new(1000).feed(text.as_bytes()).expect("small")
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> SseEvent {
        SseEvent { name: name.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn reads_events() {
        assert_eq!(parse("event: log\nid: 7\ndata: {}\n\n"), [event("log", "{}", Some("7"))]);
        assert_eq!(parse(": keep-alive\n\n: again\n\n"), []);
        assert_eq!(parse("data: a\ndata:b\ndata\n\n"), [event("message", "a\nb\n", None)]);
        assert_eq!(
            parse("\u{feff}data: a\r\rdata: b\r\n\r\n"),
            [event("message", "a", None), event("message", "b", None)]
        );
        assert_eq!(parse("id: 1\ndata: a\n\ndata: b\n\n")[1].id.as_deref(), Some("1"));
        assert_eq!(parse("data: cut off"), []);
    }

    #[test]
    fn cuts_make_no_difference() {
        let text = ": hi\r\n\r\nevent: log\r\nid: 12\r\ndata: {\"a\":\"ä\"}\r\n\r\nevent:end\rdata: x\r\rdata: y\n\n";
        let whole = parse(text);
        assert_eq!(whole.len(), 3, "{whole:?}");
        for size in 1..text.len() {
            let mut parser = SseParser::new(1000);
            let pieces: Vec<SseEvent> =
                text.as_bytes().chunks(size).flat_map(|piece| parser.feed(piece).expect("small")).collect();
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::new(100);
        assert_eq!(parser.feed(&[b'x'; 101]), Err(TooLarge));
        let mut parser = SseParser::new(100);
        let line = format!("data: {}\n", "x".repeat(40));
        assert_eq!(parser.feed(line.repeat(3).as_bytes()), Err(TooLarge));
        let mut parser = SseParser::new(100);
        assert!(parser.feed(format!("{line}\n").repeat(50).as_bytes()).is_ok());
    }
}
