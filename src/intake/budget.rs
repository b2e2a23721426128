//! The memory that all bodies share.
//!
//! A stranger can send bodies that never end until it is all taken. So where there is no room, the body that has been arriving
//! longest gives way: one of ClearFeed's is there within a round trip or two, long before it is the oldest. A body that is
//! whole keeps its room. Counted are bytes that arrived; a body that came in pieces can hold twice as much while it grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All of it.
#[derive(Clone)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    used: IntGauge,
    arriving: Arc<Mutex<Arriving>>,
}

/// The bodies that are not whole yet.
#[derive(Default)]
struct Arriving {
    next_id: u64,
    /// Ids ascend, so the oldest is the first. Those who were told to give way are there until they have.
    by_id: BTreeMap<u64, Arrival>,
    /// What others gave way for, and has not been taken yet.
    awaited_bytes: usize,
}

struct Arrival {
    held_bytes: usize,
    gives_way: CancellationToken,
}

/// A body's part, until it is dropped.
pub(super) struct Share {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
    /// Among the arriving.
    id: Option<u64>,
}

/// Room that was made, until it is taken.
struct Awaited {
    budget: Budget,
    bytes: usize,
}

/// All room is taken, by bodies that are whole or younger.
#[derive(Debug)]
pub(super) struct NoRoom;

impl Budget {
    pub(super) fn new(max_bytes: usize, used: IntGauge) -> Self {
        let free = Arc::new(Semaphore::new(max_bytes.min(Semaphore::MAX_PERMITS)));
        Self { free, used, arriving: Arc::default() }
    }

    /// A part of no bytes.
    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), permit: None, id: None }
    }

    /// Tells the oldest of the arriving bodies to go, so that so many bytes will be free: or none, where that is not enough
    /// without the body that asks.
    fn make_room(&self, bytes: usize, of: Option<u64>) -> Result<Awaited, NoRoom> {
        let mut arriving = self.arriving();
        let going = arriving.by_id.values().filter(|arrival| arrival.gives_way.is_cancelled());
        let mut free = self.free.available_permits() + going.map(|arrival| arrival.held_bytes).sum::<usize>();
        let wanted = bytes + arriving.awaited_bytes;
        let mut told = Vec::new();
        for arrival in
            arriving.by_id.iter().take_while(|(id, _)| Some(**id) != of).map(|(_, arrival)| arrival)
        {
            if free >= wanted {
                break;
            }
            if !arrival.gives_way.is_cancelled() {
                free += arrival.held_bytes;
                told.push(arrival.gives_way.clone());
            }
        }
        if free < wanted {
            return Err(NoRoom);
        }
        told.iter().for_each(CancellationToken::cancel);
        arriving.awaited_bytes += bytes;
        Ok(Awaited { budget: self.clone(), bytes })
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes as much more as makes `length` bytes in all.
    pub(super) async fn grow(&mut self, length: usize) -> Result<(), NoRoom> {
        let more_bytes = length.saturating_sub(self.held_bytes());
        let more = u32::try_from(more_bytes).map_err(|_| NoRoom)?;
        let free = Arc::clone(&self.budget.free);
        let permit = if let Ok(permit) = Arc::clone(&free).try_acquire_many_owned(more) {
            permit
        } else {
            let _awaited = self.budget.make_room(more_bytes, self.id)?;
            free.acquire_many_owned(more).await.map_err(|_| NoRoom)?
        };
        self.budget.used.add(i64::from(more));
        match &mut self.permit {
            Some(have) => have.merge(permit),
            None => self.permit = Some(permit),
        }
        if let Some(id) = self.id {
            self.budget.arriving().by_id.entry(id).and_modify(|arrival| arrival.held_bytes = length);
        }
        Ok(())
    }

    /// The body is not whole yet: from now on it may have to give way, which is when this token is cancelled.
    pub(super) fn arrive(&mut self) -> CancellationToken {
        let gives_way = CancellationToken::new();
        let mut arriving = self.budget.arriving();
        let id = arriving.next_id;
        arriving.next_id += 1;
        arriving.by_id.insert(id, Arrival { held_bytes: self.held_bytes(), gives_way: gives_way.clone() });
        drop(arriving);
        self.id = Some(id);
        gives_way
    }

    /// The body is whole.
    pub(super) fn arrived(&mut self) {
        if let Some(id) = self.id.take() {
            self.budget.arriving().by_id.remove(&id);
        }
    }

    fn held_bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.budget.arriving().awaited_bytes -= self.bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.arrived();
        self.budget.used.sub(i64::try_from(self.held_bytes()).unwrap_or(0));
    }
}
