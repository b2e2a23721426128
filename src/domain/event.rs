//! Reading an event: once, borrowed from the body where it can be, and the body untouched.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest event id, type and sub-type, in bytes: they travel in record headers and ids in the window.
pub const MAX_NAME_BYTES: usize = 256;
/// Deepest nesting of a body: `serde_json`'s own limit, which the readers of our topics are likely to have too.
pub const MAX_DEPTH: usize = 128;

/// What the relay needs to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// ClearFeed's event id: what repeats are told by.
    pub id: Cow<'a, str>,
    /// The request's id; an event may have none.
    pub request: Option<u64>,
    /// `type`
    pub kind: Cow<'a, str>,
    /// `sub_type`
    pub sub_type: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The key of the event's records: the request id in decimal, else the event id.
    pub fn key(&self) -> String {
        self.request.map_or_else(|| self.id.clone().into_owned(), |request| request.to_string())
    }
}

/// What an authentic body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<'a> {
    /// An event with everything that the relay needs.
    Event(Event<'a>),
    /// ClearFeed's test of the endpoint: empty, `{}`, or a `type` of `ping` or `test` with neither id nor request.
    Ping,
    /// Anything else: a dead letter.
    Malformed(Malformed<'a>),
}

/// Why a body is no event, and what of it could be read all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed<'a> {
    /// What was found and what is wanted.
    pub reason: String,
    /// The event id, where it is a good one.
    pub id: Option<Cow<'a, str>>,
    /// The request id, where it is a good one.
    pub request: Option<u64>,
    /// The type, where it is a good one.
    pub kind: Option<Cow<'a, str>>,
    /// The sub-type, where it is a good one.
    pub sub_type: Option<Cow<'a, str>>,
}

impl Malformed<'_> {
    fn whole(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), id: None, request: None, kind: None, sub_type: None }
    }
}

/// Reads a body. Total: every sequence of bytes is one of the three.
pub fn read(body: &[u8]) -> Reading<'_> {
    if body.is_empty() {
        return Reading::Ping;
    }
    let fields = match read_fields(body) {
        Ok(fields) => fields,
        Err(reason) => return Reading::Malformed(Malformed::whole(reason)),
    };
    if fields.is_ping() { Reading::Ping } else { fields.into_event() }
}

/// Top-level fields by name, each still in JSON: one bad field does not hide the others.
#[derive(Default)]
struct Fields<'a> {
    is_empty: bool,
    repeated: Option<&'static str>,
    id: Option<&'a RawValue>,
    request: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    sub_type: Option<&'a RawValue>,
}

fn read_fields(body: &[u8]) -> Result<Fields<'_>, String> {
    // serde_json checks only the strings that somebody reads; readers of our topics will read others.
    let text = std::str::from_utf8(body)
        .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    if nesting(body) > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    // Looked at here, for serde's message about a string shows all of it.
    match text.trim_start_matches([' ', '\t', '\n', '\r']).chars().next() {
        Some('{') => {}
        Some(found) => return Err(format!("not a JSON object: begins with {found:?}, wanted '{{'")),
        None => return Err("not a JSON object: nothing but white space".to_owned()),
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let fields =
        json.deserialize_map(FieldsVisitor).map_err(|error| format!("not a JSON object: {error}"))?;
    json.end().map_err(|error| format!("more than one JSON document: {error}"))?;
    Ok(fields)
}

/// The depth of brackets outside strings. Counting them all first is quick, and nearly always enough.
fn nesting(body: &[u8]) -> usize {
    let brackets = body.iter().filter(|&&byte| byte == b'{' || byte == b'[').count();
    if brackets <= MAX_DEPTH {
        return brackets;
    }
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields { is_empty: true, ..Fields::default() };
        while let Some(Name(name)) = map.next_key()? {
            fields.is_empty = false;
            let (slot, name) = match name.as_ref() {
                "id" => (&mut fields.id, "id"),
                "request" => (&mut fields.request, "request"),
                "type" => (&mut fields.kind, "type"),
                "sub_type" => (&mut fields.sub_type, "sub_type"),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            // Two readers may pick different ones of two equal names: neither is to be trusted.
            if slot.replace(map.next_value()?).is_some() {
                fields.repeated = Some(name);
            }
        }
        Ok(fields)
    }
}

