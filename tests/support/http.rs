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
    [head(path, delivery, delivery.body.len()).as_bytes(), &delivery.body].concat()
}

/// The head of a delivery that announces a body of this length.
pub fn head(path: &str, delivery: &Delivery, length: usize) -> String {
    let Delivery { signature, timestamp, retry_count, .. } = delivery;
    let signature = signature.as_ref().map(ToString::to_string).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\nx-cf-signature: {signature}\r\n\
         x-cf-timestamp: {timestamp}\r\nx-cf-retry-count: {retry_count}\r\n\r\n"
    )
}

/// Whether the other side closed it: told apart from one that says nothing until the time-out.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) if [BrokenPipe, ConnectionReset].contains(&error.kind()) => true,
        Err(error) => panic!("neither closed nor answered: {error}"),
    }
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
    answer(&mut stream)
}

/// The next answer on this connection.
pub fn answer(stream: &mut impl Read) -> std::io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = Vec::new();
    // The answer to HEAD has a length and no body.
    stream.take(length.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}
