//! What is sent, when and by whom: settled before the first delivery, by arithmetic alone.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Settings;
use super::delivery::LAST_RETRY;

/// Event `number` (from 0) belongs to request `number % requests`, and a request to one worker.
#[derive(Debug)]
pub(super) struct Plan {
    events: u64,
    requests: u64,
    workers: u64,
    rate: Option<NonZeroU32>,
    redeliver_percent: u8,
}

impl Plan {
    pub(super) fn new(settings: &Settings, events: u64) -> Self {
        let requests = settings.requests.get();
        Self {
            events,
            requests,
            workers: settings.connections.get().min(requests).min(events),
            rate: settings.rate,
            redeliver_percent: settings.redeliver_percent,
        }
    }

    pub(super) fn workers(&self) -> u64 {
        self.workers
    }

    /// The events of one worker, in the order in which it sends them.
    pub(super) fn events_of(&self, worker: u64) -> impl Iterator<Item = u64> + use<> {
        let (events, requests, workers) = (self.events, self.requests, steps(self.workers));
        (0..events).step_by(steps(requests)).flat_map(move |first| {
            let end = first.saturating_add(requests).min(events);
            (first + worker..end).step_by(workers)
        })
    }

    /// When an event is to be sent, counted from the start; none: as soon as its worker is free.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        let rate = u64::from(self.rate?.get());
        let rest = number % rate * NANOS_PER_SECOND / rate;
        Some(Duration::from_secs(number / rate) + Duration::from_nanos(rest))
    }

    /// The retry count of an event's redelivery after its 200, if it gets one: 1, 2 and 3 in turn. The chosen
    /// events are spread evenly: of 20 percent every fifth, not the first 20 of a hundred.
    pub(super) fn redelivery(&self, number: u64) -> Option<u8> {
        let chosen_before = |number: u64| u128::from(number) * u128::from(self.redeliver_percent) / 100;
        let chosen = chosen_before(number);
        let nth = u8::try_from(chosen % u128::from(LAST_RETRY)).unwrap_or_default();
        (chosen_before(number + 1) > chosen).then_some(nth + 1)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn steps(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(events: u64, requests: u64, workers: u64) -> Plan {
        Plan { events, requests, workers, rate: NonZeroU32::new(3), redeliver_percent: 20 }
    }

    #[test]
    fn every_fifth_event_of_twenty_percent_is_redelivered() {
        let plan = plan(30, 1, 1);
        let chosen: Vec<_> = (0..30).filter_map(|number| Some((number, plan.redelivery(number)?))).collect();
        assert_eq!(chosen, [(4, 1), (9, 2), (14, 3), (19, 1), (24, 2), (29, 3)]);
    }

    #[test]
    fn events_are_due_by_the_clock() {
        let plan = plan(10, 1, 1);
        assert_eq!(plan.due(0), Some(Duration::ZERO));
        assert_eq!(plan.due(1), Some(Duration::from_nanos(333_333_333)));
        assert_eq!(plan.due(3_000_000_000), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(Plan { rate: None, ..plan }.due(5), None);
    }

    proptest! {
        #[test]
        fn each_event_is_sent_by_the_one_worker_of_its_request(
            events in 0u64..300, requests in 1u64..50, connections in 1u64..50,
        ) {
            let plan = plan(events, requests, connections.min(requests).min(events));
            let mut worker_of = vec![None; usize::try_from(requests).unwrap()];
            let mut all = Vec::new();
            for worker in 0..plan.workers {
                let own: Vec<_> = plan.events_of(worker).collect();
                prop_assert!(own.is_sorted(), "in order");
                for number in &own {
                    let owner = &mut worker_of[usize::try_from(number % requests).unwrap()];
                    prop_assert_eq!(*owner.get_or_insert(worker), worker);
                }
                all.extend(own);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..events).collect::<Vec<_>>());
        }
    }
}
