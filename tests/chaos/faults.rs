//! What can happen, and the dice.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::proxy::Trouble;

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

    /// The number of a replica, or of a broker less one.
    fn one(&mut self) -> usize {
        usize::try_from(self.below(EACH as u64)).unwrap()
    }
}

/// Replicas of the relay, and brokers: three each.
pub(crate) const EACH: usize = 3;

/// One thing that goes wrong. Replicas count from 0, brokers from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A replica of another consumer group comes, waits while all of ours are killed and come back, and goes without a word.
    OtherGroup,
    /// The same while all of ours stand still (SIGSTOP): it takes over, and ours do not know.
    OtherGroupTakesOver,
    /// Nothing comes for longer than Kafka remembers a transactional id.
    Silence,
    /// SIGKILL; it comes back with its disk.
    KillBroker(usize),
    /// SIGTERM: it gives its partitions to other leaders first, and gets them back in the end.
    RestartBroker(usize),
    /// SIGSTOP for longer than a session and than an answer is waited for.
    FreezeBroker(usize),
    /// SIGKILL to the broker that leads the consumer group.
    KillGroupCoordinator,
    /// SIGKILL to the broker that leads the transactions of a replica.
    KillTransactionCoordinator(usize),
    /// SIGKILL to a broker and, while it is away, to a replica.
    KillBrokerAndRelay(usize, usize),
    /// Trouble on the way from some replicas to some brokers; meanwhile perhaps one more thing.
    Network(Way, Trouble, Duration, Option<Box<Fault>>),
}

/// Which connections: those of a replica, or of all, to a broker, or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) relay: Option<usize>,
    pub(crate) broker: Option<usize>,
}

impl Fault {
    pub(crate) fn drawn(draw: &mut Draw) -> Self {
        let (relay, broker) = (draw.one(), 1 + draw.one());
        match draw.below(24) {
            0..=2 => Self::KillRelay(relay),
            3 => Self::KillAllRelays,
            4 | 5 => Self::RestartRelay(relay),
            6 | 7 => Self::FreezeRelay(relay),
            8 => Self::Visitor,
            9 => Self::KillBroker(broker),
            10 => Self::RestartBroker(broker),
            11 => Self::FreezeBroker(broker),
            12 => Self::KillGroupCoordinator,
            13 => Self::KillTransactionCoordinator(relay),
            14 => Self::KillBrokerAndRelay(broker, relay),
            15 => Self::OtherGroup,
            16 => Self::OtherGroupTakesOver,
            17 => Self::Silence,
            _ => Self::network(draw),
        }
    }

    fn network(draw: &mut Draw) -> Self {
        let (relay, broker) = (draw.one(), 1 + draw.one());
        let mut or_all = |one| (draw.below(2) == 0).then_some(one);
        let way = Way { relay: or_all(relay), broker: or_all(broker) };
        let trouble = match draw.below(6) {
            0 => Trouble::Cut,
            1 => Trouble::Slow(Duration::from_millis(20 + draw.below(180))),
            2 => Trouble::StalledRequests,
            3 => Trouble::StalledAnswers,
            _ => Trouble::LostAnswers(None),
        };
        // Shorter than a session and its patience, or longer.
        let length = Duration::from_millis(500 + draw.below(9_500));
        let meanwhile = match draw.below(6) {
            0 => Some(Self::KillRelay(draw.one())),
            1 => Some(Self::KillBroker(1 + draw.one())),
            _ => None,
        };
        Self::Network(way, trouble, length, meanwhile.map(Box::new))
    }

    /// The kind of fault, of trouble where it is the network.
    fn kind(&self) -> String {
        let name = match self {
            Self::Network(_, trouble, ..) => format!("Network{trouble:?}"),
            _ => format!("{self:?}"),
        };
        name.split('(').next().unwrap_or(&name).to_owned()
    }

    /// How many of each kind.
    pub(crate) fn sum(faults: &[Self]) -> String {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for fault in faults {
            *kinds.entry(fault.kind()).or_default() += 1;
        }
        let parts: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("{} in all: {}", faults.len(), parts.join(", "))
    }
}
