//! RDATA with names inside: which types have them, and copying it from message to message without dangling pointers.
//!
//! Senders may compress names only in the types of RFC 1035 (RFC 3597 §4). Receivers expand what others compress all the
//! same: a pointer that was copied as it stands would point anywhere in the new message.

use super::encode::{Encoder, Full};
use super::name::NameBuf;
use super::response::{Record, Response};
use super::{Class, Rtype};

/// Why a record cannot be copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RdataError {
    /// The RDATA is not what its type demands.
    Broken,
    /// The target message is full.
    Full,
}

impl From<Full> for RdataError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// Where names stand in the RDATA of one type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Layout {
    /// Octets before the first name.
    lead: usize,
    /// Character strings between `lead` and the first name (NAPTR's three).
    strings: usize,
    /// Names in a row.
    names: usize,
    /// What stands after the last name.
    tail: Tail,
    /// Whether we may compress them.
    compresses: bool,
}

/// Octets without names behind the names of an RDATA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tail {
    /// Exactly this many.
    Exact(usize),
    /// As many as there are.
    Any,
}

impl Tail {
    const fn takes(self, len: usize) -> bool {
        match self {
            Self::Exact(exact) => len == exact,
            Self::Any => true,
        }
    }
}

impl Layout {
    const fn names(lead: usize, names: usize, tail: usize) -> Self {
        Self { lead, strings: 0, names, tail: Tail::Exact(tail), compresses: true }
    }

    const fn plain(lead: usize, names: usize) -> Self {
        Self { compresses: false, ..Self::names(lead, names, 0) }
    }

    const fn with_any_tail(self) -> Self {
        Self { tail: Tail::Any, ..self }
    }

    /// The layout of `rtype`; `None` for RDATA that is copied octet by octet.
    const fn of(rtype: Rtype) -> Option<Self> {
        Some(match rtype.0 {
            // NS MD MF CNAME MB MG MR PTR
            2..=5 | 7..=9 | 12 => Self::names(0, 1, 0),
            // SOA
            6 => Self::names(0, 2, 20),
            // MINFO
            14 => Self::names(0, 2, 0),
            // MX
            15 => Self::names(2, 1, 0),
            // RP TALINK
            17 | 58 => Self::plain(0, 2),
            // AFSDB RT KX LP
            18 | 21 | 36 | 107 => Self::plain(2, 1),
            // PX
            26 => Self::plain(2, 2),
            // SRV
            33 => Self::plain(6, 1),
            // NAPTR
            35 => Self { strings: 3, ..Self::plain(4, 1) },
            // DNAME
            39 => Self::plain(0, 1),
            // SIG RRSIG
            24 | 46 => Self::plain(18, 1).with_any_tail(),
            // NXT NSEC
            30 | 47 => Self::plain(0, 1).with_any_tail(),
            // SVCB HTTPS
            64 | 65 => Self::plain(2, 1).with_any_tail(),
            _ => return None,
        })
    }
}

/// Copies `record` of `response` into `encoder` with `ttl` and gives the offset of the TTL.
///
/// # Errors
/// [`RdataError`]; the encoder is then left with half a record and must be thrown away.
pub fn copy_record(
    encoder: &mut Encoder,
    response: &Response<'_>,
    record: &Record,
    ttl: u32,
) -> Result<usize, RdataError> {
    let owner = response.owner(record).map_err(|_| RdataError::Broken)?;
    let (ttl_at, open) = encoder.begin_record(owner.as_name(), record.rtype, record.class, ttl)?;
    copy_rdata(encoder, response, record)?;
    encoder.end_rdata(open)?;
    Ok(ttl_at)
}

fn copy_rdata(
    encoder: &mut Encoder,
    response: &Response<'_>,
    record: &Record,
) -> Result<(), RdataError> {
    take_apart(response.message(), record, |part| {
        match part {
            Part::Octets(octets) => encoder.bytes(octets)?,
            Part::Name { name, compresses: true, .. } => encoder.name(name.as_name())?,
            Part::Name { name, .. } => encoder.bytes(name.as_name().as_bytes())?,
        }
        Ok(())
    })
}

/// Whether the RDATA of `record` in `message` is one that [`copy_record`] writes: what its type demands, with names
/// compressed at most where senders may, and nowhere if `is_plain`.
#[must_use]
pub fn is_own(message: &[u8], record: &Record, is_plain: bool) -> bool {
    let check = take_apart(message, record, |part| match part {
        Part::Name { is_spelled: false, compresses, .. } if is_plain || !compresses => {
            Err(RdataError::Broken)
        }
        Part::Name { .. } | Part::Octets(_) => Ok(()),
    });
    check.is_ok()
}

