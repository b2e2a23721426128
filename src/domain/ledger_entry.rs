//! What was decided about a stretch of an inbox partition, in a compact binary form.
//!
//! Format 1 (the record's header `v` says `1`), integers little-endian:
//!
//! ```text
//! inbox_partitions u32 | from i64 | to i64 | last_ms i64 | newest_ms i64 | count u32 | id × count
//! id: fingerprint 16 bytes | body hash 8 bytes | fate 1 byte
//!     | offset, varint of the distance from the id before (the first: from `from`)
//!     | time, zigzag varint of the distance from the id before (the first: from `newest_ms`)
//! ```

use super::fingerprint::{BodyHash, Fingerprint};
use super::format::{self, Unread};
use super::window::{Decided, Fate, Sighting};

/// The value of the header `v` that this module writes, and the newest that it reads.
pub const FORMAT: &str = "1";

/// One record of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Number of inbox partitions at the time: with another number keys stand elsewhere.
    pub inbox_partitions: u32,
    /// First inbox offset that the entry covers.
    pub from: i64,
    /// The inbox offset to go on at.
    pub to: i64,
    /// Inbox time of the record before `to`, in ms since 1970: tells an inbox that was made anew. 0: not known.
    pub last_ms: i64,
    /// Newest inbox time so far, in ms since 1970.
    pub newest_ms: i64,
    /// What was new in between. An id that an earlier entry has as well was put back, or had been forgotten: this one holds.
    pub ids: Vec<Decided>,
}

/// Why a ledger record cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Written by a later version of the relay: wait for that version, do not guess.
    #[error("ledger record of format {0:?}, this version reads {FORMAT:?}")]
    NewerFormat(String),
    /// Not written by any version of the relay.
    #[error("ledger record of format {0:?}, which no version of the relay writes")]
    ForeignFormat(String),
    /// Likewise.
    #[error("damaged ledger record: {0}")]
    Damaged(&'static str),
}

impl LedgerEntry {
    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.ids.len() * 30);
        out.extend(self.inbox_partitions.to_le_bytes());
        for value in [self.from, self.to, self.last_ms, self.newest_ms] {
            out.extend(value.to_le_bytes());
        }
        out.extend(u32::try_from(self.ids.len()).unwrap_or(u32::MAX).to_le_bytes());
        let (mut offset, mut time) = (self.from, self.newest_ms);
        for Decided { sighting, fate } in &self.ids {
            out.extend(sighting.fingerprint.0.to_le_bytes());
            out.extend(sighting.body.0.to_le_bytes());
            out.push(match fate {
                Fate::Published => 0,
                Fate::DeadLetter => 1,
            });
            write_varint(&mut out, sighting.offset.wrapping_sub(offset).cast_unsigned());
            write_varint(&mut out, zigzag(sighting.appended_ms.wrapping_sub(time)));
            (offset, time) = (sighting.offset, sighting.appended_ms);
        }
        out
    }

    /// Reads a record: its header `v` and its value.
    pub fn decode(format: Option<&[u8]>, value: &[u8]) -> Result<Self, LedgerError> {
        format::check(format, FORMAT).map_err(|unread| match unread {
            Unread::Newer(found) => LedgerError::NewerFormat(found),
            Unread::Foreign(found) => LedgerError::ForeignFormat(found),
            Unread::Absent => LedgerError::Damaged("no header `v`"),
        })?;
        let mut bytes = Bytes(value);
        let inbox_partitions = u32::from_le_bytes(bytes.take()?);
        let [from, to, last_ms, newest_ms] = [bytes.i64()?, bytes.i64()?, bytes.i64()?, bytes.i64()?];
        let count = u32::from_le_bytes(bytes.take()?) as usize;
        // An id takes at least 27 bytes: a damaged count allocates nothing.
        if count > bytes.0.len() / 27 {
            return Err(LedgerError::Damaged("more ids announced than there is room for"));
        }
        let mut ids = Vec::with_capacity(count);
        let (mut offset, mut appended_ms) = (from, newest_ms);
        for _ in 0..count {
            let fingerprint = Fingerprint(u128::from_le_bytes(bytes.take()?));
            let body = BodyHash(u64::from_le_bytes(bytes.take()?));
            let fate = match bytes.take::<1>()? {
                [0] => Fate::Published,
                [1] => Fate::DeadLetter,
                _ => return Err(LedgerError::Damaged("a fate that is neither 0 nor 1")),
            };
            offset = offset.wrapping_add(bytes.varint()?.cast_signed());
            appended_ms = appended_ms.wrapping_add(unzigzag(bytes.varint()?));
            ids.push(Decided { sighting: Sighting { fingerprint, body, offset, appended_ms }, fate });
        }
        if !bytes.0.is_empty() {
            return Err(LedgerError::Damaged("bytes behind the last id"));
        }
        Ok(Self { inbox_partitions, from, to, last_ms, newest_ms, ids })
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], LedgerError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(LedgerError::Damaged("it ends too soon"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn i64(&mut self) -> Result<i64, LedgerError> {
        self.take().map(i64::from_le_bytes)
    }

    fn varint(&mut self) -> Result<u64, LedgerError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(LedgerError::Damaged("a number of more than 64 bits"))
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn decided()(print: u128, body: u64, offset: i64, appended_ms: i64, published: bool) -> Decided {
            let sighting = Sighting { fingerprint: Fingerprint(print), body: BodyHash(body), offset, appended_ms };
            Decided { sighting, fate: if published { Fate::Published } else { Fate::DeadLetter } }
        }
    }

    prop_compose! {
        fn entry()(
            inbox_partitions: u32, from: i64, to: i64, last_ms: i64, newest_ms: i64,
            ids in proptest::collection::vec(decided(), 0..50),
        ) -> LedgerEntry {
            LedgerEntry { inbox_partitions, from, to, last_ms, newest_ms, ids }
        }
    }

    proptest! {
        #[test]
        fn every_entry_is_read_back(entry in entry()) {
            prop_assert_eq!(LedgerEntry::decode(Some(b"1"), &entry.encode()), Ok(entry));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = LedgerEntry::decode(Some(b"1"), &bytes);
        }

        #[test]
        fn a_record_cut_short_is_damaged(entry in entry(), cut: prop::sample::Index) {
            let bytes = entry.encode();
            let cut = cut.index(bytes.len());
            prop_assert!(LedgerEntry::decode(Some(b"1"), &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn another_format_is_told_from_damage() {
        assert_eq!(LedgerEntry::decode(Some(b"2"), b""), Err(LedgerError::NewerFormat("2".to_owned())));
        assert_eq!(LedgerEntry::decode(Some(b"x"), b""), Err(LedgerError::ForeignFormat("x".to_owned())));
        assert_eq!(LedgerEntry::decode(None, b""), Err(LedgerError::Damaged("no header `v`")));
    }

    #[test]
    fn an_id_takes_some_dozens_of_bytes() {
        let id = |n: u32| Decided {
            sighting: Sighting {
                fingerprint: Fingerprint(u128::from(n)),
                body: BodyHash(0),
                offset: i64::from(n),
                appended_ms: 1_700_000_000_000 + i64::from(n),
            },
            fate: Fate::Published,
        };
        let ids = (0..1000).map(id).collect();
        let entry = LedgerEntry {
            inbox_partitions: 12,
            from: 0,
            to: 1000,
            last_ms: 0,
            newest_ms: 1_700_000_000_000,
            ids,
        };
        assert!(entry.encode().len() < 1000 * 28);
    }
}
