//! Times as the status page tells them.

use jiff::Timestamp;
use maud::{Markup, html};

/// `2026-11-25 03:04:05`; the page says that it is UTC.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%F %T").to_string()
}

pub(super) fn ago(now: Timestamp, then: Timestamp) -> Markup {
    html! { span title={ (time(then)) " UTC" } { (span(now, then)) " ago" } }
}

/// The two largest units of what lies between.
pub(super) fn span(now: Timestamp, then: Timestamp) -> String {
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