/// A piece of an RDATA.
enum Part<'a> {
    /// Octets without names.
    Octets(&'a [u8]),
    /// A name, expanded; whether we may compress it, and whether it stood there without compression.
    Name { name: &'a NameBuf, compresses: bool, is_spelled: bool },
}

/// Hands the pieces of the RDATA of `record` to `take`, in order.
fn take_apart(
    message: &[u8],
    record: &Record,
    mut take: impl FnMut(Part<'_>) -> Result<(), RdataError>,
) -> Result<(), RdataError> {
    let end = record.rdata_at + record.rdata_len;
    // Only messages cut at the RDATA's end may be read: a name must not borrow octets of the next record.
    let within = message.get(..end).ok_or(RdataError::Broken)?;
    let rdata = within.get(record.rdata_at..).ok_or(RdataError::Broken)?;
    let fixed_len = match (record.rtype, record.class) {
        (Rtype::A, Class::IN) => Some(4),
        (Rtype::AAAA, Class::IN) => Some(16),
        _ => None,
    };
    if fixed_len.is_some_and(|len| len != rdata.len()) {
        return Err(RdataError::Broken);
    }
    let Some(layout) = Layout::of(record.rtype) else {
        return take(Part::Octets(rdata));
    };
    let lead = layout.lead + strings_len(rdata, layout)?;
    take(Part::Octets(rdata.get(..lead).ok_or(RdataError::Broken)?))?;
    let mut at = record.rdata_at + lead;
    for _ in 0..layout.names {
        let (name, next) = NameBuf::expand(within, at).map_err(|_| RdataError::Broken)?;
        let is_spelled = name.is_spelled_in(next - at);
        take(Part::Name { name: &name, compresses: layout.compresses, is_spelled })?;
        at = next;
    }
    let tail = within.get(at..).ok_or(RdataError::Broken)?;
    if layout.tail.takes(tail.len()) { take(Part::Octets(tail)) } else { Err(RdataError::Broken) }
}

fn strings_len(rdata: &[u8], layout: Layout) -> Result<usize, RdataError> {
    let mut at = layout.lead;
    for _ in 0..layout.strings {
        at += 1 + usize::from(*rdata.get(at).ok_or(RdataError::Broken)?);
    }
    Ok(at - layout.lead)
}

/// The MINIMUM field of a SOA record: the TTL of negative answers (RFC 2308 §4).
#[must_use]
pub fn soa_minimum(response: &Response<'_>, record: &Record) -> Option<u32> {
    let field = response.rdata(record).last_chunk::<4>()?;
    (record.rtype == Rtype::SOA && record.rdata_len >= 22).then(|| u32::from_be_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Flags, Header};

    const HEADER: Header = Header { id: 0, flags: Flags(0x8180), counts: [0, 1, 0, 0] };

    /// One answer record with owner `example.` and the given type and RDATA.
    fn message(rtype: u8, rdata: &[u8]) -> Vec<u8> {
        let mut bytes = HEADER.to_bytes().to_vec();
        bytes.extend(b"\x07example\x00\x00");
        bytes.extend([rtype, 0, 1, 0, 0, 0, 60, 0, u8::try_from(rdata.len()).unwrap()]);
        bytes.extend(rdata);
        bytes
    }

    fn copied(rtype: u8, rdata: &[u8]) -> Result<Vec<u8>, RdataError> {
        let message = message(rtype, rdata);
        let response = Response::parse(&message).unwrap();
        let mut encoder = Encoder::new(HEADER, 512);
        copy_record(&mut encoder, &response, &response.records[0], 60)?;
        let bytes = encoder.into_message();
        let copy = Response::parse(&bytes).unwrap();
        Ok(copy.rdata(&copy.records[0]).to_vec())
    }

    #[test]
    fn names_are_compressed_where_rfc_1035_has_them_and_spelled_out_elsewhere() {
        assert_eq!(copied(15, b"\x00\x0a\x02mx\xC0\x0C").unwrap(), b"\x00\x0a\x02mx\xC0\x0C");
        let srv = copied(33, b"\x00\x01\x00\x02\x00\x35\x02ns\xC0\x0C").unwrap();
        assert_eq!(srv, b"\x00\x01\x00\x02\x00\x35\x02ns\x07example\x00");
        let naptr = copied(35, b"\x00\x01\x00\x02\x01s\x00\x02!!\xC0\x0C").unwrap();
        assert_eq!(naptr, b"\x00\x01\x00\x02\x01s\x00\x02!!\x07example\x00");
    }

    #[test]
    fn names_that_nobody_may_compress_are_expanded_all_the_same() {
        let name = b"\x07example\x00";
        for (rtype, lead, tail) in [
            (24, &[7; 18][..], &b"signature"[..]),
            (30, b"", b"\x40"),
            (46, &[7; 18], b"signature"),
            (47, b"", b"\x00\x01\x40"),
            (64, b"\x00\x01", b"\x00\x03\x00\x02\x01\xBB"),
            (65, b"\x00\x00", b""),
            (107, b"\x00\x0a", b""),
        ] {
            let spelled = [lead, name, tail].concat();
            let compressed = [lead, b"\xC0\x0C", tail].concat();
            assert_eq!(copied(rtype, &spelled).unwrap(), spelled, "type {rtype}");
            assert_eq!(copied(rtype, &compressed).unwrap(), spelled, "type {rtype}");
            assert_eq!(copied(rtype, &[lead, b"\x01a"].concat()), Err(RdataError::Broken));
        }
    }

    #[test]
    fn unknown_types_are_opaque() {
        assert_eq!(copied(200, b"\xC0\x0C\xFF").unwrap(), b"\xC0\x0C\xFF");
    }

    #[test]
    fn rdata_that_does_not_fit_its_type_is_broken() {
        for (rtype, rdata) in [
            (1, &b"\x01\x02\x03"[..]),
            (28, &[0; 15]),
            (5, b"\x01a\x00\x00"),
            (5, b"\x01a"),
            (6, b"\x00\x00\x01\x02\x03"),
            (15, b"\x00"),
            (35, b"\x00\x01\x00\x02\x09s"),
        ] {
            assert_eq!(copied(rtype, rdata), Err(RdataError::Broken), "type {rtype}");
        }
    }

    #[test]
    fn minimum_is_the_last_field_of_a_soa() {
        let mut rdata = b"\x00\x00".to_vec();
        rdata.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 1, 44]);
        let soa = message(6, &rdata);
        let response = Response::parse(&soa).unwrap();
        assert_eq!(soa_minimum(&response, &response.records[0]), Some(300));
        let other = message(16, &rdata);
        let response = Response::parse(&other).unwrap();
        assert_eq!(soa_minimum(&response, &response.records[0]), None);
    }
}
