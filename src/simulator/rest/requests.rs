//! The requests, as the events leave them: created by the first, changed by each later one, delivered or not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::query::{Cursor, Query, SortedBy};
use crate::simulator::events::{Events, SENTENCES, Thread};

/// `ClearFeed`'s words in its API; those in events are spelled otherwise.
const STATES: [&str; 6] = ["open", "in_progress", "pending", "on_hold", "solved", "closed"];

/// All requests that there are by now.
pub struct Requests {
    shapes: Events,
    /// By place among the requests of the events.
    table: Mutex<BTreeMap<u64, Times>>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    created: Timestamp,
    updated: Timestamp,
    changes: usize,
}

/// A page of requests, as JSON, and where the next one begins.
pub(super) struct Page {
    pub(super) requests: Vec<String>,
    pub(super) next: Option<Cursor>,
}

impl Requests {
    /// None yet; they are shaped like those of the events with this seed and number of requests.
    pub fn new(seed: u64, requests: NonZeroU64) -> Self {
        Self { shapes: Events::new(seed, requests), table: Mutex::default() }
    }

    /// The event of this number occurred: its request is new, or changed.
    pub fn occurred(&self, number: u64, at: Timestamp) {
        let first = Times { created: at, updated: at, changes: 0 };
        self.table()
            .entry(self.shapes.nth_request(number))
            .and_modify(|times| *times = Times { updated: at, changes: times.changes + 1, ..*times })
            .or_insert(first);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// The JSON of the request with this id.
    pub fn json(&self, id: u64) -> Option<String> {
        let table = self.table();
        let (nth, times) = table.iter().find(|(nth, _)| self.shapes.request_id(**nth) == id)?;
        Some(self.render(*nth, *times))
    }

    pub(super) fn page(&self, query: &Query) -> Page {
        let mut found: Vec<(Cursor, u64, Times)> = self
            .table()
            .iter()
            .map(|(&nth, &times)| {
                let time = match query.sorted_by {
                    SortedBy::Created => times.created,
                    SortedBy::Updated => times.updated,
                };
                (Cursor { time, id: self.shapes.request_id(nth) }, nth, times)
            })
            .filter(|(at, ..)| query.after.is_none_or(|after| at.time >= after))
            .filter(|(at, ..)| query.before.is_none_or(|before| at.time <= before))
            .collect();
        found.sort_unstable_by_key(|(at, ..)| *at);
        if query.is_descending {
            found.reverse();
        }
        let is_behind =
            |at: Cursor, cursor: Cursor| if query.is_descending { at < cursor } else { at > cursor };
        found.retain(|(at, ..)| query.cursor.is_none_or(|cursor| is_behind(*at, cursor)));
        let next = found.get(query.limit..).filter(|rest| !rest.is_empty()).map(|_| found[query.limit - 1].0);
        found.truncate(query.limit);
        Page { requests: found.into_iter().map(|(_, nth, times)| self.render(nth, times)).collect(), next }
    }

    fn render(&self, nth: u64, times: Times) -> String {
        let (id, thread) = (self.shapes.request_id(nth), self.shapes.thread(nth));
        render(id, &thread, times)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Times>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn render(id: u64, thread: &Thread, times: Times) -> String {
    let Times { created, updated, changes } = times;
    let Thread { channel, team, collection, priority, .. } = thread;
    let (state, title) = (STATES[changes % STATES.len()], SENTENCES[changes % SENTENCES.len()]);
    let place = |ts: String| {
        format!(r#"{{"channel_id":"{channel}","thread_ts":"{ts}","team_id":"{team}","url":null}}"#)
    };
    let mut json = format!(r#"{{"id":{id},"title":"{title}","state":"{state}","priority":"{priority}","#);
    // Writing to a String cannot fail.
    let _ = write!(
        json,
        r#""author":"Kim","author_email":null,"assignee":{{"id":7}},"assigned_team":null,"customer_id":null,"tickets":[],"csat_survey":null,"channel":{{"id":"{channel}","name":"support","owner":null}},"collection":{{"id":{collection},"name":"support"}},"custom_field_values":{{}},"request_thread":{},"triage_thread":{},"sla_metrics":{{}},"created_at":"{created:.3}","updated_at":"{updated:.3}"}}"#,
        place(thread.in_request_channel(0)),
        place(thread.in_triage_channel(0)),
    );
    json
}
