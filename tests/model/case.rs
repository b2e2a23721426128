//! What a schedule is run with: which groups there are, by what they compare, and which guarantee is taken away.

use clearfeed_relay::forward::fence::Fence;

/// A guarantee that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Offsets are taken from whoever sends them.
    TheGeneration,
    /// A ledger with an open transaction on it is read as it stands.
    WaitingForOpenTransactions,
    /// A takeover is told by a leader that lacks the newest records, of the ledger and of its end; nor are the group's offsets
    /// held against it.
    AnUpToDateLeader,
    /// A commit without an answer is taken for one that did not take place: the ledger's end is asked for, and what was
    /// remembered before is not read anew.
    ReadingWhatTookPlace,
    /// The ledger's ids are forgotten when a partition is taken over.
    TheWindow,
    /// A dead letter that was put back and died again is put back as what it was first.
    NamingTheCopysOwnPlace,
}

/// How an owner judges where its ledger record landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// As the product does.
    Product,
    /// Not at all: a version before the fence.
    None,
    /// One offset may be skipped after a takeover, too.
    OneMoreAfterATakeover,
    /// Two offsets may be skipped after a commit.
    TwoAfterACommit,
    /// Exactly the marker of a commit is skipped after it, and nothing after a takeover. Nobody looks.
    Strict,
    /// As the product does, but for the rule about records that were decided without our own last one.
    NoHealing,
    /// After our own commit any record may stand between.
    Heedless,
}

/// What an owner knows of its ledger partition. The fence does not tell the second, which wrong comparisons need.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub fence: Fence,
    pub after_own_commit: bool,
}

impl Known {
    pub fn taken_over(end: usize) -> Self {
        Self { fence: Fence::taken_over(i64::try_from(end).unwrap()), after_own_commit: false }
    }

    pub fn committed(landed: usize) -> Self {
        Self { fence: Fence::committed(i64::try_from(landed).unwrap()), after_own_commit: true }
    }
}

impl Comparison {
    /// Whether a record may be committed that begins at the inbox offset `from`, and landed there; `told` is what the producer
    /// was told of that. A look tells the highest `from` of the records in between.
    pub fn admits(self, known: Known, told: i64, from: i64, look: impl FnOnce() -> Option<i64>) -> bool {
        let Known { fence, after_own_commit } = known;
        let skipped = told - fence.next();
        match self {
            Self::None => true,
            Self::Strict => skipped == i64::from(after_own_commit),
            Self::OneMoreAfterATakeover if skipped == 1 => true,
            Self::TwoAfterACommit if after_own_commit && skipped == 2 => true,
            Self::NoHealing => fence.admits(told) || look().is_none(),
            Self::Heedless if after_own_commit => true,
            _ => fence.admits(told) || fence.allows(look(), from),
        }
    }
}

/// What a schedule is run with.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// For each group, by what its owners compare.
    pub groups: &'static [Comparison],
    pub without: &'static [Without],
    /// Kafka leaves out markers of commits (KAFKA-20734). What nobody can mend then does not happen: a transaction that stands
    /// behind a record without its marker is aborted for no other reason than the comparison in that partition. So it has one
    /// partition, and the generation does not abort it either.
    pub leaves_markers_out: bool,
}

impl Case {
    pub fn has(&self, guarantee: Without) -> bool {
        let is_void = guarantee == Without::TheGeneration && self.leaves_markers_out;
        !is_void && !self.without.contains(&guarantee)
    }
}
