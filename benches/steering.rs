//! What does the kernel pay for a steering program? CPU time of a datagram over loopback, sent and received by one thread, to a
//! group of eight sockets: without a program, by CPU, by short and by long names.
//!
//! `cargo bench --bench steering`. The ways alternate; the median of all rounds is told, and its distance to the first.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails by panicking, and prints"
)]
#![expect(clippy::disallowed_types, reason = "a bench has sockets")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use heimdall_uring::net::steer::{KEY_WORDS, Key, Program, by_cpu, by_qname};
use heimdall_uring::sys::sockopt::{UdpSettings, bind_udp};

const SOCKETS: u16 = 8;
const DATAGRAMS: u32 = 20_000;
const ROUNDS: usize = 41;

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Nanoseconds that this thread has run.
fn thread_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Nanoseconds for each datagram that goes to `receiver`.
fn cost(client: &UdpSocket, receiver: &UdpSocket, datagram: &[u8]) -> f64 {
    let mut buf = [0; 512];
    let before = thread_ns();
    for _ in 0..DATAGRAMS {
        client.send(datagram).unwrap();
        receiver.recv(&mut buf).unwrap();
    }
    f64::from(u32::try_from(thread_ns() - before).unwrap()) / f64::from(DATAGRAMS)
}

fn main() {
    let settings = UdpSettings { is_shared: true, buffer_bytes: None };
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let group: Vec<_> = (0..SOCKETS)
        .map(|_| {
            let bound = bind_udp(address, settings).unwrap();
            address = bound.address;
            bound.fd
        })
        .collect();
    let sockets: Vec<UdpSocket> =
        group.iter().map(|fd| UdpSocket::from(fd.try_clone().unwrap())).collect();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(address).unwrap();

    let key = Key::new(std::array::from_fn::<u32, KEY_WORDS, _>(|number| {
        u32::try_from(number + 1).unwrap().wrapping_mul(0x9E37_79B9) | 1
    }));
    let long = ["a-label-of-24-octets-long"; 7].join(".");
    let reverse = "0.1.2.3.4.5.6.7.8.9.a.b.c.d.e.f.".repeat(2) + "ip6.arpa";
    let by_name = by_qname(&key, SOCKETS, &[1; 8]);
    let ways = [
        ("by flow", Program::by_flow(), query("www.example.com")),
        ("by CPU", by_cpu(&[0; 64]), query("www.example.com")),
        ("by name, www.example.com", by_name.clone(), query("www.example.com")),
        ("by name, 181 octets", by_name.clone(), query(&long)),
        ("by name, a reverse name of IPv6", by_name.clone(), query(&reverse)),
    ];
    println!("{} instructions by name", by_name.instructions().len());
    let mut costs = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, program, datagram), costs) in ways.iter().zip(&mut costs) {
            program.attach(group[0].as_fd()).unwrap();
            // Where it goes is found out by the first.
            client.send(datagram).unwrap();
            let mut buf = [0; 512];
            let receiver = sockets.iter().find(|socket| socket.recv(&mut buf).is_ok()).unwrap();
            costs.push(cost(&client, receiver, datagram));
        }
    }
    let medians: Vec<f64> = costs
        .iter_mut()
        .map(|costs| {
            costs.sort_by(f64::total_cmp);
            costs[costs.len() / 2]
        })
        .collect();
    for ((what, _, _), median) in ways.iter().zip(&medians) {
        println!("{what:<34} {median:6.0} ns {:+6.0}", median - medians[0]);
    }
}
