//! A receiver of events on loopback: takes every POST, and can be away for a while.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::port::Port;

/// How long a client may take to send its request.
const LIMIT: Duration = Duration::from_secs(60);

/// An event as it came.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl ReceivedEvent {
    /// A header's value; the empty text if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("events are JSON")
    }
}

/// A receiver that listens until it is dropped or goes away.
pub struct EventReceiver {
    port: Port,
    received: Arc<Mutex<Vec<ReceivedEvent>>>,
    listening: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl EventReceiver {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let mut receiver = Self { port: Port::reserve(), received: Arc::default(), listening: None };
        receiver.come_back();
        receiver
    }

    fn listen(&mut self, listener: TcpListener) {
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.received));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away has its reasons.
                let _ = take(stream, &received);
            }
        });
        self.listening = Some((stop, thread));
    }

    /// Where events go to.
    pub fn url(&self) -> String {
        format!("http://{}/events", self.port.address())
    }

    /// Refuses connections from here on.
    pub fn go_away(&mut self) {
        let Some((stop, thread)) = self.listening.take() else { return };
        stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        drop(TcpStream::connect(self.port.address()));
        drop(thread.join());
    }

    /// Listens at the same address again.
    pub fn come_back(&mut self) {
        let listener = TcpListener::bind(self.port.address()).expect("the port is held");
        self.listen(listener);
    }

    /// What came so far, in order.
    pub fn received(&self) -> Vec<ReceivedEvent> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn take(mut stream: TcpStream, received: &Mutex<Vec<ReceivedEvent>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let event = loop {
        if let Some(event) = whole(&bytes) {
            break event;
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(buffer.get(..read).unwrap_or_default()),
        }
    };
    received.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
}

/// The event, once all of it is there.
fn whole(bytes: &[u8]) -> Option<ReceivedEvent> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let line = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let event = ReceivedEvent { headers: head.lines().filter_map(line).collect(), body: body.to_owned() };
    (event.header("content-length").parse() == Ok(body.len())).then_some(event)
}
