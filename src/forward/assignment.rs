//! What a member of a consumer group was given, as Kafka tells it of each: `ConsumerProtocolAssignment`, in network byte order.
//!
//! <https://kafka.apache.org/protocol>: version i16, then an array (i32 count) of topics: name (i16 length), an array of
//! partitions (i32 each).

/// The partitions of a topic in an assignment; `None` where it ends too soon.
pub(super) fn partitions_of(topic: &str, assignment: &[u8]) -> Option<Vec<i32>> {
    let mut bytes = assignment;
    let mut found = Vec::new();
    number::<2>(&mut bytes)?;
    for _ in 0..number::<4>(&mut bytes)? {
        let length = number::<2>(&mut bytes)?;
        let (name, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        bytes = rest;
        for _ in 0..number::<4>(&mut bytes)? {
            let partition = number::<4>(&mut bytes)?;
            if name == topic.as_bytes() {
                found.push(i32::try_from(partition).ok()?);
            }
        }
    }
    Some(found)
}

/// An unsigned number of so many bytes: none of these is ever negative.
fn number<const N: usize>(bytes: &mut &[u8]) -> Option<u32> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(head.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_one_topic_are_found_among_others() {
        let assignment = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x01\0\0\0\x07\0\x02in\0\0\0\x02\0\0\0\0\0\0\x01\x05\xff\xff\xff\xff";
        assert_eq!(partitions_of("in", assignment), Some(vec![0, 261]));
        assert_eq!(partitions_of("b", assignment), Some(vec![]));
        assert_eq!(partitions_of("in", &assignment[..30]), None);
        assert_eq!(partitions_of("in", b""), None);
    }
}
