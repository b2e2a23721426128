//! The last warnings and errors of the log, for `/status` and the page: who looks there at night may not have the log.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::status::Logged;

/// Different messages that are kept.
const KEPT: usize = 20;
/// Bytes of a message, and of its fields, that are kept: an error may quote what it was given.
const MAX_TEXT: usize = 1024;

/// Shared by the log, which writes, and the admin port, which reads.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Logged>>>);

impl Recent {
    /// The newest first.
    pub fn logged(&self) -> Vec<Logged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// A message that is there already is told once, with its last fields: an outage must not push the rest out.
    fn add(&self, mut line: Logged) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = lines.iter().position(|known| known.message == line.message)
            && let Some(known) = lines.remove(position)
        {
            line.times += known.times;
        }
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let Text { message, fields } = text;
        self.add(Logged { logged: Timestamp::now(), level: level.as_str(), message, fields, times: 1 });
    }
}

/// The message apart from the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let text = if field.name() == "message" {
            let _ = write!(self.message, "{value}");
            &mut self.message
        } else if self.fields.len() < MAX_TEXT {
            let space = if self.fields.is_empty() { "" } else { " " };
            let _ = write!(self.fields, "{space}{}={value}", field.name());
            &mut self.fields
        } else {
            return;
        };
        let mut end = MAX_TEXT.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    /// Without quotes.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn recent(log: impl FnOnce()) -> Vec<Logged> {
        let recent = Recent::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.clone()), log);
        recent.logged()
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_fields() {
        let lines = recent(|| {
            tracing::info!("nothing to worry about");
            tracing::warn!(partition = 3, reason = "kafka", "partition is held");
            tracing::error!(error = %"refused", "no");
        });
        let told: Vec<_> = lines.iter().map(|l| (l.level, &*l.message, &*l.fields)).collect();
        assert_eq!(
            told,
            [("ERROR", "no", "error=refused"), ("WARN", "partition is held", "partition=3 reason=kafka")]
        );
    }

    #[test]
    fn what_repeats_is_one_line_and_pushes_nothing_out() {
        let lines = recent(|| {
            tracing::error!("once");
            for attempt in 0..100 {
                tracing::warn!(attempt, "again");
            }
        });
        let told: Vec<_> = lines.iter().map(|l| (&*l.message, &*l.fields, l.times)).collect();
        assert_eq!(told, [("again", "attempt=99", 100), ("once", "", 1)]);
    }

    #[test]
    fn no_more_than_some_and_no_longer_than_useful() {
        let lines = recent(|| {
            for number in 0..100 {
                tracing::error!(long = "ä".repeat(5000), "{number} {}", "ä".repeat(5000));
            }
        });
        assert_eq!(lines.len(), KEPT);
        assert!(lines[0].message.starts_with("99 "));
        assert!(lines.iter().all(|line| line.message.len().max(line.fields.len()) <= MAX_TEXT));
    }
}
