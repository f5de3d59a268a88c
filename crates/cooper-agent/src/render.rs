//! A build's events as log frames: plain lines for everybody, vertex news for terminals. Masked, pure, without waiting.
//!
//! ```text
//! #5 [2/3] RUN make
//! #5 0.123 a line of its output, with the seconds since it began
//! #5 DONE 1.2s
//! ```
//! Where builds run side by side, each line begins with whose it is: `web | #5 [2/3] RUN make`.
//!
//! The engine says that a vertex ended before it says the last of its output. So beginnings and endings are announced
//! with the next tick, or when a vertex that has not been announced speaks.

mod text;
mod vertex;

use std::collections::{HashMap, VecDeque};

use cooper_ports::engine::{BuildEvent, OutputStream, VertexEvent};
use cooper_ports::logs::{NewFrame, Stream};
use cooper_types::Timestamp;
use vertex::Vertex;

use crate::mask::MaskSet;

pub(crate) use text::size;

/// The most bytes of text in one frame.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// How many frames are gathered at most before they are taken.
const MAX_FRAMES: usize = 32;

/// Makes frames of one build's events.
#[derive(Debug)]
pub(crate) struct Renderer {
    masks: MaskSet,
    /// The name that the image has in the engine: an affair of the agent's alone.
    hidden_name: String,
    /// Stands in front of every line, and of every vertex's name.
    label: String,
    vertices: HashMap<String, Vertex>,
    numbers: u64,
    announcements: VecDeque<Announcement>,
    /// The output whose line was begun and not ended in the log.
    open: Option<(u64, Stream)>,
    frames: Vec<NewFrame>,
}

#[derive(Debug)]
enum Announcement {
    Beginning(String),
    Ending(String),
}

impl Announcement {
    fn is_beginning_of(&self, vertex: &str) -> bool {
        matches!(self, Self::Beginning(id) if id == vertex)
    }
}

impl Renderer {
    /// A renderer that says nothing of `hidden_name`, and begins what it says with `label`.
    pub(crate) fn new(masks: MaskSet, hidden_name: String, label: String) -> Self {
        Self {
            masks,
            hidden_name,
            label,
            vertices: HashMap::new(),
            numbers: 0,
            announcements: VecDeque::new(),
            open: None,
            frames: Vec::new(),
        }
    }

    /// The frames that are ready.
    pub(crate) fn take_frames(&mut self) -> Vec<NewFrame> {
        std::mem::take(&mut self.frames)
    }

