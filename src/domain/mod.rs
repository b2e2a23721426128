//! The ground: what a delivery, an event, an inbox record, the window and the ledger *are*.
//!
//! Bytes, values and `now` in; values out. No IO, no async, no clock, no global state.

pub mod dead_letter;
pub mod delivery;
pub mod event;
pub mod event_record;
pub mod fingerprint;
pub mod format;
pub mod inbox_record;
pub mod ledger_entry;
pub mod ledger_writer;
pub mod partitioner;
pub mod route;
pub mod signature;
pub mod snapshot;
pub mod watermark;
pub mod window;
