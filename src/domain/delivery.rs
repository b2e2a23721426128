//! A delivery at the door, and the proof that it is ClearFeed's.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::signature::{Keyring, Match, Signature, SignedUrl};

/// ClearFeed's headers, in lower case as HTTP libraries keep them.
pub mod header {
    /// The signature: 64 hex digits.
    pub const SIGNATURE: &str = "x-cf-signature";
    /// When the event occurred: seconds since 1970.
    pub const TIMESTAMP: &str = "x-cf-timestamp";
    /// How often ClearFeed has tried before: 0 to 3. Not signed.
    pub const RETRY_COUNT: &str = "x-cf-retry-count";
}

/// A header as it came: most attacks send it twice, or not at all.
#[derive(Debug, Clone, Copy)]
pub enum HeaderValue<'a> {
    /// Not sent.
    Absent,
    /// Sent once.
    One(&'a [u8]),
    /// Sent more than once.
    Several,
}

/// What the headers of a delivery say, proved by nobody yet. They are read before the body: of a sender whose claim
/// cannot be true no body is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    signature: Signature,
    /// The timestamp as it was signed.
    digits: &'a [u8],
    timestamp: Timestamp,
    retry: u8,
}

/// What came in, proved by nobody yet.
#[derive(Debug)]
pub struct RawDelivery<'a> {
    /// The request's method; only `POST` is ever signed.
    pub verb: &'a str,
    /// What its headers say.
    pub claim: Claim<'a>,
    /// The body as it came.
    pub body: Bytes,
}

/// A delivery that is ClearFeed's. Its fields are private and [`RawDelivery::authenticate`] is its only
/// constructor: holding one is the proof.
#[derive(Debug)]
pub struct AuthenticDelivery {
    body: Bytes,
    timestamp: Timestamp,
    retry: u8,
    matched: Match,
}

/// How old or new a signed timestamp may be.
#[derive(Debug, Clone, Copy)]
pub struct AgeLimits {
    /// Oldest at retry count 0.
    pub max_age: Duration,
    /// Oldest at retry counts 1 to 3: the timestamp tells when the event occurred, not when it was sent again.
    pub max_redelivery_age: Duration,
    /// Furthest in the future.
    pub max_clock_skew: Duration,
}

/// Why a delivery is not taken for ClearFeed's. The sender hears none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No signature header.
    NoSignature,
    /// More than one signature header.
    SeveralSignatures,
    /// Not 64 hex digits.
    MalformedSignature,
    /// No timestamp header.
    NoTimestamp,
    /// Several timestamps, or one that is not `^[1-9][0-9]{9}$`.
    MalformedTimestamp,
    /// No secret and form of the URL gives this signature.
    Mismatch,
    /// Signed with our secret, too long ago.
    TooOld,
    /// Signed with our secret, too far in the future.
    TooNew,
}

impl Refusal {
    /// All, for metrics that stand at 0 from the start.
    pub const ALL: [Self; 8] = [
        Self::NoSignature,
        Self::SeveralSignatures,
        Self::MalformedSignature,
        Self::NoTimestamp,
        Self::MalformedTimestamp,
        Self::Mismatch,
        Self::TooOld,
        Self::TooNew,
    ];

    /// The metric's label and the log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSignature => "no_signature",
            Self::SeveralSignatures => "several_signatures",
            Self::MalformedSignature => "malformed_signature",
            Self::NoTimestamp => "no_timestamp",
            Self::MalformedTimestamp => "malformed_timestamp",
            Self::Mismatch => "mismatch",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
        }
    }
}

impl<'a> Claim<'a> {
    /// Reads `X-CF-Signature`, `X-CF-Timestamp` and `X-CF-Retry-Count`.
    pub fn read(
        signature: HeaderValue<'_>,
        timestamp: HeaderValue<'a>,
        retry: HeaderValue<'_>,
    ) -> Result<Self, Refusal> {
        let signature = match signature {
            HeaderValue::Absent => return Err(Refusal::NoSignature),
            HeaderValue::Several => return Err(Refusal::SeveralSignatures),
            HeaderValue::One(text) => Signature::from_hex(text).ok_or(Refusal::MalformedSignature)?,
        };
        let (digits, timestamp) = match timestamp {
            HeaderValue::Absent => return Err(Refusal::NoTimestamp),
            HeaderValue::Several => return Err(Refusal::MalformedTimestamp),
            HeaderValue::One(text) => (text, read_timestamp(text).ok_or(Refusal::MalformedTimestamp)?),
        };
        Ok(Self { signature, digits, timestamp, retry: read_retry(retry) })
    }
}

