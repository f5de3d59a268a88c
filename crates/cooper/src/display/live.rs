//! The live picture of a build: finished vertices scroll up, running ones stay below with their time and last output.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use console::style;
use cooper_api::rest::{LogFrame, LogStream, StatusEvent, VertexUpdate};
use cooper_types::AttemptNumber;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::vertex_text::{clean, ended, running, vertex_output, waiting};

/// How many lines of output the picture shows.
const SHOWN_LINES: usize = 6;
/// How many lines of a vertex are kept, to be shown if it fails.
const KEPT_LINES: usize = 60;
/// How many unfinished lines' bytes are kept of one vertex.
const MAX_PARTIAL: usize = 64 * 1024;

/// A live display on standard error.
#[derive(Debug)]
pub(crate) struct LiveDisplay {
    picture: MultiProgress,
    /// What the run waits for.
    waiting: Option<ProgressBar>,
    /// By attempt and id: another attempt has vertices of the same ids, of the same build or of one beside it.
    vertices: HashMap<VertexKey, Vertex>,
    /// The lines of output below the vertices, the oldest first.
    shown: VecDeque<String>,
    lines: Vec<ProgressBar>,
    /// Text outside vertices that has no newline yet.
    partial: Vec<u8>,
}

type VertexKey = (Option<AttemptNumber>, String);

#[derive(Debug, Default)]
struct Vertex {
    bar: Option<ProgressBar>,
    ended: bool,
    kept: VecDeque<String>,
    partial: Vec<u8>,
}

impl LiveDisplay {
    pub(super) fn new() -> Self {
        let picture = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self {
            picture,
            waiting: None,
            vertices: HashMap::new(),
            shown: VecDeque::new(),
            lines: Vec::new(),
            partial: Vec::new(),
        }
    }

    pub(super) fn frame(&mut self, frame: &LogFrame) {
        match (frame.stream, &frame.vertex) {
            // An attempt is over that did not end its vertices. Those of others go on with their next news.
            (LogStream::Gap, _) => {
                self.stop_vertices();
                self.text(&frame.data);
            }
            (LogStream::Vertex, _) => {
                // News that are not understood cost a line of the picture, not the build.
                if let Ok(update) = serde_json::from_slice::<VertexUpdate>(&frame.data) {
                    self.vertex(frame.attempt, &update);
                }
            }
            (_, Some(vertex)) => self.vertex_output((frame.attempt, vertex.clone()), &frame.data),
            (_, None) => self.text(&frame.data),
        }
    }

    /// Text outside vertices.
    fn text(&mut self, data: &[u8]) {
        for line in whole_lines(&mut self.partial, data) {
            self.print(&clean(&line));
        }
    }

    pub(super) fn status(&mut self, status: &StatusEvent) {
        match (waiting(status), &self.waiting) {
            (Some(reason), Some(bar)) => bar.set_message(reason),
            (Some(reason), None) => self.waiting = Some(self.spinner(reason)),
            (None, Some(bar)) => {
                bar.finish_and_clear();
                self.waiting = None;
            }
            (None, None) => {}
        }
    }

    pub(super) fn notice(&mut self, text: &str) {
        self.print(&clean(text));
    }

    pub(super) fn pause(&mut self) {
        // A picture that can't be cleared stays where it is: the question stands below it.
        let _ = self.picture.clear();
        self.picture.set_draw_target(ProgressDrawTarget::hidden());
    }

    pub(super) fn resume(&mut self) {
        self.picture.set_draw_target(ProgressDrawTarget::stderr());
    }

    /// Takes what is being worked on from the picture.
    pub(super) fn forget_vertices(&mut self) {
        self.vertices.values_mut().filter_map(|vertex| vertex.bar.take()).for_each(|bar| bar.finish_and_clear());
    }

