//! What else may have been signed: each likely mistake, alone and together with others, until one gives the signature.

use clearfeed_relay::domain::signature::{Secret, Signature, SignedMessage, UrlForm};

/// A mistake, as the value that would be right.
pub(super) struct Variant<T> {
    pub(super) value: T,
    /// None: as it is configured, or as it came.
    pub(super) cause: Option<Cause>,
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Cause {
    pub(super) found: String,
    pub(super) change: String,
}

impl<T> Variant<T> {
    pub(super) fn as_is(value: T) -> Self {
        Self { value, cause: None }
    }

    pub(super) fn mistake(value: T, found: impl Into<String>, change: impl Into<String>) -> Self {
        Self { value, cause: Some(Cause { found: found.into(), change: change.into() }) }
    }
}

/// A URL that need not be one that the relay would take.
pub(super) struct Url {
    pub(super) whole: String,
    path: String,
}

impl Url {
    pub(super) fn new(url: &str) -> Self {
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let path = url[after_scheme..].find('/').map_or("", |at| &url[after_scheme + at..]);
        Self { whole: url.to_owned(), path: path.to_owned() }
    }

    fn form(&self, form: UrlForm) -> &str {
        match form {
            UrlForm::Whole => &self.whole,
            UrlForm::Path => &self.path,
        }
    }
}

/// All that is tried.
pub(super) struct Space {
    /// Of several that explain the signature equally well the first counts.
    pub(super) signers: Vec<Signer>,
    pub(super) verbs: Vec<Variant<&'static str>>,
    pub(super) bodies: Vec<Variant<Vec<u8>>>,
    pub(super) timestamps: Vec<Variant<Vec<u8>>>,
}

/// What differs from source to source.
pub(super) struct Signer {
    pub(super) secrets: Vec<Variant<Secret>>,
    pub(super) urls: Vec<Variant<Url>>,
}

/// What gave the signature.
pub(super) struct Found {
    /// Index of the signer.
    pub(super) signer: usize,
    pub(super) form: UrlForm,
    /// Whether a cause is about the timestamp.
    pub(super) tells_timestamp: bool,
    pub(super) causes: Vec<Cause>,
}

/// More mistakes at once than these are not looked for: the search would take minutes, and they are not made.
const MAX_MISTAKES: usize = 3;

impl Space {
    /// The fewest mistakes that explain the signature; and how many signatures were tried.
    pub(super) fn find(&self, signature: &Signature) -> (Option<Found>, usize) {
        let mut tried = 0;
        let found = (0..=MAX_MISTAKES).find_map(|mistakes| {
            (0..self.signers.len()).find_map(|signer| self.find_with(mistakes, signer, signature, &mut tried))
        });
        (found, tried)
    }

    fn find_with(
        &self,
        mistakes: usize,
        signer: usize,
        signature: &Signature,
        tried: &mut usize,
    ) -> Option<Found> {
        let Signer { secrets, urls } = &self.signers[signer];
        let lines = || {
            let verbs_of = |url| self.verbs.iter().map(move |verb| (url, verb));
            let forms_of = |(url, verb)| UrlForm::ALL.into_iter().map(move |form| (url, verb, form));
            urls.iter().flat_map(verbs_of).flat_map(forms_of)
        };
        let rests = || {
            self.bodies.iter().flat_map(|body| self.timestamps.iter().map(move |timestamp| (body, timestamp)))
        };
        for secret in secrets {
            for (url, verb, form) in lines() {
                for (body, timestamp) in rests() {
                    let causes = [&secret.cause, &url.cause, &verb.cause, &body.cause, &timestamp.cause];
                    let causes = causes.into_iter().flatten();
                    if causes.clone().count() != mistakes {
                        continue;
                    }
                    *tried += 1;
                    let (verb, url) = (verb.value, url.value.form(form));
                    let message = SignedMessage { verb, url, body: &body.value, timestamp: &timestamp.value };
                    if secret.value.verifies(&message, signature) {
                        let tells_timestamp = timestamp.cause.is_some();
                        return Some(Found {
                            signer,
                            form,
                            tells_timestamp,
                            causes: causes.cloned().collect(),
                        });
                    }
                }
            }
        }
        None
    }
}
