//! Where deliveries go: an `http` URL, taken apart once.

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery};

/// An `http` URL of the relay, or of whatever stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: String,
    address: String,
    authority: Authority,
    path: PathAndQuery,
}

impl Target {
    /// Takes a URL. The error says what is wanted.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| WANTED)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(NO_HTTPS),
            _ => return Err(WANTED),
        }
        let parts = uri.into_parts();
        let authority =
            parts.authority.filter(|authority| !authority.as_str().contains('@')).ok_or(WANTED)?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(HTTP_PORT));
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { url: url.to_owned(), address, authority, path })
    }

    /// As given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port to connect to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The `Host` header.
    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// What the request line carries.
    pub(super) fn path(&self) -> PathAndQuery {
        self.path.clone()
    }
}

const HTTP_PORT: u16 = 80;
const WANTED: &str = "wanted a URL such as http://127.0.0.1:8080/clearfeed/events";
const NO_HTTPS: &str = "this version speaks plain HTTP; use http:// to the relay's port, \
                        and --signed-url for the https URL that is signed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let target = Target::parse("http://relay.local:8080/clearfeed/events?a=b").unwrap();
        assert_eq!(target.address(), "relay.local:8080");
        assert_eq!(target.authority(), "relay.local:8080");
        assert_eq!(target.path().as_str(), "/clearfeed/events?a=b");
    }

    #[test]
    fn port_and_path_have_defaults_and_ipv6_keeps_its_brackets() {
        let target = Target::parse("http://[::1]").unwrap();
        assert_eq!((target.address(), target.path().as_str()), ("[::1]:80", "/"));
    }

    #[test]
    fn refuses_what_it_cannot_send_to() {
        assert_eq!(Target::parse("https://hooks.example.com/x"), Err(NO_HTTPS));
        for url in ["", "/path", "localhost:8080", "ftp://host/", "http://user@host/", "http://"] {
            assert_eq!(Target::parse(url), Err(WANTED), "{url}");
        }
    }
}
