//! The program in the helper image: the first and only process of a container that holds a network namespace or
//! volumes for others.
//!
//! It listens at the addresses that are its arguments and hands connections on over its standard streams, see
//! [`frame`]. It ends when its standard input does: with the agent, whatever became of it. The standard library is all
//! that it uses, so that it links statically and fits an image of its own.

mod frame;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use frame::{HEAD, Head, Kind, MAX_PAYLOAD, WINDOW};

/// How many connections there may be at once; two threads serve each. What comes above is closed at once.
const MAX_CONNECTIONS: usize = 128;
/// Buffers are on the heap.
const STACK: usize = 64 * 1024;

type Connections = Arc<Mutex<HashMap<u32, Arc<Connection>>>>;

/// Standard output, a whole frame at a time.
#[derive(Clone)]
struct Output(Arc<Mutex<io::Stdout>>);

/// A connection of a container.
struct Connection {
    number: u32,
    socket: TcpStream,
    state: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    /// What came from the agent and is not written yet: [`WINDOW`] frames at most.
    incoming: VecDeque<Vec<u8>>,
    /// The agent sends no more.
    ended: bool,
    /// It is over, at once.
    reset: bool,
    /// How many data frames may be sent to the agent.
    credit: usize,
    /// How many of the two directions are at work.
    directions: u8,
}

fn main() -> ExitCode {
    let output = Output(Arc::new(Mutex::new(io::stdout())));
    let listeners = match listen(std::env::args().skip(1)) {
        Ok(listeners) => listeners,
        Err(error) => {
            let _ = output.send(Kind::Failed, 0, error.as_bytes());
            return ExitCode::FAILURE;
        }
    };
    let connections = Connections::default();
    let numbers = Arc::new(Mutex::new(0));
    for listener in listeners {
        let (output, connections, numbers) = (output.clone(), Arc::clone(&connections), Arc::clone(&numbers));
        let spawned = spawn(move || accept(&listener, &output, &connections, &numbers));
        if spawned.is_err() {
            return ExitCode::FAILURE;
        }
    }
    if output.send(Kind::Ready, 0, &[]).is_err() {
        return ExitCode::FAILURE;
    }
    match obey(&mut io::stdin().lock(), &connections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Listens at every address. The first must work; others may be of a protocol that is not there.
fn listen(addresses: impl Iterator<Item = String>) -> Result<Vec<TcpListener>, String> {
    let mut listeners = Vec::new();
    for (index, address) in addresses.enumerate() {
        match TcpListener::bind(&address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if index == 0 => return Err(format!("{address}: {error}")),
            Err(_) => {}
        }
    }
    Ok(listeners)
}

fn accept(listener: &TcpListener, output: &Output, connections: &Connections, numbers: &Mutex<u32>) {
    loop {
        let Ok((socket, _)) = listener.accept() else {
            // Out of descriptors, say: those that are open end some time.
            thread::park_timeout(std::time::Duration::from_millis(50));
            continue;
        };
        let number = {
            let mut number = lock(numbers);
            *number = number.wrapping_add(1);
            *number
        };
        let _ = socket.set_nodelay(true);
        let progress =
            Progress { incoming: VecDeque::new(), ended: false, reset: false, credit: WINDOW, directions: 2 };
        let connection = Arc::new(Connection { number, socket, state: Mutex::new(progress), changed: Condvar::new() });
        {
            let mut connections = lock(connections);
            if connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            connections.insert(number, Arc::clone(&connection));
        }
        if output.send(Kind::Open, number, &[]).is_err() {
            return;
        }
        for direction in [outwards, inwards] {
            let (its_output, its_table, itself) = (output.clone(), Arc::clone(connections), Arc::clone(&connection));
            let spawned = spawn(move || {
                direction(&itself, &its_output);
                itself.direction_is_over(&its_table);
            });
            if spawned.is_err() {
                connection.give_up(output);
                connection.direction_is_over(connections);
            }
        }
    }
}

/// From the container to the agent.
fn outwards(connection: &Connection, output: &Output) {
    let mut buffer = vec![0; MAX_PAYLOAD];
    while connection.wait_for(|progress| progress.credit > 0) {
        // Spent before the frame goes out: the agent may give it back before the sending returns, and what it gives
        // above the window is lost.
        lock(&connection.state).credit -= 1;
        let sent = match (&connection.socket).read(&mut buffer) {
            Ok(0) => {
                let _ = output.send(Kind::End, connection.number, &[]);
                return;
            }
            Ok(length) => output.send(Kind::Data, connection.number, &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                lock(&connection.state).credit += 1;
                continue;
            }
            Err(error) => Err(error),
        };
        if sent.is_err() {
            return connection.give_up(output);
        }
    }
}

/// From the agent to the container.
fn inwards(connection: &Connection, output: &Output) {
    while connection.wait_for(|progress| !progress.incoming.is_empty() || progress.ended) {
        let Some(bytes) = lock(&connection.state).incoming.pop_front() else {
            let _ = connection.socket.shutdown(Shutdown::Write);
            return;
        };
        let written = (&connection.socket).write_all(&bytes);
        if written.and_then(|()| output.send(Kind::Credit, connection.number, &[])).is_err() {
            return connection.give_up(output);
        }
    }
}

/// Does what the agent says until it says no more. Never waits for a connection, so that none stops another.
fn obey(input: &mut impl Read, connections: &Connections) -> io::Result<()> {
    loop {
        let mut head = [0; HEAD];
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let head = Head::parse(head).ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; head.length];
        input.read_exact(&mut payload)?;
        let connection = lock(connections).get(&head.connection).cloned();
        // What is under way for a connection that is over means nothing.
        let Some(connection) = connection else { continue };
        let mut progress = lock(&connection.state);
        match head.kind {
            Kind::Data if progress.incoming.len() < WINDOW => progress.incoming.push_back(payload),
            Kind::End => progress.ended = true,
            Kind::Credit => progress.credit = (progress.credit + 1).min(WINDOW),
            _ => {
                progress.reset = true;
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
        }
        connection.changed.notify_all();
    }
}

impl Connection {
    /// Waits until this is so; false when the connection is over first.
    fn wait_for(&self, is_so: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = lock(&self.state);
        while !progress.reset && !is_so(&progress) {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        !progress.reset
    }

    /// Ends both directions, and tells the agent once.
    fn give_up(&self, output: &Output) {
        if !std::mem::replace(&mut lock(&self.state).reset, true) {
            let _ = output.send(Kind::Reset, self.number, &[]);
        }
        let _ = self.socket.shutdown(Shutdown::Both);
        self.changed.notify_all();
    }

    fn direction_is_over(&self, connections: &Connections) {
        let over = {
            let mut progress = lock(&self.state);
            progress.directions -= 1;
            progress.directions == 0
        };
        if over {
            lock(connections).remove(&self.number);
        }
    }
}

impl Output {
    fn send(&self, kind: Kind, connection: u32, payload: &[u8]) -> io::Result<()> {
        let mut output = lock(&self.0);
        output.write_all(&Head::frame(kind, connection, payload))?;
        output.flush()
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
}

/// A thread that panicked left nothing half done: each lock guards single assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
