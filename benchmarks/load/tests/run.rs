//! The real binary against servers that answer all, nothing, or with lies.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_types, reason = "the servers asked are of the standard library")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// A server on a thread; what it replies is up to `reply`.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<SocketAddr>>>,
}

impl Server {
    fn begin(mut reply: impl FnMut(u64, &mut Vec<u8>) -> bool + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut count, mut clients) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let mut message = vec![0; 512];
                let Ok((len, client)) = socket.recv_from(&mut message) else { continue };
                message.truncate(len);
                count += 1;
                clients.push(client);
                message[2] |= 0x80;
                if reply(count, &mut message) {
                    socket.send_to(&message, client).unwrap();
                }
            }
            clients
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Whoever has asked.
    fn end(mut self) -> Vec<SocketAddr> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

fn load(server: &Server, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heimdall-load"))
        .args(["--server", &server.address.to_string(), "--json", "--quiet", "--warm-up", "0s"])
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

fn results(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_question_is_accounted_for() {
    let server = Server::begin(|count, _| !count.is_multiple_of(10));
    let output = load(&server, "--qps 500 --duration 1s --timeout 5s");
    let results = results(&output);
    assert!(output.status.success());
    assert_eq!(results["asked"], 500);
    assert_eq!((&results["answered"], &results["lost"]), (&450.into(), &50.into()), "{results}");
    assert_eq!(results["rcodes"]["NOERROR"], 450);
    assert_eq!(server.end().len(), 500);
}

#[test]
fn answers_to_other_questions_do_not_count() {
    let server = Server::begin(|count, message| {
        if count.is_multiple_of(2) {
            message[14] ^= 1;
        }
        true
    });
    let results = results(&load(&server, "--qps 200 --duration 500ms --timeout 5s"));
    assert_eq!((&results["answered"], &results["unexpected"]), (&50.into(), &50.into()));
    server.end();
}

#[test]
fn clients_are_as_many_as_asked_for() {
    let server = Server::begin(|_, _| true);
    let arguments = "--qps 2000 --duration 1s --from 127.77.0.0/24 --clients 50 --ports 3";
    assert_eq!(results(&load(&server, arguments))["lost"], 0);
    let clients = server.end();
    let mut addresses: Vec<_> = clients.iter().map(SocketAddr::ip).collect();
    let mut ports: Vec<_> = clients.iter().map(SocketAddr::port).collect();
    addresses.sort_unstable();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((addresses.len(), ports.len()), (50, 3));
}

#[test]
fn a_window_keeps_so_many_open() {
    let server = Server::begin(|_, _| false);
    let results = results(&load(&server, "--qps 0 --window 32 --duration 1s --timeout 400ms"));
    assert_eq!((&results["asked"], &results["answered"]), (&96.into(), &0.into()));
    server.end();
}

#[test]
fn streams_carry_many_questions_each() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut connections: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        // Each is read until its client leaves; the last one answers a hundred questions and hangs up.
        let last = connections.pop().unwrap();
        let threads: Vec<_> = connections
            .into_iter()
            .map(|stream| std::thread::spawn(move || answer(stream, usize::MAX)))
            .collect();
        let last = answer(last, 100);
        let again = answer(listener.accept().unwrap().0, usize::MAX);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>() + last + again
    });
    let output = Command::new(env!("CARGO_BIN_EXE_heimdall-load"))
        .args(["--server", &address.to_string(), "--proto", "tcp", "--ports", "3", "--json"])
        .args("--quiet --warm-up 0s --qps 1000 --duration 1s".split_whitespace())
        .output()
        .unwrap();
    let results = results(&output);
    assert_eq!((&results["asked"], &results["connections_lost"]), (&1000.into(), &1.into()));
    let answered = results["answered"].as_u64().unwrap();
    assert_eq!(answered + results["lost"].as_u64().unwrap(), 1000);
    // What a server says before it hangs up on unread questions may be lost.
    let given = server.join().unwrap();
    assert!((900..=given).contains(&usize::try_from(answered).unwrap()), "{answered} of {given}");
}

/// Answers `count` questions at most; how many it was.
fn answer(mut stream: TcpStream, count: usize) -> usize {
    for answered in 0..count {
        let mut prefix = [0; 2];
        if stream.read_exact(&mut prefix).is_err() {
            return answered;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut message).unwrap();
        message[2] |= 0x80;
        stream.write_all(&[&prefix[..], &message].concat()).unwrap();
    }
    count
}

#[test]
fn silence_and_mistakes_are_failures() {
    let server = Server::begin(|_, _| false);
    let output = load(&server, "--qps 50 --duration 200ms --timeout 100ms");
    assert_eq!(output.status.code(), Some(1));
    let output = load(&server, "--from 192.0.2.0/24 --clients 3 --qps 50 --duration 200ms");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ip route add local 192.0.2.0/24 dev lo"), "{told}");
    let output = load(&server, "--duration never");
    assert_eq!(output.status.code(), Some(2));
    server.end();
}

#[test]
fn printed_questions_are_those_that_are_asked() {
    let print = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heimdall-load"));
        let output = command.args(arguments.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print("--domains hot --names 3 --print 200");
    let names = ["h00000000.site000.test.", "h00000001.site001.test.", "h00000002.site002.test."];
    assert_eq!(printed.lines().count(), 200);
    for line in printed.lines() {
        let (name, rtype) = line.split_once(' ').unwrap();
        assert!(names.contains(&name) && rtype == "A", "{line}");
    }
    let file = std::env::temp_dir().join(format!("heimdall-load-{}", std::process::id()));
    std::fs::write(&file, &printed).unwrap();
    let read = print(&format!("--file {} --print 200", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(read, printed);
    // Nobody has asked for them before, in this run or another.
    let fresh = print("--domains unique --print 200");
    let fresh: std::collections::HashSet<_> = fresh.lines().collect();
    assert_eq!(fresh.len(), 200);
    let mixed = print("--domains mix --print 4000");
    for part in [" AAAA", ".blocked.test. A", "-"] {
        assert!(mixed.lines().any(|line| line.contains(part)), "nothing with {part}");
    }
}
