//! A look at a pack on its way to the indexer: how large its objects say they are.
//!
//! The indexer holds an object in memory to resolve what is stored as its difference, and believes what a pack says of
//! sizes. A few kilobytes of zeros that unpack to all of the machine's memory are refused here, before that.

use flate2::{Decompress, FlushDecompress, Status};

/// `PACK`, the version, the number of objects.
const HEAD: usize = 12;
/// The checksum behind the last object.
const TRAILER: usize = 20;
/// As much of a difference as holds its two sizes.
const DELTA_HEAD: usize = 20;

/// What is wrong with a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackFault {
    /// An object has more bytes than this.
    ObjectTooLarge(u64),
    /// It has more objects than this.
    TooManyObjects(u64),
    /// It is no pack.
    Damaged(&'static str),
}

/// Reads along with a pack.
pub(super) struct PackGuard {
    limit: u64,
    max_objects: u32,
    objects: u32,
    state: State,
    inflate: Decompress,
    scratch: Vec<u8>,
}

enum State {
    /// The pack's beginning, as far as it is there.
    Head(Vec<u8>),
    /// An object's kind and size, of which so many bits are known.
    Size {
        kind: u8,
        size: u64,
        bits: u32,
    },
    /// What a difference is to: an offset, or so many bytes of a name.
    Offset {
        size: u64,
    },
    Name {
        size: u64,
        left: u8,
    },
    /// The compressed content.
    Content {
        size: u64,
        done: u64,
        delta: Option<Vec<u8>>,
    },
    /// The checksum, which is the indexer's, of which so many bytes are still to come. Nothing may follow it: the indexer
    /// counts without differences, and would go on to read objects that nobody has looked at.
    End {
        left: usize,
    },
}

/// Before an object's first byte.
const NEW: State = State::Size { kind: 0, size: 0, bits: 0 };
/// Behind the last object.
const END: State = State::End { left: TRAILER };

impl PackGuard {
    /// Refuses objects of more than `limit` bytes, and packs of more than `max_objects`.
    pub(super) fn new(limit: u64, max_objects: u32) -> Self {
        let (state, scratch) = (State::Head(Vec::new()), vec![0; 64 << 10]);
        Self { limit, max_objects, objects: 0, state, inflate: Decompress::new(true), scratch }
    }

    /// Looks at the next bytes.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> Result<(), PackFault> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(*first);
                    bytes = rest;
                    if head.len() == HEAD {
                        self.objects = objects(head, self.max_objects)?;
                        self.state = if self.objects == 0 { END } else { NEW };
                    }
                }
                State::Size { kind, size, bits } => {
                    let (low, width) = if *bits == 0 { (first & 0x0f, 4) } else { (first & 0x7f, 7) };
                    if *bits == 0 {
                        *kind = (first >> 4) & 7;
                    }
                    *size |= shifted(low, *bits)?;
                    *bits += width;
                    bytes = rest;
                    if first & 0x80 == 0 {
                        let (kind, size) = (*kind, *size);
                        self.state = self.sized(kind, size)?;
                    }
                }
                State::Offset { size } => {
                    bytes = rest;
                    if first & 0x80 == 0 {
                        self.state = State::Content { size: *size, done: 0, delta: Some(Vec::new()) };
                    }
                }
                State::Name { size, left } => {
                    bytes = rest;
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::Content { size: *size, done: 0, delta: Some(Vec::new()) };
                    }
                }
                State::Content { .. } => bytes = self.content(bytes)?,
                State::End { left } => {
                    *left =
                        left.checked_sub(bytes.len()).ok_or(PackFault::Damaged("bytes behind the end of a pack"))?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn sized(&self, kind: u8, size: u64) -> Result<State, PackFault> {
        if size > self.limit {
            return Err(PackFault::ObjectTooLarge(self.limit));
        }
        match kind {
            1..=4 => Ok(State::Content { size, done: 0, delta: None }),
            6 => Ok(State::Offset { size }),
            7 => Ok(State::Name { size, left: 20 }),
            _ => Err(PackFault::Damaged("an object of no known kind")),
        }
    }

    /// Unpacks some of a content; gives back what is not its own.
    fn content<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], PackFault> {
        let State::Content { size, done, delta } = &mut self.state else { return Ok(bytes) };
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(bytes, &mut self.scratch, FlushDecompress::None)
            .map_err(|_| PackFault::Damaged("an object whose compression is damaged"))?;
        let taken = usize::try_from(self.inflate.total_in() - in_before).unwrap_or_default();
        let made = usize::try_from(self.inflate.total_out() - out_before).unwrap_or_default();
        *done += made as u64;
        if *done > *size {
            return Err(PackFault::Damaged("an object that is longer than it says"));
        }
        if let Some(head) = delta.as_mut().filter(|head| head.len() < DELTA_HEAD) {
            let missing = (DELTA_HEAD - head.len()).min(made);
            head.extend_from_slice(self.scratch.get(..missing).unwrap_or_default());
        }
        let is_end = status == Status::StreamEnd;
        if let Some(head) = delta.as_ref().filter(|head| is_end || head.len() == DELTA_HEAD)
            && result_size(head)? > self.limit
        {
            return Err(PackFault::ObjectTooLarge(self.limit));
        }
        if is_end {
            self.inflate.reset(true);
            self.objects -= 1;
            self.state = if self.objects == 0 { END } else { NEW };
        } else if taken == 0 && made == 0 {
            return Err(PackFault::Damaged("an object whose compression does not end"));
        }
        Ok(bytes.get(taken..).unwrap_or_default())
    }
}

