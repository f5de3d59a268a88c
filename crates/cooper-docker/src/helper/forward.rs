//! The agent's end of a helper's connections: each one leads where the connector says.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use cooper_ports::engine::{Connector, OutputStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{HEAD, Head, Kind, MAX_PAYLOAD, WINDOW};
use crate::attach::{Input, Output};

/// How long a way to the registry may take to open.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a helper that was started may take to listen: no step's time has begun to run by then.
const READY: Duration = Duration::from_secs(60);
/// Frames on their way to the helper: enough to keep the pipe busy.
const QUEUE: usize = 64;

/// A helper that listens. Its connections end with this value, and the helper's standard input, too.
pub(crate) struct Forwarding {
    _task: AbortOnDropHandle<()>,
}

/// A connection as the reader of frames sees it.
struct Known {
    /// To the task that writes to the registry. The helper keeps to its window, so there is always room.
    data: Option<mpsc::Sender<Bytes>>,
    credit: Arc<Semaphore>,
    task: tokio::task::AbortHandle,
}

/// Frames from a helper.
struct Frames<R> {
    output: Output<R>,
    buffer: BytesMut,
}

/// Waits until the helper listens, and serves its connections from then on. Gives the helper's own words where it
/// can't.
pub(crate) async fn serve<R>(
    output: Output<R>,
    mut input: Input,
    connector: Option<Arc<dyn Connector>>,
) -> io::Result<Forwarding>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let mut frames = Frames { output, buffer: BytesMut::new() };
    let first = tokio::time::timeout(READY, frames.next()).await;
    match first.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not listen in time")))? {
        Some((Head { kind: Kind::Ready, .. }, _)) => {}
        Some((Head { kind: Kind::Failed, .. }, why)) => return Err(io::Error::other(one_line(&why))),
        Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let (to_helper, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let write = async {
            while let Some(frame) = queue.recv().await {
                input.write_all(&frame).await?;
            }
            // Without a connector nothing is ever sent, and the input stays open all the same.
            std::future::pending::<io::Result<()>>().await
        };
        let read = route(&mut frames, to_helper, connector);
        let ended = tokio::select! { ended = write => ended, ended = read => ended };
        if let Err(error) = ended {
            tracing::debug!(%error, "helper in a container is gone");
        }
    }));
    Ok(Forwarding { _task: task })
}

fn one_line(text: &[u8]) -> String {
    crate::wire::one_line(&String::from_utf8_lossy(text))
}

/// Hands frames to their connections until the helper ends. Never waits for a connection, so that none stops another.
async fn route<R: AsyncRead + Unpin>(
    frames: &mut Frames<R>,
    to_helper: mpsc::Sender<Vec<u8>>,
    connector: Option<Arc<dyn Connector>>,
) -> io::Result<()> {
    let mut known: HashMap<u32, Known> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = frames.next() => next?,
            Some(ended) = tasks.join_next() => {
                if let Ok(number) = ended {
                    known.remove(&number);
                }
                continue;
            }
        };
        let Some((head, payload)) = next else { return Ok(()) };
        let number = head.connection;
        match head.kind {
            Kind::Open => {
                let Some(connector) = connector.clone() else { continue };
                let (data, incoming) = mpsc::channel(WINDOW + 1);
                let credit = Arc::new(Semaphore::new(WINDOW));
                let bridge = Bridge { number, to_helper: to_helper.clone(), credit: Arc::clone(&credit) };
                let task = tasks.spawn(async move {
                    bridge.run(&*connector, incoming).await;
                    number
                });
                known.insert(number, Known { data: Some(data), credit, task });
            }
            Kind::Data => {
                // A connection that is over here was told to the helper already.
                let Some(connection) = known.get_mut(&number) else { continue };
                let refused = connection.data.as_ref().is_some_and(|data| data.try_send(payload).is_err());
                if refused {
                    connection.data = None;
                }
            }
            Kind::End => {
                if let Some(connection) = known.get_mut(&number) {
                    connection.data = None;
                }
            }
            Kind::Credit => {
                if let Some(connection) = known.get(&number).filter(|known| known.credit.available_permits() < WINDOW) {
                    connection.credit.add_permits(1);
                }
            }
            Kind::Reset => {
                if let Some(connection) = known.remove(&number) {
                    connection.task.abort();
                }
            }
            Kind::Ready | Kind::Failed => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// One connection between a container and the registry.
struct Bridge {
    number: u32,
    to_helper: mpsc::Sender<Vec<u8>>,
    credit: Arc<Semaphore>,
}

impl Bridge {
    async fn run(&self, connector: &dyn Connector, mut incoming: mpsc::Receiver<Bytes>) {
        let connection = tokio::time::timeout(CONNECT, connector.connect()).await;
        let ended = match connection.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => {
                let (reader, writer) = tokio::io::split(connection);
                tokio::try_join!(self.inwards(reader), self.outwards(writer, &mut incoming)).map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "container's connection to the registry broke");
            self.send(Kind::Reset, &[]).await;
        }
    }

    /// From the registry to the container.
    async fn inwards(&self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD];
        loop {
            // Permits that the helper gives back are new ones. The semaphore is never closed.
            if let Ok(permit) = self.credit.acquire().await {
                permit.forget();
            }
            let length = reader.read(&mut buffer).await?;
            if length == 0 {
                self.send(Kind::End, &[]).await;
                return Ok(());
            }
            self.send(Kind::Data, &buffer[..length]).await;
        }
    }

    /// From the container to the registry.
    async fn outwards(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        incoming: &mut mpsc::Receiver<Bytes>,
    ) -> io::Result<()> {
        while let Some(bytes) = incoming.recv().await {
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            self.send(Kind::Credit, &[]).await;
        }
        writer.shutdown().await
    }

    async fn send(&self, kind: Kind, payload: &[u8]) {
        // The queue closes with the helper only, and then nobody is left to tell.
        let _ = self.to_helper.send(Head::frame(kind, self.number, payload)).await;
    }
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// The next frame; `None` when the helper has ended. Cancel-safe: what was read is kept.
    async fn next(&mut self) -> io::Result<Option<(Head, Bytes)>> {
        loop {
            if let Some((bytes, _)) = self.buffer.split_first_chunk::<HEAD>() {
                let head = Head::parse(*bytes).ok_or(io::ErrorKind::InvalidData)?;
                if self.buffer.len() >= HEAD + head.length {
                    self.buffer.advance(HEAD);
                    return Ok(Some((head, self.buffer.split_to(head.length).freeze())));
                }
            }
            match self.output.next().await? {
                Some((OutputStream::Stdout, bytes)) => self.buffer.extend_from_slice(&bytes),
                Some((OutputStream::Stderr, bytes)) => {
                    tracing::debug!(said = one_line(&bytes), "helper in a container");
                }
                None => return Ok(None),
            }
        }
    }
}
