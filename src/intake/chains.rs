//! Spooled records on their way to the inbox: those of one key follow each other, those of different keys do not wait.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::append::{Inbox, InboxError};
use crate::spool::{Place, Spooled};

/// What became of records.
#[derive(Debug, Default)]
pub struct Appended {
    /// Places of those that the inbox has.
    pub places: Vec<Place>,
    /// Partitions that did not take all, each with why.
    pub stuck: BTreeMap<i32, InboxError>,
}

/// Appends records in their order, each when the inbox has the one of its key before it, and marks them as spooled. What
/// comes after one that was not taken stays with it.
pub async fn append_in_order(
    inbox: &Inbox,
    records: impl IntoIterator<Item = Spooled>,
    limit: Duration,
    patience: Duration,
) -> Appended {
    let mut chains: BTreeMap<String, Vec<Spooled>> = BTreeMap::new();
    for spooled in records {
        chains.entry(spooled.record.key.clone()).or_default().push(spooled);
    }
    let mut appended = Appended::default();
    for (places, stuck) in
        join_all(chains.into_values().map(|chain| follow(inbox, chain, limit, patience))).await
    {
        appended.places.extend(places);
        appended.stuck.extend(stuck);
    }
    appended
}

/// Appends records one after the other's acknowledgement: where each that was taken stood, and the partition if it did not
/// take all.
async fn follow(
    inbox: &Inbox,
    chain: Vec<Spooled>,
    limit: Duration,
    patience: Duration,
) -> (Vec<Place>, Option<(i32, InboxError)>) {
    let mut taken = Vec::new();
    for Spooled { place, mut record } in chain {
        record.leave_spool(limit, Timestamp::now());
        let partition = inbox.partition(&record.key);
        if let Err(error) = inbox.append(record, patience).await {
            return (taken, Some((partition, error)));
        }
        taken.push(place);
    }
    (taken, None)
}
