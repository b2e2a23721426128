//! A record of the inbox that another hand wrote: lines `name: value` as headers, an empty line, the body.
#![no_main]

use clearfeed_relay::domain::inbox_record::{StoredDelivery, Unreadable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &b""[..]),
    };
    let headers = head.split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(end) => (&line[..end], Some(line[end + 1..].trim_ascii())),
            None => (line, None),
        };
        Some((std::str::from_utf8(name).ok()?, value))
    });
    match StoredDelivery::read(headers, body) {
        Ok(stored) => {
            if let Ok(event) = &stored.reading {
                assert!(event.key().len() <= bytes.len().max(20));
            }
            assert!(stored.retry.len() <= bytes.len());
        }
        Err(Unreadable::NewerFormat(found)) => assert!(found.parse::<u64>().is_ok_and(|number| number > 1)),
        Err(Unreadable::Foreign(reason)) => assert!(!reason.is_empty()),
    }
});
