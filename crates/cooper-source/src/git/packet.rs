//! Git's packet lines (gitprotocol-common, "pkt-line"): written into requests, read from answers.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, Bytes, BytesMut};

use super::GitError;
use super::error::shown;
use crate::egress::EgressResponse;

/// The longest packet, its length field included.
const MAX_PACKET: usize = 65_520;
/// The length field.
const HEAD: usize = 4;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Bytes),
    /// The end of a message or of a part of one.
    Flush,
    /// The border between two sections (version 2).
    Delimiter,
    /// The end of an answer (version 2 over stateless connections).
    End,
}

/// What has been received by a fetch from all servers.
#[derive(Debug)]
pub(super) struct Meter {
    received: AtomicU64,
    limit: u64,
}

impl Meter {
    pub(super) fn new(limit: u64) -> Self {
        Self { received: AtomicU64::new(0), limit }
    }

    fn add(&self, bytes: usize) -> Result<(), GitError> {
        let bytes = bytes as u64;
        if self.received.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            return Err(GitError::Limit { what: "bytes to receive", limit: self.limit });
        }
        Ok(())
    }
}

/// The packets of an answer.
#[derive(Debug)]
pub(super) struct Packets<'run> {
    response: EgressResponse,
    buffer: BytesMut,
    meter: &'run Meter,
}

impl<'run> Packets<'run> {
    pub(super) fn new(response: EgressResponse, meter: &'run Meter) -> Self {
        Self { response, buffer: BytesMut::new(), meter }
    }

    /// The next packet; nothing at the end of the body. A server's `ERR` is an error.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>, GitError> {
        loop {
            if let Some(packet) = take(&mut self.buffer).map_err(|what| self.fault(what))? {
                if let Packet::Data(data) = &packet
                    && let Some(message) = data.strip_prefix(b"ERR ")
                {
                    return Err(GitError::Remote { host: self.response.host(), message: shown(message) });
                }
                return Ok(Some(packet));
            }
            match self.response.chunk().await? {
                Some(chunk) => {
                    self.meter.add(chunk.len())?;
                    self.buffer.extend_from_slice(&chunk);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.cut()),
            }
        }
    }

    /// An answer that breaks the protocol.
    pub(super) fn fault(&self, what: &'static str) -> GitError {
        GitError::Protocol { host: self.response.host(), what }
    }

    /// An answer that ends too early: what a proxy makes of a server that died.
    pub(super) fn cut(&self) -> GitError {
        let source = "the answer ends in the middle".into();
        GitError::Egress(crate::egress::EgressError::Cut { host: self.response.host(), source })
    }

    pub(super) fn host(&self) -> String {
        self.response.host()
    }
}

/// Takes a whole packet from the beginning of the buffer, if there is one.
fn take(buffer: &mut BytesMut) -> Result<Option<Packet>, &'static str> {
    let Some(head) = buffer.get(..HEAD) else { return Ok(None) };
    let length = std::str::from_utf8(head)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or("a packet without a length")?;
    let special = match length {
        0 => Some(Packet::Flush),
        1 => Some(Packet::Delimiter),
        2 => Some(Packet::End),
        3 => return Err("a packet with a bad length"),
        _ => None,
    };
    if let Some(packet) = special {
        buffer.advance(HEAD);
        return Ok(Some(packet));
    }
    if length > MAX_PACKET {
        return Err("a packet that is too long");
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut packet = buffer.split_to(length);
    packet.advance(HEAD);
    Ok(Some(Packet::Data(packet.freeze())))
}

/// Appends a packet that holds a line.
pub(super) fn push(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(format!("{:04x}{line}\n", line.len() + HEAD + 1).as_bytes());
}

/// Appends the end of a message.
pub(super) fn push_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends the border between a command and its arguments.
pub(super) fn push_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// A packet's line without its end.
pub(super) fn line(data: &[u8]) -> &[u8] {
    data.strip_suffix(b"\n").unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_in_pieces() {
        let mut out = Vec::new();
        push(&mut out, "want x");
        push_delimiter(&mut out);
        push_flush(&mut out);
        out.extend_from_slice(b"0004");
        let mut buffer = BytesMut::new();
        let mut packets = Vec::new();
        for byte in out {
            buffer.extend_from_slice(&[byte]);
            packets.extend(take(&mut buffer).expect("well-formed"));
        }
        let data = |text: &'static [u8]| Packet::Data(Bytes::from_static(text));
        assert_eq!(packets, [data(b"want x\n"), Packet::Delimiter, Packet::Flush, data(b"")]);
        assert!(buffer.is_empty());
        for bad in ["0003", "zzzz", "+001", "ffff", "fff1"] {
            assert!(take(&mut BytesMut::from(bad)).is_err(), "{bad}");
        }
    }
}
