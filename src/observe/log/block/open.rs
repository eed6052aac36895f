//! Reads a block that may be anything: what is opened is whole, and all numbers in it lead somewhere.

use std::net::IpAddr;

use thiserror::Error;

use super::super::super::Transport;
use super::super::entry::How;
use super::{
    CLIENT_BYTES, FORM, HEAD_BYTES, NARROW_MAX, NONE, RECORDS_MAX, SHAPE_BYTES, Shape, address,
    unzigzag,
};
use crate::wire::Name;

/// Why octets are no block.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BlockError {
    /// They end before all is there, or go on behind it.
    #[error("its length is wrong")]
    Length,
    /// They are not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Another version wrote them.
    #[error("it has form {0}, this program reads form {FORM}")]
    Form(u16),
    /// It holds no query, or more than a block may.
    #[error("it says that it holds {0} queries")]
    Records(u16),
    /// A label is no text.
    #[error("a label is broken")]
    Label,
    /// A shape names what there is not.
    #[error("a shape is broken")]
    Shape,
    /// A name is none.
    #[error("a name is broken")]
    Name,
    /// A query names what there is not.
    #[error("a number leads nowhere")]
    Number,
    /// A time or a latency is out of bounds.
    #[error("a time is broken")]
    Time,
}

/// A query of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row<'a> {
    /// When it came, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The name asked for, in lower case.
    pub name: NameOctets<'a>,
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub port: u16,
    /// How the query came.
    pub transport: Transport,
    /// The listener that was asked.
    pub listener: &'a str,
    /// The client's group.
    pub group: &'a str,
    /// The list that decided it.
    pub list: Option<&'a str>,
    /// Where the answer came from.
    pub how: How,
    /// The type asked for.
    pub qtype: u16,
    /// The RCODE; `None` without a reply.
    pub rcode: Option<u16>,
    /// How long the answer took, in microseconds, where that is known.
    pub latency_us: Option<u32>,
    /// Length of the reply, in bytes.
    pub reply_len: u16,
}

/// A name that was parsed before, compared octet by octet.
#[derive(Clone, Copy, Debug)]
pub struct NameOctets<'a>(Name<'a>);

impl<'a> NameOctets<'a> {
    /// The name.
    #[must_use]
    pub const fn name(self) -> Name<'a> {
        self.0
    }

    /// Its wire form.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl PartialEq for NameOctets<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for NameOctets<'_> {}

/// One number per query.
#[derive(Clone, Copy, Debug)]
enum Column<'a> {
    Narrow(&'a [u8]),
    Wide(&'a [[u8; 2]]),
}

impl Column<'_> {
    fn number(&self, at: usize) -> Option<usize> {
        match self {
            Self::Narrow(column) => column.get(at).map(|&number| number.into()),
            Self::Wide(column) => column.get(at).map(|&number| u16::from_le_bytes(number).into()),
        }
    }

    fn are_below(&self, limit: usize) -> bool {
        match self {
            Self::Narrow(column) => {
                column.iter().max().is_none_or(|&number| usize::from(number) < limit)
            }
            Self::Wide(column) => {
                let largest = column.iter().map(|&number| u16::from_le_bytes(number)).max();
                largest.is_none_or(|number| usize::from(number) < limit)
            }
        }
    }
}

/// A block, open to be read.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    labels: Vec<&'a str>,
    label_bytes: usize,
    shapes: Vec<Shape>,
    clients: &'a [[u8; CLIENT_BYTES]],
    names: Vec<Name<'a>>,
    name_bytes: usize,
    name_column: Column<'a>,
    client_column: Column<'a>,
    shape_column: Column<'a>,
    ports: &'a [[u8; 2]],
    reply_lens: &'a [[u8; 2]],
    times: Vec<u64>,
    latencies: Vec<Option<u32>>,
}

/// A query's numbers in the dictionaries of its block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Among the [names](Block::names).
    pub name: usize,
    /// Among the [clients](Block::clients).
    pub client: usize,
    /// Among the [shapes](Block::shapes).
    pub shape: usize,
}

