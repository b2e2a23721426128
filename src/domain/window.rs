//! The window of ids: whether an event was there before.
//!
//! Each id is filed under the later of its inbox time and the newest one before it, so the ring is in the order of
//! these times and only its front can be old. Memory: 40 bytes an id in the ring, 5 to 10 in the table.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::fingerprint::{BodyHash, Fingerprint};

/// Kept beyond the configured window: brokers' clocks and ours need not agree to the second.
const MARGIN: Duration = Duration::from_secs(3600);

/// One id as it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Who it is.
    pub fingerprint: Fingerprint,
    /// What its body was.
    pub body: BodyHash,
    /// Where in the inbox partition.
    pub offset: i64,
    /// When, by the inbox's own time (`LogAppendTime`), in ms since 1970.
    pub appended_ms: i64,
}

/// What the window says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen within the window; it is filed now.
    First,
    /// Seen, with the same body.
    Repeat {
        /// Where it was first seen.
        first_offset: i64,
    },
    /// Seen, with another body.
    Conflict {
        /// Where it was first seen.
        first_offset: i64,
    },
}

/// The ids of one inbox partition.
#[derive(Debug)]
pub struct Window {
    kept_ms: i64,
    newest_ms: i64,
    ring: Ring,
    /// Sequence numbers of the ring's ids, found by fingerprint.
    table: HashTable<u32>,
}

impl Window {
    /// An empty window that keeps each id at least `duration`.
    pub fn new(duration: Duration) -> Self {
        let kept_ms = i64::try_from((duration + MARGIN).as_millis()).unwrap_or(i64::MAX);
        Self { kept_ms, newest_ms: i64::MIN, ring: Ring::default(), table: HashTable::new() }
    }

    /// Says whether the id was there before, and files it when it was not.
    pub fn observe(&mut self, sighting: Sighting) -> Verdict {
        self.advance(sighting.appended_ms);
        let filed = Filed::new(sighting, self.newest_ms);
        match self.entry(sighting.fingerprint) {
            (Entry::Occupied(known), ring) => {
                let first = ring.get(*known.get());
                let first_offset = first.offset;
                if first.body == sighting.body.0 {
                    Verdict::Repeat { first_offset }
                } else {
                    Verdict::Conflict { first_offset }
                }
            }
            (Entry::Vacant(vacant), ring) => {
                vacant.insert(ring.push(filed));
                Verdict::First
            }
        }
    }

    /// Files what the ledger says was new. An id that stands there twice had been forgotten in between: it is filed
    /// under its latest time.
    pub fn restore(&mut self, sighting: Sighting) {
        self.advance(sighting.appended_ms);
        let filed = Filed::new(sighting, self.newest_ms);
        match self.entry(sighting.fingerprint) {
            (Entry::Occupied(mut known), ring) => *known.get_mut() = ring.push(filed),
            (Entry::Vacant(vacant), ring) => {
                vacant.insert(ring.push(filed));
            }
        }
    }

    fn entry(&mut self, fingerprint: Fingerprint) -> (Entry<'_, u32>, &mut Ring) {
        let Self { ring, table, .. } = self;
        let is_it = |sequence: &u32| ring.get(*sequence).fingerprint() == fingerprint;
        let rehash = |sequence: &u32| table_hash(ring.get(*sequence).fingerprint());
        (table.entry(table_hash(fingerprint), is_it, rehash), ring)
    }

    /// Takes note of an inbox time that brought no new id.
    pub fn advance(&mut self, appended_ms: i64) {
        self.newest_ms = self.newest_ms.max(appended_ms);
    }

    /// Forgets ids that were filed longer ago than the window lasts, by the newest inbox time *and* by our own
    /// clock: one clock that jumps evicts nothing. Returns how many.
    pub fn evict(&mut self, now_ms: i64) -> usize {
        let before = self.newest_ms.min(now_ms).saturating_sub(self.kept_ms);
        let mut evicted = 0;
        while self.oldest_ms().is_some_and(|filed_ms| filed_ms < before) {
            self.evict_oldest();
            evicted += 1;
        }
        evicted
    }

