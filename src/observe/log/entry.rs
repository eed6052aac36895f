//! Hot path. What is told of one query, and its form in the queue: a head of fixed size, then name, query and reply.

use std::net::{IpAddr, Ipv6Addr};

use super::super::Transport;
use crate::time::CacheTime;
use crate::wire::Ede;

/// Where an answer came from, or why there was none.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum How {
    /// From the cache, while it counted.
    Cache,
    /// From the cache, past its lifetime.
    Stale,
    /// From the operator's own data.
    Local,
    /// A list decided it.
    Blocked,
    /// An upstream was asked, whether it answered or not.
    Forwarded,
    /// The client may not ask this, or not so much, or there was no room for it.
    Refused,
    /// There was no reply.
    Dropped,
}

impl How {
    /// All, each with its name.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Cache, "cache"),
        (Self::Stale, "stale"),
        (Self::Local, "local"),
        (Self::Blocked, "blocked"),
        (Self::Forwarded, "forwarded"),
        (Self::Refused, "refused"),
        (Self::Dropped, "dropped"),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let own = Self::ALL.iter().find(|(how, _)| *how == self);
        own.map_or("", |(_, name)| name)
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|&(how, _)| how)
    }

    /// The one with this number, which is its place in [`How::ALL`].
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).map(|&(how, _)| how)
    }
}

/// What serving notes while it answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// `None` for what is no query.
    pub how: Option<How>,
    /// The list that decided it.
    pub list: Option<u8>,
    /// The client's group.
    pub group: u8,
    /// What of the RCODE does not fit a message's header.
    pub rcode_high: u8,
    /// What the client is told beside the answer, where that is not plain.
    pub ede: Option<Ede>,
}

impl Account {
    /// The list with this number decided it, which the client is told so.
    #[inline]
    pub const fn block(&mut self, list: u8, ede: Option<Ede>) {
        self.how = Some(How::Blocked);
        self.list = Some(list);
        self.ede = ede;
    }

    /// The client is refused, with this RCODE.
    #[inline]
    pub const fn refuse(&mut self, rcode: u16, ede: Option<Ede>) {
        let [high, _] = (rcode << 4).to_be_bytes();
        self.how = Some(How::Refused);
        self.rcode_high = high;
        self.ede = ede;
    }

    /// Whether it is a hit like most others: out of the cache, with nothing to be said beside it.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.how == Some(How::Cache) && self.ede.is_none()
    }
}

/// All that is told of one query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'a> {
    /// When it came.
    pub time: CacheTime,
    /// How long the answer took, in microseconds; `None` when it was there within the batch.
    pub latency_us: Option<u32>,
    /// The client.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The listener that it asked: the index in `config::Node::listen`.
    pub listener: u16,
    /// How the query came.
    pub transport: Transport,
    /// The client's group.
    pub group: u8,
    /// Where the answer came from.
    pub how: How,
    /// The list that decided it.
    pub list: Option<u8>,
    /// The RCODE; `None` without a reply.
    pub rcode: Option<u16>,
    /// The name asked for, in wire form as the client wrote it.
    pub qname: &'a [u8],
    /// The type asked for.
    pub qtype: u16,
    /// Length of the reply, in bytes; 0 without one.
    pub reply_len: u16,
    /// The query as it came; empty unless it is wanted.
    pub query: &'a [u8],
    /// The reply as it went; empty unless it is wanted.
    pub reply: &'a [u8],
}

/// Bytes of an entry's head.
pub(super) const HEAD_BYTES: usize = 48;

const NO_LATENCY: u32 = u32::MAX;
const NO_RCODE: u16 = u16::MAX;
const NO_LIST: u16 = u16::MAX;

impl<'a> Entry<'a> {
    /// The head: the lengths of what follows it among it.
    #[inline]
    pub(super) fn head(&self) -> [u8; HEAD_BYTES] {
        let address = match self.address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let transport = match self.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
        };
        let mut head = [0; HEAD_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            head[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.time.as_millis().to_le_bytes());
        put(&address.octets());
        put(&self.latency_us.unwrap_or(NO_LATENCY).to_le_bytes());
        let numbers = [
            self.port,
            self.listener,
            self.list.map_or(NO_LIST, u16::from),
            self.rcode.unwrap_or(NO_RCODE),
            self.qtype,
            self.reply_len,
            length(self.query),
            length(self.reply),
        ];
        numbers.iter().for_each(|number| put(&number.to_le_bytes()));
        put(&[transport, self.group, self.how as u8, length(self.qname).to_le_bytes()[0]]);
        head
    }

