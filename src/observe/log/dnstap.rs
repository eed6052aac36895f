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
const TYPE_MESSAGE: u8 = 1;

/// A frame ends with that.
const END: [u8; 2] = [octet(field::TYPE, NUMBER), TYPE_MESSAGE];

/// Wire types.
const NUMBER: u32 = 0;
const OCTETS: u32 = 2;
const FOUR_OCTETS: u32 = 5;

/// Room for a frame's head, from behind identity and version up to what was sent: the message's key and length; type, family and
/// protocol; two addresses; two ports; two points in time; key and length of what was sent. Each is written with all its octets.
const HEAD_BYTES: usize = 4 + 6 + 2 * 18 + 2 * 4 + 2 * 16 + 4;

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
    /// Identity and version, with which each frame begins, and room for the head behind them.
    begin: Vec<u8>,
    /// Length of identity and version.
    before: usize,
    listeners: Vec<Listener>,
    is_anonymous: bool,
    policy: Vec<u8>,
    /// When the last query came, and when its reply went.
    times: [Time; 2],
}

/// What a frame says of a listener.
#[derive(Debug)]
struct Listener {
    is_ipv4: bool,
    address: Piece<18>,
    port: Piece<4>,
}

/// Fields ready to be written: so many octets of these.
#[derive(Clone, Copy, Debug)]
struct Piece<const N: usize> {
    octets: [u8; N],
    len: usize,
}

/// A point in time, as it is told.
#[derive(Clone, Copy, Debug)]
struct Time {
    micros: u64,
    told: Piece<16>,
}

/// What of a head is written.
struct Head<'a> {
    octets: &'a mut [u8],
    len: usize,
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
        let mut begin = Vec::new();
        bytes(field::IDENTITY, identity.as_bytes(), &mut begin);
        bytes(field::VERSION, version.as_bytes(), &mut begin);
        let before = begin.len();
        begin.resize(before + HEAD_BYTES, 0);
        let listeners = listeners.into_iter().map(Listener::new).collect();
        let times = [
            Time::new(field::QUERY_SECONDS, field::QUERY_NANOS, 0),
            Time::new(field::RESPONSE_SECONDS, field::RESPONSE_NANOS, 0),
        ];
        Self { begin, before, listeners, is_anonymous, policy: Vec::new(), times }
    }

    /// Appends `entry` to `out` as one frame, without a length before it; `list` is the name of the list that decided it.
    #[inline]
    pub fn append(&mut self, told: Told, entry: &Entry<'_>, list: Option<&str>, out: &mut Vec<u8>) {
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
        let head = self.write_head(told, entry, (field, message));
        out.reserve(head + message.len() + field_len(self.policy.len()) + END.len());
        out.extend_from_slice(&self.begin[..head]);
        out.extend_from_slice(message);
        if !self.policy.is_empty() {
            bytes(field::POLICY, &self.policy, out);
        }
        out.extend_from_slice(&END);
    }

    /// Writes all that stands before `message`; says where that begins.
    #[inline]
    fn write_head(
        &mut self,
        told: Told,
        entry: &Entry<'_>,
        (field, message): (u32, &[u8]),
    ) -> usize {
        let address = if self.is_anonymous { anonymous(entry.address) } else { entry.address };
        let is_ipv4 = address.is_ipv4();
        let protocol = match entry.transport {
            Transport::Udp => 1,
            Transport::Tcp => 2,
        };
        let (kind, family) = (if told == Told::Query { 5 } else { 6 }, if is_ipv4 { 1 } else { 2 });
        let socket = [
            octet(field::MESSAGE_TYPE, NUMBER),
            kind,
            octet(field::FAMILY, NUMBER),
            family,
            octet(field::PROTOCOL, NUMBER),
            protocol,
        ];
        let client = Piece::address(field::QUERY_ADDRESS, address);
        let listener = self.listeners.get(usize::from(entry.listener));
        let own = listener.filter(|listener| listener.is_ipv4 == is_ipv4);
        let own = own.map_or(Piece::NONE, |own| own.address);
        let port = if self.is_anonymous {
            Piece::NONE
        } else {
            Piece::number(field::QUERY_PORT, entry.port)
        };
        let own_port = listener.map_or(Piece::NONE, |listener| listener.port);
        let [begun, over] = &mut self.times;
        let begun_us = entry.time.as_millis().saturating_mul(1_000);
        let begun = begun.told(field::QUERY_SECONDS, field::QUERY_NANOS, begun_us);
        let over = if told == Told::Response {
            let over_us = begun_us.saturating_add(entry.latency_us.unwrap_or(0).into());
            over.told(field::RESPONSE_SECONDS, field::RESPONSE_NANOS, over_us)
        } else {
            Piece::NONE
        };
        // Each length is known before what it counts is written, so that nothing is written twice.
        let parts = [client.len, own.len, port.len, own_port.len, begun.len, over.len];
        let sent = if message.is_empty() { 0 } else { field_len(message.len()) };
        let policy = if self.policy.is_empty() { 0 } else { field_len(self.policy.len()) };
        let len = socket.len() + parts.iter().sum::<usize>() + sent + policy;
        let mut head = Head { octets: &mut self.begin[self.before..], len: 0 };
        head.put(Piece::length(field::MESSAGE, len));
        head.put(Piece { octets: socket, len: socket.len() });
        head.put(client);
        head.put(own);
        head.put(port);
        head.put(own_port);
        head.put(begun);
        head.put(over);
        if !message.is_empty() {
            head.put(Piece::length(field, message.len()));
        }
        self.before + head.len
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

impl Listener {
    fn new(own: SocketAddr) -> Self {
        let is_any = own.ip().is_unspecified();
        let address =
            if is_any { Piece::NONE } else { Piece::address(field::RESPONSE_ADDRESS, own.ip()) };
        let port = Piece::number(field::RESPONSE_PORT, own.port());
        Self { is_ipv4: own.is_ipv4(), address, port }
    }
}

impl<const N: usize> Piece<N> {
    const NONE: Self = Self { octets: [0; N], len: 0 };
}

impl Piece<18> {
    #[inline]
    fn address(field: u32, address: IpAddr) -> Self {
        let mut octets = [0; 18];
        let [key, length, rest @ ..] = &mut octets;
        *key = octet(field, OCTETS);
        let len = match address {
            IpAddr::V4(v4) => {
                rest[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                *rest = v6.octets();
                16
            }
        };
        *length = len;
        Self { octets, len: 2 + usize::from(len) }
    }
}

impl Piece<4> {
    /// A field that is a number of two octets.
    #[inline]
    fn number(field: u32, value: u16) -> Self {
        Self::with_key(octet(field, NUMBER), value.into())
    }

    /// The key and the length of a field that is a part or a message, which are shorter than 2 MiB.
    #[inline]
    fn length(field: u32, len: usize) -> Self {
        Self::with_key(octet(field, OCTETS), u32::try_from(len).unwrap_or(u32::MAX))
    }

    #[inline]
    fn with_key(key: u8, value: u32) -> Self {
        let [low, middle, high] =
            [value, value >> 7, value >> 14].map(|part| part.to_le_bytes()[0]);
        let (octets, len) = match value {
            0..0x80 => ([key, low, 0, 0], 2),
            0x80..0x4000 => ([key, low | 0x80, middle, 0], 3),
            _ => ([key, low | 0x80, middle | 0x80, high], 4),
        };
        Self { octets, len }
    }
}

impl Time {
    /// So many microseconds after the epoch: seconds as a number, what is left of a second in four octets.
    fn new(seconds: u32, rest: u32, micros: u64) -> Self {
        const SECOND: u64 = 1_000_000;
        let mut told = [0; 16];
        let mut head = Head { octets: &mut told, len: 0 };
        head.put_octet(octet(seconds, NUMBER));
        let mut whole = micros / SECOND;
        while whole >= 0x80 {
            head.put_octet(whole.to_le_bytes()[0] | 0x80);
            whole >>= 7;
        }
        head.put_octet(whole.to_le_bytes()[0]);
        head.put_octet(octet(rest, FOUR_OCTETS));
        let nanos = u32::try_from(micros % SECOND * 1_000).unwrap_or(0);
        head.put(Piece { octets: nanos.to_le_bytes(), len: 4 });
        let len = head.len;
        Self { micros, told: Piece { octets: told, len } }
    }

    /// The fields of `micros`, of which many are the same one after the other.
    #[inline]
    fn told(&mut self, seconds: u32, rest: u32, micros: u64) -> Piece<16> {
        if self.micros != micros {
            *self = Self::new(seconds, rest, micros);
        }
        self.told
    }
}

impl Head<'_> {
    /// Writes all octets of `piece`, of which as many count as it says: a copy of fixed length costs less than one of few octets.
    #[inline]
    fn put<const N: usize>(&mut self, piece: Piece<N>) {
        self.octets[self.len..self.len + N].copy_from_slice(&piece.octets);
        self.len += piece.len;
    }

    fn put_octet(&mut self, octet: u8) {
        self.put(Piece { octets: [octet], len: 1 });
    }
}

fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    out.push(octet(field, NUMBER));
    varint(value, out);
}

fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    out.push(octet(field, OCTETS));
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Length of what [`bytes`] writes of so many octets: keys of our fields take one.
#[inline]
const fn field_len(len: usize) -> usize {
    let width = match len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => (usize::BITS - len.leading_zeros()).div_ceil(7) as usize,
    };
    1 + width + len
}

/// A key: all our fields have numbers below 16, so that it takes one octet.
const fn octet(field: u32, wire_type: u32) -> u8 {
    let [key, ..] = (field << 3 | wire_type).to_le_bytes();
    key
}

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
    fn frames_have_these_octets() {
        let listener = "[2001:db8::53]:53".parse().unwrap();
        let mut encoder = Encoder::new("h", "v", vec![listener], false);
        let address = "2001:db8::7".parse().unwrap();
        let transport = Transport::Tcp;
        let (query, reply) = (&b"query"[..], &b"reply"[..]);
        let entry = Entry { address, transport, listener: 0, port: 300, query, reply, ..ENTRY };
        for (told, kind, key, message) in
            [(Told::Query, 5, 0x52, query), (Told::Response, 6, 0x72, reply)]
        {
            let mut frame = Vec::new();
            encoder.append(told, &entry, None, &mut frame);
            let client = [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
            let own = [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53];
            let time = |seconds, rest| {
                let second = [seconds, 0x80, 0xE2, 0xCF, 0xAA, 6];
                [&second[..], &[rest], &123_000_000_u32.to_le_bytes()].concat()
            };
            let mut body = [&[8, kind, 0x10, 2, 0x18, 2, 0x22, 16][..], &client].concat();
            body.extend([&[0x2A, 16][..], &own, &[0x30, 0xAC, 2, 0x38, 53]].concat());
            body.extend(time(0x40, 0x4D));
            if told == Told::Response {
                body.extend(time(0x60, 0x6D));
            }
            body.extend([&[key, 5][..], message].concat());
            let len = u8::try_from(body.len()).unwrap();
            let expected = [&b"\x0A\x01h\x12\x01v\x72"[..], &[len], &body, &[0x78, 1]].concat();
            assert_eq!(frame, expected, "{told:?}");
        }
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
