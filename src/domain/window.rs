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

/// Tables that the ids are spread over. Each grows by itself: one of ten million ids that grew filed them all anew while an id
/// waited, for 1.2 s. Not more of them, for a smaller one is not laid on the processor's large pages.
const TABLES: usize = 16;

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

/// What became of an inbox record that was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stands in an event topic.
    Published,
    /// It stands in the dead-letter topic.
    DeadLetter,
}

/// One id that was new, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Who, where and when.
    pub sighting: Sighting,
    /// What became of it.
    pub fate: Fate,
}

/// What the window says of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen within the window, or a dead letter that was put back; it is filed now.
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
    tables: Vec<HashTable<u32>>,
}

impl Window {
    /// An empty window that keeps each id at least `duration`.
    pub fn new(duration: Duration) -> Self {
        let kept_ms = i64::try_from((duration + MARGIN).as_millis()).unwrap_or(i64::MAX);
        Self { kept_ms, newest_ms: i64::MIN, ring: Ring::default(), tables: vec![HashTable::new(); TABLES] }
    }

    /// Says whether the id was there before, and files it, with what then becomes of it, when it was not.
    ///
    /// The copy of a dead letter that was put back is `redriven`: it names where that dead letter stood. It is first only
    /// where the id is remembered as just that dead letter, and is remembered in its place from then on. So a second copy is
    /// a repeat, and so is one of an event that was published meanwhile.
    pub fn observe(&mut self, decided: Decided, redriven: Option<i64>) -> Verdict {
        let sighting = decided.sighting;
        self.advance(sighting.appended_ms);
        let filed = Filed::new(decided, self.newest_ms);
        match self.entry(sighting.fingerprint) {
            (Entry::Occupied(mut known), ring) => {
                let first = *ring.get(*known.get());
                let first_offset = first.offset();
                if first.body != filed.body {
                    Verdict::Conflict { first_offset }
                } else if first.is_dead_letter() && redriven == Some(first_offset) {
                    *known.get_mut() = ring.push(filed);
                    Verdict::First
                } else {
                    Verdict::Repeat { first_offset }
                }
            }
            (Entry::Vacant(vacant), ring) => {
                vacant.insert(ring.push(filed));
                Verdict::First
            }
        }
    }

    /// Files what the ledger says was new. An id that stands there twice had been forgotten in between, or was put back: the
    /// latest is what became of it.
    pub fn restore(&mut self, decided: Decided) {
        self.advance(decided.sighting.appended_ms);
        let filed = Filed::new(decided, self.newest_ms);
        match self.entry(decided.sighting.fingerprint) {
            (Entry::Occupied(mut known), ring) => *known.get_mut() = ring.push(filed),
            (Entry::Vacant(vacant), ring) => {
                vacant.insert(ring.push(filed));
            }
        }
    }

    fn entry(&mut self, fingerprint: Fingerprint) -> (Entry<'_, u32>, &mut Ring) {
        let Self { ring, tables, .. } = self;
        let is_it = |sequence: &u32| ring.get(*sequence).fingerprint() == fingerprint;
        let rehash = |sequence: &u32| table_hash(ring.get(*sequence).fingerprint());
        (tables[table_of(fingerprint)].entry(table_hash(fingerprint), is_it, rehash), ring)
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
        let fingerprint = oldest.fingerprint();
        let table = &mut self.tables[table_of(fingerprint)];
        if let Ok(known) = table.find_entry(table_hash(fingerprint), |known| *known == sequence) {
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

    /// Number of ids; one that was put back counts twice until its first time is forgotten.
    pub fn len(&self) -> usize {
        self.ring.length
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        self.ring.chunks.len() * CHUNK * size_of::<Filed>() + tables
    }
}

/// A fingerprint is SHA-256's: its low bits are as good as any hash.
fn table_hash(fingerprint: Fingerprint) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are the hash")]
    let low = fingerprint.0 as u64;
    low
}

/// By other bits than those.
fn table_of(fingerprint: Fingerprint) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "as many as tell the tables apart")]
    let high = (fingerprint.0 >> 64) as usize;
    high % TABLES
}

/// An id in the ring. The fingerprint stands in two halves, for a `u128` would be padded to 16 bytes' alignment.
#[derive(Debug, Clone, Copy)]
struct Filed {
    high: u64,
    low: u64,
    body: u64,
    /// The offset; of a dead letter its complement, for no offset is negative.
    place: i64,
    under_ms: i64,
}

