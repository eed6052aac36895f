//! A ring over real sockets on loopback.

use std::os::fd::AsFd;

use super::*;
use crate::sys::datagram::Datagram;
use crate::sys::mmap::Map;
use crate::sys::pool::stride;
use crate::sys::sockopt::{UdpSettings, bind_udp};

const SIZE: RingSize = RingSize { submissions: 8, completions: 16 };
const ALONE: UdpSettings = UdpSettings { is_shared: false, buffer_bytes: None };

fn pool(slot_bytes: usize, count: u16) -> Rc<Pool> {
    let len = stride(slot_bytes) * usize::from(count);
    let [region] = Map::anonymous(len).unwrap().split([len]).unwrap();
    Pool::new(region, slot_bytes, count).unwrap()
}

/// The next event, within a bounded number of looks.
fn next(ring: &mut Ring) -> Event {
    for _ in 0..100_000 {
        ring.enter().unwrap();
        if let Some(event) = ring.next_event() {
            return event;
        }
    }
    panic!("nothing happened");
}

#[test]
fn user_data_survives_the_round_trip() {
    for kind in [Kind::Receive, Kind::Send, Kind::Poll, Kind::Cancel] {
        let data = UserData { kind, group: 3, index: 0xabcd, sender: 0x1234 };
        assert_eq!(UserData::unpack(data.pack()), data);
    }
}

#[test]
fn datagrams_cross_whatever_flags_the_kernel_takes() {
    for first in 0..4 {
        let (send, receive) = (pool(64, 2), pool(512, 2));
        let mut ring = Ring::open_from(first, SIZE, Rc::clone(&send)).unwrap();
        assert!(first == 0 || ring.fallbacks().contains(&Fallback::TaskrunNotDeferred));
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), ALONE).unwrap();
        // Once by its number, once by its descriptor.
        if first % 2 == 0 {
            ring.register_files(1);
        }
        let target = ring.attach(0, bound.fd.as_fd());
        let group = ring.add_group(Rc::clone(&receive)).unwrap();
        ring.receive(target, group, 7).unwrap();
        for round in 0..10u8 {
            let mut slot = send.take().unwrap();
            slot[0] = round;
            ring.send(target, slot, 1, bound.address, None).unwrap();
            let (mut is_sent, mut payload) = (false, None);
            while !is_sent || payload.is_none() {
                match next(&mut ring) {
                    Event::Sent => is_sent = true,
                    Event::Received { socket: 7, buffer, len, .. } => {
                        let datagram = Datagram::parse(&buffer[..len]).unwrap();
                        assert_eq!(datagram.from, Some(bound.address));
                        payload = Some(datagram.payload.to_vec());
                    }
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(payload, Some(vec![round]));
        }
        drop(ring);
        assert_eq!(send.free(), 2, "all sends are over");
    }
}

#[test]
fn a_cancelled_receive_ends_and_says_so() {
    let mut ring = Ring::open(SIZE, pool(64, 1)).unwrap();
    let bound = bind_udp("[::1]:0".parse().unwrap(), ALONE).unwrap();
    let target = ring.attach(0, bound.fd.as_fd());
    let group = ring.add_group(pool(512, 1)).unwrap();
    ring.receive(target, group, 3).unwrap();
    ring.cancel(Multishot::Receive(group), 3).unwrap();
    let mut events = [next(&mut ring), next(&mut ring)];
    events.sort_by_key(|event| matches!(event, Event::Cancelled { .. }));
    assert!(matches!(events[0], Event::Ended { socket: 3, errno: libc::ECANCELED }));
    assert!(matches!(events[1], Event::Cancelled { socket: 3 }));
}

#[test]
fn a_group_needs_a_power_of_two() {
    let mut ring = Ring::open(SIZE, pool(64, 1)).unwrap();
    assert!(ring.add_group(pool(512, 3)).is_err());
}

#[test]
fn a_wait_ends_with_its_time_and_with_a_datagram() {
    let (send, receive) = (pool(64, 2), pool(512, 2));
    let mut ring = Ring::open(SIZE, Rc::clone(&send)).unwrap();
    let bound = bind_udp("127.0.0.1:0".parse().unwrap(), ALONE).unwrap();
    let target = ring.attach(0, bound.fd.as_fd());
    let group = ring.add_group(receive).unwrap();
    ring.receive(target, group, 7).unwrap();
    // Nothing comes: it returns all the same.
    ring.wait(Duration::from_millis(1)).unwrap();
    assert!(ring.next_event().is_none());
    let mut slot = send.take().unwrap();
    slot[0] = 1;
    ring.send(target, slot, 1, bound.address, None).unwrap();
    // The wait hands the datagram over; only one that is over early ends before the test's own time limit.
    let mut is_received = false;
    while !is_received {
        ring.wait(Duration::from_secs(3600)).unwrap();
        while let Some(event) = ring.next_event() {
            is_received |= matches!(event, Event::Received { socket: 7, .. });
        }
    }
}
