//! Whom a request comes from, as the log tells it. Nothing else depends on it: addresses prove nothing.

use std::net::IpAddr;

use hyper::header::HeaderMap;
use ipnet::IpNet;

/// What proxies write the address of their own peer into, each behind what it got.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Networks of proxies whose `X-Forwarded-For` is believed.
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The nearest address that is no trusted proxy's, from the connection's peer backwards. What stands before it anybody
    /// may have written.
    pub(super) fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let values = headers.get_all(FORWARDED_FOR).into_iter().rev();
        let texts = values.map(|value| value.to_str().unwrap_or_default());
        let mut hops = texts.flat_map(|value| value.rsplit(',')).map(|hop| hop.trim().parse::<IpAddr>());
        let mut sender = peer.to_canonical();
        while self.0.iter().any(|network| network.contains(&sender)) {
            let Some(Ok(hop)) = hops.next() else { break };
            sender = hop.to_canonical();
        }
        sender
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_the_nearest_that_is_no_trusted_proxy() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (peer, forwarded, wanted) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.1.2.3", &["203.0.113.9, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
            ("fd00::1", &["203.0.113.9", "2001:db8::1"], "2001:db8::1"),
            ("10.1.2.3", &["198.51.100.7, nonsense"], "10.1.2.3"),
            ("10.1.2.3", &["10.0.0.9"], "10.0.0.9"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let sender = proxies.sender(peer.parse().unwrap(), &headers);
            assert_eq!(sender, wanted.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
