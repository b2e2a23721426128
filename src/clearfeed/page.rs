//! A page of requests, read tolerantly: what a reader does not need may be missing, null, or new.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::snapshot::Snapshot;

/// Longer than any cursor that goes into a request's head.
const MAX_CURSOR_BYTES: usize = 4096;

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of the answer.
    pub requests: Vec<Snapshot>,
    /// What is wrong with those that could not be read.
    pub unreadable: Vec<String>,
    /// Where the next page begins; none: this is the last.
    pub next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    requests: Option<Vec<Box<RawValue>>>,
    response_metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    next_cursor: Option<String>,
}

impl Page {
    /// Reads an answer's body. The error says what was found, and quotes nothing of it.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let Wire { requests, response_metadata } = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("an answer that is no page of requests (line {line}, column {column})")
        })?;
        // Taken for an empty page, an answer of another shape would end the reading without a word.
        let requests = requests.ok_or("an answer without `requests`")?;
        let next_cursor = response_metadata.and_then(|metadata| metadata.next_cursor);
        let next_cursor = next_cursor.filter(|cursor| !cursor.is_empty());
        if next_cursor.as_ref().is_some_and(|cursor| cursor.len() > MAX_CURSOR_BYTES) {
            return Err("a cursor of more than 4 KiB".to_owned());
        }
        let mut page = Self { next_cursor, ..Self::default() };
        for request in requests {
            match Snapshot::read(request) {
                Ok(snapshot) => page.requests.push(snapshot),
                Err(found) => page.unreadable.push(found),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_and_its_requests_kept_as_they_came() {
        let body = br#"{"requests": [ {"id":2, "title":"\u00e9"},{"id":"x"},{ "id" : 1 } ],
            "response_metadata": {"next_cursor": "NjM4OQ==", "count": 3}, "new": 1}"#;
        let page = Page::read(body).unwrap();
        let json: Vec<_> = page.requests.iter().map(Snapshot::json).collect();
        assert_eq!(json, [r#"{"id":2, "title":"\u00e9"}"#, r#"{ "id" : 1 }"#]);
        assert_eq!((page.unreadable.len(), page.next_cursor.as_deref()), (1, Some("NjM4OQ==")));
    }

    #[test]
    fn the_last_page_has_no_cursor_in_whatever_form() {
        for metadata in
            ["", r#","response_metadata":null"#, r#","response_metadata":{}"#].into_iter().chain([
                r#","response_metadata":{"next_cursor":null}"#,
                r#","response_metadata":{"next_cursor":""}"#,
            ])
        {
            let page = Page::read(format!(r#"{{"requests":[]{metadata}}}"#).as_bytes()).unwrap();
            assert_eq!(page.next_cursor, None, "{metadata}");
        }
    }

    #[test]
    fn what_is_no_page_is_an_error_that_quotes_nothing() {
        let long =
            format!(r#"{{"requests":[],"response_metadata":{{"next_cursor":"{}"}}}}"#, "c".repeat(5000));
        for body in
            ["", "<html>hunter2", "[]", "{}", r#"{"requests":null}"#, r#"{"requests":{"hunter2":1}}"#, &long]
        {
            let error = Page::read(body.as_bytes()).unwrap_err();
            assert!(!error.contains("hunter2") && error.len() < 200, "{error}");
        }
    }
}
