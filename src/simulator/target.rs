//! Where deliveries go: an `http` or `https` URL, taken apart once.

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery};
use tokio_rustls::rustls::pki_types::ServerName;

/// A URL of the relay, or of whatever stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: String,
    address: String,
    authority: Authority,
    path: PathAndQuery,
    /// Whose certificate is wanted; none: plain HTTP.
    server_name: Option<ServerName<'static>>,
}

impl Target {
    /// Takes a URL. The error says what is wanted.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| WANTED)?;
        let (is_secure, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(WANTED),
        };
        let parts = uri.into_parts();
        let authority =
            parts.authority.filter(|authority| !authority.as_str().contains('@')).ok_or(WANTED)?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port));
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let server_name = is_secure.then(|| ServerName::try_from(host)).transpose().map_err(|_| WANTED)?;
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { url: url.to_owned(), address, authority, path, server_name })
    }

    /// As given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port to connect to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whose certificate the server must have; none where it speaks plain HTTP.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
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

const WANTED: &str = "wanted a URL such as http://127.0.0.1:8080/clearfeed/events or https://hooks.example.com/clearfeed/events";

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
        assert_eq!(target.server_name(), None);
        let target = Target::parse("https://[::1]/a").unwrap();
        assert_eq!((target.address(), target.server_name().unwrap().to_str()), ("[::1]:443", "::1".into()));
    }

    #[test]
    fn refuses_what_it_cannot_send_to() {
        for url in ["", "/path", "localhost:8080", "ftp://host/", "http://user@host/", "http://"] {
            assert_eq!(Target::parse(url), Err(WANTED), "{url}");
        }
    }
}
