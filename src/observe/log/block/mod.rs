//! Blocks, in which the store keeps queries: thousands of them in one run of octets. Names, clients and what queries have in common
//! stand once each, in dictionaries; a query is one number per column.
//!
//! All numbers are little-endian. A block is a head of 40 octets and ten sections, one behind the other, none of them padded:
//!
//! | head | what |
//! |---|---|
//! | 4 | CRC-32 of all that follows |
//! | 2 | form: 1 |
//! | 2, 2, 2, 2, 2 | how many queries, names, clients, shapes, labels |
//! | 8 | time of the first query, in milliseconds since the epoch |
//! | 4, 4, 4, 4 | octets of the labels, of the names, of the times, of the latencies |
//!
//! | section | what |
//! |---|---|
//! | labels | names of listeners, groups and lists: two octets of length, then UTF-8 |
//! | shapes | type, RCODE, then the numbers of three labels: listener, group, list (two octets each; 65535: none), then how it was answered and the transport (one each) |
//! | clients | IPv6 addresses; IPv4 ones are mapped |
//! | names | in wire form, in lower case |
//! | name, client, shape of each query | numbers in the dictionaries: one octet each while there are at most 256, else two |
//! | port, reply's length of each query | two octets each |
//! | times | what each query is later than the one before it, as a zigzag number of seven bits per octet (LEB128) |
//! | latencies | in microseconds, plus one; 0: none |
//!
//! Whoever reads a block trusts nothing in it: [`Block::open`].

mod dictionary;
mod facts;
mod open;

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use self::dictionary::Dictionary;
use self::facts::Sieve;
pub use self::facts::{Fact, may_hold};
pub use self::open::{Block, BlockError, NameOctets, Place, Row};
use super::super::Transport;
use super::entry::{Entry, How, anonymous};
use crate::wire::Name;

/// Most queries in a block.
pub const RECORDS_MAX: usize = 8_192;

/// Octets of names from which on a block is full.
const NAME_BYTES_FULL: usize = 512 << 10;

/// What the form says.
const FORM: u16 = 1;

const HEAD_BYTES: usize = 40;
const SHAPE_BYTES: usize = 12;
const CLIENT_BYTES: usize = 16;

/// Numbers in dictionaries up to which a column has one octet per query.
const NARROW_MAX: usize = 256;

/// No label, no RCODE.
const NONE: u16 = u16::MAX;

/// Most octets of one block: names as long as they get, the widest columns, and labels as an operator may call things.
pub const BYTES_MAX: usize = NAME_BYTES_FULL
    + 255
    + RECORDS_MAX * (CLIENT_BYTES + SHAPE_BYTES + 10 + 10 + 5)
    + HEAD_BYTES
    + LABEL_BYTES_MAX;

/// Octets of labels from which on a block is full.
const LABEL_BYTES_MAX: usize = 128 << 10;

/// What a number of an entry stands for by the operator's own name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Label {
    /// A listener.
    Listener(u16),
    /// A group of clients.
    Group(u8),
    /// A list.
    List(u8),
}

/// What many queries have in common; labels are numbers in the block's dictionary.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Shape {
    qtype: u16,
    rcode: u16,
    listener: u16,
    group: u16,
    list: u16,
    how: How,
    transport: Transport,
}

/// How often something was seen in a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen<'a> {
    /// A name in wire form and lower case, or sixteen octets of an address.
    pub key: &'a [u8],
    /// How often.
    pub count: u32,
    /// How often of that a list blocked it.
    pub blocked: u32,
}

/// A block that is full, or full enough.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packed {
    /// Queries in it.
    pub records: usize,
    /// Time of the earliest one, in milliseconds since the epoch.
    pub begin_ms: u64,
    /// Time of the latest one.
    pub end_ms: u64,
    /// What [`may_hold`] asks.
    pub facts: Vec<u8>,
    /// The block itself.
    pub octets: Vec<u8>,
}

/// Makes blocks.
#[derive(Debug)]
pub struct Packer {
    is_anonymous: bool,
    names: Dictionary,
    clients: Dictionary,
    labels: Vec<String>,
    label_bytes: usize,
    shapes: Vec<Shape>,
    /// Numbers of shapes, by their labels' numbers here.
    shape_numbers: HashMap<Shape, u16, RandomState>,
    /// The same by what entries say.
    told_numbers: HashMap<u128, u16, RandomState>,
    told_last: Option<(u128, u16)>,
    columns: Columns,
    lower: Vec<u8>,
}

