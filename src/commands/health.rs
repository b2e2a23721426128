//! `health`: what the relay on this machine says of itself, as an exit code. For images without a shell.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{configuration, exit};

/// The admin port answers out of memory; kubelets and container engines give up after a second or some.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer, in bytes: some reasons of a line each.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that the relay runs with, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Ask whether it can make progress (/livez), not whether it is ready (/readyz)
    #[arg(long)]
    live: bool,
}

/// Asks, and prints what was answered.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = configuration::load(&arguments.config, None, |_, _| Vec::new())?;
    let address = reachable(config.admin.listen);
    ensure!(address.port() != 0, "admin.listen: found port 0, wanted the port that the relay took");
    let path = if arguments.live { "/livez" } else { "/readyz" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        let asked = tokio::time::timeout(TIMEOUT, ask(address, path)).await;
        asked.unwrap_or_else(|_| anyhow::bail!("no answer within {} s", TIMEOUT.as_secs()))
    });
    let (code, text) = match asked {
        Ok((StatusCode::OK, body)) => (ExitCode::SUCCESS, body),
        Ok((_, body)) => (ExitCode::from(exit::FAILED), body),
        Err(error) => (
            ExitCode::from(exit::OUT_OF_REACH),
            Bytes::from(format!("nobody answers at http://{address}{path}: {error:#}\n")),
        ),
    };
    std::io::stdout().write_all(&text).context("the answer could not be printed")?;
    Ok(code)
}

/// Where a listener of every address is reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error is the request's, too; the admin port closes it after the answer.
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_asked_on_loopback() {
        for (listen, wanted) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("127.0.0.2:9", "127.0.0.2:9"),
            ("10.1.2.3:9090", "10.1.2.3:9090"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), wanted.parse().unwrap());
        }
    }
}
