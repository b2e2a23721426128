//! A request's head, read more strictly than hyper reads it.
//!
//! hyper takes what many senders get wrong, and where two readers of one byte stream disagree about where a request ends,
//! the rest of it becomes a second request that the first reader never saw (request smuggling, CWE-444). Behind an ingress
//! we are the second reader. So what can be read in two ways is refused here, before hyper sees it: RFC 9112 allows that
//! everywhere, and no client that ClearFeed or a proxy could use sends any of it.

use httparse::{EMPTY_HEADER, Error, Header, Status};
use memchr::memchr_iter;

/// Headers of a request: ClearFeed sends about ten, proxies add about ten more.
pub const MAX_HEADERS: usize = 64;
/// Bytes of a request's head.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A head that can be read in one way only.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its bytes, with the empty line at its end.
    pub length: usize,
    /// What follows it.
    pub body: Framing,
}

/// How a body's end is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its number of bytes; 0 without a body.
    Length(u64),
    /// By its last chunk.
    Chunked,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// No HTTP/1.1 or HTTP/1.0, or ambiguous.
    Malformed(&'static str),
    /// More bytes or headers than the limits.
    TooLarge,
}

use HeadError::Malformed;

/// Reads a head from the beginning of these bytes; `None` where it is not complete.
pub fn read(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes).map_err(|error| match error {
        Error::TooManyHeaders => HeadError::TooLarge,
        Error::Version => Malformed("wanted HTTP/1.1"),
        Error::HeaderName | Error::HeaderValue => Malformed("a header is malformed"),
        _ => Malformed("the request line is malformed"),
    })?;
    let length = match parsed {
        Status::Complete(length) if length <= MAX_HEAD_BYTES => length,
        Status::Partial if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Status::Complete(_) | Status::Partial => return Err(HeadError::TooLarge),
    };
    // httparse takes a line that ends without CR for a line; others take it for a part of the header before it.
    if !memchr_iter(b'\n', &bytes[..length]).all(|end| bytes[..end].ends_with(b"\r")) {
        return Err(Malformed("a line ends without CR"));
    }
    let is_http_10 = request.version == Some(0);
    // HTTP/1.0, which nginx and old health checks speak, knows no Host.
    if only(request.headers, "host", "several Host headers")?.is_none() && !is_http_10 {
        return Err(Malformed("no Host header"));
    }
    let announced = only(request.headers, "content-length", "several Content-Length headers")?;
    let coding = only(request.headers, "transfer-encoding", "several Transfer-Encoding headers")?;
    let body = match (announced, coding) {
        (None, None) => Framing::Length(0),
        (Some(digits), None) => Framing::Length(length_of_body(digits)?),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && !is_http_10 => Framing::Chunked,
        (None, Some(_)) => return Err(Malformed("wanted no Transfer-Encoding but chunked, in HTTP/1.1")),
        // CL.TE and TE.CL, the two classics: which of them counts is each reader's own choice.
        (Some(_), Some(_)) => return Err(Malformed("both Content-Length and Transfer-Encoding")),
    };
    Ok(Some(Head { length, body }))
}

/// The value of a header that may stand there once.
fn only<'a>(
    headers: &[Header<'a>],
    name: &str,
    several: &'static str,
) -> Result<Option<&'a [u8]>, HeadError> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Malformed(several)),
        (header, None) => Ok(header.map(|header| header.value)),
    }
}

/// Digits alone: Rust itself would read `+2`.
fn length_of_body(digits: &[u8]) -> Result<u64, HeadError> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    number.ok_or(Malformed("Content-Length is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_where_their_empty_line_ends() {
        for (head, rest, body) in [
            ("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n", "{}", Framing::Length(12)),
            ("\r\nGET /a HTTP/1.1\r\nhost: h\r\n\r\n", "GET", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", "", Framing::Length(0)),
            ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\n\r\n", "0\r\n", Framing::Chunked),
        ] {
            let whole = [head, rest].concat();
            assert_eq!(read(whole.as_bytes()), Ok(Some(Head { length: head.len(), body })), "{head:?}");
            for end in 0..head.len() {
                assert_eq!(read(&head.as_bytes()[..end]), Ok(None), "{:?}", &head[..end]);
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n");
        for (text, wanted) in [
            (
                post("Content-Length: 2\r\nTransfer-Encoding: chunked"),
                "both Content-Length and Transfer-Encoding",
            ),
            (post("Content-Length: 2\r\nContent-Length: 2"), "several Content-Length headers"),
            (post("Content-Length: 2, 2"), "Content-Length is no number"),
            (post("Content-Length:"), "Content-Length is no number"),
            (post("Content-Length: 18446744073709551616"), "Content-Length is no number"),
            (
                post("Transfer-Encoding: gzip, chunked"),
                "wanted no Transfer-Encoding but chunked, in HTTP/1.1",
            ),
            (
                post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
                "several Transfer-Encoding headers",
            ),
            (post("Host: h"), "several Host headers"),
            (post("a: b\nc: d"), "a line ends without CR"),
            (post(" folded"), "a header is malformed"),
            ("\nPOST / HTTP/1.1\r\nHost: h\r\n\r\n".into(), "a line ends without CR"),
            ("POST / HTTP/1.1\r\n\r\n".into(), "no Host header"),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                "wanted no Transfer-Encoding but chunked, in HTTP/1.1",
            ),
        ] {
            assert_eq!(read(text.as_bytes()), Err(Malformed(wanted)), "{text:?}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD_BYTES));
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(MAX_HEADERS + 1));
        for text in [long, many] {
            assert_eq!(read(text.as_bytes()), Err(HeadError::TooLarge));
        }
    }
}