/// A member's name with its escapes resolved, borrowed where it has none.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    fn is_ping(&self) -> bool {
        let is_test = || self.kind.is_some_and(|kind| matches!(text(kind).as_deref(), Ok("ping" | "test")));
        self.repeated.is_none() && self.id.is_none() && self.request.is_none() && (self.is_empty || is_test())
    }

    fn into_event(self) -> Reading<'a> {
        let id = self.id.map_or_else(|| Err("absent".to_owned()), text);
        let request = self.request.map_or(Ok(None), request_id);
        let kind = self.kind.map_or_else(|| Err("absent".to_owned()), text);
        let sub_type = self.sub_type.filter(|raw| raw.get() != "null").map(text).transpose();
        if let Some(name) = self.repeated {
            return Reading::Malformed(Malformed::whole(format!("`{name}` stands there twice, wanted once")));
        }
        match (id, request, kind, sub_type) {
            (Ok(id), Ok(request), Ok(kind), Ok(sub_type)) => {
                Reading::Event(Event { id, request, kind, sub_type })
            }
            (id, request, kind, sub_type) => {
                let name =
                    format!("wanted a string of 1 to {MAX_NAME_BYTES} bytes without control characters");
                let faults = [
                    id.as_ref().err().map(|found| format!("`id` is {found}, {name}")),
                    request.as_ref().err().map(|found| {
                        format!("`request.id` is {found}, wanted an integer from 0 to {}", u64::MAX)
                    }),
                    kind.as_ref().err().map(|found| format!("`type` is {found}, {name}")),
                    sub_type.as_ref().err().map(|found| format!("`sub_type` is {found}, {name}")),
                ];
                Reading::Malformed(Malformed {
                    reason: faults.into_iter().flatten().collect::<Vec<_>>().join("; "),
                    id: id.ok(),
                    request: request.ok().flatten(),
                    kind: kind.ok(),
                    sub_type: sub_type.ok().flatten(),
                })
            }
        }
    }
}

/// A name: a string of 1 to 256 bytes without control characters. The error says what was found.
fn text(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    let Ok(Name(text)) = serde_json::from_str(raw.get()) else {
        return Err(found(raw));
    };
    match text.len() {
        0 => Err("empty".to_owned()),
        length if length > MAX_NAME_BYTES => Err(format!("{length} bytes long")),
        _ if text.chars().any(char::is_control) => Err("a string with control characters".to_owned()),
        _ => Ok(text),
    }
}

/// The id inside a `request` object; a `request` of null is none.
fn request_id(raw: &RawValue) -> Result<Option<u64>, String> {
    /// Only the id counts; a second one is an error of serde's.
    #[derive(serde::Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    if raw.get() == "null" {
        return Ok(None);
    }
    // A struct is also read from an array; an event's request is an object.
    if !raw.get().starts_with('{') {
        return Err(format!("nowhere, for `request` is {}", found(raw)));
    }
    let request: Request<'_> =
        serde_json::from_str(raw.get()).map_err(|error| format!("unreadable ({error})"))?;
    let id = request.id.ok_or_else(|| "absent".to_owned())?;
    serde_json::from_str(id.get()).map(Some).map_err(|_| found(id))
}