fn objects(head: &[u8], limit: u32) -> Result<u32, PackFault> {
    let (magic, count) = head.split_at_checked(8).unwrap_or_default();
    if !matches!(magic, b"PACK\0\0\0\x02" | b"PACK\0\0\0\x03") {
        return Err(PackFault::Damaged("something that is no pack"));
    }
    let count = count.try_into().map(u32::from_be_bytes).unwrap_or_default();
    if count > limit {
        return Err(PackFault::TooManyObjects(limit.into()));
    }
    Ok(count)
}

/// Bits of a size at their place; a size that no machine has is damage.
fn shifted(low: u8, bits: u32) -> Result<u64, PackFault> {
    if bits > 56 {
        return Err(PackFault::Damaged("an object with an endless size"));
    }
    Ok(u64::from(low) << bits)
}

/// The size of what a difference makes: the second of the two numbers that it begins with.
fn result_size(head: &[u8]) -> Result<u64, PackFault> {
    let mut numbers = [0_u64; 2];
    let mut bytes = head.iter();
    for number in &mut numbers {
        let mut bits = 0;
        loop {
            let Some(byte) = bytes.next() else { return Err(PackFault::Damaged("a difference without sizes")) };
            *number |= shifted(byte & 0x7f, bits)?;
            bits += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    Ok(numbers[1])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn size(kind: u8, mut size: u64) -> Vec<u8> {
        let mut bytes = vec![(kind << 4) | u8::try_from(size & 15).unwrap()];
        size >>= 4;
        while size > 0 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push(u8::try_from(size & 127).unwrap());
            size >>= 7;
        }
        bytes
    }

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A pack of these objects, without its checksum's truth.
    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(u32::try_from(objects.len()).unwrap().to_be_bytes());
        pack.extend(objects.concat());
        pack.extend([9; 20]);
        pack
    }

    fn look(pack: &[u8], limit: u64) -> Result<bool, PackFault> {
        let mut results = Vec::new();
        for piece in [1, 7, pack.len()] {
            let mut guard = PackGuard::new(limit, 5);
            let seen = pack.chunks(piece).try_for_each(|bytes| guard.look(bytes));
            results.push(seen.map(|()| matches!(guard.state, State::End { left: 0 })));
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results[0]
    }

    #[test]
    fn sizes_are_seen_before_they_are_believed() {
        let file = |content: &[u8]| [size(3, content.len() as u64), deflated(content)].concat();
        let plain = vec![file(b"hello"), file(b""), file(&[0; 100_000])];
        assert_eq!(look(&pack(&plain), 100_000), Ok(true));
        assert_eq!(look(&pack(&plain), 99_999), Err(PackFault::ObjectTooLarge(99_999)));
        assert_eq!(look(&pack(&[]), 1), Ok(true));
        // A claim alone is enough.
        assert_eq!(look(&pack(&[size(3, 1 << 50)]), 1_000), Err(PackFault::ObjectTooLarge(1_000)));
        // Differences: a small one can make a large thing.
        let delta = |result: u8| deflated(&[5, 0x80 | result, 1, 0x90, 5]);
        let by_offset = |result| [size(6, 5), vec![0x81, 0x05], delta(result)].concat();
        let by_name = |result| [size(7, 5), vec![7; 20], delta(result)].concat();
        assert_eq!(look(&pack(&[by_offset(3), by_name(3), file(b"x")]), 131), Ok(true));
        assert_eq!(look(&pack(&[by_offset(3)]), 130), Err(PackFault::ObjectTooLarge(130)));
        assert_eq!(look(&pack(&[by_name(3)]), 130), Err(PackFault::ObjectTooLarge(130)));
    }

    #[test]
    fn nothing_follows_the_last_object_though_the_indexer_would_read_it() {
        let file = [size(3, 1), deflated(b"x")].concat();
        let delta = |back: usize, result: u8| {
            [size(6, 5), vec![u8::try_from(back).unwrap()], deflated(&[1, result, 1, 0x90, 1])].concat()
        };
        let honest = delta(file.len(), 2);
        let hidden = delta(honest.len() + file.len(), 127);
        let mut bytes = pack(&[file, honest]);
        bytes.truncate(bytes.len() - TRAILER);
        bytes.extend(hidden);
        bytes.extend([9; TRAILER]);
        let folder = tempfile::tempdir().unwrap();
        let mut received = 0;
        let mut indexer = git2::Indexer::new(None, folder.path(), 0o600, false).unwrap();
        indexer.progress(|progress| {
            received = progress.received_objects();
            true
        });
        indexer.write_all(&bytes).unwrap();
        drop(indexer);
        assert_eq!(received, 3, "the pack says that it has two");
        assert_eq!(look(&bytes, 126), Err(PackFault::Damaged("bytes behind the end of a pack")));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes: Vec<u8>, start in 0..3_usize) {
            let mut pack = [&b"PACK\0\0\0\x02\0\0\0\x05"[..], &size(3, 5), &deflated(b"hello")].concat();
            pack.truncate([0, 12, pack.len()][start]);
            pack.extend(bytes);
            let _ = PackGuard::new(1 << 20, 5).look(&pack);
        }
    }

    #[test]
    fn what_is_no_pack_is_said_to_be_none() {
        let damaged = |pack: &[u8]| assert!(matches!(look(pack, 1_000), Err(PackFault::Damaged(_))), "{pack:?}");
        damaged(b"<html><body>");
        damaged(&pack(&[vec![0x50], deflated(b"")]));
        damaged(&pack(&[vec![0xff; 12]]));
        damaged(&pack(&[[size(3, 1), deflated(b"xx")].concat()]));
        damaged(&pack(&[[size(3, 1), vec![1, 2, 3, 4]].concat()]));
        damaged(&pack(&[[size(6, 1), vec![1], deflated(&[0x80])].concat()]));
        // What follows the last object would be read by the indexer, if there are differences among those before.
        damaged(&[pack(&[]), vec![0]].concat());
        damaged(&[pack(&[[size(3, 1), deflated(b"x")].concat()]), size(3, 1 << 50)].concat());
        let mut many = pack(&[]);
        many[8..12].copy_from_slice(&6_u32.to_be_bytes());
        assert_eq!(look(&many, 1), Err(PackFault::TooManyObjects(5)));
    }
}
