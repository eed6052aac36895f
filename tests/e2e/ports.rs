//! Addresses for the parties of a test: loopback addresses that belong to this process, and temporary directories.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral ports, so that no client socket takes one between our look and the server's bind.
const PORTS: Range<u16> = 20_400..21_000;

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn counter() -> u16 {
    static COUNTER: AtomicU16 = AtomicU16::new(1);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// An IPv4 loopback address that no other process of this test run uses.
pub(crate) fn loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let [.., last] = counter().to_be_bytes();
    Ipv4Addr::new(127, 0x40 | high, low, last.max(1))
}

/// `ip` with a port that is free for UDP and TCP now.
pub(crate) fn free(ip: IpAddr) -> SocketAddr {
    let span = u64::from(PORTS.end - PORTS.start);
    for _ in 0..100 {
        let port = PORTS.start + u16::try_from(random() % span).unwrap();
        let address = SocketAddr::new(ip, port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port on {ip} in {PORTS:?}");
}

/// An address of this process's own with a free port.
pub(crate) fn own() -> SocketAddr {
    free(loopback().into())
}

/// A directory that is removed with this value. Short, because paths of Unix sockets are.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn create() -> Self {
        let name = format!("heimdall-e2e-{}-{}", std::process::id(), counter());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind lies in the system's temporary directory and harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
