//! Byte ranges: the `Range` of a download (RFC 9110, 14.2) and the `Content-Range` of an upload's chunk, which OCI writes
//! without unit and size.

use std::ops::Range;

/// Which part of a blob to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// Bytes that it does not have.
    NotSatisfiable,
}

/// Reads a `Range` header over a blob of `size` bytes. What is not one range of bytes is ignored, as the RFC allows.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    let part = match (number(first), number(last)) {
        // The last n bytes.
        (None, Some(count)) if first.is_empty() => {
            if count == 0 {
                return Wanted::NotSatisfiable;
            }
            size.saturating_sub(count)..size
        }
        (Some(first), None) if last.is_empty() => first..size,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        _ => return Wanted::Whole,
    };
    // A range that runs backwards is one that the blob does not have: clients take anything else for success.
    if part.start >= part.end { Wanted::NotSatisfiable } else { Wanted::Part(part) }
}

/// Reads the `Content-Range` of a chunk, `first-last`, into first byte and length. `None` where it is not one.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    Some((first, last.checked_add(1)?.checked_sub(first)?))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number beyond all sizes is as good as the greatest.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_blob_of_2000_bytes() {
        let part = |range| Wanted::Part(range);
        for (header, expect) in [
            ("bytes=500-1499", part(500..1500)),
            ("bytes=500-", part(500..2000)),
            ("bytes=-500", part(1500..2000)),
            ("bytes=-5000", part(0..2000)),
            ("bytes=0-0", part(0..1)),
            ("bytes=1999-1999", part(1999..2000)),
            ("bytes=1500-5000", part(1500..2000)),
            ("bytes=0-99999999999999999999999", part(0..2000)),
            ("bytes=2000-5000", Wanted::NotSatisfiable),
            ("bytes=5000-10000", Wanted::NotSatisfiable),
            ("bytes=500-0", Wanted::NotSatisfiable),
            ("bytes=-0", Wanted::NotSatisfiable),
            ("bytes=2000-", Wanted::NotSatisfiable),
            ("bytes=99999999999999999999999-", Wanted::NotSatisfiable),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 2000), expect, "{header}");
        }
        assert_eq!(wanted(None, 2000), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::NotSatisfiable);
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_outside(header in "(bytes=)?[0-9]{0,20}-?[0-9]{0,20}", size: u64) {
            if let Wanted::Part(part) = wanted(Some(&header), size) {
                proptest::prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn a_chunk_has_a_last_byte(header in "[0-9]{0,20}-?[0-9]{0,20}") {
            if let Some((first, length)) = chunk(&header) {
                proptest::prop_assert!(first.checked_add(length).is_some());
            }
        }
    }

    #[test]
    fn chunks() {
        for (header, expect) in [
            ("0-9", Some((0, 10))),
            ("10-10", Some((10, 1))),
            ("10-9", Some((10, 0))),
            ("10-8", None),
            ("0-18446744073709551615", None),
            ("bytes 0-9/10", None),
            ("0-", None),
            ("-9", None),
            ("", None),
        ] {
            assert_eq!(chunk(header), expect, "{header}");
        }
    }
}
