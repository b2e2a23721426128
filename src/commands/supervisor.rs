//! What the service manager is told, where there is one that wants to know (systemd's `Type=notify`): that the relay listens,
//! whether it is ready, that it is alive, and that it ends. Without a `NOTIFY_SOCKET` nothing of this runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clearfeed_relay::telemetry::health::Health;
use clearfeed_relay::telemetry::labels::Concern;
use sd_notify::NotifyState;

/// So often the status is told; more often where a watchdog wants to be.
const EVERY: Duration = Duration::from_secs(5);

/// Tells how the relay is, for good. It has started once it listens: a Kafka that is away must not make the start fail, for
/// it may come back.
pub(super) async fn run(health: Arc<Health>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // Twice in its time, as sd_watchdog_enabled(3) advises.
    let mut every = tokio::time::interval(watchdog.map_or(EVERY, |limit| EVERY.min(limit / 2)));
    let mut was_told = true;
    loop {
        every.tick().await;
        let status = status(&health);
        let told = sd_notify::notify(&states(&health, &status, Instant::now()));
        match &told {
            Err(error) if was_told => tracing::warn!(%error, "the service manager cannot be told"),
            _ => {}
        }
        was_told = told.is_ok();
    }
}

/// The drain begins, and may be over before the next look.
pub(super) fn stopping() {
    // Who cannot be told was told of in the log.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// What a process in this state says. systemd takes `READY=1` once and each `WATCHDOG=1` for a sign of life, whether it
/// asked for one or not.
fn states<'s>(health: &Health, status: &'s str, now: Instant) -> Vec<NotifyState<'s>> {
    let is_draining = health.readiness().has(Concern::Draining);
    let phase = if is_draining { NotifyState::Stopping } else { NotifyState::Ready };
    let is_alive = health.stuck(now).is_none();
    [Some(NotifyState::Status(status)), Some(phase), is_alive.then_some(NotifyState::Watchdog)]
        .into_iter()
        .flatten()
        .collect()
}

fn status(health: &Health) -> String {
    let reasons = health.readiness().reasons();
    match reasons.first() {
        None => "ready".to_owned(),
        Some(first) => format!("not ready: {}", first.detail),
    }
}

#[cfg(test)]
mod tests {
    use clearfeed_relay::config::Role;
    use clearfeed_relay::telemetry::health::FORWARD_SILENCE_LIMIT;

    use super::*;

    #[test]
    fn a_stuck_process_gives_no_sign_of_life() {
        let (health, now) = (Health::apart(Role::Forward), Instant::now());
        let is_alive =
            |now| states(&health, "", now).iter().any(|state| matches!(state, NotifyState::Watchdog));
        health.forward_beat(now);
        assert!(is_alive(now));
        assert!(!is_alive(now + FORWARD_SILENCE_LIMIT + Duration::from_secs(1)));
    }
}
