//! A container's output as log frames: masked across all edges of chunks, in whole lines where they come in time, with
//! memory that has a bound. Pure, without waiting.

use cooper_ports::engine::OutputStream;
use cooper_ports::logs::{NewFrame, Stream};
use cooper_types::Timestamp;

use crate::mask::{MaskSet, Masker};
use crate::step::heard::Heard;

/// The most bytes of one frame, and of a line that is waited for.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Makes frames of one container's output.
pub(super) struct Output {
    streams: [OneStream; 2],
    /// Stands in front of every line.
    prefix: Vec<u8>,
    heard: Heard,
    frames: Vec<NewFrame>,
}

/// One stream of the two.
struct OneStream {
    stream: Stream,
    masker: Masker,
    /// Masked bytes since the last end of a line.
    partial: Vec<u8>,
    /// Whether what is partial was so at the last tick.
    aged: bool,
    /// Whether the next byte begins a line.
    at_line_start: bool,
}

impl Output {
    /// For one run of a container; `watched` are the texts that [`Self::found`] is about.
    pub(super) fn new(masks: &MaskSet, watched: &[String], prefix: &str) -> Self {
        let one = |stream| OneStream {
            stream,
            masker: Masker::new(masks.clone()),
            partial: Vec::new(),
            aged: false,
            at_line_start: true,
        };
        Self {
            streams: [one(Stream::Stdout), one(Stream::Stderr)],
            prefix: prefix.as_bytes().to_vec(),
            heard: Heard::new(watched),
            frames: Vec::new(),
        }
    }

    /// Whether one of the watched texts was in the output of a stream, as it was before it was masked.
    pub(super) fn found(&self) -> bool {
        self.heard.found()
    }

    /// Takes the next bytes of a stream.
    pub(super) fn feed(&mut self, stream: OutputStream, bytes: &[u8], now: Timestamp) {
        let one = &mut self.streams[index(stream)];
        self.heard.feed(["out", "err"][index(stream)], bytes);
        one.masker.feed(bytes, &mut one.partial);
        one.aged = false;
        let whole = match one.partial.iter().rposition(|byte| *byte == b'\n') {
            _ if one.partial.len() >= MAX_FRAME_BYTES => one.partial.len(),
            Some(end) => end + 1,
            None => return,
        };
        one.emit(whole, &self.prefix, &mut self.frames, now);
    }

    /// Says what has waited for the end of its line: to be called about every 100 ms.
    pub(super) fn tick(&mut self, now: Timestamp) {
        for one in &mut self.streams {
            if one.partial.is_empty() {
                continue;
            }
            // A line may take up to two ticks: most are whole by then.
            if one.aged {
                one.emit(one.partial.len(), &self.prefix, &mut self.frames, now);
            }
            one.aged = !one.aged;
        }
    }

    /// Says everything that is left.
    pub(super) fn finish(&mut self, now: Timestamp) {
        for one in &mut self.streams {
            one.masker.finish(&mut one.partial);
            one.emit(one.partial.len(), &self.prefix, &mut self.frames, now);
        }
        // The next one to speak begins a line.
        if let Some(one) = self.streams.iter_mut().find(|one| !one.at_line_start) {
            one.partial.push(b'\n');
            one.emit(1, &[], &mut self.frames, now);
        }
    }

    /// The frames that are ready.
    pub(super) fn take_frames(&mut self) -> Vec<NewFrame> {
        std::mem::take(&mut self.frames)
    }

    /// How many bytes are ready.
    pub(super) fn ready_bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.data.len()).sum()
    }
}

impl OneStream {
    /// Puts the first `length` bytes of what is partial into frames.
    fn emit(&mut self, length: usize, prefix: &[u8], frames: &mut Vec<NewFrame>, now: Timestamp) {
        let Some(text) = self.partial.get(..length).filter(|text| !text.is_empty()) else { return };
        if prefix.is_empty() {
            append(frames, self.stream, text, now);
        } else {
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                if self.at_line_start {
                    append(frames, self.stream, prefix, now);
                }
                append(frames, self.stream, line, now);
                self.at_line_start = line.ends_with(b"\n");
            }
        }
        self.at_line_start = text.ends_with(b"\n");
        self.partial.drain(..length);
    }
}

