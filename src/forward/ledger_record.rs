//! A record of the ledger, as it was consumed.

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use crate::domain::inbox_record::header;
use crate::domain::ledger_entry::{LedgerEntry, LedgerError};
use crate::domain::ledger_writer::{self, Writer};

/// The value of a header.
pub(super) fn header<'r>(record: &'r BorrowedMessage<'_>, name: &str) -> Option<&'r [u8]> {
    record.headers()?.iter().find(|found| found.key == name)?.value
}

/// Its format and its value, as they are read.
pub(super) fn parts<'r>(record: &'r BorrowedMessage<'_>) -> (Option<&'r [u8]>, &'r [u8]) {
    (header(record, header::FORMAT), record.payload().unwrap_or_default())
}

/// What was decided.
pub(super) fn entry(record: &BorrowedMessage<'_>) -> Result<LedgerEntry, LedgerError> {
    let (format, value) = parts(record);
    LedgerEntry::decode(format, value)
}

/// Who wrote it, where it says so.
pub(super) fn writer(record: &BorrowedMessage<'_>) -> Option<Writer> {
    Writer::decode(header(record, ledger_writer::HEADER)?)
}
