//! clearfeed-relay: receives ClearFeed's signed events, and publishes each to Kafka exactly once.
//!
//! # The path of an event
//!
//! ```text
//!              ┌────────────── intake ───────────────┐            ┌──────────── forward ────────────┐
//! ClearFeed ──▶│ authenticate ─▶ append ─▶ answer 200│─▶ inbox ──▶│ deduplicate ─▶ route ─▶ publish │─▶ event topics
//!              └─────────────────────────────────────┘   topic    └────────────▲───────────┬────────┘   dead letters
//!                  any number of replicas, no state                            └─ ledger ◀─┘
//!                                                                  one owner per inbox partition, exactly once
//! ```
//!
//! A delivery comes in as a [`RawDelivery`](domain::delivery::RawDelivery): a body and three headers, proved by nobody.
//! [`intake`] reads it once, within limits, and [authenticates](domain::delivery::RawDelivery::authenticate) it against the
//! secrets of the source whose path it was sent to. What comes of that is an
//! [`AuthenticDelivery`](domain::delivery::AuthenticDelivery), and holding one is the proof. Its body is
//! [read](domain::event::read) once, for what the forward half needs to know, and appended with that as headers: an
//! [`InboxRecord`](domain::inbox_record::InboxRecord), in the partition that its request id gives. When all in-sync
//! replicas have it, and not before, the sender is answered 200.
//!
//! **Everything before the inbox may repeat; everything after it happens once.** [`forward`] is a consumer group over
//! the inbox. The owner of a partition asks its [`Window`](domain::window::Window) whether an event was there before, and
//! writes in one Kafka transaction what follows: [records](domain::event_record::Outgoing) in the event topics, dead letters, a
//! [`LedgerEntry`](domain::ledger_entry::LedgerEntry) that says what was decided, and the inbox offsets. A crash, a pause or a
//! rebalance aborts it; the next owner [reads the ledger](forward::resume) and goes on where it ends.
//!
//! A [dead letter](domain::dead_letter::DeadLetter) whose cause is mended is put back into the inbox by `redrive`. Its copy names where it
//! stood, and the window takes it for new once.
//!
//! # The house
//!
//! Four floors; imports point down only, and a test reads the sources for it.
//!
//! | floor | what lives there |
//! |---|---|
//! | programs | `main.rs`, `commands/`, [`simulator`] (plays ClearFeed; uses [`domain`] alone) |
//! | halves | [`intake`], [`forward`], [`admin`] |
//! | neighbours | [`kafka`], [`spool`] (deliveries on this node's disk while Kafka is away), [`clearfeed`] (its REST API) |
//! | ground | [`domain`], [`config`], [`telemetry`] |
//!
//! One file names the HTTP statuses that senders are answered ([`intake::answer`]), one librdkafka's property keys
//! ([`kafka::properties`]), one the configuration's keys (`config::keys`), one the metrics ([`telemetry::metrics`]).

pub mod admin;
pub mod clearfeed;
pub mod config;
pub mod domain;
pub mod forward;
pub mod intake;
pub mod kafka;
pub mod simulator;
pub mod spool;
pub mod telemetry;
