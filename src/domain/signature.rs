//! ClearFeed's signature: HMAC-SHA256 over verb + URL + body + timestamp, concatenated without separators.

use std::fmt;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Shorter secrets could be guessed; they do not start.
pub const MIN_SECRET_BYTES: usize = 16;
/// HMAC-SHA256 gives 32 bytes, 64 hex digits.
pub const SIGNATURE_BYTES: usize = 32;

/// A signing secret. Its bytes are zeroed on drop and never shown.
#[derive(Clone)]
pub struct Secret {
    /// The key schedule: the secret itself is not kept.
    keyed: Hmac<Sha256>,
}

/// Why a file's content is no signing secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short to withstand guessing.
    #[error("{found} bytes, wanted at least {MIN_SECRET_BYTES}")]
    TooShort {
        /// Bytes without the trailing newline.
        found: usize,
    },
    /// A space or newline inside: most likely two secrets in one file.
    #[error("white space inside, wanted one secret without any")]
    WhiteSpace,
}

impl Secret {
    /// Takes the content of a secret file: one trailing newline is the editor's, not the secret's.
    pub fn from_file_content(content: Vec<u8>) -> Result<Self, SecretError> {
        let content = Zeroizing::new(content);
        let secret = content.strip_suffix(b"\n").unwrap_or(&content);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.iter().any(u8::is_ascii_whitespace) {
            return Err(SecretError::WhiteSpace);
        }
        Self::new(secret)
    }

    /// Takes the secret's bytes.
    pub fn new(secret: &[u8]) -> Result<Self, SecretError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(SecretError::TooShort { found: secret.len() });
        }
        // HMAC takes keys of any length; the error exists for other kinds of MAC.
        let keyed =
            Hmac::new_from_slice(secret).map_err(|_| SecretError::TooShort { found: secret.len() })?;
        Ok(Self { keyed })
    }

    /// The signature that ClearFeed would send for this message.
    pub fn sign(&self, message: &SignedMessage<'_>) -> [u8; SIGNATURE_BYTES] {
        self.mac(message).finalize().into_bytes().into()
    }

    /// Whether this secret made the signature; takes the same time whatever the answer.
    pub fn verifies(&self, message: &SignedMessage<'_>, signature: &Signature) -> bool {
        self.mac(message).verify_slice(&signature.0).is_ok()
    }

    fn mac(&self, message: &SignedMessage<'_>) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(message.verb.as_bytes());
        mac.update(message.url.as_bytes());
        mac.update(message.body);
        mac.update(message.timestamp);
        mac
    }
}

/// Whether both make the same signatures; in the same time, whatever the answer.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let message = SignedMessage { verb: "", url: "", body: &[], timestamp: &[] };
        self.verifies(&message, &Signature(other.sign(&message)))
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is signed, in the order in which it is concatenated.
#[derive(Debug, Clone, Copy)]
pub struct SignedMessage<'a> {
    /// `POST`
    pub verb: &'a str,
    /// The whole URL, or its path and query.
    pub url: &'a str,
    /// The body's bytes as they came.
    pub body: &'a [u8],
    /// The timestamp header's bytes as they came.
    pub timestamp: &'a [u8],
}

/// The 32 bytes of an `X-CF-Signature` header.
#[derive(Debug, Clone, Copy)]
pub struct Signature([u8; SIGNATURE_BYTES]);

impl Signature {
    /// Reads 64 hex digits, lower or upper case; nothing before or after them.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; SIGNATURE_BYTES];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// Which form of the URL a signature was made over: ClearFeed's text does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlForm {
    /// `https://host/path?query`, as saved in Developer Settings.
    Whole,
    /// `/path?query` alone.
    Path,
}

impl UrlForm {
    /// Both, in the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Whole, Self::Path];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "url",
            Self::Path => "path",
        }
    }
}

/// The URL saved in ClearFeed's Developer Settings: what signatures are made over, and the path that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedUrl {
    whole: String,
    path_start: usize,
}

impl SignedUrl {
    /// Takes an `https` URL with a path, without user and fragment. The error says what is wanted.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let rest = url.strip_prefix("https://").ok_or("a URL that starts with https://")?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        if authority.is_empty() || authority.contains('@') {
            return Err("a URL with a host and without a user");
        }
        if !path.starts_with('/') {
            return Err("a URL with a path, such as https://hooks.example.com/clearfeed/events");
        }
        if path.contains('#') {
            return Err("a URL without a fragment");
        }
        if !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a URL of visible ASCII characters");
        }
        Ok(Self { whole: url.to_owned(), path_start: url.len() - path.len() })
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// The host that it names, without a port.
    pub fn host(&self) -> &str {
        let authority = &self.whole["https://".len()..self.path_start];
        let port = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        &authority[..port.unwrap_or(authority.len())]
    }

    /// The path alone: what tells sources apart.
    pub fn path(&self) -> &str {
        let path = self.path_and_query();
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// Path and query, as a request line carries them.
    pub fn path_and_query(&self) -> &str {
        &self.whole[self.path_start..]
    }

    /// The text that is signed in this form.
    pub fn form(&self, form: UrlForm) -> &str {
        match form {
            UrlForm::Whole => &self.whole,
            UrlForm::Path => self.path_and_query(),
        }
    }
}

/// The secrets of one source: slot 0 is the current one, later slots are previous ones. A slot is a configured file's
/// and keeps its number when another file is missing.
#[derive(Debug, Clone)]
pub struct Keyring {
    slots: Vec<Option<Secret>>,
}

/// What matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index of the secret's slot.
    pub slot: usize,
    /// The form of the URL.
    pub form: UrlForm,
}

impl Keyring {
    /// Takes the slots, current first; `None` where a previous secret is retired already.
    pub fn new(slots: Vec<Option<Secret>>) -> Self {
        Self { slots }
    }

    /// Number of slots, empty ones too.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Which secret and form of the URL made the signature. All secrets are tried, without an early exit, so that
    /// time does not tell which one matched; the form of the URL is no secret, and the second one is tried
    /// only where the first did not match.
    pub fn verify(
        &self,
        verb: &str,
        url: &SignedUrl,
        body: &[u8],
        timestamp: &[u8],
        signature: &Signature,
    ) -> Option<Match> {
        UrlForm::ALL.into_iter().find_map(|form| {
            let message = SignedMessage { verb, url: url.form(form), body, timestamp };
            let mut matched = None;
            for (slot, secret) in self.slots.iter().enumerate() {
                if secret.as_ref().is_some_and(|secret| secret.verifies(&message, signature)) {
                    matched = matched.or(Some(Match { slot, form }));
                }
            }
            matched
        })
    }
}
