//! One connection to the API, over TLS unless it is this machine's own.
//!
//! The simulator has a connection of its own, for it may know nothing of the relay but its domain.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::ApiUrl;

/// How long a connection, and then TLS, is waited for: a SYN that is lost twice is forgiven.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Sender = SendRequest<Empty<Bytes>>;

/// Connects. The error says what failed.
pub(super) async fn open(url: &ApiUrl) -> Result<Sender, String> {
    let stream = within("no connection", TcpStream::connect((url.host(), url.port()))).await?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    if !url.is_secure() {
        return handshake(stream).await;
    }
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| format!("no TLS: {error}"))?;
    // Nothing is sent before the server has shown a certificate for the name that we asked for.
    handshake(within("no TLS", connector()?.connect(name, stream)).await?).await
}

async fn within<T, E: Display>(what: &str, attempt: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(result) => result.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what} within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// Trusts whom this machine trusts: its own roots, or those in the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Made
/// for each connection, which are few, so that roots that change are taken.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    // A root that cannot be read is one that is not trusted: the handshake tells.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when its sender is dropped or the server closes; whoever waits for an answer is told of its error.
    tokio::spawn(connection);
    Ok(sender)
}