/// What stands once per query.
#[derive(Debug, Default)]
struct Columns {
    names: Vec<u16>,
    clients: Vec<u16>,
    shapes: Vec<u16>,
    ports: Vec<u8>,
    reply_lens: Vec<u8>,
    times: Vec<u8>,
    latencies: Vec<u8>,
    first_ms: u64,
    last_ms: u64,
    begin_ms: u64,
    end_ms: u64,
}

/// A query by its numbers in the dictionaries.
#[derive(Clone, Copy)]
struct Numbers {
    name: u16,
    client: u16,
    shape: u16,
    port: u16,
    reply_len: u16,
    time_ms: u64,
    latency_us: Option<u32>,
}

impl Packer {
    /// An empty block. `is_anonymous`: clients stand in it by their network, without their port. `hashing` keeps strangers from
    /// choosing names that lie in one place of a dictionary.
    #[must_use]
    pub fn new(is_anonymous: bool, hashing: RandomState) -> Self {
        Self {
            is_anonymous,
            names: Dictionary::new(hashing.clone()),
            clients: Dictionary::new(hashing.clone()),
            labels: Vec::new(),
            label_bytes: 0,
            shapes: Vec::new(),
            shape_numbers: HashMap::with_hasher(hashing.clone()),
            told_numbers: HashMap::with_hasher(hashing),
            told_last: None,
            columns: Columns::default(),
            lower: Vec::new(),
        }
    }

    /// Queries in the block.
    #[must_use]
    pub const fn records(&self) -> usize {
        self.columns.names.len()
    }

