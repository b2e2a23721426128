//! A ledger record is read whole or refused, without memory beyond its size; and what was read is written the same.
#![no_main]

use clearfeed_relay::domain::ledger_entry::{FORMAT, LedgerEntry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = LedgerEntry::decode(Some(FORMAT.as_bytes()), bytes) {
        assert_eq!(LedgerEntry::decode(Some(FORMAT.as_bytes()), &entry.encode()), Ok(entry));
    }
});