    /// Forgets the oldest id, because there is no room for more.
    pub fn evict_oldest(&mut self) {
        let sequence = self.ring.first_sequence();
        let Some(oldest) = self.ring.front() else { return };
        let hash = table_hash(oldest.fingerprint());
        if let Ok(known) = self.table.find_entry(hash, |known| *known == sequence) {
            known.remove();
        }
        self.ring.pop_front();
    }

    /// The time under which the oldest id is filed, in ms since 1970.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.ring.front().map(|filed| filed.under_ms)
    }

    /// The newest inbox time, in ms since 1970; `i64::MIN` before the first.
    pub fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ring.length
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.ring.chunks.len() * CHUNK * size_of::<Filed>() + self.table.allocation_size()
    }
}

/// A fingerprint is SHA-256's: its low bits are as good as any hash.
fn table_hash(fingerprint: Fingerprint) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are the hash")]
    let low = fingerprint.0 as u64;
    low
}

/// An id in the ring. The fingerprint stands in two halves, for a `u128` would be padded to 16 bytes' alignment.
#[derive(Debug, Clone, Copy)]
struct Filed {
    high: u64,
    low: u64,
    body: u64,
    offset: i64,
    under_ms: i64,
}

impl Filed {
    fn new(sighting: Sighting, under_ms: i64) -> Self {
        let Sighting { fingerprint, body, offset, .. } = sighting;
        #[expect(clippy::cast_possible_truncation, reason = "two halves of 128 bits")]
        let (high, low) = ((fingerprint.0 >> 64) as u64, fingerprint.0 as u64);
        Self { high, low, body: body.0, offset, under_ms }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(u128::from(self.high) << 64 | u128::from(self.low))
    }
}

/// Ids a chunk: 160 KiB, so that a ring of millions grows without copying and wastes at most one chunk.
const CHUNK: usize = 4096;

/// Ids in the order in which they were filed, numbered in sequence. Numbers wrap: no window holds 2^32 ids.
#[derive(Debug, Default)]
struct Ring {
    chunks: VecDeque<Vec<Filed>>,
    /// Ids already forgotten at the front of the first chunk.
    forgotten: usize,
    first: u32,
    length: usize,
}

