//! How far long work is, told to whoever is waiting for it.

use indicatif::{ProgressBar, ProgressStyle};

/// On stderr, where that is a terminal and people are reading.
pub(super) fn bar(length: u64, style: &str, as_json: bool) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(style) { bar.with_style(style) } else { bar }
}
