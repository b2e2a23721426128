//! What clients of Kafka report to in commands that end: nobody scrapes their metrics.

use std::sync::Arc;

use clearfeed_relay::config::Config;
use clearfeed_relay::kafka::monitor::Monitor;
use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::labels::Half;
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};

/// A monitor, and the health in which its clients' errors can be read.
pub(super) fn monitor(config: &Config) -> anyhow::Result<(Monitor, Arc<Health>)> {
    let health = Arc::new(Health::apart(config.role));
    let metrics = Metrics::new([], &ProcessLabels::of(config))?;
    Ok((Monitor::new(Half::Intake, Arc::new(metrics), Arc::clone(&health)), health))
}