/// What a JSON value is, without repeating what a sender wrote.
fn found(raw: &RawValue) -> String {
    let kind = match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "another number",
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(body: &str) -> String {
        match read(body.as_bytes()) {
            Reading::Malformed(malformed) => malformed.reason,
            other => panic!("{body} was read as {other:?}"),
        }
    }

    #[test]
    fn reads_what_clearfeed_documents() {
        let body =
            br#"{"id":"f86719","type":"request","sub_type":"created","request":{"id":352,"title":"x"}}"#;
        let Reading::Event(event) = read(body) else { panic!("no event") };
        assert_eq!(event.key(), "352");
        assert_eq!((event.id.as_ref(), event.kind.as_ref()), ("f86719", "request"));
        assert!(matches!(event.id, Cow::Borrowed(_)), "nothing is copied that need not be");
    }

    #[test]
    fn an_event_without_a_request_is_keyed_by_its_id() {
        for body in [r#"{"id":"a","type":"t"}"#, r#"{"id":"a","type":"t","request":null}"#] {
            let Reading::Event(event) = read(body.as_bytes()) else { panic!("no event") };
            assert_eq!(event.key(), "a");
        }
    }

    #[test]
    fn pings_are_empty_or_say_so() {
        for body in ["", "{}", " { } ", r#"{"type":"ping"}"#, r#"{"type":"test","at":1}"#] {
            assert_eq!(read(body.as_bytes()), Reading::Ping, "{body}");
        }
        for body in
            [r#"{"type":"ping","id":"a"}"#, r#"{"type":"ping","request":null}"#, r#"{"a":1}"#, "[]", "null"]
        {
            assert_ne!(read(body.as_bytes()), Reading::Ping, "{body}");
        }
    }

    #[test]
    fn what_is_no_event_says_what_was_found() {
        let long = format!(r#"{{"id":"{}","type":"t"}}"#, "x".repeat(257));
        let deep = format!(r#"{{"id":"a","type":"t","x":{}1{}}}"#, "[".repeat(128), "]".repeat(128));
        for (body, part) in [
            ("\u{feff}{}", "not a JSON object"),
            (r#"["a","t"]"#, "begins with '['"),
            (r#""a secret""#, "begins with '\"', wanted '{'"),
            (" \n", "nothing but white space"),
            (r#"{"id":"a","id":"b","type":"t"}"#, "`id` stands there twice"),
            (r#"{"id":"a","\u0069d":"b","type":"t"}"#, "`id` stands there twice"),
            (r#"{"id":"a","type":"t"}{}"#, "more than one"),
            (r#"{"type":"t","request":{"id":1}}"#, "`id` is absent"),
            (r#"{"id":7,"type":"t"}"#, "`id` is another number"),
            (r#"{"id":null,"type":"t"}"#, "`id` is null"),
            (r#"{"id":"","type":"t"}"#, "`id` is empty"),
            (&long, "`id` is 257 bytes"),
            (r#"{"id":"a\u0000","type":"t"}"#, "control"),
            (&deep, "nested deeper"),
            (r#"{"id":"a","type":"t","request":{}}"#, "`request.id` is absent"),
            (r#"{"id":"a","type":"t","request":[1]}"#, "`request` is an array"),
            (r#"{"id":"a","type":"t","request":{"id":1,"id":1}}"#, "duplicate field"),
            (r#"{"id":"a","type":"t","request":{"id":1.0}}"#, "`request.id` is another number"),
            (r#"{"id":"a","type":"t","request":{"id":-1}}"#, "`request.id` is another number"),
            (r#"{"id":"a","type":"t","request":{"id":18446744073709551616}}"#, "another number"),
            (r#"{"id":"a","type":"t","request":{"id":"1"}}"#, "`request.id` is a string"),
            (r#"{"id":"a"}"#, "`type` is absent"),
            (r#"{"id":"a","type":"t","sub_type":1}"#, "`sub_type` is another number"),
        ] {
            let reason = reason(body);
            assert!(reason.contains(part), "{body}: {reason}");
        }
    }

    #[test]
    fn a_reason_is_short_whatever_the_body() {
        let long = "\u{7f}".repeat(100_000);
        for body in [
            format!(r#""{long}""#),
            format!(r#"{{"id":"{long}","type":"{long}","sub_type":"{long}","request":{{"id":"{long}"}}}}"#),
            format!(r#"{{"id":"a","type":"t","request":"{long}"}}"#),
            format!(r#"{{"id":"a","type":"t","{long}":{long}}}"#),
        ] {
            let reason = reason(&body);
            assert!(reason.len() < 1024 && !reason.contains('\u{7f}'), "{} bytes", reason.len());
        }
    }

    #[test]
    fn invalid_utf8_where_nobody_looks_is_malformed() {
        assert!(matches!(read(b"{\"id\":\"a\",\"type\":\"t\",\"x\":\"\xff\"}"), Reading::Malformed(_)));
    }

    #[test]
    fn brackets_in_strings_are_no_depth() {
        let body = format!(r#"{{"id":"a","type":"t","x":"\"{}"}}"#, "[".repeat(500));
        assert!(matches!(read(body.as_bytes()), Reading::Event(_)));
    }

    #[test]
    fn what_can_be_read_of_a_malformed_event_is_kept() {
        let Reading::Malformed(malformed) = read(br#"{"id":"a","request":{"id":7}}"#) else { panic!() };
        assert_eq!((malformed.id.as_deref(), malformed.request), (Some("a"), Some(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
        }

        #[test]
        fn every_legal_event_is_read_back(
            id in "[^\\p{Cc}]{1,40}", request in any::<Option<u64>>(), kind in "[a-z0-9_-]{1,64}",
            sub_type in proptest::option::of("[a-z_]{1,20}"), extra in any::<String>(),
        ) {
            let body = serde_json::json!({
                "extra": extra, "id": id, "type": kind, "sub_type": sub_type,
                "request": request.map(|id| serde_json::json!({"title": "x", "id": id})),
            }).to_string();
            let expected = Event { id: id.into(), request, kind: kind.into(), sub_type: sub_type.map(Into::into) };
            prop_assert_eq!(read(body.as_bytes()), Reading::Event(expected));
        }
    }
}