impl<'a> Block<'a> {
    /// Opens `octets`. Takes memory for at most [`RECORDS_MAX`] queries, whatever they say.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn open(octets: &'a [u8]) -> Result<Self, BlockError> {
        let (head, mut rest) =
            octets.split_first_chunk::<HEAD_BYTES>().ok_or(BlockError::Length)?;
        let mut fields = &head[..];
        let checksum = u32::from_le_bytes(take(&mut fields)?);
        let mut count = || take(&mut fields).map(u16::from_le_bytes);
        let form = count()?;
        if form != FORM {
            return Err(BlockError::Form(form));
        }
        if crc32fast::hash(octets.get(4..).unwrap_or_default()) != checksum {
            return Err(BlockError::Checksum);
        }
        let records_told = count()?;
        let records = usize::from(records_told);
        if records == 0 || records > RECORDS_MAX {
            return Err(BlockError::Records(records_told));
        }
        let [names, clients, shapes, labels] = [count()?, count()?, count()?, count()?];
        let first_ms = u64::from_le_bytes(take(&mut fields)?);
        let mut len = || -> Result<usize, BlockError> {
            let len = u32::from_le_bytes(take(&mut fields)?);
            usize::try_from(len).map_err(|_| BlockError::Length)
        };
        let [label_bytes, name_bytes, time_bytes, latency_bytes] = [len()?, len()?, len()?, len()?];
        let labels = read_labels(section(&mut rest, label_bytes)?, labels)?;
        let shapes = section(&mut rest, usize::from(shapes) * SHAPE_BYTES)?;
        let shapes = read_shapes(shapes, labels.len())?;
        let clients = chunks(section(&mut rest, usize::from(clients) * CLIENT_BYTES)?);
        let names = read_names(section(&mut rest, name_bytes)?, names)?;
        let name_column = column(&mut rest, records, names.len())?;
        let client_column = column(&mut rest, records, clients.len())?;
        let shape_column = column(&mut rest, records, shapes.len())?;
        let ports = chunks(section(&mut rest, 2 * records)?);
        let reply_lens = chunks(section(&mut rest, 2 * records)?);
        let times = read_times(section(&mut rest, time_bytes)?, first_ms, records)?;
        let latencies = read_latencies(section(&mut rest, latency_bytes)?, records)?;
        if !rest.is_empty() {
            return Err(BlockError::Length);
        }
        Ok(Self {
            labels,
            label_bytes,
            shapes,
            clients,
            names,
            name_bytes,
            name_column,
            client_column,
            shape_column,
            ports,
            reply_lens,
            times,
            latencies,
        })
    }

    /// How many queries it holds: at least one.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether it holds none; an open block never does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The names asked for, each once.
    #[must_use]
    pub fn names(&self) -> &[Name<'a>] {
        &self.names
    }

    /// The clients, each once.
    pub fn clients(&self) -> impl Iterator<Item = IpAddr> {
        self.clients.iter().map(|&octets| address(octets))
    }

    /// What queries have in common, each combination once: rows in which name, client and what is each query's own mean nothing.
    pub fn shapes(&self) -> impl Iterator<Item = Row<'a>> {
        self.shapes.iter().map(|shape| self.row_of(shape))
    }

    /// The time of the query with this number.
    #[must_use]
    pub fn time_ms(&self, at: usize) -> Option<u64> {
        self.times.get(at).copied()
    }

    /// Where the query with this number stands in the dictionaries.
    #[must_use]
    pub fn place(&self, at: usize) -> Option<Place> {
        Some(Place {
            name: self.name_column.number(at)?,
            client: self.client_column.number(at)?,
            shape: self.shape_column.number(at)?,
        })
    }

    /// The query with this number.
    #[must_use]
    pub fn row(&self, at: usize) -> Option<Row<'a>> {
        let place = self.place(at)?;
        Some(Row {
            time_ms: self.time_ms(at)?,
            name: NameOctets(*self.names.get(place.name)?),
            client: address(*self.clients.get(place.client)?),
            port: u16::from_le_bytes(*self.ports.get(at)?),
            latency_us: *self.latencies.get(at)?,
            reply_len: u16::from_le_bytes(*self.reply_lens.get(at)?),
            ..self.row_of(self.shapes.get(place.shape)?)
        })
    }

    /// All queries, in the order in which they were packed.
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        (0..self.len()).filter_map(|at| self.row(at))
    }

    /// Octets of its names.
    pub(super) const fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// Octets of its labels.
    pub(super) const fn label_bytes(&self) -> usize {
        self.label_bytes
    }

    fn row_of(&self, shape: &Shape) -> Row<'a> {
        let label = |number: u16| self.labels.get(usize::from(number)).copied();
        Row {
            time_ms: 0,
            name: NameOctets(Name::ROOT),
            client: IpAddr::from([0; 4]),
            port: 0,
            transport: shape.transport,
            listener: label(shape.listener).unwrap_or_default(),
            group: label(shape.group).unwrap_or_default(),
            list: label(shape.list),
            how: shape.how,
            qtype: shape.qtype,
            rcode: (shape.rcode != NONE).then_some(shape.rcode),
            latency_us: None,
            reply_len: 0,
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BlockError> {
    let (chunk, behind) = rest.split_first_chunk().ok_or(BlockError::Length)?;
    *rest = behind;
    Ok(*chunk)
}

fn section<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], BlockError> {
    let (section, behind) = rest.split_at_checked(len).ok_or(BlockError::Length)?;
    *rest = behind;
    Ok(section)
}

