//! What is told of the records that wait in a partition that is not forwarded.

/// What waits in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Records of the inbox, at most.
    pub records: i64,
    /// When the oldest was appended, in ms since 1970.
    pub oldest_ms: Option<i64>,
}