impl Filed {
    fn new(decided: Decided, under_ms: i64) -> Self {
        let Decided { sighting: Sighting { fingerprint, body, offset, .. }, fate } = decided;
        #[expect(clippy::cast_possible_truncation, reason = "two halves of 128 bits")]
        let (high, low) = ((fingerprint.0 >> 64) as u64, fingerprint.0 as u64);
        let place = match fate {
            Fate::Published => offset,
            Fate::DeadLetter => !offset,
        };
        Self { high, low, body: body.0, place, under_ms }
    }

    fn is_dead_letter(&self) -> bool {
        self.place < 0
    }

    fn offset(&self) -> i64 {
        if self.is_dead_letter() { !self.place } else { self.place }
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

    fn published(sighting: Sighting) -> Decided {
        Decided { sighting, fate: Fate::Published }
    }

    fn dead(sighting: Sighting) -> Decided {
        Decided { sighting, fate: Fate::DeadLetter }
    }

    /// A delivery that would be published.
    fn observe(window: &mut Window, sighting: Sighting) -> Verdict {
        window.observe(published(sighting), None)
    }

    #[test]
    fn tells_first_repeat_and_conflict() {
        let mut window = Window::new(WINDOW);
        assert_eq!(observe(&mut window, sighting(1, 5, 10, 0)), Verdict::First);
        assert_eq!(observe(&mut window, sighting(1, 5, 11, 0)), Verdict::Repeat { first_offset: 10 });
        assert_eq!(observe(&mut window, sighting(1, 6, 12, 0)), Verdict::Conflict { first_offset: 10 });
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn a_dead_letter_that_is_put_back_takes_its_own_place_once() {
        let mut window = Window::new(WINDOW);
        assert_eq!(window.observe(dead(sighting(1, 5, 0, 0)), None), Verdict::First);
        assert_eq!(
            observe(&mut window, sighting(1, 5, 1, 0)),
            Verdict::Repeat { first_offset: 0 },
            "a redelivery"
        );
        let copy = |window: &mut Window, offset, named| {
            window.observe(published(sighting(1, 5, offset, 0)), Some(named))
        };
        assert_eq!(copy(&mut window, 2, 1), Verdict::Repeat { first_offset: 0 }, "it names another place");
        let other_body = published(sighting(1, 6, 3, 0));
        assert_eq!(window.observe(other_body, Some(0)), Verdict::Conflict { first_offset: 0 });
        // It dies again, and then its own place is the one to name.
        assert_eq!(window.observe(dead(sighting(1, 5, 4, 0)), Some(0)), Verdict::First);
        assert_eq!(copy(&mut window, 5, 0), Verdict::Repeat { first_offset: 4 });
        assert_eq!(copy(&mut window, 6, 4), Verdict::First);
        // It is published: nothing makes it first again.
        for named in [0, 4, 6] {
            assert_eq!(copy(&mut window, 7, named), Verdict::Repeat { first_offset: 6 });
        }
        assert_eq!(copy(&mut Window::new(WINDOW), 8, 4), Verdict::First, "nothing is remembered of it");
    }

    #[test]
    fn of_an_id_that_was_put_back_the_second_time_is_kept() {
        let mut window = Window::new(WINDOW);
        window.observe(dead(sighting(1, 0, 0, 0)), None);
        window.observe(published(sighting(1, 0, 1, 20 * HOUR_MS)), Some(0));
        window.advance(30 * HOUR_MS);
        assert_eq!(window.evict(30 * HOUR_MS), 1, "the first is forgotten");
        assert_eq!(
            observe(&mut window, sighting(1, 0, 2, 30 * HOUR_MS)),
            Verdict::Repeat { first_offset: 1 }
        );
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn a_jump_of_either_clock_evicts_nothing() {
        let mut window = Window::new(WINDOW);
        observe(&mut window, sighting(1, 0, 0, 0));
        assert_eq!(window.evict(100 * HOUR_MS), 0, "our own clock alone");
        observe(&mut window, sighting(2, 0, 1, 100 * HOUR_MS));
        assert_eq!(window.evict(HOUR_MS), 0, "a broker's clock alone");
        assert_eq!(window.evict(27 * HOUR_MS), 1, "both");
        let repeat = Verdict::Repeat { first_offset: 1 };
        assert_eq!(observe(&mut window, sighting(2, 0, 2, 100 * HOUR_MS)), repeat);
        assert_eq!(observe(&mut window, sighting(1, 0, 3, 100 * HOUR_MS)), Verdict::First);
    }

    #[test]
    fn a_broker_clock_that_falls_back_shortens_no_memory() {
        let mut window = Window::new(WINDOW);
        observe(&mut window, sighting(1, 0, 0, 30 * HOUR_MS));
        observe(&mut window, sighting(2, 0, 1, 0));
        assert_eq!(window.evict(50 * HOUR_MS), 0, "filed under the newest time before it, not its own");
    }

    #[test]
    fn ten_thousand_ids_take_at_most_64_bytes_each() {
        let mut window = Window::new(WINDOW);
        for id in 0..100_000u32 {
            let fingerprint = Fingerprint::event("main", None, &id.to_string());
            observe(&mut window, Sighting { fingerprint, body: BodyHash(0), offset: 0, appended_ms: 0 });
        }
        assert!(window.bytes() <= 64 * window.len(), "{} bytes", window.bytes());
    }

    /// A ledger, read from its beginning.
    fn rebuilt(ledger: &[Decided]) -> Window {
        let mut window = Window::new(WINDOW);
        for decided in ledger {
            window.restore(*decided);
        }
        window
    }

    proptest! {
        /// Against a plain map: within the window first is said exactly once, whatever is rebuilt in between.
        #[test]
        fn first_is_said_exactly_once_within_the_window(
            steps in proptest::collection::vec((0u8..30, 0i64..2 * HOUR_MS, any::<bool>()), 1..200),
        ) {
            let mut window = Window::new(WINDOW);
            let mut ledger: Vec<Decided> = Vec::new();
            let mut first_seen: HashMap<u8, i64> = HashMap::new();
            let mut now = 0;
            for (offset, (id, pause, rebuild)) in (0i64..).zip(steps) {
                now += pause;
                if rebuild {
                    window = rebuilt(&ledger);
                }
                let seen = published(sighting(id, u64::from(id), offset, now));
                let verdict = window.observe(seen, None);
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

        /// Against a plain map: each step delivers an id, or puts a copy back that names any offset, and its topic takes it
        /// or not. First is said to what is new, and to a copy that names the id's last dead letter; to nothing once the
        /// id is published.
        #[test]
        fn an_id_is_published_once_however_often_it_is_put_back(
            steps in proptest::collection::vec((0u8..4, any::<bool>(), proptest::option::of(0i64..60), any::<bool>()), 1..120),
        ) {
            let mut window = Window::new(WINDOW);
            let mut ledger: Vec<Decided> = Vec::new();
            let mut last: HashMap<u8, Decided> = HashMap::new();
            for (offset, (id, is_taken, redriven, rebuild)) in (0i64..).zip(steps) {
                if rebuild {
                    window = rebuilt(&ledger);
                }
                let seen = sighting(id, u64::from(id), offset, offset);
                let seen = if is_taken { published(seen) } else { dead(seen) };
                let is_first = last.get(&id).is_none_or(|last| {
                    last.fate == Fate::DeadLetter && redriven == Some(last.sighting.offset)
                });
                let verdict = window.observe(seen, redriven);
                prop_assert_eq!(verdict == Verdict::First, is_first);
                if is_first {
                    ledger.push(seen);
                    last.insert(id, seen);
                }
            }
        }

        #[test]
        fn the_cap_forgets_the_oldest_and_nothing_else(count in 1usize..10_000, cap in 1usize..10_000) {
            let mut window = Window::new(WINDOW);
            let print = |n: usize| Fingerprint::event("main", None, &n.to_string());
            for n in 0..count {
                let appended_ms = i64::try_from(n).unwrap();
                observe(&mut window, Sighting { fingerprint: print(n), body: BodyHash(0), offset: 0, appended_ms });
                while window.len() > cap {
                    window.evict_oldest();
                }
            }
            let kept = count.min(cap);
            prop_assert_eq!(window.len(), kept);
            for n in count - kept..count {
                let again = Sighting { fingerprint: print(n), body: BodyHash(0), offset: 1, appended_ms: 0 };
                prop_assert_eq!(observe(&mut window, again), Verdict::Repeat { first_offset: 0 });
            }
        }
    }
}
