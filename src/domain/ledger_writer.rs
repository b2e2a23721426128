//! Who wrote a ledger record: a header that versions before it do not read.

/// The header's name.
pub const HEADER: &str = "by";

/// A member of a consumer group, by the id of its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// `forward.group`
    pub group: String,
    /// `forward.transactional_id`
    pub transactional_id: String,
}

impl Writer {
    /// The header's value: group, tab, transactional id.
    pub fn encode(&self) -> Vec<u8> {
        format!("{}\t{}", self.group, self.transactional_id).into_bytes()
    }

    /// Reads the header's value; `None` where it is another hand's.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (group, transactional_id) = std::str::from_utf8(value).ok()?.split_once('\t')?;
        Some(Self { group: group.to_owned(), transactional_id: transactional_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_read_back_and_anything_else_is_nobody() {
        let writer = Writer { group: "a group".to_owned(), transactional_id: "a-0".to_owned() };
        assert_eq!(Writer::decode(&writer.encode()), Some(writer));
        assert_eq!(Writer::decode(b"a-0"), None);
        assert_eq!(Writer::decode(b"\xff\t"), None);
    }
}
