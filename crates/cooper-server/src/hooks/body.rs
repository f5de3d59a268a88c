//! The body of a delivery: read while it comes on, whatever else is being read.

use axum::body::Body;
use bytes::Bytes;
use cooper_api::problem::ProblemCode;
use cooper_forge::MAX_BODY;
use cooper_types::PrincipalName;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::rooms::{Lacks, Room, Rooms, Share};

/// A body that is larger than this takes room.
pub(super) const LARGE: usize = 128 << 10;
/// So many bytes buy more time.
const A_PART: usize = 128 << 10;
/// After so many, all that was announced is taken: who has begun in earnest is to end.
const IN_EARNEST: usize = 8 << 20;

/// A body, and the room that it takes until nobody needs it any more.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    /// The part of its principal's share, where it has one.
    pub(super) share: Option<Share>,
    _room: Vec<Room>,
}

/// Why there is no body.
pub(super) type Fault = (ProblemCode, &'static str);

const TOO_LARGE: Fault = (ProblemCode::RequestTooLarge, "the delivery is larger than 16 MiB; push in smaller parts");
const CUT_OFF: Fault = (ProblemCode::InvalidRequest, "the delivery was cut off");
const TOO_SLOW: Fault =
    (ProblemCode::InvalidRequest, "the delivery came too slowly: 10 s, and one for each 128 KiB, are enough");
pub(super) const NO_SHARE: Fault = (
    ProblemCode::TooManyRequests,
    "other large deliveries to this principal's tasks are still being read; send it again in a moment",
);
pub(super) const NO_ROOM: Fault =
    (ProblemCode::Unavailable, "there is no room for a delivery of this size now; send it again in a moment");

/// Reads a body. Small ones need no room: nobody's can be kept waiting by others.
pub(super) async fn read(
    rooms: &Rooms,
    whose: &PrincipalName,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Read, Fault> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(TOO_LARGE);
    }
    let (times, mut start) = (rooms.times, Instant::now());
    // When the last whole part had come.
    let mut going_on = start;
    let (mut bytes, mut taken) = (Vec::new(), LARGE);
    let (mut share, mut room): (Option<Share>, Vec<Room>) = (None, Vec::new());
    loop {
        let parts = u32::try_from(bytes.len() / A_PART).unwrap_or(u32::MAX);
        let allowed = times.longest.min(times.first + times.more.saturating_mul(parts));
        let until = match share {
            Some(_) => (start + allowed).min(going_on + times.stall),
            None => start + allowed,
        };
        let frame = tokio::time::timeout_at(until, body.frame()).await.map_err(|_| TOO_SLOW)?;
        let Some(frame) = frame else { return Ok(Read { bytes: bytes.into(), share, _room: room }) };
        let Ok(data) = frame.map_err(|_| CUT_OFF)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(TOO_LARGE);
        }
        let parts = bytes.len() / A_PART;
        bytes.extend_from_slice(&data);
        if bytes.len() / A_PART > parts {
            going_on = Instant::now();
        }
        if bytes.len() > taken {
            // What is waited for others is not the sender's time.
            let begun = Instant::now();
            if share.is_none() {
                share = Some(rooms.share(whose).await.ok_or(NO_SHARE)?);
            }
            let Some(share) = &share else { return Err(NO_SHARE) };
            // What has come counts at first, not what was announced: who sends slowly takes little.
            let wanted = length.filter(|_| bytes.len() > IN_EARNEST).unwrap_or_default().max(bytes.len());
            let more = (wanted - taken).div_ceil(1024).max(256);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            room.push(rooms.large(share, more).await.map_err(|lacks| match lacks {
                Lacks::OfPrincipal => NO_SHARE,
                Lacks::OfAll => NO_ROOM,
            })?);
            taken += more as usize * 1024;
            going_on = Instant::now();
            start += begun.elapsed();
        }
    }
}

#[cfg(test)]
mod tests;