impl Claim<'_> {
    /// When the event occurred, it says.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// How often ClearFeed has tried before, it says.
    pub fn retry(&self) -> u8 {
        self.retry
    }
}

impl RawDelivery<'_> {
    /// Proves that ClearFeed sent this delivery, or says why not.
    ///
    /// The retry count is not signed, so it only chooses between two age limits: forging it gains nothing, for the
    /// window of ids outlasts both.
    pub fn authenticate(
        self,
        url: &SignedUrl,
        keyring: &Keyring,
        limits: &AgeLimits,
        now: Timestamp,
    ) -> Result<AuthenticDelivery, Refusal> {
        let Self { verb, claim: Claim { signature, digits, timestamp, retry }, body } = self;
        let matched = keyring.verify(verb, url, &body, digits, &signature).ok_or(Refusal::Mismatch)?;
        let max_age = if retry == 0 { limits.max_age } else { limits.max_redelivery_age };
        let age = now.duration_since(timestamp);
        if age > signed(max_age) {
            return Err(Refusal::TooOld);
        }
        if -age > signed(limits.max_clock_skew) {
            return Err(Refusal::TooNew);
        }
        Ok(AuthenticDelivery { body, timestamp, retry, matched })
    }
}

impl AuthenticDelivery {
    /// The body, byte for byte as it was signed.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// When the event occurred, says the signed timestamp.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// 0 for a first delivery, 1 to 3 for a redelivery.
    pub fn retry(&self) -> u8 {
        self.retry
    }

    /// Which secret and form of the URL proved it.
    pub fn matched(&self) -> Match {
        self.matched
    }
}

/// `^[1-9][0-9]{9}$`: seconds since 1970, from 2001 to 2286. Nothing that two readers could take for two times.
fn read_timestamp(text: &[u8]) -> Option<Timestamp> {
    if text.len() != 10 || text.first() == Some(&b'0') || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = text.iter().fold(0, |seconds, digit| seconds * 10 + i64::from(digit - b'0'));
    Timestamp::from_second(seconds).ok()
}

