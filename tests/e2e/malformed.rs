//! What is no query: silence, FORMERR or NOTIMP, as Unbound and Knot give them, and never the end of the node.

use crate::client::{Datagrams, Stream};
use crate::message::{A, FORMERR, Message, NOERROR, NOTIMP, QR, RD, TC};
use crate::message::{header, opt, query, query_with, question};
use crate::node::{Node, Setup};

const LOCAL: &str = "[[local]]\nzone = \"local.test.\"\nrecords = \"www 60 A 192.0.2.1\"";
const NAME: &str = "www.local.test";

fn node() -> Node {
    Setup::new().config(LOCAL).start()
}

/// Header with these flags and counts, then a good question.
fn with_header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [header(0xBEEF, flags, counts), question(NAME, A)].concat()
}

/// Messages that get an RCODE.
fn table() -> Vec<(&'static str, Vec<u8>, u16)> {
    let good = query(0xBEEF, NAME, A);
    let no_options = opt(1232, 0, 0, &[]);
    let opcode = |opcode: u16| with_header(opcode << 11 | RD, [1, 0, 0, 0]);
    let with_tail = |tail: &[u8]| [good.as_slice(), tail].concat();
    let with_name = |name: &[u8]| [&header(0xBEEF, RD, [1, 0, 0, 0]), name, &[0, 1, 0, 1]].concat();
    let mut long_name = vec![63; 1];
    long_name.extend([b'a'; 63]);
    let long_name = [long_name.repeat(4), vec![0]].concat();
    vec![
        ("opcode IQUERY", opcode(1), NOTIMP),
        ("opcode STATUS", opcode(2), NOTIMP),
        ("opcode 3", opcode(3), NOTIMP),
        ("opcode NOTIFY", opcode(4), NOTIMP),
        ("opcode UPDATE", opcode(5), NOTIMP),
        ("opcode DSO", header(0xBEEF, 6 << 11, [0; 4]), NOTIMP),
        ("opcode 15", opcode(15), NOTIMP),
        ("no question", header(0xBEEF, RD, [0; 4]), FORMERR),
        ("two questions", [with_header(RD, [2, 0, 0, 0]), question(NAME, A)].concat(), FORMERR),
        ("question cut in the name", good[..15].to_vec(), FORMERR),
        ("question cut before the class", good[..good.len() - 2].to_vec(), FORMERR),
        ("question missing", good[..12].to_vec(), FORMERR),
        ("pointer as name", with_name(&[0xC0, 12]), FORMERR),
        ("pointer in the name", with_name(&[1, b'a', 0xC0, 12]), FORMERR),
        ("label of a reserved type", with_name(&[0x41, b'a', 0]), FORMERR),
        ("name of 257 octets", with_name(&long_name), FORMERR),
        ("octets behind the question", with_tail(b"\0"), FORMERR),
        (
            "octets behind OPT",
            [query_with(0xBEEF, NAME, A, std::slice::from_ref(&no_options)), vec![7]].concat(),
            FORMERR,
        ),
        ("TC in a query", with_header(RD | TC, [1, 0, 0, 0]), FORMERR),
        ("an answer record announced", with_header(RD, [1, 1, 0, 0]), FORMERR),
        ("a record announced that is missing", with_header(RD, [1, 0, 0, 1]), FORMERR),
        (
            "two OPT records",
            query_with(0xBEEF, NAME, A, &[no_options.clone(), no_options]),
            FORMERR,
        ),
        (
            "option longer than OPT",
            query_with(0xBEEF, NAME, A, &[opt(1232, 0, 0, &[0, 10, 0, 9, 1])]),
            FORMERR,
        ),
    ]
}

fn check(what: &str, sent: &[u8], reply: &Message, expected: u16) {
    assert_eq!(reply.id, 0xBEEF, "{what}");
    assert_eq!(reply.rcode(), expected, "{what}");
    assert_ne!(reply.flags & QR, 0, "{what}");
    assert_eq!(
        reply.flags >> 11 & 0xF,
        u16::from(sent[2]) >> 3 & 0xF,
        "{what}: the opcode comes back"
    );
}

#[test]
fn malformed_datagrams_get_formerr_or_notimp() {
    let node = node();
    let socket = Datagrams::to(node.address);
    for (what, message, expected) in table() {
        check(what, &message, &socket.exchange(&message), expected);
    }
    assert_eq!(socket.exchange(&query(1, NAME, A)).rcode(), NOERROR);
    let malformed = node.counters().sum("dns_malformed_total", "");
    assert_eq!(malformed, table().len() as u64);
}

#[test]
fn malformed_messages_over_tcp_get_the_same() {
    let node = node();
    for (what, message, expected) in table() {
        let mut stream = Stream::connect(node.address);
        check(what, &message, &stream.exchange(&message), expected);
    }
}

#[test]
fn responses_and_headerless_datagrams_meet_silence() {
    let node = node();
    let socket = Datagrams::to(node.address);
    let good = query(0xBEEF, NAME, A);
    let mut silent: Vec<Vec<u8>> = (0..12).map(|len| good[..len].to_vec()).collect();
    silent.push(with_header(QR | RD, [1, 0, 0, 0]));
    silent.push(with_header(QR | 4 << 11, [1, 0, 0, 0]));
    silent.push(header(0xBEEF, QR, [0; 4]));
    for (id, message) in (1..).zip(&silent) {
        socket.send(message);
        // One socket, one order: a reply to the silent one would come before this one's.
        let reply = socket.exchange(&query(id, NAME, A));
        assert_eq!((reply.id, reply.rcode()), (id, NOERROR), "{message:02x?}");
    }
    let counters = node.counters();
    assert_eq!(counters.sum("dns_malformed_total", "cause=\"short\""), 12);
    assert_eq!(counters.sum("dns_malformed_total", "cause=\"response\""), 3);
}

#[test]
fn reply_to_garbage_is_never_longer_than_the_garbage() {
    let node = node();
    let socket = Datagrams::to(node.address);
    for (what, message, _) in table() {
        socket.send(&message);
        let reply = socket.receive_bytes();
        assert!(reply.len() <= message.len(), "{what}: {} for {}", reply.len(), message.len());
    }
}

#[test]
fn every_cut_of_a_good_query_leaves_the_node_alive() {
    let node = node();
    let socket = Datagrams::to(node.address);
    let good = query_with(0xBEEF, NAME, A, &[opt(1232, 0, 0, &[0, 10, 0, 2, 1, 2])]);
    for len in 12..good.len() {
        assert_eq!(socket.exchange(&good[..len]).rcode(), FORMERR, "{len}");
    }
    assert_eq!(socket.exchange(&good).rcode(), NOERROR);
}
