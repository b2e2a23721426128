//! A TCP proxy before one broker, which cuts connections, or loses answers of one kind.
//!
//! Clients follow the addresses that brokers advertise: the broker must advertise the proxy's ([`super::Kafka::behind`]).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::kafka::Kafka;

/// Of Kafka's protocol: ends a transaction, by commit or abort.
pub const END_TXN: i16 = 26;

const NONE: i32 = -1;

/// Passes everything on, until it is told otherwise.
pub struct Proxy {
    address: SocketAddr,
    switches: Arc<Switches>,
}

struct Switches {
    upstream: Mutex<Option<SocketAddr>>,
    /// Connections that are open, to be closed all at once.
    open: Mutex<Vec<TcpStream>>,
    /// While this is on, new connections are closed at once.
    is_cut: AtomicBool,
    /// Answers to requests of this kind are lost, and all later ones of the connection.
    lose: AtomicI32,
    lost: AtomicU32,
}

impl Proxy {
    /// Listens on a free port; connections are refused until [`Proxy::forward_to`].
    pub fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let switches = Arc::new(Switches {
            upstream: Mutex::default(),
            open: Mutex::default(),
            is_cut: AtomicBool::new(false),
            lose: AtomicI32::new(NONE),
            lost: AtomicU32::new(0),
        });
        let proxy = Self { address: listener.local_addr().unwrap(), switches: Arc::clone(&switches) };
        // Ends with the process; it holds nothing but a port.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|client| switches.connect(client)));
        proxy
    }

    /// A broker of its own behind a proxy.
    pub fn with_kafka() -> (Self, Kafka) {
        let proxy = Self::listen();
        let kafka = Kafka::behind(proxy.address.port(), |broker| proxy.forward_to(broker));
        (proxy, kafka)
    }

    /// Where it listens, as bootstrap servers.
    pub fn servers(&self) -> String {
        self.address.to_string()
    }

    pub fn forward_to(&self, upstream: SocketAddr) {
        *self.switches.upstream.lock().unwrap() = Some(upstream);
    }

    /// Closes all connections, and new ones at once.
    pub fn cut(&self) {
        self.switches.is_cut.store(true, Ordering::SeqCst);
        self.switches.close_all();
    }

    /// From now on requests of this kind (Kafka's api key) reach the broker, and their answers nobody.
    pub fn lose_answers_to(&self, api_key: i16) {
        self.switches.lose.store(api_key.into(), Ordering::SeqCst);
    }

    /// How many requests lost their answers.
    pub fn lost(&self) -> u32 {
        self.switches.lost.load(Ordering::SeqCst)
    }

    /// Everything passes again. Connections that had gone silent are closed.
    pub fn heal(&self) {
        self.switches.lose.store(NONE, Ordering::SeqCst);
        self.switches.is_cut.store(false, Ordering::SeqCst);
        self.switches.close_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Switches {
    fn close_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let upstream = *self.upstream.lock().unwrap();
        let Some(upstream) = upstream.filter(|_| !self.is_cut.load(Ordering::SeqCst)) else { return };
        let Ok(broker) = TcpStream::connect(upstream) else { return };
        let ends = || Ok::<_, io::Error>([client.try_clone()?, broker.try_clone()?]);
        let Ok(ends) = ends() else { return };
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        self.open.lock().unwrap().extend(ends);
        let (Ok(client_again), Ok(broker_again)) = (client.try_clone(), broker.try_clone()) else { return };
        let is_silent = Arc::new(AtomicBool::new(false));
        let (switches, silence) = (Arc::clone(self), Arc::clone(&is_silent));
        std::thread::spawn(move || switches.requests(client, broker, &silence));
        std::thread::spawn(move || answers(broker_again, client_again, &is_silent));
    }

    /// Passes requests on, one at a time.
    fn requests(&self, mut client: TcpStream, mut broker: TcpStream, is_silent: &AtomicBool) {
        while let Ok(request) = read_request(&mut client) {
            let api_key = i16::from_be_bytes([request[4], request[5]]);
            if i32::from(api_key) == self.lose.load(Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::SeqCst);
                is_silent.store(true, Ordering::SeqCst);
            }
            if broker.write_all(&request).is_err() {
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

/// Passes answers on, unless the connection has gone silent.
fn answers(mut broker: TcpStream, mut client: TcpStream, is_silent: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = broker.read(&mut buffer) {
        if !is_silent.load(Ordering::SeqCst) && client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
}
