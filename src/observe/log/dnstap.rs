//! Queries as dnstap tells them: its protocol buffers, of whose fields we write these few by hand (the schema is `dnstap.proto`
//! of github.com/dnstap/dnstap.pb).

use std::net::{IpAddr, SocketAddr};

use super::super::Transport;
use super::entry::{Entry, How, anonymous};
use crate::wire::{Flags, Header, Rcode};

/// What a stream of such frames says of its content.
pub const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Numbers of the schema's fields.
mod field {
    pub(super) const IDENTITY: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const MESSAGE: u32 = 14;
    pub(super) const TYPE: u32 = 15;

    pub(super) const MESSAGE_TYPE: u32 = 1;
    pub(super) const FAMILY: u32 = 2;
    pub(super) const PROTOCOL: u32 = 3;
    pub(super) const QUERY_ADDRESS: u32 = 4;
    pub(super) const RESPONSE_ADDRESS: u32 = 5;
    pub(super) const QUERY_PORT: u32 = 6;
    pub(super) const RESPONSE_PORT: u32 = 7;
    pub(super) const QUERY_SECONDS: u32 = 8;
    pub(super) const QUERY_NANOS: u32 = 9;
    pub(super) const QUERY_MESSAGE: u32 = 10;
    pub(super) const RESPONSE_SECONDS: u32 = 12;
    pub(super) const RESPONSE_NANOS: u32 = 13;
    pub(super) const RESPONSE_MESSAGE: u32 = 14;
    pub(super) const POLICY: u32 = 15;

    pub(super) const POLICY_TYPE: u32 = 1;
    pub(super) const POLICY_RULE: u32 = 2;
    pub(super) const POLICY_ACTION: u32 = 3;
}

/// `Dnstap.Type.MESSAGE`.
const TYPE_MESSAGE: u64 = 1;

/// More than what a frame has beside its beginning and its message: two keys, the message's length, the type.
const FRAME_REST_BYTES: usize = 16;

/// What a frame tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Told {
    /// `CLIENT_QUERY`.
    Query,
    /// `CLIENT_RESPONSE`.
    Response,
}

/// Makes frames.
#[derive(Debug)]
pub struct Encoder {
    /// Identity and version, with which each frame begins.
    before: Vec<u8>,
    listeners: Vec<SocketAddr>,
    is_anonymous: bool,
    /// The message without what was sent.
    head: Vec<u8>,
    policy: Vec<u8>,
}

impl Encoder {
    /// For a node that calls itself `identity` and listens on `listeners`. `is_anonymous`: clients are told by their network.
    #[must_use]
    pub fn new(
        identity: &str,
        version: &str,
        listeners: Vec<SocketAddr>,
        is_anonymous: bool,
    ) -> Self {
        let mut before = Vec::new();
        bytes(field::IDENTITY, identity.as_bytes(), &mut before);
        bytes(field::VERSION, version.as_bytes(), &mut before);
        Self { before, listeners, is_anonymous, head: Vec::new(), policy: Vec::new() }
    }

    /// Appends `entry` to `out` as one frame, without a length before it; `list` is the name of the list that decided it.
    pub fn append(&mut self, told: Told, entry: &Entry<'_>, list: Option<&str>, out: &mut Vec<u8>) {
        self.head.clear();
        self.write_head(told, entry);
        self.policy.clear();
        // What got no reply has nowhere else to say why.
        let is_last = told == Told::Response || entry.rcode.is_none();
        if is_last && entry.how == How::Blocked {
            self.write_policy(entry, list);
        }
        let (field, message) = match told {
            Told::Query => (field::QUERY_MESSAGE, entry.query),
            Told::Response => (field::RESPONSE_MESSAGE, entry.reply),
        };
        // Each length is known before what it counts is written, so that nothing is written twice.
        let parts = [(field, message), (field::POLICY, self.policy.as_slice())];
        let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
        let len = self.head.len() + parts.clone().map(|(_, part)| field_len(part)).sum::<usize>();
        out.reserve(self.before.len() + len + FRAME_REST_BYTES);
        out.extend_from_slice(&self.before);
        key(field::MESSAGE, 2, out);
        varint(len as u64, out);
        out.extend_from_slice(&self.head);
        parts.for_each(|(field, part)| bytes(field, part, out));
        number(field::TYPE, TYPE_MESSAGE, out);
    }