/// Only 1, 2 and 3 are redeliveries; anything else is a first delivery and no error.
fn read_retry(header: HeaderValue<'_>) -> u8 {
    match header {
        HeaderValue::One([digit @ b'1'..=b'3']) => digit - b'0',
        _ => 0,
    }
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signature::{Secret, SignedMessage, UrlForm};
    use proptest::prelude::*;

    const URL: &str = "https://hooks.example.com/clearfeed/events?team=a";
    const NOW: i64 = 1_700_000_000;
    const LIMITS: AgeLimits = AgeLimits {
        max_age: Duration::from_secs(300),
        max_redelivery_age: Duration::from_secs(86_400),
        max_clock_skew: Duration::from_secs(300),
    };

    fn secret(byte: u8) -> Secret {
        Secret::new(&[byte; 32]).unwrap()
    }

    struct Sent {
        body: Vec<u8>,
        timestamp: String,
        retry: &'static str,
        signature: String,
    }

    impl Sent {
        fn signed(body: &[u8], url: &str, timestamp: &str) -> Self {
            let message = SignedMessage { verb: "POST", url, body, timestamp: timestamp.as_bytes() };
            Self {
                body: body.to_vec(),
                timestamp: timestamp.to_owned(),
                retry: "0",
                signature: hex::encode(secret(7).sign(&message)),
            }
        }

        fn judge(&self) -> Result<AuthenticDelivery, Refusal> {
            self.judge_with(&Keyring::new(vec![Some(secret(1)), Some(secret(7))]))
        }

        fn judge_with(&self, keyring: &Keyring) -> Result<AuthenticDelivery, Refusal> {
            let claim = Claim::read(
                HeaderValue::One(self.signature.as_bytes()),
                HeaderValue::One(self.timestamp.as_bytes()),
                HeaderValue::One(self.retry.as_bytes()),
            )?;
            let raw = RawDelivery { verb: "POST", claim, body: Bytes::from(self.body.clone()) };
            let url = SignedUrl::parse(URL).unwrap();
            raw.authenticate(&url, keyring, &LIMITS, Timestamp::from_second(NOW).unwrap())
        }
    }

    #[test]
    fn either_form_of_the_url_and_any_secret_proves_a_delivery() {
        for (url, form) in [(URL, UrlForm::Whole), ("/clearfeed/events?team=a", UrlForm::Path)] {
            let delivery = Sent::signed(b"{}", url, "1700000000").judge().unwrap();
            assert_eq!(delivery.matched(), Match { slot: 1, form });
        }
        let other = Sent::signed(b"{}", "http://hooks.example.com/clearfeed/events?team=a", "1700000000");
        assert_eq!(other.judge().unwrap_err(), Refusal::Mismatch);
    }

    #[test]
    fn times_are_judged_by_the_retry_count() {
        let at = |timestamp: i64, retry| Sent { retry, ..Sent::signed(b"{}", URL, &timestamp.to_string()) };
        assert!(at(NOW - 300, "0").judge().is_ok());
        assert_eq!(at(NOW - 301, "0").judge().unwrap_err(), Refusal::TooOld);
        assert_eq!(at(NOW - 600, "nonsense").judge().unwrap_err(), Refusal::TooOld);
        assert_eq!(at(NOW - 600, "2").judge().unwrap().retry(), 2);
        assert_eq!(at(NOW - 86_401, "3").judge().unwrap_err(), Refusal::TooOld);
        assert!(at(NOW + 300, "0").judge().is_ok());
        assert_eq!(at(NOW + 301, "1").judge().unwrap_err(), Refusal::TooNew);
    }

    #[test]
    fn timestamps_have_one_spelling() {
        for text in
            ["", "+1700000000", "1700000000000", "0170000000", "170000000", "1.70000000", "170000000x"]
        {
            let sent = Sent::signed(b"{}", URL, text);
            assert_eq!(sent.judge().unwrap_err(), Refusal::MalformedTimestamp, "{text}");
        }
    }

    #[test]
    fn digits_cannot_move_from_the_body_to_the_timestamp() {
        let mut sent = Sent::signed(b"{}1", URL, "1700000000");
        sent.body.pop();
        sent.timestamp.insert(0, '1');
        assert_eq!(sent.judge().unwrap_err(), Refusal::MalformedTimestamp);
    }

    #[test]
    fn upper_case_is_accepted_and_nothing_around_the_digits() {
        let sent = Sent::signed(b"{}", URL, "1700000000");
        for (signature, good) in [
            (sent.signature.to_uppercase(), true),
            (format!("sha256={}", sent.signature), false),
            (sent.signature[..63].to_owned(), false),
            (format!("{}0", sent.signature), false),
            (sent.signature[..32].to_owned(), false),
            (String::new(), false),
        ] {
            let result =
                Sent { signature: signature.clone(), ..Sent::signed(b"{}", URL, "1700000000") }.judge();
            assert_eq!(result.is_ok(), good, "{signature}");
        }
    }

    proptest! {
        #[test]
        fn a_signature_over_any_bytes_verifies_and_with_one_bit_changed_does_not(
            body in proptest::collection::vec(any::<u8>(), 1..300),
            bit in any::<prop::sample::Index>(),
        ) {
            let sent = Sent::signed(&body, URL, "1700000000");
            let delivery = sent.judge().unwrap();
            prop_assert_eq!(delivery.body(), &body);

            let flip = |bytes: &mut [u8]| {
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            };
            let mut changed = Sent::signed(&body, URL, "1700000000");
            flip(&mut changed.body);
            prop_assert_eq!(changed.judge().unwrap_err(), Refusal::Mismatch);

            let mut signature = hex::decode(&sent.signature).unwrap();
            flip(&mut signature);
            let changed = Sent { signature: hex::encode(signature), ..sent };
            prop_assert_eq!(changed.judge().unwrap_err(), Refusal::Mismatch);
        }

        #[test]
        fn a_secret_that_did_not_sign_proves_nothing(byte in 8u8.., body in any::<Vec<u8>>()) {
            let sent = Sent::signed(&body, URL, "1700000000");
            prop_assert_eq!(sent.judge_with(&Keyring::new(vec![Some(secret(byte))])).unwrap_err(), Refusal::Mismatch);
        }
    }
}
