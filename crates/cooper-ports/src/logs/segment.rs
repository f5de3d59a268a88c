//! A segment of a log: frames one after another, in the form in which they are kept and sent. Owns that form alone.
//!
//! A segment knows how long its frames are: bytes of that length are the frames themselves, fewer bytes are one LZ4
//! block of them.

use std::borrow::Cow;

use super::{Frame, FrameError, MAX_FRAME_DATA};

/// Fewer bytes than these, a page of the database, are not worth packing.
const WORTH_PACKING: usize = 4096;

/// A segment is closed once it has this many bytes of frames: a reader loads whole segments.
pub const SEGMENT: usize = 256 << 10;

/// The most text that a segment holds, in bytes: the frame that closes it may be the largest.
pub const LONGEST_SEGMENT: usize = SEGMENT + MAX_FRAME_DATA;

/// The most bytes of frames, their heads included, that a segment is believed to hold: damage, or a server that is none
/// of ours, must not ask for more memory than that.
const MOST_FRAMES: usize = 2 * LONGEST_SEGMENT;

/// Some frames of a log as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The frame offset of its first frame.
    pub start: u64,
    /// The frame offset after its last one.
    pub end: u64,
    /// What [`pack`] gave for them.
    pub stored: Vec<u8>,
}

/// Why a segment's bytes are not its frames.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// They are not what was packed.
    #[error("segment of a log does not hold its {length} bytes")]
    Damaged {
        /// How long its frames should be, in bytes.
        length: usize,
        /// What unpacking says.
        #[source]
        source: Option<lz4_flex::block::DecompressError>,
    },
    /// A frame in it can't be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// What to keep of a segment's frames.
pub fn pack(frames: Vec<u8>) -> Vec<u8> {
    if frames.len() < WORTH_PACKING {
        return frames;
    }
    let packed = lz4_flex::block::compress(&frames);
    if packed.len() < frames.len() { packed } else { frames }
}

/// The frames from `start` to `end`, encoded, of what was stored for them.
pub fn unpack(stored: &[u8], start: u64, end: u64) -> Result<Cow<'_, [u8]>, SegmentError> {
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(MOST_FRAMES);
    if stored.len() == length {
        return Ok(Cow::Borrowed(stored));
    }
    let damaged = |source| SegmentError::Damaged { length, source };
    let frames = lz4_flex::block::decompress(stored, length).map_err(|source| damaged(Some(source)))?;
    if frames.len() == length { Ok(Cow::Owned(frames)) } else { Err(damaged(None)) }
}

impl Segment {
    /// Its frames, each with the offset at which it begins.
    pub fn frames(&self) -> Result<Vec<(u64, Frame)>, SegmentError> {
        let bytes = unpack(&self.stored, self.start, self.end)?;
        let (mut rest, mut frames) = (&*bytes, Vec::new());
        while !rest.is_empty() {
            let at = self.start + (bytes.len() - rest.len()) as u64;
            frames.push((at, Frame::decode(&mut rest)?));
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_gets_shorter_and_noise_and_little_stay() {
        let text = b"the same line again\n".repeat(1000);
        assert!(pack(text.clone()).len() * 10 < text.len());
        assert_eq!(pack(b"little".to_vec()), b"little");
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        });
        let noise: Vec<u8> = noise.take(WORTH_PACKING).collect();
        assert_eq!(pack(noise.clone()), noise);
    }

    #[test]
    fn damage_is_seen() {
        let text = b"the same line again\n".repeat(1000);
        let mut packed = pack(text.clone());
        let length = text.len() as u64;
        for (start, end) in [(0, length + 1), (0, length - 1), (7, length), (length, 0), (0, u64::MAX)] {
            assert!(unpack(&packed, start, end).is_err(), "{start} to {end}");
        }
        packed.truncate(packed.len() / 2);
        assert!(unpack(&packed, 7, length + 7).is_err());
        let cut = Segment { start: 0, end: 5, stored: b"frame".to_vec() };
        assert!(matches!(cut.frames(), Err(SegmentError::Frame(FrameError::Short))));
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(unit in proptest::collection::vec(any::<u8>(), 1..200), times in 1_usize..500) {
            let frames = unit.repeat(times);
            let packed = pack(frames.clone());
            prop_assert!(packed.len() <= frames.len());
            let unpacked = unpack(&packed, 3, 3 + frames.len() as u64).expect("it is whole");
            prop_assert_eq!(&*unpacked, &frames[..]);
        }
    }
}
