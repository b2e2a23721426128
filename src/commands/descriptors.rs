//! File descriptors: one for each connection, and some for everything else.

use clearfeed_relay::config::Config;

/// Connections to brokers (two clients to each of some dozens), to the admin port, files, and epoll's own.
const OTHERS: usize = 512;

/// Raises the soft limit as far as `intake.max_connections` needs it. Where the hard limit is lower, there may be fewer
/// connections: else it would be `accept` that fails, and nobody would make room.
pub(crate) fn raise_limit(config: &mut Config) {
    if !config.role.has_intake() {
        return;
    }
    let wanted = config.intake.max_connections + OTHERS;
    let got = match rlimit::increase_nofile_limit(wanted as u64) {
        Ok(got) => usize::try_from(got).unwrap_or(usize::MAX),
        Err(error) => return tracing::warn!(%error, wanted, "the limit of file descriptors is not known"),
    };
    if got < wanted {
        // A limit below the others' own share leaves at least one connection to try with.
        config.intake.max_connections = got.saturating_sub(OTHERS).max(1);
        let max_connections = config.intake.max_connections;
        config.overrule(
            "intake.max_connections",
            max_connections.to_string(),
            "the limit of file descriptors",
        );
        tracing::warn!(
            got,
            wanted,
            max_connections,
            "fewer file descriptors than intake.max_connections needs"
        );
    } else {
        tracing::debug!(got, wanted, "file descriptors");
    }
}