/// Appends text to the last frame if that is of the same stream, else to new ones.
fn append(frames: &mut Vec<NewFrame>, stream: Stream, bytes: &[u8], now: Timestamp) {
    let mut rest = bytes;
    if let Some(last) = frames.last_mut().filter(|last| last.stream == stream) {
        let (fits, more) = rest.split_at(rest.len().min(MAX_FRAME_BYTES.saturating_sub(last.data.len())));
        last.data.extend_from_slice(fits);
        rest = more;
    }
    for piece in rest.chunks(MAX_FRAME_BYTES) {
        frames.push(NewFrame { time: now, stream, vertex: None, data: piece.to_vec() });
    }
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(0);

    fn masks(values: &[&str]) -> MaskSet {
        MaskSet::new(values.iter().map(|value| value.as_bytes())).expect("small")
    }

    fn text(frames: &[NewFrame]) -> String {
        frames.iter().map(|frame| String::from_utf8_lossy(&frame.data).into_owned()).collect()
    }

    #[test]
    fn lines_of_both_streams_stay_whole() {
        let mut output = Output::new(&masks(&[]), &[], "");
        output.feed(OutputStream::Stdout, b"on", NOW);
        output.feed(OutputStream::Stderr, b"two\nthr", NOW);
        output.feed(OutputStream::Stdout, b"e\n", NOW);
        assert_eq!(text(&output.take_frames()), "two\none\n");
        // What waits is said with the second tick, and a line that was said in pieces goes on.
        output.tick(NOW);
        assert_eq!(text(&output.take_frames()), "");
        output.tick(NOW);
        assert_eq!(text(&output.take_frames()), "thr");
        output.feed(OutputStream::Stderr, b"ee", NOW);
        output.finish(NOW);
        assert_eq!(text(&output.take_frames()), "ee\n");
    }

    #[test]
    fn a_prefix_stands_before_every_line() {
        let mut output = Output::new(&masks(&[]), &[], "svc | ");
        output.feed(OutputStream::Stdout, b"a\nb\nc", NOW);
        output.finish(NOW);
        assert_eq!(text(&output.take_frames()), "svc | a\nsvc | b\nsvc | c\n");
    }

    #[test]
    fn memory_has_a_bound_without_line_ends() {
        let mut output = Output::new(&masks(&["secret-value"]), &["nowhere".to_owned()], "");
        let mut total = 0;
        for _ in 0..100 {
            output.feed(OutputStream::Stdout, &[b'x'; 32 * 1024], NOW);
            let kept = output.streams[0].partial.capacity();
            assert!(kept <= 4 * MAX_FRAME_BYTES, "{kept}");
            total += output.ready_bytes();
            assert!(output.take_frames().iter().all(|frame| frame.data.len() <= MAX_FRAME_BYTES));
        }
        output.finish(NOW);
        assert_eq!(total + output.ready_bytes(), 100 * 32 * 1024 + 1);
    }

    proptest! {
        #[test]
        fn texts_and_secrets_are_found_wherever_output_is_cut(
            before in "[ab]{0,12}", after in "[ab]{0,12}", cuts in prop::collection::vec(1usize..5, 1..30), has in any::<bool>()
        ) {
            let said = if has { format!("{before}needle-s3cret{after}") } else { format!("{before}{after}") };
            let mut output = Output::new(&masks(&["s3cret"]), &["zzz".to_owned(), "needle".to_owned()], "");
            let mut rest = said.as_bytes();
            for cut in cuts.iter().cycle() {
                let (chunk, more) = rest.split_at(rest.len().min(*cut));
                output.feed(OutputStream::Stderr, chunk, NOW);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            output.finish(NOW);
            prop_assert_eq!(output.found(), has);
            let shown = text(&output.take_frames());
            prop_assert_eq!(shown.trim_end(), said.replace("s3cret", "***"));
        }
    }
}
