//! A log frame and its stored form.
//!
//! ```text
//! length u32 │ stream u8 │ flags u8 │ attempt u64? │ seq u64 │ time i64 │ vertex length u32, bytes? │ data
//! ```
//! Little-endian. `length` counts what follows it; bit 0 of `flags` says that there is an attempt, bit 1 that there is
//! a vertex; data is the rest. Readers refuse unknown streams and flags: old binaries never read newer databases, and
//! clients name the form that they read (`LOG_FRAMES_FORM` of the API), which changes with this one.

use cooper_types::{AttemptNumber, Timestamp};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Lines of the system.
    Service,
    /// A step's standard output.
    Stdout,
    /// A step's standard error.
    Stderr,
    /// Progress of a build step as JSON; not part of the text.
    Vertex,
    /// Something is missing here, says the data.
    Gap,
}

/// One piece of a log in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The attempt that wrote it; none for the server's own frames.
    pub attempt: Option<AttemptNumber>,
    /// Its number among the frames of the same attempt, from 1.
    pub seq: u64,
    /// When its writer saw it.
    pub time: Timestamp,
    /// Which stream it belongs to.
    pub stream: Stream,
    /// The build step it belongs to, if any.
    pub vertex: Option<String>,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Why bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// They end inside a frame.
    #[error("log frame is cut off")]
    Short,
    /// The stream's number is unknown.
    #[error("log frame has unknown stream {0}")]
    Stream(u8),
    /// A flag is unknown.
    #[error("log frame has unknown flags {0:#x}")]
    Flags(u8),
    /// The vertex is not UTF-8.
    #[error("log frame has a vertex that is not text")]
    Vertex,
}

const HAS_ATTEMPT: u8 = 1;
const HAS_VERTEX: u8 = 2;

impl Frame {
    /// Appends the stored form to `out`.
    ///
    /// # Panics
    /// If data and vertex together are longer than 4 GiB less 64 bytes; the port's limit is far below.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(match self.stream {
            Stream::Service => 0,
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Vertex => 3,
            Stream::Gap => 4,
        });
        let attempt = self.attempt.map_or(0, |_| HAS_ATTEMPT);
        let vertex = self.vertex.as_ref().map_or(0, |_| HAS_VERTEX);
        out.push(attempt | vertex);
        if let Some(attempt) = self.attempt {
            out.extend_from_slice(&attempt.0.to_le_bytes());
        }
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.time.as_micros().to_le_bytes());
        if let Some(vertex) = &self.vertex {
            out.extend_from_slice(&length(vertex.len()));
            out.extend_from_slice(vertex.as_bytes());
        }
        out.extend_from_slice(&self.data);
        let body = length(out.len() - start - 4);
        out[start..start + 4].copy_from_slice(&body);
    }

    /// Takes the first frame off `bytes`.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, FrameError> {
        let length = u32::from_le_bytes(take(bytes)?);
        let length = usize::try_from(length).map_err(|_| FrameError::Short)?;
        let (mut body, rest) = bytes.split_at_checked(length).ok_or(FrameError::Short)?;
        let [stream, flags] = take(&mut body)?;
        let stream = match stream {
            0 => Stream::Service,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::Vertex,
            4 => Stream::Gap,
            other => return Err(FrameError::Stream(other)),
        };
        if flags & !(HAS_ATTEMPT | HAS_VERTEX) != 0 {
            return Err(FrameError::Flags(flags));
        }
        let attempt = match flags & HAS_ATTEMPT {
            0 => None,
            _ => Some(AttemptNumber(u64::from_le_bytes(take(&mut body)?))),
        };
        let seq = u64::from_le_bytes(take(&mut body)?);
        let time = Timestamp::from_micros(i64::from_le_bytes(take(&mut body)?));
        let vertex = match flags & HAS_VERTEX {
            0 => None,
            _ => {
                let length = usize::try_from(u32::from_le_bytes(take(&mut body)?)).map_err(|_| FrameError::Short)?;
                let (vertex, rest) = body.split_at_checked(length).ok_or(FrameError::Short)?;
                body = rest;
                Some(std::str::from_utf8(vertex).map_err(|_| FrameError::Vertex)?.to_owned())
            }
        };
        *bytes = rest;
        Ok(Self { attempt, seq, time, stream, vertex, data: body.to_vec() })
    }

    /// The bytes of it that belong to the run's text.
    pub fn text(&self) -> &[u8] {
        match self.stream {
            Stream::Vertex => &[],
            Stream::Service | Stream::Stdout | Stream::Stderr | Stream::Gap => &self.data,
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("frames are far shorter than 4 GiB").to_le_bytes()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(FrameError::Short)?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = prop_oneof![
            Just(Stream::Service),
            Just(Stream::Stdout),
            Just(Stream::Stderr),
            Just(Stream::Vertex),
            Just(Stream::Gap)
        ];
        let vertex = proptest::option::of(".{0,20}");
        (proptest::option::of(any::<u64>()), any::<u64>(), any::<i64>(), stream, vertex, any::<Vec<u8>>()).prop_map(
            |(attempt, seq, time, stream, vertex, data)| Frame {
                attempt: attempt.map(AttemptNumber),
                seq,
                time: Timestamp::from_micros(time),
                stream,
                vertex,
                data,
            },
        )
    }

    proptest! {
        #[test]
        fn frames_round_trip(frames in proptest::collection::vec(frame(), 0..8)) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let mut rest = bytes.as_slice();
            for frame in &frames {
                prop_assert_eq!(&Frame::decode(&mut rest)?, frame);
            }
            prop_assert_eq!(rest, &[] as &[u8]);
        }

        #[test]
        fn a_cut_frame_is_refused(frame in frame(), cut in any::<proptest::sample::Index>()) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            bytes.truncate(cut.index(bytes.len()));
            prop_assert_eq!(Frame::decode(&mut bytes.as_slice()), Err(FrameError::Short));
        }

        #[test]
        fn any_bytes_are_safe(bytes in any::<Vec<u8>>()) {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && Frame::decode(&mut rest).is_ok() {}
        }
    }

    #[test]
    fn the_stored_form_stays() {
        let frame = Frame {
            attempt: Some(AttemptNumber(2)),
            seq: 3,
            time: Timestamp::from_micros(4),
            stream: Stream::Stderr,
            vertex: Some("v".to_owned()),
            data: b"ab".to_vec(),
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let expect = [
            33, 0, 0, 0, 2, 3, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            b'v', b'a', b'b',
        ];
        assert_eq!(bytes, expect);
    }
}
