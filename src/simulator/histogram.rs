//! Latencies in bounded memory: buckets that grow with the value, each at most 1/128 of it wide.

use std::time::Duration;

/// Buckets of each power of two, as a power of two itself.
const PRECISION_BITS: u32 = 7;
const STEPS: u64 = 1 << PRECISION_BITS;
/// Longest latency told apart: 67 s, far beyond the time-outs of a connection and an answer together.
const MAX_MICROS: u64 = (1 << 26) - 1;

/// Counts of durations, to the microsecond below 128 us and to 0.8 % above.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; bucket(MAX_MICROS) + 1], total: 0, max: Duration::ZERO }
    }

    pub(super) fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(MAX_MICROS).min(MAX_MICROS);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that so many of a hundred do not exceed; none where nothing was recorded.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(highest(index)).min(self.max))
    }

    pub(super) fn max(&self) -> Option<Duration> {
        (self.total > 0).then_some(self.max)
    }
}

/// The bucket of a value of at most `MAX_MICROS`.
fn bucket(micros: u64) -> usize {
    let octave = (u64::BITS - micros.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    let index = u64::from(octave) * STEPS + (micros >> octave);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The highest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    let octave = (index / STEPS).saturating_sub(1);
    ((index - octave * STEPS + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_recorded_has_no_percentile() {
        let empty = Histogram::new();
        assert_eq!((empty.percentile(50), empty.max()), (None, None));
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Histogram::new();
        (1..=100).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        for percent in [1, 50, 99, 100] {
            let found = latencies.percentile(percent).unwrap();
            let exact = Duration::from_millis(percent);
            assert!(exact <= found && found <= exact + exact / 128, "p{percent} is {found:?}");
        }
        assert_eq!(latencies.max(), Some(Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(micros in 0..=MAX_MICROS) {
            let index = bucket(micros);
            prop_assert!(micros <= highest(index));
            prop_assert!(highest(index) - micros <= micros / STEPS);
            prop_assert!(index == 0 || highest(index - 1) < micros);
        }

        #[test]
        fn no_value_is_too_long(seconds in any::<u64>()) {
            let mut latencies = Histogram::new();
            latencies.record(Duration::from_secs(seconds));
            prop_assert_eq!(latencies.max(), Some(Duration::from_secs(seconds)));
        }
    }
}
