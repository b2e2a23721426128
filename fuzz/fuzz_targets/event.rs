//! A body is an event, a ping or malformed, whatever its bytes; and what an event is said to be stands in it.
#![no_main]

use std::collections::BTreeMap;

use clearfeed_relay::domain::event::{self, MAX_NAME_BYTES, Reading};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|body: &[u8]| match event::read(body) {
    Reading::Event(found) => {
        serde_json::from_slice::<IgnoredAny>(body).expect("an event is JSON");
        // A lone surrogate in a string that nobody reads is JSON (RFC 8259, section 8.2), and no Value.
        let Ok(document) = serde_json::from_slice::<Value>(body) else { return };
        assert_eq!(document["id"].as_str(), Some(&*found.id));
        assert_eq!(document["type"].as_str(), Some(&*found.kind));
        assert_eq!(document.get("sub_type").and_then(Value::as_str), found.sub_type.as_deref());
        if let Some(request) = found.request {
            let id = &document["request"]["id"];
            assert!(id.as_u64() == Some(request) || id.as_str() == Some(&request.to_string()), "{id}");
        }
        for name in [&found.id, &found.kind].into_iter().chain(&found.sub_type) {
            assert!(name.len() <= MAX_NAME_BYTES);
        }
        assert!(!found.key().is_empty());
    }
    Reading::Ping => {
        let is_empty = body.iter().all(u8::is_ascii_whitespace);
        // Keys alone are read: of the values the same holds as above.
        let has_id = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body)
            .is_ok_and(|document| document.contains_key("id"));
        assert!(is_empty || serde_json::from_slice::<IgnoredAny>(body).is_ok() && !has_id);
    }
    Reading::Malformed(found) => assert!(!found.reason.is_empty() && found.reason.len() < 4096, "{found:?}"),
});
