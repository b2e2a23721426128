//! A TCP proxy before one broker, as bad as networks get.
//!
//! Clients follow the addresses that brokers advertise: the broker must advertise the proxy's ([`super::Kafka::behind`]).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Kafka, pause};

/// Of Kafka's protocol: ends a transaction, by commit or abort.
pub const END_TXN: i16 = 26;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Connections are closed, new ones at once.
    Cut,
    /// Each piece comes so much later, in both directions.
    Slow(Duration),
    /// Requests stay on their way, and arrive when the trouble is over.
    StalledRequests,
    /// Answers do.
    StalledAnswers,
    /// Requests of this kind (Kafka's api key; `None`: any) reach the broker, and their answers nobody, nor any later
    /// answer of the connection.
    LostAnswers(Option<i16>),
}

/// Passes everything on, unless there is trouble.
pub struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
}

#[derive(Default)]
struct Way {
    upstream: Mutex<Option<SocketAddr>>,
    trouble: Mutex<Option<Trouble>>,
    trouble_changed: Condvar,
    /// Connections that are open, to be closed all at once.
    open: Mutex<Vec<TcpStream>>,
    /// Requests whose answers were lost.
    lost: AtomicU32,
}

impl Proxy {
    /// Listens on a free port; connections are refused until there is a broker.
    pub fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), way: Arc::default() };
        let way = Arc::clone(&proxy.way);
        // Ends with the process; it holds nothing but a port.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|client| way.connect(client)));
        proxy
    }

    /// A broker of its own, and a proxy before it.
    pub fn with_kafka() -> (Self, Kafka) {
        let proxy = Self::listen();
        let kafka = Kafka::behind(1, std::slice::from_ref(&proxy), &[]);
        (proxy, kafka)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn forward_to(&self, upstream: SocketAddr) {
        *self.way.upstream.lock().unwrap() = Some(upstream);
    }

    /// Begins a trouble, which ends one that there is.
    pub fn begin(&self, trouble: Trouble) {
        self.way.change(Some(trouble));
    }

    /// Everything passes again. Connections that had gone silent are closed.
    pub fn heal(&self) {
        self.way.change(None);
    }

    /// How many requests lost their answers.
    pub fn lost(&self) -> u32 {
        self.way.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.begin(Trouble::Cut);
    }
}

impl Way {
    fn change(&self, trouble: Option<Trouble>) {
        let before = std::mem::replace(&mut *self.trouble.lock().unwrap(), trouble);
        self.trouble_changed.notify_all();
        if trouble == Some(Trouble::Cut) || matches!(before, Some(Trouble::LostAnswers(_))) {
            self.close_all();
        }
    }

    fn close_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap()
    }

    /// Waits until what is sent in a direction may pass.
    fn pass(&self, stalled: Trouble) {
        let trouble = self.trouble.lock().unwrap();
        let trouble = self.trouble_changed.wait_while(trouble, |trouble| *trouble == Some(stalled)).unwrap();
        let slow = if let Some(Trouble::Slow(length)) = *trouble { Some(length) } else { None };
        drop(trouble);
        if let Some(length) = slow {
            pause(length);
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let upstream = *self.upstream.lock().unwrap();
        let Some(upstream) = upstream.filter(|_| self.trouble() != Some(Trouble::Cut)) else { return };
        let Ok(broker) = TcpStream::connect(upstream) else { return };
        let ends = || Ok::<_, io::Error>([client.try_clone()?, broker.try_clone()?]);
        let Ok(ends) = ends() else { return };
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        self.open.lock().unwrap().extend(ends);
        if self.trouble() == Some(Trouble::Cut) {
            return self.close_all(); // it began in between
        }
        let (Ok(client_again), Ok(broker_again)) = (client.try_clone(), broker.try_clone()) else { return };
        let is_silent = Arc::new(AtomicBool::new(false));
        let (way, silence) = (Arc::clone(self), Arc::clone(&is_silent));
        std::thread::spawn(move || way.requests(client, broker, &silence));
        let way = Arc::clone(self);
        std::thread::spawn(move || way.answers(broker_again, client_again, &is_silent));
    }

    /// Passes requests on, one at a time.
    fn requests(&self, mut client: TcpStream, mut broker: TcpStream, is_silent: &AtomicBool) {
        while let Ok(request) = read_request(&mut client) {
            let api_key = i16::from_be_bytes([request[4], request[5]]);
            self.pass(Trouble::StalledRequests);
            if let Some(Trouble::LostAnswers(only)) = self.trouble()
                && only.is_none_or(|only| only == api_key)
            {
                self.lost.fetch_add(1, Ordering::SeqCst);
                is_silent.store(true, Ordering::SeqCst);
            }
            if broker.write_all(&request).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
    }

    /// Passes answers on, unless the connection has gone silent.
    fn answers(&self, mut broker: TcpStream, mut client: TcpStream, is_silent: &AtomicBool) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = broker.read(&mut buffer) {
            self.pass(Trouble::StalledAnswers);
            if !is_silent.load(Ordering::SeqCst) && client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
    }
}

/// A whole request: its length in four bytes, then the api key in two, then the rest.
fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = vec![0; 4];
    client.read_exact(&mut request)?;
    let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
    request.resize(4 + length.max(2) as usize, 0);
    client.read_exact(&mut request[4..])?;
    Ok(request)
}
