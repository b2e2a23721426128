//! The smallest HTTP client: one request, one answer, one connection; sends whatever it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use clearfeed_relay::simulator::Delivery;

use super::SOON;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks for a path of the admin port.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    request(address, "GET", path, &[], b"")
}

/// Sends these bytes, and leaves the rest to the caller.
pub fn begin(address: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// A delivery as it is sent, byte by byte.
pub fn post(path: &str, delivery: &Delivery) -> Vec<u8> {
    let Delivery { body, signature, timestamp, retry_count, .. } = delivery;
    let signature = signature.as_ref().map(ToString::to_string).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\nx-cf-signature: {signature}\r\n\
         x-cf-timestamp: {timestamp}\r\nx-cf-retry-count: {retry_count}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads until the other side closes.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n")?;
    if method == "POST" {
        write!(stream, "content-length: {}\r\n", body.len())?;
    }
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(&[b"\r\n", body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}
