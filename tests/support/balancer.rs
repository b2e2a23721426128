//! A load balancer before several replicas, which learns late that one of them is not ready any more, as Kubernetes does.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Relay, http, pause};

const POLL: Duration = Duration::from_millis(100);

/// Gives each connection to one of the replicas that it takes for ready, in turn.
pub struct Balancer {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    backends: Mutex<Vec<Backend>>,
    /// How long it goes on sending connections to a replica that said that it is not ready.
    late: Duration,
    turn: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Clone)]
struct Backend {
    intake: SocketAddr,
    admin: SocketAddr,
    /// Since when it says that it is not ready; none: it is.
    unready_since: Option<Instant>,
}

impl Balancer {
    pub fn new(late: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let inner = Inner {
            backends: Mutex::default(),
            late,
            turn: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        let balancer = Self { address: listener.local_addr().unwrap(), inner: Arc::new(inner) };
        let inner = Arc::clone(&balancer.inner);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|client| inner.connect(client)));
        let inner = Arc::clone(&balancer.inner);
        std::thread::spawn(move || inner.watch());
        balancer
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a replica that is ready.
    pub fn add(&self, relay: &Relay) {
        let backend = Backend { intake: relay.intake(), admin: relay.admin(), unready_since: None };
        self.inner.backends.lock().unwrap().push(backend);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::SeqCst);
    }
}

impl Inner {
    fn watch(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let backends = self.backends.lock().unwrap().clone();
            for Backend { admin, .. } in backends {
                let is_ready = http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
                for backend in self.backends.lock().unwrap().iter_mut().filter(|known| known.admin == admin) {
                    let since = backend.unready_since.unwrap_or_else(Instant::now);
                    backend.unready_since = (!is_ready).then_some(since);
                }
            }
            pause(POLL);
        }
    }

    fn connect(&self, client: TcpStream) {
        let backends = self.backends.lock().unwrap().clone();
        let taken_for_ready =
            |backend: &&Backend| backend.unready_since.is_none_or(|since| since.elapsed() < self.late);
        let ready: Vec<_> = backends.iter().filter(taken_for_ready).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // A refused connection is the sender's to see: that is what is tested.
        let Some(backend) = ready.get(turn % ready.len().max(1)) else { return };
        let Ok(relay) = TcpStream::connect(backend.intake) else { return };
        let (Ok(client_again), Ok(relay_again)) = (client.try_clone(), relay.try_clone()) else { return };
        std::thread::spawn(move || pass(client, relay));
        std::thread::spawn(move || pass(relay_again, client_again));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Read), to.shutdown(Shutdown::Write));
}