fn chunks<const N: usize>(section: &[u8]) -> &[[u8; N]] {
    section.as_chunks().0
}

fn column<'a>(
    rest: &mut &'a [u8],
    records: usize,
    dictionary: usize,
) -> Result<Column<'a>, BlockError> {
    let column = if dictionary <= NARROW_MAX {
        Column::Narrow(section(rest, records)?)
    } else {
        Column::Wide(chunks(section(rest, 2 * records)?))
    };
    if column.are_below(dictionary) { Ok(column) } else { Err(BlockError::Number) }
}

fn read_labels(mut section: &[u8], count: u16) -> Result<Vec<&str>, BlockError> {
    let mut labels = Vec::new();
    for _ in 0..count {
        let len = take(&mut section).map(u16::from_le_bytes).map_err(|_| BlockError::Label)?;
        let (label, rest) = section.split_at_checked(len.into()).ok_or(BlockError::Label)?;
        labels.push(std::str::from_utf8(label).map_err(|_| BlockError::Label)?);
        section = rest;
    }
    if section.is_empty() { Ok(labels) } else { Err(BlockError::Label) }
}

fn read_shapes(section: &[u8], labels: usize) -> Result<Vec<Shape>, BlockError> {
    let shapes = chunks::<SHAPE_BYTES>(section).iter().map(|octets| {
        let [a, b, c, d, e, f, g, h, i, j, how, transport] = *octets;
        let [qtype, rcode, listener, group, list] =
            [[a, b], [c, d], [e, f], [g, h], [i, j]].map(u16::from_le_bytes);
        let is_known = |label: u16| usize::from(label) < labels;
        if !is_known(listener) || !is_known(group) || !(list == NONE || is_known(list)) {
            return Err(BlockError::Shape);
        }
        let how = How::numbered(how).ok_or(BlockError::Shape)?;
        let transport = match transport {
            0 => Transport::Udp,
            1 => Transport::Tcp,
            _ => return Err(BlockError::Shape),
        };
        Ok(Shape { qtype, rcode, listener, group, list, how, transport })
    });
    shapes.collect()
}

fn read_names(mut section: &[u8], count: u16) -> Result<Vec<Name<'_>>, BlockError> {
    // A name takes at least one octet, so a small section cannot ask for much memory.
    let mut names = Vec::with_capacity(section.len().min(count.into()));
    for _ in 0..count {
        let name = Name::parse(section).map_err(|_| BlockError::Name)?;
        section = section.get(name.as_bytes().len()..).unwrap_or_default();
        names.push(name);
    }
    if section.is_empty() { Ok(names) } else { Err(BlockError::Name) }
}

fn read_times(mut section: &[u8], first_ms: u64, records: usize) -> Result<Vec<u64>, BlockError> {
    let mut times = Vec::with_capacity(records);
    let mut time = first_ms.cast_signed();
    for _ in 0..records {
        let later = unzigzag(varint(&mut section).ok_or(BlockError::Time)?);
        time = time.checked_add(later).ok_or(BlockError::Time)?;
        times.push(u64::try_from(time).map_err(|_| BlockError::Time)?);
    }
    if section.is_empty() { Ok(times) } else { Err(BlockError::Time) }
}

fn read_latencies(mut section: &[u8], records: usize) -> Result<Vec<Option<u32>>, BlockError> {
    let mut latencies = Vec::with_capacity(records);
    for _ in 0..records {
        let number = varint(&mut section).ok_or(BlockError::Time)?;
        let latency = match number.checked_sub(1) {
            None => None,
            Some(us) => Some(u32::try_from(us).map_err(|_| BlockError::Time)?),
        };
        latencies.push(latency);
    }
    if section.is_empty() { Ok(latencies) } else { Err(BlockError::Time) }
}

/// The number at the front of `rest`, of at most ten octets.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&octet, behind) = rest.split_first()?;
        *rest = behind;
        let bits = u64::from(octet & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
