//! Where ClearFeed's REST API answers: `https`, or plain `http` on this machine alone, for a token travels with each request.

use std::fmt;
use std::net::IpAddr;

/// `https://api.clearfeed.app`, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl {
    text: String,
    is_secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl ApiUrl {
    /// Takes a URL without user, query and fragment. The error says what is wanted.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "a URL such as https://api.clearfeed.app";
        let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("a URL that starts with https://"),
        };
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a URL of visible ASCII characters");
        }
        if text.contains(['?', '#', '@']) {
            return Err("a URL without user, query and fragment");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority).ok_or(WANTED)?;
        let port = match port {
            Some(port) => port.parse().map_err(|_| WANTED)?,
            None if is_secure => 443,
            None => 80,
        };
        if host.is_empty() {
            return Err(WANTED);
        }
        if !is_secure && !is_loopback(host) {
            return Err("a URL that starts with https://: only to this machine a token may go without TLS");
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { text: text.trim_end_matches('/').to_owned(), is_secure, host: host.to_owned(), port, path })
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Name or address, that of IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Written or the scheme's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands before the paths of the API; mostly nothing.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the `Host` header says: host and port as written.
    pub fn authority(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Host and port of `host`, `host:port`, `[::1]` or `[::1]:port`.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return if port.is_empty() {
            Some((host, None))
        } else {
            Some((host, Some(port.strip_prefix(':')?)))
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (bool, String, u16, String, String) {
        let url = ApiUrl::parse(text).unwrap();
        (
            url.is_secure(),
            url.host().to_owned(),
            url.port(),
            url.path().to_owned(),
            url.authority().to_owned(),
        )
    }

    #[test]
    fn a_url_is_taken_apart() {
        let of = |secure, host: &str, port, path: &str, authority: &str| {
            (secure, host.to_owned(), port, path.to_owned(), authority.to_owned())
        };
        let api = of(true, "api.clearfeed.app", 443, "", "api.clearfeed.app");
        assert_eq!(parts("https://api.clearfeed.app"), api);
        assert_eq!(parts("https://api.clearfeed.app/"), api);
        assert_eq!(parts("https://proxy:8443/a/b/"), of(true, "proxy", 8443, "/a/b", "proxy:8443"));
        assert_eq!(parts("http://[::1]:80"), of(false, "::1", 80, "", "[::1]:80"));
        assert_eq!(parts("http://127.0.0.2"), of(false, "127.0.0.2", 80, "", "127.0.0.2"));
    }

    #[test]
    fn a_token_goes_nowhere_without_tls() {
        for url in ["http://api.clearfeed.app", "http://10.0.0.1", "http://localhost.example.com", "ftp://x"]
        {
            assert!(ApiUrl::parse(url).unwrap_err().contains("https://"), "{url}");
        }
        for url in [
            "https://",
            "https://a:b",
            "https://me@host",
            "https://host?x",
            "https://host/ x",
            "https://[::1",
        ] {
            assert!(ApiUrl::parse(url).is_err(), "{url}");
        }
    }
}
