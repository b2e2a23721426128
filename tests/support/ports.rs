//! Ports that no other test has, nor any broker of `script/kafka`, in whatever checkout.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Below those that Linux gives to outgoing connections: none of them sits on the port of something that is to come back.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody has, for as long as this process lives.
pub fn free_port() -> u16 {
    let leases = leases();
    fs::create_dir_all(&leases).unwrap();
    let lock = File::open(&leases).unwrap();
    lock.lock().unwrap(); // until it is dropped
    loop {
        let port = fastrand::u16(PORTS);
        let lease = leases.join(port.to_string());
        if lease.exists() || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
            continue;
        }
        // Of somebody who is gone: `exists` asks for what a link leads to.
        let _ = fs::remove_file(&lease);
        symlink(Path::new("/proc").join(std::process::id().to_string()), lease).unwrap();
        return port;
    }
}

/// Whose a port is: the folder of a cluster, or of a process.
pub fn lessee(port: u16) -> Option<PathBuf> {
    fs::read_link(leases().join(port.to_string())).ok()
}

/// Where `script/kafka`, which says what a lease is, has them.
#[expect(clippy::disallowed_methods, reason = "not the relay's environment but the tests'")]
fn leases() -> PathBuf {
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|_| Path::new(&std::env::var("HOME").unwrap()).join(".cache"));
    cache.join("clearfeed-relay/ports")
}
