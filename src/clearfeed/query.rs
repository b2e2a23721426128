//! Which requests are asked for.

use std::fmt::Write as _;

use jiff::Timestamp;

/// The most requests on a page.
pub const MAX_LIMIT: u8 = 100;

/// The time by which requests are chosen, sorted and paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterBy {
    /// Never changes: pages are stable.
    CreatedAt,
    /// Changes while pages are read: a request may be told twice, or on none of them.
    UpdatedAt,
}

/// A page of requests, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Chosen and sorted by this time.
    pub filter_by: FilterBy,
    /// Not before this.
    pub after: Timestamp,
    /// Not after this.
    pub before: Timestamp,
    /// Requests on the page: 1 to [`MAX_LIMIT`].
    pub limit: u8,
    /// Where the page before ended; none: the first page.
    pub cursor: Option<String>,
}

impl Query {
    /// Behind the API's base: path and query, percent-encoded.
    pub(super) fn path_and_query(&self) -> String {
        let filter_by = match self.filter_by {
            FilterBy::CreatedAt => "created_at",
            FilterBy::UpdatedAt => "updated_at",
        };
        let mut path = format!("/v1/rest/requests?filter_by={filter_by}&sort_order=asc&limit={}", self.limit);
        for (name, value) in [("after", self.after.to_string()), ("before", self.before.to_string())] {
            parameter(&mut path, name, &value);
        }
        if let Some(cursor) = &self.cursor {
            parameter(&mut path, "next_cursor", cursor);
        }
        path
    }
}

fn parameter(path: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(path, "&{name}=");
    for byte in value.bytes() {
        // RFC 3986: what needs no encoding anywhere.
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let _ = if is_plain { write!(path, "{}", char::from(byte)) } else { write!(path, "%{byte:02X}") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded() {
        let query = Query {
            filter_by: FilterBy::UpdatedAt,
            after: "2026-11-05T00:00:00Z".parse().unwrap(),
            before: "2026-11-06T00:00:00.5Z".parse().unwrap(),
            limit: MAX_LIMIT,
            cursor: Some("NjM4OQ==&limit=1".to_owned()),
        };
        assert_eq!(
            query.path_and_query(),
            "/v1/rest/requests?filter_by=updated_at&sort_order=asc&limit=100&after=2026-11-05T00%3A00%3A00Z\
             &before=2026-11-06T00%3A00%3A00.5Z&next_cursor=NjM4OQ%3D%3D%26limit%3D1"
        );
    }
}
