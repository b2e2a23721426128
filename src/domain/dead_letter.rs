//! A dead letter read back: why it is one, where it stood in the inbox, and the record that stood there.

use super::inbox_record::{Position, header as inbox_header};

/// Names of the headers that stand before those of the inbox record.
pub mod header {
    /// A fixed word: why it is a dead letter.
    pub const REASON: &str = "reason";
    /// What was found, in words.
    pub const DETAIL: &str = "detail";
    /// `PARTITION:OFFSET` in the inbox.
    pub const INBOX: &str = "inbox";
}

/// A name and a value, as Kafka has them.
type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The headers of a record of the dead-letter topic. Its value is the inbox record's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Why it is one. A later version may have other words than this one.
    pub reason: &'a str,
    /// What was found, in words.
    pub detail: &'a str,
    /// Where it stood in the inbox.
    pub position: Position,
    /// The headers that it had there, in their order.
    pub original: Vec<Header<'a>>,
}

impl<'a> DeadLetter<'a> {
    /// Reads the headers of a record; nothing where the relay's forward half did not write it. The record may have had headers
    /// of the same names in the inbox: ours are the first three.
    pub fn read(headers: impl IntoIterator<Item = Header<'a>>) -> Option<Self> {
        let mut headers = headers.into_iter();
        let mut next = |wanted: &str| {
            let (name, value) = headers.next()?;
            (name == wanted).then(|| std::str::from_utf8(value?).ok()).flatten()
        };
        let (reason, detail) = (next(header::REASON)?, next(header::DETAIL)?);
        let position = next(header::INBOX)?.parse().ok()?;
        Some(Self { reason, detail, position, original: headers.collect() })
    }

    /// The headers of the copy that is put back: those that it had, and where it stood. A copy that died again names its own
    /// place, and no longer its predecessor's.
    pub fn copy(&self) -> Vec<(&'a str, Vec<u8>)> {
        let original = self.original.iter().filter(|(name, _)| *name != inbox_header::REDRIVEN);
        let original = original.map(|(name, value)| (*name, value.unwrap_or_default().to_vec()));
        original.chain([(inbox_header::REDRIVEN, self.position.to_string().into_bytes())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_record::{DeadLetterReason, Outgoing};
    use crate::domain::fingerprint::BodyDigest;
    use proptest::prelude::*;

    fn borrowed<N: AsRef<str>>(headers: &[(N, Vec<u8>)]) -> Vec<Header<'_>> {
        headers.iter().map(|(name, value)| (name.as_ref(), Some(value.as_slice()))).collect()
    }

    proptest! {
        /// Whatever headers it had, also those that look like ours.
        #[test]
        fn what_became_a_dead_letter_is_read_back(
            original in proptest::collection::vec(("reason|inbox|id|[a-z]{0,9}", any::<Vec<u8>>()), 0..8),
            detail: String, partition in 0..i32::MAX, offset in 0..i64::MAX,
        ) {
            let position = Position { partition, offset };
            let record = Outgoing::dead_letter(
                DeadLetterReason::NoTopic, &detail, position, &BodyDigest::default(), borrowed(&original).into_iter(),
            );
            let letter = DeadLetter::read(borrowed(&record.headers)).unwrap();
            prop_assert_eq!((letter.reason, letter.detail, letter.position), ("no_topic", &*detail, position));
            prop_assert_eq!(letter.original, borrowed(&original));
        }
    }

    #[test]
    fn a_copy_has_the_original_headers_and_names_one_place() {
        let position = Position { partition: 3, offset: 20 };
        let original = vec![("id", Some(&b"a"[..])), ("redriven", Some(b"3:5"))];
        let letter = DeadLetter { reason: "no_topic", detail: "", position, original };
        assert_eq!(letter.copy(), [("id", b"a".to_vec()), ("redriven", b"3:20".to_vec())]);
    }

    #[test]
    fn what_another_hand_wrote_is_none() {
        let ours: [Header<'_>; 3] =
            [("reason", Some(b"malformed")), ("detail", Some(b"")), ("inbox", Some(b"3:5"))];
        assert!(DeadLetter::read(ours).is_some());
        assert_eq!(DeadLetter::read([]), None);
        assert_eq!(DeadLetter::read([ours[1], ours[0], ours[2]]), None);
        for position in ["", "3", "3:", ":5", "3:-5", "+3:5", "3:5:7", "9999999999:5", "3: 5"] {
            assert_eq!(
                DeadLetter::read([ours[0], ours[1], ("inbox", Some(position.as_bytes()))]),
                None,
                "{position}"
            );
        }
    }
}