    /// Whether so much is ready that it should be taken before more comes.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES
    }

    /// Takes an event.
    pub(crate) fn event(&mut self, event: BuildEvent, now: Timestamp) {
        match event {
            BuildEvent::Vertex(event) => self.vertex_event(event, now),
            BuildEvent::Log { vertex, stream, bytes } => {
                self.begin(&vertex, now);
                self.announce_until(&vertex, now);
                self.output(&vertex, stream, &bytes, now);
            }
            BuildEvent::Status { vertex, id, current, total } => {
                if id.contains(&self.hidden_name) {
                    return;
                }
                self.begin(&vertex, now);
                self.announce_until(&vertex, now);
                let id = text::one_line(&self.masks.text(&id));
                let Some(known) = self.vertices.get_mut(&vertex) else { return };
                let line = known.transfer(id, current, total, now);
                let (number, due) = (known.number, total.is_some() && known.progress_due(now));
                if let Some(line) = line {
                    self.line(number, &line, now);
                }
                if due {
                    self.news(&vertex, now);
                }
            }
            // Its vertex names it, too.
            BuildEvent::Base(_) => {}
            BuildEvent::Warning { vertex, message } => {
                self.begin(&vertex, now);
                self.announce_until(&vertex, now);
                let number = self.vertices.get(&vertex).map_or(0, |vertex| vertex.number);
                let message = text::one_line(&self.masks.text(&message));
                self.line(number, &format!("WARN: {message}"), now);
            }
        }
    }

    /// Says what has waited: to be called about every 100 ms.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.announce_until_count(self.announcements.len(), now);
        let mut waiting: Vec<(u64, String)> = self.vertices.iter().map(|(id, v)| (v.number, id.clone())).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let Some(output) = self.vertices.get_mut(&id).map(|vertex| vertex.output(stream)) else { continue };
                if output.partial.is_empty() {
                    continue;
                }
                // A line may take up to two ticks: most are whole by then.
                if output.aged {
                    self.flush_partial(&id, stream, now);
                } else {
                    output.aged = true;
                }
            }
        }
    }

    /// Says everything that is left: the build is over.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.announce_until_count(self.announcements.len(), now);
        let mut ids: Vec<(u64, String)> = self.vertices.iter().map(|(id, v)| (v.number, id.clone())).collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.end_output(&id, now);
        }
        self.close_line(now);
    }

    fn vertex_event(&mut self, event: VertexEvent, now: Timestamp) {
        let id = event.id.clone();
        if event.started.is_none() && event.completed.is_none() && !event.cached && !self.vertices.contains_key(&id) {
            return;
        }
        self.begin(&id, now);
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        if vertex.learn(event, &self.masks) {
            let is_same = |other: &Announcement| matches!(other, Announcement::Ending(other) if *other == id);
            self.announcements.retain(|announcement| !is_same(announcement));
            self.announcements.push_back(Announcement::Ending(id.clone()));
        }
        self.news(&id, now);
    }

    fn begin(&mut self, id: &str, now: Timestamp) {
        if !self.vertices.contains_key(id) {
            self.numbers += 1;
            self.vertices.insert(id.to_owned(), Vertex::new(self.numbers, now, &self.masks));
            self.announcements.push_back(Announcement::Beginning(id.to_owned()));
        }
    }

    /// Makes sure that a vertex was announced before it speaks.
    fn announce_until(&mut self, id: &str, now: Timestamp) {
        if let Some(index) = self.announcements.iter().position(|announcement| announcement.is_beginning_of(id)) {
            self.announce_until_count(index + 1, now);
        }
    }

    fn announce_until_count(&mut self, count: usize, now: Timestamp) {
        for _ in 0..count {
            match self.announcements.pop_front() {
                Some(Announcement::Beginning(id)) => {
                    let Some(vertex) = self.vertices.get(&id) else { continue };
                    let (number, name) = (vertex.number, vertex.name.clone());
                    self.line(number, &name, now);
                }
                Some(Announcement::Ending(id)) => {
                    self.end_output(&id, now);
                    // An engine can begin a vertex again right after its end: that end is no news.
                    let Some(vertex) = self.vertices.get_mut(&id).filter(|vertex| vertex.has_ended()) else { continue };
                    let (number, mut lines) = (vertex.number, vertex.last_transfers(now));
                    lines.push(vertex.ending());
                    lines.iter().for_each(|line| self.line(number, line, now));
                }
                None => return,
            }
        }
    }

    /// Takes output of a vertex: whole lines go out, the rest waits for its end.
    fn output(&mut self, id: &str, stream: OutputStream, bytes: &[u8], now: Timestamp) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        let output = vertex.output(stream);
        output.masker.feed(bytes, &mut output.partial);
        if output.partial.contains(&b'\n') || output.partial.len() >= MAX_FRAME_BYTES {
            self.say_lines(id, stream, now);
        }
    }

    /// Says the whole lines that are there, and a beginning that is too long to keep.
    fn say_lines(&mut self, id: &str, stream: OutputStream, now: Timestamp) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        let (number, heard) = (vertex.number, vertex.heard);
        let output = vertex.output(stream);
        let mut lines = std::mem::take(&mut output.partial);
        output.aged = false;
        let whole = if lines.len() >= MAX_FRAME_BYTES && !lines.contains(&b'\n') {
            lines.len()
        } else {
            lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
        };
        output.partial = lines.split_off(whole);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.piece(number, frame_stream(stream), heard, line, now);
        }
    }

    /// Says the beginning of a line that has waited long enough.
    fn flush_partial(&mut self, id: &str, stream: OutputStream, now: Timestamp) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        let (number, heard) = (vertex.number, vertex.heard);
        let output = vertex.output(stream);
        let partial = std::mem::take(&mut output.partial);
        output.aged = false;
        self.piece(number, frame_stream(stream), heard, &partial, now);
    }

    /// Says all that is left of a vertex's output.
    fn end_output(&mut self, id: &str, now: Timestamp) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let Some(output) = self.vertices.get_mut(id).map(|vertex| vertex.output(stream)) else { return };
            output.masker.finish(&mut output.partial);
            if !output.partial.is_empty() {
                self.say_lines(id, stream, now);
                self.flush_partial(id, stream, now);
            }
        }
    }

    /// Says a line of output, or a piece of one: it goes on where the same output's last piece stopped.
    fn piece(&mut self, number: u64, stream: Stream, began: Timestamp, bytes: &[u8], now: Timestamp) {
        if bytes.is_empty() {
            return;
        }
        if self.open != Some((number, stream)) {
            self.close_line(now);
            let prefix = format!("{}#{number} {:.3} ", self.label, now.since(began).as_secs_f64());
            self.emit(number, stream, prefix.as_bytes(), now);
        }
        // What Windows ends its lines with would be shown twice: viewers add what they need.
        match bytes.strip_suffix(b"\r\n") {
            Some(line) => {
                self.emit(number, stream, line, now);
                self.emit(number, stream, b"\n", now);
            }
            None => self.emit(number, stream, bytes, now),
        }
        self.open = (!bytes.ends_with(b"\n")).then_some((number, stream));
    }

    /// Says a line of the renderer's own about a vertex.
    fn line(&mut self, number: u64, line: &str, now: Timestamp) {
        self.close_line(now);
        let line = format!("{}#{number} {line}\n", self.label);
        self.emit(number, Stream::Stdout, line.as_bytes(), now);
    }

    fn close_line(&mut self, now: Timestamp) {
        if let Some((number, stream)) = self.open.take() {
            self.emit(number, stream, b"\n", now);
        }
    }

    /// Appends text to the last frame if that is of the same kind, else to new ones.
    fn emit(&mut self, number: u64, stream: Stream, bytes: &[u8], now: Timestamp) {
        let vertex = Some(number.to_string());
        let mut rest = bytes;
        if let Some(last) = self.frames.last_mut().filter(|last| last.stream == stream && last.vertex == vertex) {
            let (fits, more) = rest.split_at(rest.len().min(MAX_FRAME_BYTES.saturating_sub(last.data.len())));
            last.data.extend_from_slice(fits);
            rest = more;
        }
        for piece in rest.chunks(MAX_FRAME_BYTES) {
            self.frames.push(NewFrame { time: now, stream, vertex: vertex.clone(), data: piece.to_vec() });
        }
    }

    /// Says how a vertex is, for terminals.
    fn news(&mut self, id: &str, now: Timestamp) {
        let Some(vertex) = self.vertices.get(id) else { return };
        let mut update = vertex.update();
        update.name.insert_str(0, &self.label);
        let data = serde_json::to_vec(&update).expect("a struct of texts and numbers is JSON");
        let vertex = Some(vertex.number.to_string());
        self.frames.push(NewFrame { time: now, stream: Stream::Vertex, vertex, data });
    }
}

fn frame_stream(stream: OutputStream) -> Stream {
    match stream {
        OutputStream::Stdout => Stream::Stdout,
        OutputStream::Stderr => Stream::Stderr,
    }
}

#[cfg(test)]
mod tests;
