//! The forward half: from the inbox to the event topics, exactly once.
//!
//! One thread runs the loop over librdkafka's blocking calls, another takes partitions over. Each round of the loop:
//!
//! 1. looks at what the group gave and took (`group`), and at partitions that were taken over ([`takeover`]),
//! 2. gathers a batch of inbox records, with no transaction open, so that a rebalance never meets half of one,
//! 3. decides about each record ([`partition`]) and sends what follows from it in one transaction ([`transaction`]):
//!    event records and dead letters, a ledger record for each inbox partition, the inbox offsets. It is committed only if
//!    nobody else's ledger record can stand before ours ([`fence`]).
//!
//! Where ClearFeed's REST API is asked, what it tells is written in transactions between those ([`reconcile`]).
//!
//! Whatever goes wrong in step 3, nothing of the batch is taken for done: its partitions are taken over again from the
//! ledger ([`resume`]), which says what took place.

mod active;
mod admission;
mod assignment;
mod backlog;
mod batch;
pub mod failure;
pub mod fence;
mod group;
mod inbox;
mod ledger_record;
pub mod lookout;
pub mod memory;
pub mod partition;
mod producer;
pub mod progress;
mod reconcile;
mod reports;
pub mod resume;
mod run;
mod search;
mod settlement;
mod slots;
pub mod takeover;
pub mod transaction;
mod witness;

pub use run::{ForwardError, start};