impl Ring {
    fn get(&self, sequence: u32) -> &Filed {
        let at = self.forgotten + sequence.wrapping_sub(self.first) as usize;
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn front(&self) -> Option<&Filed> {
        (self.length > 0).then(|| self.get(self.first))
    }

    fn first_sequence(&self) -> u32 {
        self.first
    }

    /// Files at the back; returns the id's sequence number.
    fn push(&mut self, filed: Filed) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let sequence = self.first.wrapping_add(self.length as u32);
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(filed),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(filed);
                self.chunks.push_back(chunk);
            }
        }
        self.length += 1;
        sequence
    }

    fn pop_front(&mut self) {
        self.first = self.first.wrapping_add(1);
        self.length -= 1;
        self.forgotten += 1;
        if self.forgotten == CHUNK {
            self.chunks.pop_front();
            self.forgotten = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const HOUR_MS: i64 = 3_600_000;
    const WINDOW: Duration = Duration::from_secs(25 * 3600);

    fn sighting(id: u8, body: u64, offset: i64, appended_ms: i64) -> Sighting {
        let fingerprint = Fingerprint::event("main", Some(1), &id.to_string());
        Sighting { fingerprint, body: BodyHash(body), offset, appended_ms }
    }

    #[test]
    fn tells_first_repeat_and_conflict() {
        let mut window = Window::new(WINDOW);
        assert_eq!(window.observe(sighting(1, 5, 10, 0)), Verdict::First);
        assert_eq!(window.observe(sighting(1, 5, 11, 0)), Verdict::Repeat { first_offset: 10 });
        assert_eq!(window.observe(sighting(1, 6, 12, 0)), Verdict::Conflict { first_offset: 10 });
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn a_jump_of_either_clock_evicts_nothing() {
        let mut window = Window::new(WINDOW);
        window.observe(sighting(1, 0, 0, 0));
        assert_eq!(window.evict(100 * HOUR_MS), 0, "our own clock alone");
        window.observe(sighting(2, 0, 1, 100 * HOUR_MS));
        assert_eq!(window.evict(HOUR_MS), 0, "a broker's clock alone");
        assert_eq!(window.evict(27 * HOUR_MS), 1, "both");
        assert_eq!(window.observe(sighting(2, 0, 2, 100 * HOUR_MS)), Verdict::Repeat { first_offset: 1 });
        assert_eq!(window.observe(sighting(1, 0, 3, 100 * HOUR_MS)), Verdict::First);
    }

    #[test]
    fn a_broker_clock_that_falls_back_shortens_no_memory() {
        let mut window = Window::new(WINDOW);
        window.observe(sighting(1, 0, 0, 30 * HOUR_MS));
        window.observe(sighting(2, 0, 1, 0));
        assert_eq!(window.evict(50 * HOUR_MS), 0, "filed under the newest time before it, not its own");
    }

    #[test]
    fn ten_thousand_ids_take_at_most_64_bytes_each() {
        let mut window = Window::new(WINDOW);
        for id in 0..100_000u32 {
            let fingerprint = Fingerprint::event("main", None, &id.to_string());
            window.observe(Sighting { fingerprint, body: BodyHash(0), offset: 0, appended_ms: 0 });
        }
        assert!(window.bytes() <= 64 * window.len(), "{} bytes", window.bytes());
    }

    proptest! {
        /// Against a plain map: within the window first is said exactly once, whatever is rebuilt in between.
        #[test]
        fn first_is_said_exactly_once_within_the_window(
            steps in proptest::collection::vec((0u8..30, 0i64..2 * HOUR_MS, any::<bool>()), 1..200),
        ) {
            let mut window = Window::new(WINDOW);
            let mut ledger: Vec<Sighting> = Vec::new();
            let mut first_seen: HashMap<u8, i64> = HashMap::new();
            let mut now = 0;
            for (offset, (id, pause, rebuild)) in (0i64..).zip(steps) {
                now += pause;
                if rebuild {
                    window = Window::new(WINDOW);
                    for sighting in &ledger {
                        window.restore(*sighting);
                    }
                }
                let seen = sighting(id, u64::from(id), offset, now);
                let verdict = window.observe(seen);
                let remembered = first_seen.get(&id).is_some_and(|first| now - first <= 25 * HOUR_MS);
                if remembered {
                    prop_assert_ne!(verdict, Verdict::First);
                }
                if verdict == Verdict::First {
                    ledger.push(seen);
                    first_seen.insert(id, now);
                }
                window.evict(now);
            }
        }

        #[test]
        fn the_cap_forgets_the_oldest_and_nothing_else(count in 1usize..10_000, cap in 1usize..10_000) {
            let mut window = Window::new(WINDOW);
            let print = |n: usize| Fingerprint::event("main", None, &n.to_string());
            for n in 0..count {
                let appended_ms = i64::try_from(n).unwrap();
                window.observe(Sighting { fingerprint: print(n), body: BodyHash(0), offset: 0, appended_ms });
                while window.len() > cap {
                    window.evict_oldest();
                }
            }
            let kept = count.min(cap);
            prop_assert_eq!(window.len(), kept);
            for n in count - kept..count {
                let again = Sighting { fingerprint: print(n), body: BodyHash(0), offset: 1, appended_ms: 0 };
                prop_assert_eq!(window.observe(again), Verdict::Repeat { first_offset: 0 });
            }
        }
    }
}
