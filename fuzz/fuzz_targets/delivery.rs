//! From the bytes of a request to a delivery: a head is read the same however it comes in, and nothing is authentic but
//! what the secret signed.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use clearfeed_relay::domain::delivery::{AgeLimits, Claim, HeaderValue, RawDelivery};
use clearfeed_relay::domain::signature::{Keyring, Secret, SignedMessage, SignedUrl};
use clearfeed_relay::intake::head;
use httparse::{EMPTY_HEADER, Header, Request};
use libfuzzer_sys::fuzz_target;

const LIMITS: AgeLimits = AgeLimits {
    max_age: Duration::from_secs(300),
    max_redelivery_age: Duration::from_secs(86400),
    max_clock_skew: Duration::from_secs(300),
};

fn value<'a>(headers: &[Header<'a>], name: &str) -> HeaderValue<'a> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => HeaderValue::Absent,
        (Some(header), None) => HeaderValue::One(header.value),
        (Some(_), Some(_)) => HeaderValue::Several,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(found)) = head::read(bytes) else { return };
    let (whole, body) = bytes.split_at(found.length);
    assert!(whole.ends_with(b"\r\n\r\n") && whole.len() <= head::MAX_HEAD_BYTES);
    assert_eq!(head::read(whole), Ok(Some(found)), "what follows a head does not change it");
    assert_eq!(head::read(&whole[..whole.len() - 1]), Ok(None), "a head ends with its last byte");

    let mut headers = [EMPTY_HEADER; head::MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    request.parse(whole).expect("it was read before");
    let verb = request.method.expect("a whole head");
    let header = |name| value(request.headers, name);
    let (signature, timestamp, retry) =
        (header("x-cf-signature"), header("x-cf-timestamp"), header("x-cf-retry-count"));
    let Ok(claim) = Claim::read(signature, timestamp, retry) else { return };
    let (HeaderValue::One(claimed), HeaderValue::One(digits)) = (signature, timestamp) else {
        panic!("a claim without its headers")
    };

    let url = SignedUrl::parse("https://hooks.example.com/clearfeed/events").expect("a URL");
    let secret = || Secret::new(b"a secret of the fuzzer").expect("long enough");
    let keyring = Keyring::new(vec![Some(secret())]);
    let now = claim.timestamp();
    let authenticate = |claim| {
        RawDelivery { verb, claim, body: Bytes::copy_from_slice(body) }
            .authenticate(&url, &keyring, &LIMITS, now)
    };
    let sign = |url| hex(&secret().sign(&SignedMessage { verb, url, body, timestamp: digits }));
    let signed = [url.as_str(), url.path_and_query()].map(sign);
    let is_signed = signed.iter().any(|signed| claimed.eq_ignore_ascii_case(signed.as_bytes()));
    assert_eq!(authenticate(claim).is_ok(), is_signed);
    for signature in signed {
        let claim =
            Claim::read(HeaderValue::One(signature.as_bytes()), timestamp, retry).expect("the same claim");
        let delivery = authenticate(claim).expect("signed by the secret, now");
        assert_eq!((delivery.body(), delivery.timestamp()), (&Bytes::copy_from_slice(body), now));
    }
});

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
