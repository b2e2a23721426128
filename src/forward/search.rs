//! The search for a record that is too large for its topic: librdkafka fails all of a batch, so it is sent again in
//! halves, down to the one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::slots::Slots;
use crate::domain::inbox_record::Position;

/// Records of one transaction: more gain little, and a transaction must end well within its time-out.
const MAX_BATCH_RECORDS: usize = 2000;
/// A record that was too large and was not met again for so long is not there any more: somebody raised the limit.
const SEARCH_TIME: Duration = Duration::from_secs(30);

/// How large batches may be, and which records were found too large.
pub(super) struct Search {
    batch_limit: usize,
    /// When a batch was last too large: until the record is found, batches do not grow again.
    last_too_large: Option<Instant>,
    /// Records that were refused for their size, and how often.
    oversized: BTreeMap<Position, u32>,
}

impl Default for Search {
    fn default() -> Self {
        Self { batch_limit: MAX_BATCH_RECORDS, last_too_large: None, oversized: BTreeMap::new() }
    }
}

impl Search {
    /// Records of the next batch.
    pub(super) fn batch_limit(&self) -> usize {
        self.batch_limit
    }

    /// Records that were refused for their size, and how often.
    pub(super) fn oversized(&self) -> &BTreeMap<Position, u32> {
        &self.oversized
    }

    /// One record of the batch is too large, or a topic takes less than a whole batch.
    pub(super) fn too_large(&mut self, batch: &Batch<'_>, now: Instant) {
        self.last_too_large = Some(now);
        match batch.only_position() {
            Some(position) => *self.oversized.entry(position).or_default() += 1,
            None => self.batch_limit = (batch.len() / 2).max(1),
        }
    }

    /// A partition waits for room for its record: that one is found, the others need not wait with it. It is tried once
    /// more when the partition is.
    pub(super) fn held(&mut self, partition: i32) {
        for (_, refused) in self.oversized.iter_mut().filter(|(position, _)| position.partition == partition)
        {
            *refused = 1;
            self.last_too_large = None;
        }
    }

    /// A batch took place. Batches grow again where a record that was found is behind us.
    pub(super) fn committed(&mut self, slots: &mut Slots, now: Instant) {
        let suspects = self.oversized.len();
        self.oversized.retain(|position, _| {
            slots.get(position.partition).is_none_or(|active| active.partition.next() <= position.offset)
        });
        let is_found = self.oversized.len() < suspects;
        if is_found || self.last_too_large.is_none_or(|last| now.duration_since(last) > SEARCH_TIME) {
            self.last_too_large = None;
            self.batch_limit = MAX_BATCH_RECORDS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_for_room_does_not_keep_the_others_batches_small() {
        let (position, now) = (Position { partition: 3, offset: 7 }, Instant::now());
        let mut search =
            Search { batch_limit: 1, last_too_large: Some(now), oversized: BTreeMap::from([(position, 2)]) };
        search.committed(&mut Slots::default(), now);
        assert_eq!(search.batch_limit(), 1, "it is searched for still");
        search.held(3);
        search.committed(&mut Slots::default(), now);
        assert_eq!(search.batch_limit(), MAX_BATCH_RECORDS);
        assert_eq!(search.oversized()[&position], 1, "and tried once more");
    }
}
