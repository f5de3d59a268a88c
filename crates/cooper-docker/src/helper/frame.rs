//! What the helper in a container and the agent outside say to each other over the helper's standard streams.
//!
//! Many connections share one pair of pipes, and none may stop the others: each side takes [`WINDOW`] data frames of a
//! connection that it has not handed on yet, and says with [`Kind::Credit`] when it has. Compiled twice, into the
//! adapter and into the helper.

/// Bytes of a frame's head: its kind, the connection's number, and the payload's length, both big-endian.
pub(crate) const HEAD: usize = 9;
/// The largest payload.
pub(crate) const MAX_PAYLOAD: usize = 16 * 1024;
/// How many data frames of a connection may be under way in one direction.
pub(crate) const WINDOW: usize = 16;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The helper listens; the first frame. It belongs to no connection.
    Ready,
    /// The helper can't listen, and ends: the payload says why.
    Failed,
    /// A container has connected; the helper gives the number.
    Open,
    /// Bytes of a connection.
    Data,
    /// No more bytes come in this direction.
    End,
    /// The connection is over in both directions, and what is under way is void.
    Reset,
    /// One data frame was handed on: another one may come.
    Credit,
}

impl Kind {
    const ALL: [Self; 7] = [Self::Ready, Self::Failed, Self::Open, Self::Data, Self::End, Self::Reset, Self::Credit];
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) connection: u32,
    pub(crate) length: usize,
}

impl Head {
    /// The bytes of a whole frame.
    pub(crate) fn frame(kind: Kind, connection: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.push(Kind::ALL.iter().position(|known| *known == kind).unwrap_or_default() as u8);
        bytes.extend_from_slice(&connection.to_be_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads a head; `None` for what no side of ours writes.
    pub(crate) fn parse(bytes: [u8; HEAD]) -> Option<Self> {
        let [kind, a, b, c, d, e, f, g, h] = bytes;
        let kind = *Kind::ALL.get(usize::from(kind))?;
        let length = usize::try_from(u32::from_be_bytes([e, f, g, h])).ok()?;
        (length <= MAX_PAYLOAD).then_some(Self { kind, connection: u32::from_be_bytes([a, b, c, d]), length })
    }
}
