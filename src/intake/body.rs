//! Reading a body once, within limits of size, time and memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::budget::{Budget, NoRoom, Share};

/// A body, and its share of the memory until it is dropped.
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    _share: Share,
}

/// Why a body was not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Larger than the limit.
    TooLarge,
    /// Not complete in time.
    TooSlow,
    /// The bodies of others take all memory that there is for bodies.
    NoRoom,
    /// The connection broke, or the framing did.
    Broken,
}

impl From<NoRoom> for BodyError {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// Reads a body of at most `max_bytes`.
pub(super) async fn read(
    body: Incoming,
    max_bytes: usize,
    timeout: Duration,
    budget: &Budget,
) -> Result<Buffered, BodyError> {
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(BodyError::TooLarge);
    }
    // Only what has arrived takes room: announcing costs a stranger nothing, and would shut all others out.
    let collected = tokio::time::timeout(timeout, collect(body, max_bytes, budget.share()));
    collected.await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(mut body: Incoming, max_bytes: usize, mut share: Share) -> Result<Buffered, BodyError> {
    let first = next(&mut body, 0, max_bytes, &mut share).await?;
    // Most bodies arrive in one piece, which is passed on as it is.
    let bytes = if body.is_end_stream() {
        first
    } else {
        let gives_way = share.arrive();
        let rest = join(first, body, max_bytes, &mut share);
        gives_way.run_until_cancelled(rest).await.unwrap_or(Err(BodyError::NoRoom))?
    };
    share.arrived();
    Ok(Buffered { bytes, _share: share })
}

async fn join(
    first: Bytes,
    mut body: Incoming,
    max_bytes: usize,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    let mut joined = BytesMut::from(first);
    loop {
        let data = next(&mut body, joined.len(), max_bytes, share).await?;
        if data.is_empty() {
            return Ok(joined.freeze());
        }
        joined.extend_from_slice(&data);
    }
}

/// The next bytes of a body, with room taken for them; none at its end.
async fn next(
    body: &mut Incoming,
    have: usize,
    max_bytes: usize,
    share: &mut Share,
) -> Result<Bytes, BodyError> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let length = have + data.len();
        if length > max_bytes {
            return Err(BodyError::TooLarge);
        }
        share.grow(length).await?;
        if !data.is_empty() {
            return Ok(data);
        }
    }
    Ok(Bytes::new())
}
