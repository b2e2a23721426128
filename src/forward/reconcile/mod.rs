//! What ClearFeed's REST API tells against what came: requests that changed go to the snapshot topic, and of which no event
//! came is counted.
//!
//! The owner of inbox partition 0 does it. A thread of its own asks, for the loop must not wait ([`round`]); what it found it
//! hands to the loop ([`desk`]), which writes it in a transaction of its own: snapshots, a ledger record of partition 0 with the
//! watermarks in a header, and partition 0's offset under the group's metadata. So a process that lost the partition without
//! knowing is refused, and its successor goes on where the ledger says. A failure here holds up no event: partition 0 is taken
//! over again, and this is left alone for a while.

mod arrivals;
mod candidates;
mod desk;
mod report;
mod round;

use std::sync::Arc;
use std::sync::mpsc;

use tokio::runtime::Handle;

pub(super) use desk::{Desk, PARTITION};

use self::arrivals::Arrivals;
use self::report::Report;
use self::round::{Reconciler, Source};
use super::ForwardError;
use crate::config::Config;
use crate::kafka::monitor::Monitor;
use crate::kafka::properties;
use crate::telemetry::metrics::Metrics;

/// Starts the thread that asks, where a source has `reconcile_every`.
pub(super) fn start(
    config: &Config,
    monitor: &Monitor,
    metrics: &Metrics,
    runtime: Handle,
) -> Result<Option<Desk>, ForwardError> {
    let apis: Vec<_> =
        config.apis().filter_map(|(name, api)| Some((name, api, api.reconcile_every?))).collect();
    if apis.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = apis.iter().map(|(name, ..)| *name).collect();
    let report = Arc::new(Report::new(&names));
    let sources = apis
        .iter()
        .map(|(name, api, every)| Ok(Source::new(name, api, *every, metrics.reconcile(name)?)))
        .collect::<Result<_, ForwardError>>()?;
    let (order_sender, orders) = mpsc::channel();
    // One at a time: the thread waits for what it handed over to be written.
    let (updates, update_receiver) = mpsc::sync_channel(1);
    let reconciler = Reconciler {
        sources,
        arrivals: Arrivals::new(config, monitor.clone(), &names)?,
        orders,
        updates,
        report: Arc::clone(&report),
        runtime,
        kept: config.inbox.retention,
        largest: properties::max_record_bytes(config) - properties::RECORD_OVERHEAD_BYTES / 2,
    };
    std::thread::Builder::new().name("reconcile".to_owned()).spawn(move || reconciler.run())?;
    Ok(Some(Desk::new(order_sender, update_receiver, report)))
}
