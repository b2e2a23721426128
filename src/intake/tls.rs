//! The listener's own TLS: 1.2 and 1.3, HTTP/1.1 alone, and a certificate that can be replaced while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig};
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

/// A certificate chain with its key.
#[derive(Debug, Clone)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    not_before: Timestamp,
    not_after: Timestamp,
    names: Vec<String>,
}

/// Why a certificate and a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The certificate's file.
    #[error("the certificate cannot be read: {0}")]
    Certificate(pem::Error),
    /// The first certificate, which is the server's own.
    #[error("the certificate is malformed: {0}")]
    Malformed(#[from] der::Error),
    /// The key's file.
    #[error("the key cannot be read: {0}")]
    Key(pem::Error),
    /// They do not belong together, or are of a kind that is not known.
    #[error("certificate and key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

impl Pair {
    /// Reads a chain, the server's own certificate first, and its key, both PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(PairError::Certificate)?;
        let own = chain.first().ok_or(PairError::Certificate(pem::Error::NoItemsFound))?;
        let own = x509_cert::Certificate::from_der(own)?;
        let (validity, names) = (*own.tbs_certificate().validity(), names(&own));
        let key = PrivateKeyDer::from_pem_slice(key).map_err(PairError::Key)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
        let (not_before, not_after) = (timestamp(validity.not_before), timestamp(validity.not_after));
        Ok(Self { key: Arc::new(key), not_before, not_after, names })
    }

    /// From when on the server's own certificate is valid.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The hosts that it names, as it has them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the server's own certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn timestamp(time: Time) -> Timestamp {
    // What is beyond the calendar's end does not expire.
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok();
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MAX)
}

fn names(certificate: &x509_cert::Certificate) -> Vec<String> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok().flatten();
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let dns = names.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    dns.collect()
}

impl PartialEq for Pair {
    /// Compares the chains: a key has no other certificate than its own.
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

/// The pair that new connections are served with.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// Begins with this one.
    pub fn new(pair: &Pair) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(Arc::clone(&pair.key))))
    }

    /// Replaces it: connections that are open go on with the one before.
    pub fn replace(&self, pair: &Pair) {
        self.0.store(Arc::clone(&pair.key));
    }

    /// What makes TLS of TCP.
    pub(super) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