    fn write_head(&mut self, told: Told, entry: &Entry<'_>) {
        let out = &mut self.head;
        let address = if self.is_anonymous { anonymous(entry.address) } else { entry.address };
        number(field::MESSAGE_TYPE, if told == Told::Query { 5 } else { 6 }, out);
        number(field::FAMILY, if address.is_ipv4() { 1 } else { 2 }, out);
        let protocol = match entry.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
        };
        number(field::PROTOCOL, protocol, out);
        octets(field::QUERY_ADDRESS, address, out);
        let listener = self.listeners.get(usize::from(entry.listener));
        let own = listener.filter(|listener| listener.is_ipv4() == address.is_ipv4());
        if let Some(own) = own.filter(|own| !own.ip().is_unspecified()) {
            octets(field::RESPONSE_ADDRESS, own.ip(), out);
        }
        if !self.is_anonymous {
            number(field::QUERY_PORT, entry.port.into(), out);
        }
        if let Some(listener) = listener {
            number(field::RESPONSE_PORT, listener.port().into(), out);
        }
        let begun_us = entry.time.as_millis().saturating_mul(1_000);
        time(field::QUERY_SECONDS, field::QUERY_NANOS, begun_us, out);
        if told == Told::Response {
            let taken_us = entry.latency_us.unwrap_or(0).into();
            let over_us = begun_us.saturating_add(taken_us);
            time(field::RESPONSE_SECONDS, field::RESPONSE_NANOS, over_us, out);
        }
    }

    /// What a list did: its name as the rule, and the action that the reply shows. REFUSED has no number in the schema.
    fn write_policy(&mut self, entry: &Entry<'_>, list: Option<&str>) {
        bytes(field::POLICY_TYPE, b"list", &mut self.policy);
        if let Some(list) = list {
            bytes(field::POLICY_RULE, list.as_bytes(), &mut self.policy);
        }
        if let Some(action) = action(entry) {
            number(field::POLICY_ACTION, action, &mut self.policy);
        }
    }
}

fn action(entry: &Entry<'_>) -> Option<u64> {
    const NXDOMAIN: u64 = 1;
    const NODATA: u64 = 2;
    const DROP: u64 = 4;
    const TRUNCATE: u64 = 5;
    const LOCAL_DATA: u64 = 6;
    let Some(rcode) = entry.rcode else { return Some(DROP) };
    if rcode == Rcode::NXDOMAIN.0 {
        return Some(NXDOMAIN);
    }
    let header = Header::read(entry.reply).filter(|_| rcode == Rcode::NOERROR.0)?;
    let [_, answers, _, _] = header.counts;
    Some(match (header.flags.has(Flags::TC), answers) {
        (true, 0) => TRUNCATE,
        (false, 0) => NODATA,
        _ => LOCAL_DATA,
    })
}

/// Points in time, so many microseconds after the epoch: seconds as a number, what is left of a second in four octets.
#[inline]
fn time(seconds: u32, rest: u32, micros: u64, out: &mut Vec<u8>) {
    const SECOND: u64 = 1_000_000;
    number(seconds, micros / SECOND, out);
    key(rest, 5, out);
    let nanos = micros % SECOND * 1_000;
    out.extend_from_slice(&u32::try_from(nanos).unwrap_or(0).to_le_bytes());
}

fn octets(field: u32, address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => bytes(field, &v4.octets(), out),
        IpAddr::V6(v6) => bytes(field, &v6.octets(), out),
    }
}

fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    key(field, 0, out);
    varint(value, out);
}

fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    key(field, 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Length of what [`bytes`] writes: keys of our fields take one octet.
const fn field_len(value: &[u8]) -> usize {
    let bits = usize::BITS - (value.len() | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + value.len()
}

/// All our fields have numbers below 16, so that it takes one octet.
#[inline]
fn key(field: u32, wire_type: u32, out: &mut Vec<u8>) {
    let [key, ..] = (field << 3 | wire_type).to_le_bytes();
    out.push(key);
}

#[inline]
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::ENTRY;
    use super::*;

    /// Fields of a message with their values: numbers as eight octets.
    fn fields(mut rest: &[u8]) -> Vec<(u32, Vec<u8>)> {
        fn varint(rest: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (octet, behind) = rest.split_first().unwrap();
                *rest = behind;
                value |= u64::from(octet & 0x7F) << shift;
                if octet & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = u32::try_from(varint(&mut rest)).unwrap();
            let len = match key & 7 {
                0 => {
                    fields.push((key >> 3, varint(&mut rest).to_be_bytes().to_vec()));
                    continue;
                }
                2 => usize::try_from(varint(&mut rest)).unwrap(),
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (value, behind) = rest.split_at(len);
            fields.push((key >> 3, value.to_vec()));
            rest = behind;
        }
        fields
    }

    fn value(fields: &[(u32, Vec<u8>)], number: u32) -> Option<Vec<u8>> {
        fields.iter().find(|(own, _)| *own == number).map(|(_, value)| value.clone())
    }

    fn encoded(told: Told, entry: &Entry<'_>, is_anonymous: bool) -> Vec<(u32, Vec<u8>)> {
        let listeners = ["127.0.0.1:53", "192.0.2.53:5300"].map(|text| text.parse().unwrap());
        let mut encoder = Encoder::new("here", "it 1", listeners.to_vec(), is_anonymous);
        let mut frame = vec![1];
        encoder.append(told, entry, Some("ads"), &mut frame);
        let outer = fields(&frame[1..]);
        assert_eq!(value(&outer, 1).unwrap(), b"here");
        assert_eq!(value(&outer, 2).unwrap(), b"it 1");
        assert_eq!(value(&outer, 15).unwrap(), 1_u64.to_be_bytes());
        fields(&value(&outer, 14).unwrap())
    }

    #[test]
    fn query_and_response_say_who_asked_whom_when() {
        let entry = Entry { query: b"query", reply: b"reply", latency_us: Some(900_000), ..ENTRY };
        let told = encoded(Told::Query, &entry, false);
        let number = |number: u64| Some(number.to_be_bytes().to_vec());
        assert_eq!(value(&told, field::MESSAGE_TYPE), number(5));
        assert_eq!(value(&told, field::QUERY_ADDRESS), Some(vec![192, 0, 2, 7]));
        assert_eq!(value(&told, field::RESPONSE_ADDRESS), Some(vec![192, 0, 2, 53]));
        assert_eq!(value(&told, field::RESPONSE_PORT), number(5300));
        assert_eq!(value(&told, field::QUERY_MESSAGE), Some(b"query".to_vec()));
        assert_eq!(value(&told, field::RESPONSE_MESSAGE), None);
        assert_eq!(value(&told, field::QUERY_PORT), number(40_000));
        let told = encoded(Told::Response, &entry, true);
        assert_eq!(value(&told, field::MESSAGE_TYPE), number(6));
        assert_eq!(value(&told, field::QUERY_PORT), None);
        assert_eq!(value(&told, field::QUERY_ADDRESS), Some(vec![192, 0, 2, 0]));
        assert_eq!(value(&told, field::QUERY_SECONDS), number(1_700_000_000));
        assert_eq!(value(&told, field::RESPONSE_SECONDS), number(1_700_000_001));
        let nanos = 23_000_000_u32.to_le_bytes().to_vec();
        assert_eq!(value(&told, field::RESPONSE_NANOS), Some(nanos));
        assert_eq!(value(&told, field::RESPONSE_MESSAGE), Some(b"reply".to_vec()));
        assert_eq!(value(&told, field::POLICY), None);
    }

    #[test]
    fn messages_of_every_length_are_told_whole() {
        for len in [1, 127, 128, 129, 16_383, 16_384, 65_535] {
            let (query, reply) = (vec![1; len], vec![2; len]);
            let entry = Entry { query: &query, reply: &reply, how: How::Blocked, ..ENTRY };
            let told = encoded(Told::Query, &entry, false);
            assert_eq!(value(&told, field::QUERY_MESSAGE), Some(query.clone()));
            let told = encoded(Told::Response, &entry, false);
            assert_eq!(value(&told, field::RESPONSE_MESSAGE), Some(reply.clone()));
            assert!(value(&told, field::POLICY).is_some());
        }
    }

    #[test]
    fn blocked_answers_name_the_list_and_what_it_did() {
        let header = |flags: u8, answers: u8| [0, 0, flags, 0, 0, 1, 0, answers, 0, 0, 0, 0];
        for (rcode, reply, action) in [
            (Some(3), header(0x80, 0), Some(1)),
            (Some(0), header(0x80, 0), Some(2)),
            (None, header(0x80, 0), Some(4)),
            (Some(0), header(0x82, 0), Some(5)),
            (Some(0), header(0x80, 2), Some(6)),
            (Some(5), header(0x80, 0), None),
        ] {
            let entry = Entry { how: How::Blocked, rcode, reply: &reply, ..ENTRY };
            let policy = fields(&value(&encoded(Told::Response, &entry, false), 15).unwrap());
            assert_eq!(value(&policy, field::POLICY_RULE).unwrap(), b"ads");
            let expected = action.map(|number: u64| number.to_be_bytes().to_vec());
            assert_eq!(value(&policy, field::POLICY_ACTION), expected, "{rcode:?}");
        }
    }
}
