//! The Personal Access Token: read from its file each time that it is used, so that a new one counts from the next request on.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use zeroize::Zeroizing;

/// Longer than any token: what is larger is some other file.
const MAX_BYTES: usize = 8 * 1024;
/// RFC 6750: how a token is shown to the server.
const SCHEME: &[u8] = b"Bearer ";

/// A token, zeroed when it is dropped and never shown. (The bytes that hyper and TLS make of a request are theirs.)
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<Vec<u8>>);

/// Why a file has no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not there, or not ours to read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is empty, or has more in it.
    #[error("found {found}, wanted one Personal Access Token, without white space inside")]
    NoToken {
        /// What stands there in its place, in words.
        found: &'static str,
    },
}

impl Token {
    /// Reads a file. White space around the token is the editor's.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        // With room for all of it: a vector that grows leaves copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(2 * MAX_BYTES));
        File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
        if content.len() > MAX_BYTES {
            return Err(TokenError::NoToken { found: "a file of more than 8 KiB" });
        }
        Self::new(&content)
    }

    /// Takes the token's text.
    pub fn new(text: &[u8]) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(TokenError::NoToken { found: "nothing" });
        }
        if text.iter().any(u8::is_ascii_whitespace) {
            return Err(TokenError::NoToken { found: "white space inside" });
        }
        if !text.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NoToken { found: "other than visible ASCII characters" });
        }
        Ok(Self(Zeroizing::new(text.to_vec())))
    }

    /// The value of the header `Authorization`.
    pub(super) fn authorization(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = Zeroizing::new(Vec::with_capacity(SCHEME.len() + self.0.len()));
        value.extend_from_slice(SCHEME);
        value.extend_from_slice(&self.0);
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_token_is_the_editors() {
        let token = Token::new(b" \n pat-0123.abc=\r\n").unwrap();
        assert_eq!(token, Token::new(b"pat-0123.abc=").unwrap());
        let header = token.authorization().unwrap();
        assert_eq!(header, "Bearer pat-0123.abc=");
        assert!(!format!("{token:?}{header:?}").contains("0123"), "shown: {token:?}{header:?}");
    }

    #[test]
    fn what_is_no_token_is_told_without_being_shown() {
        for (content, told) in [
            (&b" \n"[..], "nothing"),
            (b"hunter2 hunter3", "white space"),
            (b"hunter2\nhunter3", "white space"),
            ("hünter2".as_bytes(), "visible ASCII"),
            (b"hunter2\0", "visible ASCII"),
        ] {
            let error = Token::new(content).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hunter"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert!(matches!(Token::read(&file), Err(TokenError::Unreadable(_))));
        std::fs::write(&file, "t".repeat(9000)).unwrap();
        assert!(Token::read(&file).unwrap_err().to_string().contains("more than 8 KiB"));
        std::fs::write(&file, "token\n").unwrap();
        assert_eq!(Token::read(&file).unwrap(), Token::new(b"token").unwrap());
    }
}