    /// Whether another query finds no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.records() >= RECORDS_MAX
            || self.names.bytes() >= NAME_BYTES_FULL
            || self.label_bytes >= LABEL_BYTES_MAX / 2
    }

    /// Adds `entry`; `label` says how the operator calls what it names by number.
    ///
    /// # Panics
    /// If the block [is full](Self::is_full).
    pub fn add(&mut self, entry: &Entry<'_>, label: impl FnMut(Label) -> String) {
        assert!(!self.is_full(), "who adds has looked whether there is room");
        let shape = self.told_shape(entry, label);
        let is_blocked = entry.how == How::Blocked;
        // What is known in these very octets is a name, and in lower case.
        let name = self.names.recent(entry.qname, is_blocked);
        let name = name.unwrap_or_else(|| self.lowered(entry.qname, is_blocked));
        let (address, port) = if self.is_anonymous {
            (anonymous(entry.address), 0)
        } else {
            (entry.address, entry.port)
        };
        let client = self.clients.number(&octets(address), is_blocked);
        self.columns.push(Numbers {
            name,
            client,
            shape,
            port,
            reply_len: entry.reply_len,
            time_ms: entry.time.as_millis(),
            latency_us: entry.latency_us,
        });
    }

    /// Adds all queries of `block`, if there is room for them.
    #[must_use]
    pub fn append(&mut self, block: &Block<'_>) -> bool {
        let has_room = self.records() + block.len() <= RECORDS_MAX
            && self.names.bytes() + block.name_bytes() <= NAME_BYTES_FULL
            && self.label_bytes + block.label_bytes() <= LABEL_BYTES_MAX / 2;
        if !has_room {
            return false;
        }
        for row in block.rows() {
            let shape = self.row_shape(&row);
            let is_blocked = row.how == How::Blocked;
            let name = self.names.number(row.name.as_bytes(), is_blocked);
            let client = self.clients.number(&octets(row.client), is_blocked);
            self.columns.push(Numbers {
                name,
                client,
                shape,
                port: row.port,
                reply_len: row.reply_len,
                time_ms: row.time_ms,
                latency_us: row.latency_us,
            });
        }
        true
    }

    /// What names were seen since the block began.
    pub fn names_seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.names.seen()
    }

    /// What clients were seen since the block began.
    pub fn clients_seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.clients.seen()
    }

    /// Asks anew what the numbers of entries stand for.
    pub fn forget_labels(&mut self) {
        self.told_numbers.clear();
        self.told_last = None;
    }

    /// Forgets all that is in the block.
    pub fn clear(&mut self) {
        self.names.clear();
        self.clients.clear();
        self.labels.clear();
        self.label_bytes = 0;
        self.shapes.clear();
        self.shape_numbers.clear();
        self.forget_labels();
        self.columns.clear();
    }

    /// The block as it is, which stays as it is.
    #[must_use]
    pub fn packed(&self) -> Packed {
        let columns = &self.columns;
        Packed {
            records: self.records(),
            begin_ms: columns.begin_ms,
            end_ms: columns.end_ms,
            facts: self.facts(),
            octets: self.octets(),
        }
    }

    fn octets(&self) -> Vec<u8> {
        let columns = &self.columns;
        let labels: usize = self.labels.iter().map(|label| 2 + label.len()).sum();
        let counts = [
            self.records(),
            self.names.len(),
            self.clients.len(),
            self.shapes.len(),
            self.labels.len(),
        ];
        let lengths = [labels, self.names.bytes(), columns.times.len(), columns.latencies.len()];
        let mut out = Vec::with_capacity(
            HEAD_BYTES
                + lengths.iter().sum::<usize>()
                + self.clients.bytes()
                + self.shapes.len() * SHAPE_BYTES
                + 10 * self.records(),
        );
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&FORM.to_le_bytes());
        counts.iter().for_each(|&count| out.extend_from_slice(&short(count).to_le_bytes()));
        out.extend_from_slice(&columns.first_ms.to_le_bytes());
        for len in lengths {
            out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        for label in &self.labels {
            out.extend_from_slice(&short(label.len()).to_le_bytes());
            out.extend_from_slice(label.as_bytes());
        }
        self.shapes.iter().for_each(|shape| out.extend_from_slice(&shape.octets()));
        out.extend_from_slice(self.clients.octets());
        out.extend_from_slice(self.names.octets());
        for (column, dictionary) in [
            (&columns.names, self.names.len()),
            (&columns.clients, self.clients.len()),
            (&columns.shapes, self.shapes.len()),
        ] {
            if dictionary <= NARROW_MAX {
                out.extend(column.iter().map(|number| number.to_le_bytes()[0]));
            } else {
                out.extend(column.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
        for column in [&columns.ports, &columns.reply_lens, &columns.times, &columns.latencies] {
            out.extend_from_slice(column);
        }
        let checksum = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn facts(&self) -> Vec<u8> {
        let mut sieve = Sieve::default();
        for seen in self.names.seen() {
            if let Ok(name) = Name::parse(seen.key) {
                sieve.add_name(name);
            }
        }
        for seen in self.clients.seen() {
            sieve.add(&Fact::Client(address(seen.key.first_chunk().copied().unwrap_or_default())));
        }
        for shape in &self.shapes {
            let label = |number: u16| self.labels.get(usize::from(number)).map(String::as_str);
            sieve.add(&Fact::Qtype(shape.qtype));
            sieve.add(&Fact::How(shape.how));
            if shape.rcode != NONE {
                sieve.add(&Fact::Rcode(shape.rcode));
            }
            for fact in [label(shape.group).map(Fact::Group), label(shape.list).map(Fact::List)] {
                fact.iter().for_each(|fact| sieve.add(fact));
            }
        }
        sieve.octets()
    }

    /// The number of the name that `qname` is in lower case.
    fn lowered(&mut self, qname: &[u8], is_blocked: bool) -> u16 {
        let qname = Name::parse(qname).map_or(&[0][..], Name::as_bytes);
        self.lower.clear();
        self.lower.extend_from_slice(qname);
        // Lengths of labels are no letters.
        self.lower.make_ascii_lowercase();
        self.names.number(&self.lower, is_blocked)
    }

    /// The number of the shape that `entry` has.
    fn told_shape(&mut self, entry: &Entry<'_>, mut label: impl FnMut(Label) -> String) -> u16 {
        let rcode = entry.rcode.unwrap_or(NONE);
        let told = told(entry, rcode);
        if let Some((last, number)) = self.told_last
            && last == told
        {
            return number;
        }
        let number = match self.told_numbers.get(&told) {
            Some(&number) => number,
            None => {
                let list = entry.list.map(|list| label(Label::List(list)));
                let (listener, group) =
                    (label(Label::Listener(entry.listener)), label(Label::Group(entry.group)));
                let shape = Shape {
                    qtype: entry.qtype,
                    rcode,
                    listener: self.label(&listener),
                    group: self.label(&group),
                    list: list.map_or(NONE, |list| self.label(&list)),
                    how: entry.how,
                    transport: entry.transport,
                };
                let number = self.shape(shape);
                self.told_numbers.insert(told, number);
                number
            }
        };
        self.told_last = Some((told, number));
        number
    }

    fn row_shape(&mut self, row: &Row<'_>) -> u16 {
        let shape = Shape {
            qtype: row.qtype,
            rcode: row.rcode.unwrap_or(NONE),
            listener: self.label(row.listener),
            group: self.label(row.group),
            list: row.list.map_or(NONE, |list| self.label(list)),
            how: row.how,
            transport: row.transport,
        };
        self.shape(shape)
    }

    fn shape(&mut self, shape: Shape) -> u16 {
        let shapes = &mut self.shapes;
        *self.shape_numbers.entry(shape).or_insert_with(|| {
            shapes.push(shape);
            short(shapes.len() - 1)
        })
    }

    /// The number of a label: there are few of them.
    fn label(&mut self, text: &str) -> u16 {
        let known = self.labels.iter().position(|label| label == text);
        let number = known.unwrap_or_else(|| {
            // What an operator calls a thing is shorter; whatever it is, its length has two octets.
            let mut end = text.len().min(LABEL_LEN_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            self.label_bytes += 2 + end;
            self.labels.push(text[..end].to_owned());
            self.labels.len() - 1
        });
        short(number)
    }
}

/// Longest label, in octets.
const LABEL_LEN_MAX: usize = 1_024;

impl Columns {
    fn push(&mut self, query: Numbers) {
        if self.names.is_empty() {
            self.first_ms = query.time_ms;
            self.last_ms = query.time_ms;
            self.begin_ms = query.time_ms;
            self.end_ms = query.time_ms;
        }
        self.names.push(query.name);
        self.clients.push(query.client);
        self.shapes.push(query.shape);
        self.ports.extend_from_slice(&query.port.to_le_bytes());
        self.reply_lens.extend_from_slice(&query.reply_len.to_le_bytes());
        varint(zigzag(query.time_ms.wrapping_sub(self.last_ms).cast_signed()), &mut self.times);
        varint(query.latency_us.map_or(0, |us| u64::from(us) + 1), &mut self.latencies);
        self.last_ms = query.time_ms;
        self.begin_ms = self.begin_ms.min(query.time_ms);
        self.end_ms = self.end_ms.max(query.time_ms);
    }

    fn clear(&mut self) {
        for column in [&mut self.names, &mut self.clients, &mut self.shapes] {
            column.clear();
        }
        for column in [&mut self.ports, &mut self.reply_lens, &mut self.times, &mut self.latencies]
        {
            column.clear();
        }
    }
}

impl Shape {
    fn octets(&self) -> [u8; SHAPE_BYTES] {
        let mut octets = [0; SHAPE_BYTES];
        let numbers = [self.qtype, self.rcode, self.listener, self.group, self.list];
        for (place, number) in octets.chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        octets[10] = self.how as u8;
        octets[11] = u8::from(self.transport == Transport::Tcp);
        octets
    }
}

/// What `entry` says of its shape, as one number.
fn told(entry: &Entry<'_>, rcode: u16) -> u128 {
    let mut octets = [0; 16];
    let list = entry.list.map_or(NONE, u16::from);
    let numbers = [entry.qtype, rcode, entry.listener, list];
    for (place, number) in octets.chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    octets[8] = entry.group;
    octets[9] = entry.how as u8;
    octets[10] = u8::from(entry.transport == Transport::Tcp);
    u128::from_le_bytes(octets)
}

fn octets(address: IpAddr) -> [u8; CLIENT_BYTES] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(octets: [u8; CLIENT_BYTES]) -> IpAddr {
    IpAddr::from(octets).to_canonical()
}

/// A count of what a block holds: there are fewer of each than two octets can say.
fn short(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}

#[cfg(test)]
mod tests;
