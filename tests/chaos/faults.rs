//! What can happen, and the dice.

use std::collections::BTreeMap;

/// Numbers drawn from a seed: the same ones each time.
pub(crate) struct Draw(u64);

impl From<u64> for Draw {
    fn from(seed: u64) -> Self {
        Self(seed)
    }
}

impl Draw {
    /// A number from 0 up to, not including, `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // Knuth's constants for a linear congruential generator; its upper bits are good enough for dice.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Replicas of the relay, and brokers: three each.
pub(crate) const EACH: usize = 3;

/// One thing that goes wrong. Replicas count from 0, brokers from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL, and it is started again.
    KillRelay(usize),
    /// SIGKILL to all at once.
    KillAllRelays,
    /// SIGTERM, and it is started again.
    RestartRelay(usize),
    /// SIGSTOP for longer than a group's session, then SIGCONT: it does not know that it lost its partitions.
    FreezeRelay(usize),
    /// One more replica comes, and goes again without a word.
    Visitor,
    /// SIGKILL; it comes back with its disk.
    KillBroker(usize),
    /// SIGSTOP for longer than a session and than an answer is waited for.
    FreezeBroker(usize),
    /// SIGKILL to the broker that leads the consumer group.
    KillGroupCoordinator,
    /// SIGKILL to the broker that leads the transactions of a replica.
    KillTransactionCoordinator(usize),
    /// SIGKILL to a broker and, while it is away, to a replica.
    KillBrokerAndRelay(usize, usize),
}

impl Fault {
    pub(crate) fn drawn(draw: &mut Draw) -> Self {
        let mut one = || usize::try_from(draw.below(EACH as u64)).unwrap();
        let (relay, broker) = (one(), 1 + one());
        match draw.below(14) {
            0..=2 => Self::KillRelay(relay),
            3 => Self::KillAllRelays,
            4 | 5 => Self::RestartRelay(relay),
            6 | 7 => Self::FreezeRelay(relay),
            8 => Self::Visitor,
            9 => Self::KillBroker(broker),
            10 => Self::FreezeBroker(broker),
            11 => Self::KillGroupCoordinator,
            12 => Self::KillTransactionCoordinator(relay),
            _ => Self::KillBrokerAndRelay(broker, relay),
        }
    }

    /// How many of each kind.
    pub(crate) fn sum(faults: &[Self]) -> String {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for fault in faults {
            let name = format!("{fault:?}");
            let kind = name.split('(').next().unwrap_or(&name).to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
        let parts: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("{} in all: {}", faults.len(), parts.join(", "))
    }
}
