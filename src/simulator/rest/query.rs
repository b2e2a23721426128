//! What is asked for, as the query of a URL has it.

use base64ct::{Base64, Encoding};
use jiff::Timestamp;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortedBy {
    Created,
    Updated,
}

/// The last request of a page: the next one begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    pub(super) time: Timestamp,
    pub(super) id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) sorted_by: SortedBy,
    pub(super) after: Option<Timestamp>,
    pub(super) before: Option<Timestamp>,
    pub(super) is_descending: bool,
    pub(super) limit: usize,
    pub(super) cursor: Option<Cursor>,
}

impl Cursor {
    /// Nobody but the API knows what stands in one.
    pub(super) fn encoded(self) -> String {
        Base64::encode_string(format!("{} {}", self.time, self.id).as_bytes())
    }

    fn decoded(text: &str) -> Option<Self> {
        let text = String::from_utf8(Base64::decode_vec(text).ok()?).ok()?;
        let (time, id) = text.split_once(' ')?;
        Some(Self { time: time.parse().ok()?, id: id.parse().ok()? })
    }
}

impl Query {
    /// Reads the query. The error names the parameter that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self {
            sorted_by: SortedBy::Created,
            after: None,
            before: None,
            is_descending: true,
            limit: DEFAULT_LIMIT,
            cursor: None,
        };
        for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let is_good = decoded(value).is_some_and(|value| query.set(name, &value).is_some());
            if !is_good {
                return Err(format!("wrong parameter {name}"));
            }
        }
        Ok(query)
    }

    /// Whether the value is one that the parameter takes. Parameters that mean nothing here are taken, as they come.
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "filter_by" => {
                self.sorted_by = match value {
                    "created_at" => SortedBy::Created,
                    "updated_at" => SortedBy::Updated,
                    _ => return None,
                }
            }
            "sort_order" => {
                self.is_descending = match value {
                    "asc" => false,
                    "desc" => true,
                    _ => return None,
                }
            }
            "after" => self.after = Some(value.parse().ok()?),
            "before" => self.before = Some(value.parse().ok()?),
            "limit" => self.limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))?,
            "next_cursor" => self.cursor = Some(Cursor::decoded(value)?),
            _ => {}
        }
        Some(())
    }
}

/// Without percent-encoding.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(if first == b'%' {
            let (digits, behind) = rest.split_at_checked(2)?;
            rest = behind;
            *hex::decode(digits).ok()?.first()?
        } else {
            first
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_what_is_wrong_is_named() {
        let query = Query::parse(
            "filter_by=updated_at&sort_order=asc&limit=7&after=2026-11-05T00%3A00%3A00Z&include=messages",
        );
        let wanted = Query {
            sorted_by: SortedBy::Updated,
            after: Some("2026-11-05T00:00:00Z".parse().unwrap()),
            before: None,
            is_descending: false,
            limit: 7,
            cursor: None,
        };
        assert_eq!(query, Ok(wanted));
        for (text, name) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("after=soon", "after"),
            ("next_cursor=%3", "next_cursor"),
        ] {
            assert_eq!(Query::parse(text), Err(format!("wrong parameter {name}")));
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor { time: "2026-11-05T00:00:00.123456789Z".parse().unwrap(), id: u64::MAX };
        let query = Query::parse(&format!("next_cursor={}", cursor.encoded().replace('=', "%3D"))).unwrap();
        assert_eq!(query.cursor, Some(cursor));
    }
}
