//! What repeats are told by: 128 bits of SHA-256 over an event's identity, and 64 bits of its body's.

use sha2::{Digest, Sha256};

/// SHA-256 of a body.
pub type BodyDigest = [u8; 32];

/// The digest of a body's bytes.
pub fn body_digest(body: &[u8]) -> BodyDigest {
    Sha256::digest(body).into()
}

/// 64 bits of a body's digest: enough to tell two bodies of one event id apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyHash(pub u64);

impl From<&BodyDigest> for BodyHash {
    fn from(digest: &BodyDigest) -> Self {
        Self(digest.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte)))
    }
}

/// 128 bits of SHA-256 over an identity. Two of ten million ids collide with a probability of 10^-25.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// An event: its id within its source and request.
    pub fn event(source: &str, request: Option<u64>, id: &str) -> Self {
        Self::over("event", source, request, id.as_bytes(), &[])
    }

    /// The same id in the same request with another body: remembered apart, so that its own repeats are repeats.
    pub fn conflict(source: &str, request: Option<u64>, id: &str, body: &BodyDigest) -> Self {
        Self::over("conflict", source, request, id.as_bytes(), body)
    }

    /// What has no readable id is told by its body.
    pub fn body(source: &str, body: &BodyDigest) -> Self {
        Self::over("body", source, None, &[], body)
    }

    fn over(kind: &str, source: &str, request: Option<u64>, id: &[u8], body: &[u8]) -> Self {
        let mut sha = Sha256::new();
        let request = request.map(u64::to_be_bytes);
        let request = request.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        for part in [kind.as_bytes(), source.as_bytes(), request, id, body] {
            // Each part behind its length: no two lists of parts give the same bytes.
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
        Self(sha.finalize().iter().take(16).fold(0, |print, &byte| print << 8 | u128::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_that_differ_in_anything_differ() {
        let digest = body_digest(b"x");
        let prints = [
            Fingerprint::event("main", Some(1), "a"),
            Fingerprint::event("main", Some(2), "a"),
            Fingerprint::event("main", None, "a"),
            Fingerprint::event("other", Some(1), "a"),
            Fingerprint::event("mainm", Some(1), ""),
            Fingerprint::conflict("main", Some(1), "a", &digest),
            Fingerprint::body("main", &digest),
        ];
        for (i, a) in prints.iter().enumerate() {
            assert!(prints.iter().skip(i + 1).all(|b| a != b), "{i}");
        }
    }
}
