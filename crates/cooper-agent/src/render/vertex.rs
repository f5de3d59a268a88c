//! What the renderer knows of one vertex: its latest news, its transfers, its unfinished lines.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::rest::VertexUpdate;
use cooper_ports::engine::{OutputStream, VertexEvent};
use cooper_types::Timestamp;

use super::text;
use crate::mask::{MaskSet, Masker};

/// How often a running transfer gets a line of its own.
const TRANSFER_LINE_EVERY: Duration = Duration::from_secs(5);
/// How often news of transfers go out as vertex frames.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The most transfers of a vertex that are followed: there is one per layer, and a few more.
const MAX_TRANSFERS: usize = 1000;

/// A vertex that has begun.
#[derive(Debug)]
pub(super) struct Vertex {
    /// Its number, in order of beginning.
    pub(super) number: u64,
    /// Its name, masked, in one line.
    pub(super) name: String,
    /// When its beginning was heard of, by the agent's clock.
    pub(super) heard: Timestamp,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    cached: bool,
    error: Option<String>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    transfers: BTreeMap<String, Transfer>,
    progress_said: Option<Timestamp>,
}

/// One stream of a vertex's output.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) masker: Masker,
    /// The beginning of a line whose end has not come.
    pub(super) partial: Vec<u8>,
    /// Whether that beginning was there at the last tick already.
    pub(super) aged: bool,
}

#[derive(Debug)]
struct Transfer {
    current: u64,
    total: Option<u64>,
    said: Option<(Timestamp, u64)>,
}

impl Vertex {
    pub(super) fn new(number: u64, heard: Timestamp, masks: &MaskSet) -> Self {
        let output = || Output { masker: Masker::new(masks.clone()), partial: Vec::new(), aged: false };
        Self {
            number,
            name: String::new(),
            heard,
            started: None,
            completed: None,
            cached: false,
            error: None,
            stdout: output(),
            stderr: output(),
            transfers: BTreeMap::new(),
            progress_said: None,
        }
    }

    pub(super) fn output(&mut self, stream: OutputStream) -> &mut Output {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Takes the engine's news. Returns whether it says that the vertex ended, for the first time since it began.
    pub(super) fn learn(&mut self, event: VertexEvent, masks: &MaskSet) -> bool {
        let was_completed = self.completed.is_some();
        self.name = text::one_line(&masks.text(&event.name));
        self.started = event.started;
        self.completed = event.completed;
        self.cached = event.cached;
        self.error = event.error.map(|error| masks.text(&error));
        self.completed.is_some() && !was_completed
    }

    /// Whether it has ended, by the latest news.
    pub(super) fn has_ended(&self) -> bool {
        self.completed.is_some()
    }

    /// The line that says how it ended, without its number.
    pub(super) fn ending(&self) -> String {
        match (&self.error, self.started, self.completed) {
            (Some(error), ..) if error.contains("context canceled") => "CANCELED".to_owned(),
            (Some(error), ..) => format!("ERROR: {}", text::one_line(error)),
            (None, ..) if self.cached => "CACHED".to_owned(),
            (None, Some(started), Some(completed)) => format!("DONE {}", text::seconds(completed.since(started))),
            (None, ..) => "DONE".to_owned(),
        }
    }

    /// Takes news of a transfer; returns a line about it if one is due.
    pub(super) fn transfer(&mut self, id: String, current: u64, total: Option<u64>, now: Timestamp) -> Option<String> {
        if self.transfers.len() >= MAX_TRANSFERS && !self.transfers.contains_key(&id) {
            return None;
        }
        let transfer = self.transfers.entry(id.clone()).or_insert(Transfer { current: 0, total: None, said: None });
        transfer.current = current;
        transfer.total = total;
        let due = match transfer.said {
            // What counts nothing is said when it begins, the rest when there is something to see; a colon announces a
            // count.
            None => (current == 0 && total.is_none() && !id.ends_with(':')) || total == Some(current),
            Some((at, said)) => said != current && (total == Some(current) || now.since(at) >= TRANSFER_LINE_EVERY),
        };
        if transfer.said.is_none() && !due {
            // The time of the first news counts from here on.
            transfer.said = Some((now, 0));
            return None;
        }
        due.then(|| transfer.line(&id, now))
    }

    /// The lines of transfers that have moved since their last line: the vertex is over.
    pub(super) fn last_transfers(&mut self, now: Timestamp) -> Vec<String> {
        let moved = self
            .transfers
            .iter_mut()
            .filter(|(_, transfer)| transfer.said.is_none_or(|(_, said)| said != transfer.current));
        moved.map(|(id, transfer)| transfer.line(id, now)).collect()
    }

    /// Whether news of transfers should go out as a vertex frame now.
    pub(super) fn progress_due(&mut self, now: Timestamp) -> bool {
        let due = self.progress_said.is_none_or(|said| now.since(said) >= PROGRESS_EVERY);
        if due {
            self.progress_said = Some(now);
        }
        due
    }

    /// The vertex as it is, for terminals.
    pub(super) fn update(&self) -> VertexUpdate {
        let counted = self.transfers.values().filter(|transfer| transfer.total.is_some());
        let (current, total) = counted.fold((0u64, 0u64), |(current, total), transfer| {
            (current.saturating_add(transfer.current), total.saturating_add(transfer.total.unwrap_or(0)))
        });
        VertexUpdate {
            id: self.number.to_string(),
            name: self.name.clone(),
            started: self.started,
            completed: self.completed,
            cached: self.cached,
            error: self.error.clone(),
            current: (total > 0).then_some(current),
            total: (total > 0).then_some(total),
        }
    }
}

impl Transfer {
    fn line(&mut self, id: &str, now: Timestamp) -> String {
        self.said = Some((now, self.current));
        match self.total {
            Some(total) => format!("{id} {} / {}", text::size(self.current), text::size(total)),
            None if self.current > 0 => format!("{id} {}", text::size(self.current)),
            None => id.to_owned(),
        }
    }
}
