//! Listeners: bytes in, bytes out. One file per transport; what the bytes mean is [`Respond`]'s business.
//!
//! `net` and `serve` do not know each other: `node::worker` joins them.

mod arena;
pub mod bind;
pub mod steer;
pub mod streams;
pub mod tcp;
pub mod udp;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

pub use arena::bytes as arena_bytes;

/// Where a reply goes: back the way its request came.
#[derive(Clone, Debug)]
pub enum Path {
    /// A datagram from `peer`.
    Udp(UdpPath),
    /// A query on an open stream.
    Tcp(TcpPath),
}

impl Path {
    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Udp(path) => path.peer,
            Self::Tcp(path) => path.peer,
        }
    }

    /// Which listener was asked: its index in `config::Node::listen`.
    #[must_use]
    pub const fn listener(&self) -> u16 {
        match self {
            Self::Udp(path) => path.listener,
            Self::Tcp(path) => path.listener,
        }
    }
}

/// The way back for a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UdpPath {
    /// Index of the listener in `config::Node::listen`.
    pub listener: u16,
    /// The client.
    pub peer: SocketAddr,
    /// On a wildcard listener the address that was asked: the reply leaves from it (`IP_PKTINFO`, RFC 2181 §4).
    pub local: Option<IpAddr>,
}

/// The way back for a query on a stream.
#[derive(Clone, Debug)]
pub struct TcpPath {
    /// Index of the listener in `config::Node::listen`.
    pub listener: u16,
    /// The client.
    pub peer: SocketAddr,
    /// The open connection; dead once the client has gone, and then the reply is dropped.
    pub connection: std::rc::Weak<dyn TcpReply>,
}

/// A connection that can still take replies; implemented by `net::tcp`.
pub trait TcpReply: std::fmt::Debug {
    /// Queues one whole reply message (without length prefix). Out-of-order replies are fine (RFC 7766 §6.2.1.1).
    fn reply(&self, message: &[u8]);
    /// The query behind this path gets no reply: its place in the pipeline is free again.
    fn forget(&self);
}

/// An upstream-facing UDP socket of this core's data plane.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketId(pub u16);

/// What a core does with the messages that arrive; implemented by `node::worker`.
pub trait Respond: 'static {
    /// A batch of messages begins: the place to read the clocks once.
    fn begin(&self);

    /// These requests of the batch come next: a chance to fetch from memory what they need, all at once. May do nothing.
    fn foresee<'d>(&self, requests: impl Iterator<Item = &'d [u8]>);

    /// Answers `request` into `reply` and returns the reply's length; 0 when nothing is to be sent now.
    ///
    /// When 0 is returned the responder may have kept a clone of `path` to answer later. Over TCP it then calls
    /// [`TcpReply::reply`] or [`TcpReply::forget`] exactly once, possibly before this returns.
    fn request(&self, request: &[u8], path: &Path, reply: &mut [u8]) -> usize;

    /// Takes a datagram that arrived from `from` on the upstream-facing `socket`.
    fn response(&self, socket: SocketId, from: SocketAddr, datagram: &[u8]);
}

/// A responder shared by all listeners of one core.
pub type Responder<R> = Rc<R>;
