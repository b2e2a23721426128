//! Reading a body once, within limits of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory that all bodies share.
#[derive(Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    used: IntGauge,
}

/// A body, and its share of the memory until it is dropped.
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    _share: Share,
}

struct Share {
    permit: Option<OwnedSemaphorePermit>,
    used: IntGauge,
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

impl Budget {
    pub(super) fn new(max_bytes: usize, used: IntGauge) -> Self {
        Self { free: Arc::new(Semaphore::new(max_bytes.min(Semaphore::MAX_PERMITS))), used }
    }

    /// Reads a body of at most `max_bytes`.
    pub(super) async fn read(
        &self,
        body: Incoming,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Buffered, BodyError> {
        let announced = body.size_hint().lower();
        if announced > max_bytes as u64 {
            return Err(BodyError::TooLarge);
        }
        match tokio::time::timeout(timeout, self.collect(body, max_bytes)).await {
            Ok(result) => result,
            Err(_) => Err(BodyError::TooSlow),
        }
    }

    async fn collect(&self, mut body: Incoming, max_bytes: usize) -> Result<Buffered, BodyError> {
        // Only what has arrived takes room: announcing costs a stranger nothing, and would shut all others out.
        let mut share = Share { permit: None, used: self.used.clone() };
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            let length = first.len() + joined.len() + data.len();
            if length > max_bytes {
                return Err(BodyError::TooLarge);
            }
            share.grow(self, length)?;
            if first.is_empty() && joined.is_empty() {
                // Most bodies arrive in one piece, which is passed on as it is.
                first = data;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
            }
        }
        let bytes = if joined.is_empty() { first } else { joined.freeze() };
        Ok(Buffered { bytes, _share: share })
    }
}

impl Share {
    /// Takes as much more as makes `length` bytes in all.
    fn grow(&mut self, budget: &Budget, length: usize) -> Result<(), BodyError> {
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(length.saturating_sub(have)).map_err(|_| BodyError::TooLarge)?;
        let free = Arc::clone(&budget.free);
        let permit = free.try_acquire_many_owned(more).map_err(|_| BodyError::NoRoom)?;
        self.used.add(i64::from(more));
        match &mut self.permit {
            Some(have) => have.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.used.sub(i64::try_from(held).unwrap_or(0));
    }
}
