//! What the service manager is told, where there is one that wants to know (systemd's `Type=notify`): that the relay listens,
//! whether it is ready, that it is alive, and that it ends. Without a `NOTIFY_SOCKET` nothing of this runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clearfeed_relay::telemetry::health::Health;
use sd_notify::NotifyState;

/// So often the status line is looked at; more often where a watchdog wants to be.
const EVERY: Duration = Duration::from_secs(5);

/// Tells what changes, for good. The relay has started once it listens: a Kafka that is away must not make the start fail,
/// for it may come back.
pub(super) async fn run(health: Arc<Health>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tell(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled();
    // Twice in its time, as sd_watchdog_enabled(3) advises.
    let mut every = tokio::time::interval(watchdog.map_or(EVERY, |limit| EVERY.min(limit / 2)));
    let mut told = String::new();
    loop {
        every.tick().await;
        let status = status(&health);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if watchdog.is_some() && health.stuck_for(Instant::now()).is_none() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// The drain begins.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn status(health: &Health) -> String {
    let reasons = health.readiness().reasons();
    match reasons.first() {
        None => "ready".to_owned(),
        Some(first) => format!("not ready: {}", first.detail),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
