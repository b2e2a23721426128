//! JSON as proxies and frameworks write it anew. It means the same, and its signature is another.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Deserializer, Serializer, Value};

use super::search::Variant;

/// What to do about a body that is not as it was signed.
const CHANGE: &str = "let whatever stands between ClearFeed and the relay pass the body on byte for byte (no JSON filter, no \
                      re-encoding, no template); a capture must be of the bytes, not of what a tool shows";

/// All forms of a body that something on its way may have had before itself or made of it.
pub(super) fn variants(body: &[u8]) -> Vec<Variant<Vec<u8>>> {
    let mut variants = vec![Variant::as_is(body.to_vec())];
    let mut add = |found: &str, other: Option<Vec<u8>>| {
        let is_new = |other: &Vec<u8>| variants.iter().all(|variant| variant.value != *other);
        if let Some(other) = other.filter(is_new) {
            variants.push(Variant::mistake(other, format!("the body was signed {found}"), CHANGE));
        }
    };
    add("without the line end after it", Some(body.trim_ascii_end().to_vec()));
    add("with a line end after it", Some([body, b"\n"].concat()));
    add("with LF line ends, not CRLF", Some(replaced(body, b"\r\n", b"\n")));
    add("with CRLF line ends, not LF", Some(replaced(&replaced(body, b"\r\n", b"\n"), b"\n", b"\r\n")));
    add("without the byte-order mark", body.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec));
    for (layout, written) in [
        ("as JSON without white space", written(body, CompactFormatter)),
        ("as JSON with a space after each comma and colon", written(body, Spaced)),
        ("as JSON indented by two spaces", written(body, PrettyFormatter::new())),
        ("as JSON indented by four spaces", written(body, PrettyFormatter::with_indent(b"    "))),
        ("as JSON indented by tabs", written(body, PrettyFormatter::with_indent(b"\t"))),
    ] {
        let Some(written) = written else { continue };
        let escaped = escaped(&written);
        add(
            &format!("{layout}, with slashes and characters escaped"),
            Some(escaped.replace('/', "\\/").into_bytes()),
        );
        add(&format!("{layout}, with characters escaped as \\u…"), Some(escaped.into_bytes()));
        add(layout, Some(written.into_bytes()));
    }
    let sorted = serde_json::from_slice::<Value>(body).ok().and_then(|value| serde_json::to_vec(&value).ok());
    add("as JSON with its keys in alphabetical order", sorted);
    variants
}

fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.windows(from.len()).position(|bytes| bytes == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// The same document, its keys in their order and no character escaped that need not be; none where it is no JSON.
fn written(body: &[u8], layout: impl Formatter) -> Option<String> {
    let mut written = Vec::with_capacity(body.len());
    let mut reader = Deserializer::from_slice(body);
    serde_transcode::transcode(&mut reader, &mut Serializer::with_formatter(&mut written, layout)).ok()?;
    reader.end().ok()?;
    String::from_utf8(written).ok()
}

/// JSON has characters beyond ASCII in its strings alone.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_ascii() {
            escaped.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// `", "` and `": "`, as Python's `json.dumps` has them.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
