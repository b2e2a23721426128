//! What the loop tells of itself, once a second.

use std::time::Instant;

use super::{Desk, Loop, REPORT_INTERVAL};
use crate::forward::takeover::Order;
use crate::telemetry::status::ForwardStatus;

impl Loop {
    /// Renews `/status` and the gauges, and forgets old ids.
    pub(super) fn report(&mut self, now: Instant) {
        if now < self.next_report {
            return;
        }
        self.next_report = now + REPORT_INTERVAL;
        self.evict(now);
        self.producer.calm_down(now);
        self.give_up_or_go_on(now);
        self.count(now);
        let group = self.inbox.group();
        let owned = self.slots.status(now, |partition| group.end(partition));
        let (ids, bytes) = self.slots.active().fold((0, 0), |(ids, bytes), (_, active)| {
            let window = &active.partition.window;
            (ids + window.len(), bytes + window.bytes())
        });
        let status = ForwardStatus {
            transactional_id: self.config.forward.transactional_id.clone(),
            fenced: self.producer.is_contested(),
            owned,
            unowned: self.slots.unowned().clone(),
            lag_seconds: self.slots.lag(now).as_secs_f64(),
            window_ids: ids,
            window_bytes: bytes,
            reconcile: self.desk.as_ref().map(Desk::status).unwrap_or_default(),
        };
        self.metrics.forward.set_status(&status);
        self.health.set_forward(status);
    }

    /// Has counted what waits in partitions that are not forwarded here.
    fn count(&mut self, now: Instant) {
        if self.next_count.is_none_or(|next| now < next) {
            return;
        }
        if let Some(partitions) = self.slots.uncounted() {
            self.next_count = None;
            // Where the thread is gone the loop ends by itself.
            _ = self.orders.send(Order::Count(partitions));
        }
    }
}