    pub(super) fn finish(&mut self) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            self.print(&clean(&String::from_utf8_lossy(&rest)));
        }
        self.stop_vertices();
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
        let _ = self.picture.clear();
    }

    /// What was running when a run or an attempt ended, a cancelled step say, stays visible as a line.
    fn stop_vertices(&mut self) {
        let bars = self.vertices.values_mut().filter_map(|vertex| vertex.bar.take());
        let mut left: Vec<String> = bars.map(|bar| finished(&bar)).collect();
        left.sort_unstable();
        for line in left {
            self.print(&style(format!("=> STOPPED {line}")).dim().to_string());
        }
        self.clear_lines();
    }

    fn vertex(&mut self, attempt: Option<AttemptNumber>, update: &VertexUpdate) {
        let key = (attempt, update.id.clone());
        let vertex = self.vertices.entry(key.clone()).or_default();
        if vertex.ended {
            return;
        }
        if update.completed.is_some() || update.error.is_some() {
            vertex.ended = true;
            if let Some(bar) = vertex.bar.take() {
                bar.finish_and_clear();
            }
            let kept = std::mem::take(&mut vertex.kept);
            let line = ended(update);
            match (&update.error, update.cached) {
                (Some(error), _) => {
                    self.print(&style(line).red().to_string());
                    for line in kept {
                        self.print(&format!("   {line}"));
                    }
                    self.print(&style(format!("   {}", clean(error))).red().to_string());
                }
                (None, true) => self.print(&style(line).cyan().to_string()),
                (None, false) => self.print(&line),
            }
            if self.vertices.values().all(|vertex| vertex.bar.is_none()) {
                self.clear_lines();
            }
            return;
        }
        if update.started.is_none() {
            return;
        }
        let message = running(update);
        match &vertex.bar {
            Some(bar) => bar.set_message(message),
            None => {
                let bar = self.spinner(message);
                self.vertices.entry(key).or_default().bar = Some(bar);
            }
        }
    }

    fn vertex_output(&mut self, key: VertexKey, data: &[u8]) {
        let vertex = self.vertices.entry(key).or_default();
        for line in whole_lines(&mut vertex.partial, data) {
            let Some(text) = vertex_output(&line) else { continue };
            if vertex.kept.len() == KEPT_LINES {
                vertex.kept.pop_front();
            }
            vertex.kept.push_back(text.clone());
            if self.shown.len() == SHOWN_LINES {
                self.shown.pop_front();
            }
            self.shown.push_back(text);
        }
        while self.lines.len() < self.shown.len() {
            let bar = self.picture.add(ProgressBar::new_spinner().with_style(line_style()));
            self.lines.push(bar);
        }
        for (bar, line) in self.lines.iter().zip(&self.shown) {
            bar.set_message(line.clone());
            bar.tick();
        }
    }

    /// A spinner above the lines of output.
    fn spinner(&self, message: String) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_style(spinner_style()).with_message(message);
        let bar = match self.lines.first() {
            Some(first) => self.picture.insert_before(first, bar),
            None => self.picture.add(bar),
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn clear_lines(&mut self) {
        self.shown.clear();
        for bar in self.lines.drain(..) {
            bar.finish_and_clear();
            self.picture.remove(&bar);
        }
    }

    /// Prints a line above the picture.
    fn print(&self, line: &str) {
        // Nobody can be told that standard error is gone.
        let _ = self.picture.println(line);
    }
}

fn finished(bar: &ProgressBar) -> String {
    let message = bar.message();
    bar.finish_and_clear();
    message
}

/// Adds bytes to what has no newline yet; gives the lines that are whole now.
fn whole_lines(partial: &mut Vec<u8>, data: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        partial.extend_from_slice(piece);
        if piece.ends_with(b"\n") || partial.len() > MAX_PARTIAL {
            lines.push(String::from_utf8_lossy(partial).into_owned());
            partial.clear();
        }
    }
    lines
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("   {wide_msg:.dim}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let mut partial = Vec::new();
        assert_eq!(whole_lines(&mut partial, b"a"), Vec::<String>::new());
        assert_eq!(whole_lines(&mut partial, b"b\nc\nd"), ["ab\n", "c\n"]);
        assert_eq!(whole_lines(&mut partial, b"\n"), ["d\n"]);
        assert_eq!(whole_lines(&mut partial, &[b'x'; MAX_PARTIAL + 1]).len(), 1);
    }
}
