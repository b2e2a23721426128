//! The header `v` of inbox and ledger records: the version of a record's format.

/// What a record that this version does not read says of its format.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// A larger number: a later version of the relay wrote it.
    Newer(String),
    /// Anything else: no version of the relay wrote it.
    Foreign(String),
    /// Nothing, likewise.
    Absent,
}

/// Whether a record has the format that this version reads, and the versions before wrote.
pub fn check(found: Option<&[u8]>, ours: &str) -> Result<(), Unread> {
    let Some(found) = found else { return Err(Unread::Absent) };
    let found = String::from_utf8_lossy(found);
    match (found.parse::<u64>(), ours.parse::<u64>()) {
        _ if found == ours => Ok(()),
        (Ok(number), Ok(ours)) if number > ours => Err(Unread::Newer(found.into_owned())),
        _ => Err(Unread::Foreign(found.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_larger_number_is_newer() {
        assert_eq!(check(Some(b"1"), "1"), Ok(()));
        for newer in ["2", "10", "18446744073709551615"] {
            assert_eq!(check(Some(newer.as_bytes()), "1"), Err(Unread::Newer(newer.to_owned())));
        }
        for foreign in ["", "0", "01", "+1", "-2", "1.1", "v2", "two", "18446744073709551616"] {
            assert_eq!(check(Some(foreign.as_bytes()), "1"), Err(Unread::Foreign(foreign.to_owned())));
        }
        assert_eq!(check(None, "1"), Err(Unread::Absent));
    }
}
