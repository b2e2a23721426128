//! The likely mistakes with secrets, URLs and timestamps.

use std::fmt::Write as _;
use std::path::Path;

use base64ct::{Base64, Encoding};
use clearfeed_relay::config::{Config, Source};
use clearfeed_relay::domain::delivery::HeaderValue;
use clearfeed_relay::domain::signature::{MIN_SECRET_BYTES, Secret, SignedUrl};
use zeroize::Zeroizing;

use super::capture::Capture;
use super::search::{Cause, Url, Variant};
use crate::commands::secrets;

/// The secrets of a source as the relay would have them now.
pub(super) fn in_force(source: &Source) -> Vec<Secret> {
    let files = source.signing_secret_files.iter().enumerate();
    files.filter_map(|(slot, file)| secrets::read(file, slot).ok()?).collect()
}

/// The secrets of a source that are in force; then what may have been meant by what stands in the files, its own and those of
/// the other sources. A file that cannot be read is `check`'s to tell of.
pub(super) fn secrets(config: &Config, source: &str) -> Vec<Variant<Secret>> {
    let own = config.sources.get(source).map(in_force).unwrap_or_default();
    let mut variants: Vec<_> = own.into_iter().map(Variant::as_is).collect();
    let mut names: Vec<_> = config.sources.keys().collect();
    names.sort_by_key(|name| *name != source);
    for name in names {
        for file in &config.sources[name].signing_secret_files {
            let Ok(content) = std::fs::read(file).map(Zeroizing::new) else { continue };
            for (meant, how) in meant(&content) {
                let Ok(secret) = Secret::new(&meant) else { continue };
                if variants.iter().all(|variant| variant.value != secret) {
                    let found = format!("signed with the secret in {}{how}", file.display());
                    variants.push(Variant::mistake(secret, found, advice(file, name, source)));
                }
            }
        }
    }
    variants
}

/// Secrets that have to be there and are not, or cannot be used: nothing could be tried with them.
pub(super) fn unreadable(config: &Config) -> Vec<Cause> {
    let files = config.sources.values().filter_map(|source| source.signing_secret_files.first());
    let told = files.filter_map(|file| Some((file.display(), secrets::read(file, 0).err()?)));
    told.map(|(file, problem)| Cause {
        found: format!("nothing could be tried with {file}: {problem}"),
        change: format!("save the signing secret in {file}"),
    })
    .collect()
}

/// What a file's content may be around the secret.
fn meant(content: &[u8]) -> Vec<(Zeroizing<Vec<u8>>, &'static str)> {
    let alone = content.trim_ascii();
    let quoted = |quote: &[u8]| alone.strip_prefix(quote)?.strip_suffix(quote);
    let assigned = alone.iter().position(|byte| *byte == b'=').map(|at| &alone[at + 1..]);
    let lines = alone.split(|byte| *byte == b'\n').map(|line| (Some(line), ", one line of it alone"));
    let decoded = std::str::from_utf8(alone).ok().and_then(|text| Base64::decode_vec(text).ok());
    let decoded = decoded.map(|decoded| (decoded.trim_ascii().to_vec(), ", decoded from base64"));
    [
        (Some(alone), ""),
        (quoted(b"\"").or(quoted(b"'")), " without its quotes"),
        (assigned, ", what stands behind its ="),
    ]
    .into_iter()
    .chain(lines)
    .filter_map(|(meant, how)| Some((meant?.trim_ascii().to_vec(), how)))
    .chain(decoded)
    .map(|(meant, how)| (Zeroizing::new(meant), how))
    .collect()
}

fn advice(file: &Path, name: &str, source: &str) -> String {
    let file = file.display();
    if name == source {
        return format!(
            "write the secret alone into {file}, at least {MIN_SECRET_BYTES} bytes, at most one newline after it"
        );
    }
    format!(
        "the delivery comes from the workspace whose secret is in {file}: save the URL of sources.{name} in its Developer \
         Settings, or put its secret into the files of sources.{source}"
    )
}

/// The URL of a source, and others that people save in Developer Settings instead.
pub(super) fn urls(
    config: &Config,
    public_url: &SignedUrl,
    source: &str,
    capture: &Capture,
) -> Vec<Variant<Url>> {
    let public_url = public_url.as_str();
    let (base, query) =
        public_url.split_once('?').map_or((public_url, None), |(base, query)| (base, Some(query)));
    let with_query = |base: &str| query.map_or(base.to_owned(), |query| format!("{base}?{query}"));
    let authority = base.strip_prefix("https://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let other_port =
        authority.rsplit_once(':').map_or(format!("{authority}:443"), |(host, _)| host.to_owned());
    let asked = capture.target.as_deref().filter(|target| target.starts_with('/'));
    let asked_query = asked.and_then(|target| target.split_once('?')).map(|(_, query)| query);
    let mut others = vec![
        with_query(&format!("{base}/")),
        with_query(base.trim_end_matches('/')),
        with_query(&base.replacen(authority, &other_port, 1)),
        base.to_owned(),
        public_url.to_lowercase(),
        with_query(&base.replacen(authority, &authority.to_lowercase(), 1)),
        public_url.replacen("https://", "http://", 1),
        format!("https://{authority}"),
        format!("https://{authority}/"),
    ];
    others.extend(asked_query.map(|query| format!("{base}?{query}")));
    others.extend(asked.map(|target| format!("https://{authority}{target}")));
    if let (HeaderValue::One(host), Some(target)) = (capture.header("host"), asked) {
        let host = String::from_utf8_lossy(host);
        others.extend([format!("https://{host}{target}"), format!("http://{host}{target}")]);
    }
    let mut variants = vec![Variant::as_is(Url::new(public_url))];
    for url in others {
        if variants.iter().all(|variant| variant.value.whole != url) {
            let mut advice = format!(
                "sources.{source}.public_url and the URL saved in Developer Settings differ: save {public_url} there"
            );
            if could_be_served(config, &url, source, asked) {
                let _ = write!(advice, ", or set sources.{source}.public_url = \"{url}\" here, and restart");
            }
            variants.push(Variant::mistake(Url::new(&url), format!("signed over the URL {url}"), advice));
        }
    }
    variants
}

/// Whether the relay could have this URL, and would then take what was asked for.
fn could_be_served(config: &Config, url: &str, source: &str, asked: Option<&str>) -> bool {
    SignedUrl::parse(url).is_ok_and(|url| {
        let mut others = config.sources.iter().filter(|(name, _)| *name != source);
        asked.is_none_or(|asked| asked == url.path_and_query())
            && others.all(|(_, other)| other.public_url.path() != url.path())
    })
}

/// The timestamp as it came, and as it may have been signed.
pub(super) fn timestamps(header: &[u8]) -> Vec<Variant<Vec<u8>>> {
    let advice =
        "let nothing on the way rewrite X-CF-Timestamp: ClearFeed sends seconds since 1970, ten digits";
    let mistake =
        |value: Vec<u8>, found: &str| Variant::mistake(value, format!("signed over {found}"), advice);
    let mut variants = vec![Variant::as_is(header.to_vec())];
    match header.len() {
        13 => variants
            .push(mistake(header[..10].to_vec(), "a timestamp in seconds; the header has milliseconds")),
        10 => variants
            .push(mistake([header, b"000"].concat(), "a timestamp in milliseconds; the header has seconds")),
        _ => {}
    }
    variants
}