    /// The parts in the order in which they stand in the queue.
    #[inline]
    pub(super) fn parts<'e>(&'e self, head: &'e [u8; HEAD_BYTES]) -> [&'e [u8]; 4] {
        [head, self.qname, self.query, self.reply]
    }

    /// Reads an entry whose parts each fill whole words of eight bytes.
    #[inline]
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let mut head = head.as_slice();
        let time = u64::from_le_bytes(take(&mut head)?);
        let address = Ipv6Addr::from(take::<16>(&mut head)?);
        let latency = u32::from_le_bytes(take(&mut head)?);
        let mut numbers = [0; 8];
        for number in &mut numbers {
            *number = u16::from_le_bytes(take(&mut head)?);
        }
        let [port, listener, list, rcode, qtype, reply_len, query_bytes, reply_bytes] = numbers;
        let [transport, group, how, qname_bytes] = take(&mut head)?;
        Some(Self {
            time: CacheTime::from_millis(time),
            latency_us: (latency != NO_LATENCY).then_some(latency),
            address: address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
            port,
            listener,
            transport: if transport == 0 { Transport::Udp } else { Transport::Tcp },
            group,
            how: How::numbered(how)?,
            list: u8::try_from(list).ok(),
            rcode: (rcode != NO_RCODE).then_some(rcode),
            qname: part(&mut rest, qname_bytes.into())?,
            qtype,
            reply_len,
            query: part(&mut rest, query_bytes)?,
            reply: part(&mut rest, reply_bytes)?,
        })
    }

    /// Appends what [`Entry::read`] reads, without the messages.
    pub fn append_bare(&self, out: &mut Vec<u8>) {
        let bare = Self { query: &[], reply: &[], ..*self };
        for part in bare.parts(&bare.head()) {
            out.extend_from_slice(part);
            out.resize(out.len().next_multiple_of(8), 0);
        }
    }

    /// Length of what [`Entry::append_bare`] appends, in bytes.
    #[must_use]
    pub const fn bare_len(&self) -> usize {
        HEAD_BYTES + self.qname.len().next_multiple_of(8)
    }
}

/// `address` without what tells the clients of one network apart: IPv4 /24, IPv6 /56.
#[must_use]
pub fn anonymous(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & !0 << 8).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !0 << 72).into()),
    }
}

/// A message is no longer than what two octets can say.
fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*chunk)
}

/// The next part, of `len` bytes, and the padding behind it.
#[inline]
fn part<'a>(rest: &mut &'a [u8], len: u16) -> Option<&'a [u8]> {
    let len = usize::from(len);
    let (whole, behind) = rest.split_at_checked(len.next_multiple_of(8))?;
    *rest = behind;
    whole.get(..len)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const ENTRY: Entry<'_> = Entry {
        time: CacheTime::from_millis(1_700_000_000_123),
        latency_us: None,
        address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        port: 40_000,
        listener: 1,
        transport: Transport::Udp,
        group: 2,
        how: How::Cache,
        list: None,
        rcode: Some(0),
        qname: b"\x03www\x07example\0",
        qtype: 1,
        reply_len: 64,
        query: &[],
        reply: &[],
    };

    #[test]
    fn names_and_numbers_lead_back_to_each_how() {
        for (number, (how, name)) in (0..).zip(How::ALL) {
            assert_eq!((how as u8, how.name()), (number, name));
            assert_eq!((How::numbered(number), How::named(name)), (Some(how), Some(how)));
        }
        assert_eq!((How::numbered(7), How::named("other")), (None, None));
    }

    #[test]
    fn anonymous_addresses_are_those_of_their_network() {
        let anonymous = |text: &str| anonymous(text.parse().unwrap()).to_string();
        assert_eq!(anonymous("192.0.2.77"), "192.0.2.0");
        assert_eq!(anonymous("2001:db8:1:2345:6::7"), "2001:db8:1:2300::");
    }

    proptest! {
        #[test]
        fn entry_is_read_as_it_was_written(
            octets in any::<[u8; 16]>(),
            is_v4 in any::<bool>(),
            (latency_us, rcode, list) in any::<(Option<u32>, Option<u16>, Option<u8>)>(),
            numbers in any::<[u16; 4]>(),
            (how, group) in (0..7_u8, any::<u8>()),
            qname in prop::collection::vec(any::<u8>(), 0..=255),
            query in prop::collection::vec(any::<u8>(), 0..600),
            reply in prop::collection::vec(any::<u8>(), 0..1_300),
        ) {
            let v6 = Ipv6Addr::from(octets);
            let v4 = IpAddr::from(*octets.first_chunk::<4>().unwrap());
            let [port, listener, qtype, reply_len] = numbers;
            let entry = Entry {
                address: if is_v4 { v4 } else { v6.to_canonical() },
                latency_us: latency_us.filter(|us| *us != NO_LATENCY),
                rcode: rcode.filter(|rcode| *rcode != NO_RCODE),
                how: How::numbered(how).unwrap(),
                list, port, listener, qtype, reply_len, group,
                qname: &qname, query: &query, reply: &reply,
                ..ENTRY
            };
            let mut bytes = Vec::new();
            for part in entry.parts(&entry.head()) {
                bytes.extend_from_slice(part);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
            }
            prop_assert_eq!(Entry::read(&bytes), Some(entry));
            let mut bare = Vec::new();
            entry.append_bare(&mut bare);
            prop_assert_eq!(bare.len(), entry.bare_len());
            prop_assert_eq!(Entry::read(&bare), Some(Entry { query: &[], reply: &[], ..entry }));
            prop_assert_eq!(Entry::read(&bare[..bare.len() - 8]), None);
        }
    }
}
