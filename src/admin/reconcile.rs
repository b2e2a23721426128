//! The status page's part on ClearFeed's REST API: whether it is asked, and which events never came.

use jiff::Timestamp;
use maud::{Markup, html};

use super::moments::{ago, time};
use crate::telemetry::status::{ReconcileState, ReconcileStatus};

/// Nothing where the API is not asked.
pub(super) fn shown(now: Timestamp, sources: &[ReconcileStatus]) -> Markup {
    html! {
        @if !sources.is_empty() {
            section {
                h2 { "What ClearFeed's API tells" }
                table {
                    thead {
                        tr {
                            th { "source" } th { "state" } th { "last read" } th { "newest change" }
                            th.number { "created, no event" } th.number { "changed, no event" }
                        }
                    }
                    @for source in sources { (row(now, source)) }
                }
                @for source in sources.iter().filter(|source| !source.missed.is_empty()) { (missed(source)) }
            }
        }
    }
}

fn row(now: Timestamp, source: &ReconcileStatus) -> Markup {
    html! {
        tr {
            td { (source.source) }
            @match source.state {
                ReconcileState::Active => td.word { "active" },
                ReconcileState::Elsewhere => td.word { "another replica asks" },
                ReconcileState::Failing { .. } => td.bad { "failing" },
            }
            @for at in [source.last_success, source.newest_change] {
                td.when { @if let Some(at) = at { (ago(now, at)) } @else { "–" } }
            }
            td.number { (source.missed_created) }
            td.number { (source.missed_updated) }
        }
    }
}

fn missed(source: &ReconcileStatus) -> Markup {
    html! {
        p { "Requests of " (source.source) " that were created and of which no event came, the newest first:" }
        table {
            thead { tr { th.number { "request" } th { "created (UTC)" } } }
            @for missed in &source.missed {
                tr { td.number { (missed.request) } td.when { (time(missed.created)) } }
            }
        }
    }
}
