//! The form in which a segment's frames stand in its row: packed where that makes them shorter. Owns that form alone.
//!
//! A row knows how long its frames are (`frame_end - frame_start`): bytes of that length are the frames themselves,
//! fewer bytes are one LZ4 block of them.

use std::borrow::Cow;

/// Fewer bytes than these, a page of the database, are not worth packing.
const WORTH_PACKING: usize = 4096;

/// A row's bytes that are not what was stored.
#[derive(Debug, thiserror::Error)]
#[error("segment of a log does not hold its {length} bytes")]
pub(super) struct Damaged {
    /// How long its frames should be, in bytes.
    length: usize,
    #[source]
    source: Option<lz4_flex::block::DecompressError>,
}

/// What to store of a segment's frames.
pub(super) fn pack(frames: Vec<u8>) -> Vec<u8> {
    if frames.len() < WORTH_PACKING {
        return frames;
    }
    let packed = lz4_flex::block::compress(&frames);
    if packed.len() < frames.len() { packed } else { frames }
}

/// The frames of a segment, which are `length` bytes long.
pub(super) fn unpack(stored: &[u8], length: usize) -> Result<Cow<'_, [u8]>, Damaged> {
    if stored.len() == length {
        return Ok(Cow::Borrowed(stored));
    }
    let damaged = |source| Damaged { length, source };
    let frames = lz4_flex::block::decompress(stored, length).map_err(|source| damaged(Some(source)))?;
    if frames.len() == length { Ok(Cow::Owned(frames)) } else { Err(damaged(None)) }
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
        assert!(unpack(&packed, text.len() + 1).is_err());
        assert!(unpack(&packed, text.len() - 1).is_err());
        packed.truncate(packed.len() / 2);
        assert!(unpack(&packed, text.len()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(unit in proptest::collection::vec(any::<u8>(), 1..200), times in 1_usize..500) {
            let frames = unit.repeat(times);
            let packed = pack(frames.clone());
            prop_assert!(packed.len() <= frames.len());
            let unpacked = unpack(&packed, frames.len()).expect("it is whole");
            prop_assert_eq!(&*unpacked, &frames[..]);
        }
    }
}
