//! An upstream that does what it is told: answers late, cuts, lies, keeps silent, and remembers who asked what.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::client::framed;
use crate::message::Message;
use crate::node::{PATIENCE, eventually};
use crate::ports;

/// How often the server threads look whether the test is over.
const TICK: Duration = Duration::from_millis(20);

/// What to do about a query; several steps are done in order, silence is no step at all.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Reply(Vec<u8>),
    After(Duration, Vec<u8>),
    /// Once the gate is open.
    When(Gate, Vec<u8>),
    /// From another port of the same address.
    FromOtherPort(Vec<u8>),
    /// From another address.
    FromOtherAddress(Vec<u8>),
}

/// Holds replies back until the test opens it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(guard, PATIENCE, |is_open| !*is_open).unwrap());
    }
}

/// A query that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) message: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) is_tcp: bool,
}

impl Asked {
    /// The name asked for, in lower case, with the final dot.
    pub(crate) fn qname(&self) -> String {
        Message::parse(&self.message).qname.to_lowercase()
    }
}

type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

struct Inner {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    is_over: AtomicBool,
}

/// The server; its threads end when it is dropped.
pub(crate) struct Scripted {
    inner: Arc<Inner>,
    socket: Arc<UdpSocket>,
    pub(crate) address: SocketAddr,
}

impl Scripted {
    /// Serves UDP and TCP on an address of its own.
    pub(crate) fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_at(ports::own(), script)
    }

    /// Serves UDP and TCP on `address`.
    pub(crate) fn start_at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let asked = Mutex::default();
        let script = Box::new(script);
        let inner = Arc::new(Inner { script, asked, is_over: AtomicBool::new(false) });
        let socket = Arc::new(UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(TICK)).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (for_udp, for_tcp) = (Arc::clone(&inner), Arc::clone(&inner));
        let served = Arc::clone(&socket);
        std::thread::spawn(move || for_udp.serve_udp(&served));
        std::thread::spawn(move || for_tcp.serve_tcp(&listener));
        Self { inner, socket, address }
    }

    /// All queries so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// The latest `count` datagrams with queries.
    pub(crate) fn latest(&self, count: usize) -> Vec<Asked> {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().rev().filter(|asked| !asked.is_tcp).take(count).cloned().collect()
    }

    /// Sends a datagram that nobody asked for.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        // Nobody may be there any more.
        let _ = self.socket.send_to(datagram, to);
    }

    /// How many queries for `qname` came so far.
    pub(crate) fn count(&self, qname: &str) -> usize {
        self.asked().iter().filter(|asked| asked.qname() == qname).count()
    }

    /// Waits until a query for `qname` has come.
    pub(crate) fn wait_for(&self, qname: &str) {
        eventually(&format!("a query for {qname}"), || (self.count(qname) > 0).then_some(()));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn steps(&self, asked: Asked) -> Vec<Step> {
        let steps = (self.script)(&asked);
        self.asked.lock().unwrap().push(asked);
        steps
    }

    fn serve_udp(&self, socket: &Arc<UdpSocket>) {
        let mut buf = [0; 4096];
        while !self.is_over() {
            let Ok((len, from)) = socket.recv_from(&mut buf) else { continue };
            let steps = self.steps(Asked { message: buf[..len].to_vec(), from, is_tcp: false });
            let socket = Arc::clone(socket);
            let ip = socket.local_addr().unwrap().ip();
            perform(steps, ip, move |step_socket, bytes| {
                // The node may be gone already.
                let _ = step_socket.as_ref().unwrap_or(&socket).send_to(bytes, from);
            });
        }
    }

    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        while !self.is_over() {
            match listener.accept() {
                Ok((stream, from)) => {
                    let inner = Arc::clone(self);
                    std::thread::spawn(move || inner.converse(stream, from));
                }
                Err(_) => std::thread::sleep(TICK),
            }
        }
    }

    fn converse(&self, mut stream: TcpStream, from: SocketAddr) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut len = [0; 2];
        while stream.read_exact(&mut len).is_ok() {
            let mut message = vec![0; u16::from_be_bytes(len).into()];
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            let steps = self.steps(Asked { message, from, is_tcp: true });
            let mut stream = stream.try_clone().unwrap();
            let ip = stream.local_addr().unwrap().ip();
            perform(steps, ip, move |_, bytes| {
                let _ = stream.write_all(&framed(bytes));
            });
        }
    }
}

/// Does the steps; those that wait do it on a thread of their own.
fn perform(
    steps: Vec<Step>,
    ip: IpAddr,
    mut send: impl FnMut(Option<UdpSocket>, &[u8]) + Send + 'static,
) {
    let bound_to = |ip: IpAddr| Some(UdpSocket::bind((ip, 0)).unwrap());
    let waits = |step: &Step| matches!(step, Step::After(..) | Step::When(..));
    let must_wait = steps.iter().any(waits);
    let run = move || {
        for step in steps {
            match step {
                Step::Reply(bytes) => send(None, &bytes),
                Step::After(delay, bytes) => {
                    std::thread::sleep(delay);
                    send(None, &bytes);
                }
                Step::When(gate, bytes) => {
                    gate.wait();
                    send(None, &bytes);
                }
                Step::FromOtherPort(bytes) => send(bound_to(ip), &bytes),
                Step::FromOtherAddress(bytes) => {
                    send(bound_to(ports::loopback().into()), &bytes);
                }
            }
        }
    };
    if must_wait {
        std::thread::spawn(run);
    } else {
        run();
    }
}
