//! The status page's part on the spool: deliveries on this node's disk.

use maud::{Markup, html};

use crate::telemetry::status::SpoolStatus;

pub(super) fn shown(spool: SpoolStatus) -> Markup {
    html! {
        section {
            h2 { "Spool" }
            dl {
                dt { "deliveries go to" } dd { @if spool.in_use { "the disk, until Kafka has acknowledged for a while" } @else { "Kafka" } }
                dt { "on the disk" } dd { (spool.records) " deliveries, " (spool.bytes) " of " (spool.limit_bytes) " bytes" }
                @if spool.records > 0 { dt { "oldest" } dd { (format!("{:.0} s", spool.oldest_seconds)) } }
                @if spool.failed { dt { "state" } dd { "out of order until a restart" } }
                @if spool.damaged > 0 { dt { "set aside, broken" } dd { (spool.damaged) } }
            }
        }
    }
}
