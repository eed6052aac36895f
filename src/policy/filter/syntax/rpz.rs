//! Response policy zones (draft-vixie-dnsop-dns-rpz §3, §4): QNAME, wildcard, rpz-ip, rpz-nsdname and rpz-client-ip
//! triggers. An rpz-nsip trigger would need the addresses of a zone's servers, which a forwarder does not see.
//!
//! Local data may be of the types in [`TYPES`]: the zone-file reader panics over some broken character strings, so that records
//! with such strings, and entries with quotes, escapes or other letters than ASCII, are not offered.
//!
//! The apex is the owner of the SOA record, which comes first; without one, the origin.

mod entries;

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::rdata::ComposeRecordData as _;
use domain::base::{Name as ZoneName, ToName as _, iana};
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};
use ipnet::IpNet;

use self::entries::{ENTRY_BYTES_MAX, Entries};
use super::{Finding, Reader, Sink, plain, text};
use crate::policy::filter::rule::{LocalRecord, Owner, Reach, Rule, Trigger, Verb};
use crate::policy::presentation;
use crate::wire::{Name, Rtype};

/// Where relative names hang when the zone does not say.
const ORIGIN: &[u8] = b"\x03rpz\x07invalid\0";

/// The types that are read.
const TYPES: [&[u8]; 9] = [b"A", b"AAAA", b"CNAME", b"MX", b"NS", b"PTR", b"SOA", b"SRV", b"DNAME"];

/// Reads a whole zone.
pub(super) fn read<S: Sink>(text: &[u8], reader: &mut Reader<'_, S>) {
    let mut zone = Zone::at(ORIGIN);
    let mut next_line = 1;
    for entry in Entries::of(text) {
        reader.line = next_line;
        next_line += entry.iter().filter(|&&octet| octet == b'\n').count();
        if let Err(finding) = zone.read_entry(entry, reader) {
            reader.remark(finding);
        }
    }
}

/// The owner of a record that does not state one.
enum LastOwner {
    /// The zone-file reader knows it.
    Read,
    /// As it stands in an entry that the zone-file reader was not offered, or did not understand.
    Word(Vec<u8>),
    /// There was none yet, or one that cannot be told.
    Unknown,
}

/// A zone as far as it is read.
struct Zone {
    scanner: Zonefile,
    apex: Option<Vec<u8>>,
    last_owner: LastOwner,
}

impl Zone {
    fn at(origin: &'static [u8]) -> Self {
        let mut scanner = Zonefile::new();
        if let Ok(origin) = ZoneName::from_octets(origin.into()) {
            scanner.set_origin(origin);
        }
        scanner.set_default_class(iana::Class::IN);
        Self { scanner, apex: None, last_owner: LastOwner::Unknown }
    }

    fn origin(&self) -> Vec<u8> {
        let origin = self.scanner.origin();
        origin.map_or_else(|_| ORIGIN.to_vec(), |name| name.as_slice().to_ascii_lowercase())
    }

    fn read_entry<S: Sink>(
        &mut self,
        entry: &[u8],
        reader: &mut Reader<'_, S>,
    ) -> Result<(), Finding> {
        let stated = Stated::by(entry);
        if let Stated::Owner(word) = stated {
            // Until the zone-file reader has taken it: whatever becomes of this record, the next ones may be of its owner.
            let is_plain = word.iter().all(|octet| is_plain(*octet));
            self.last_owner =
                if is_plain { LastOwner::Word(word.into()) } else { LastOwner::Unknown };
        }
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(Finding::LongLine);
        }
        if presentation::left_open(entry).is_some() {
            let is_offered = matches!(stated, Stated::Nothing) || is_offered(entry);
            return Err(if is_offered { Finding::Record } else { Finding::NotOffered });
        }
        let completed;
        let entry = match (&stated, &self.last_owner) {
            (Stated::Nothing, _) => return Ok(()),
            (Stated::Unclear, _) => {
                self.last_owner = LastOwner::Unknown;
                return Err(Finding::Record);
            }
            (Stated::None, LastOwner::Unknown) => return Err(Finding::Record),
            (Stated::None, LastOwner::Word(word)) => {
                completed = [word, entry].concat();
                &completed
            }
            _ => entry,
        };
        if !is_offered(entry) {
            return Err(Finding::NotOffered);
        }
        self.scan(entry, reader)
    }

    /// Has the zone-file reader read an entry.
    fn scan<S: Sink>(&mut self, entry: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
        // After an error it is in no state to go on from. It holds no text between entries, so that this costs little.
        let before = self.scanner.clone();
        self.scanner.extend_from_slice(entry);
        if !entry.ends_with(b"\n") {
            self.scanner.extend_from_slice(b"\n");
        }
        let mut outcome = Ok(());
        loop {
            match self.scanner.next_entry() {
                Ok(None) => break,
                Ok(Some(Entry::Include { .. })) => outcome = Err(Finding::NotOffered),
                Ok(Some(Entry::Record(record))) => {
                    self.last_owner = LastOwner::Read;
                    outcome = outcome.and_then(|()| self.read_record(&record, reader));
                }
                Err(_) => {
                    self.scanner = before;
                    return Err(Finding::Record);
                }
            }
        }
        if self.scanner.origin().ok() != before.origin().ok()
            && matches!(self.last_owner, LastOwner::Word(_))
        {
            // It was relative to another origin.
            self.last_owner = LastOwner::Unknown;
        }
        outcome
    }

    fn read_record<S: Sink>(
        &mut self,
        record: &ScannedRecord,
        reader: &mut Reader<'_, S>,
    ) -> Result<(), Finding> {
        let owner: Vec<u8> = record.owner().to_vec().into_octets().to_ascii_lowercase();
        let origin = self.origin();
        let apex = self.apex.get_or_insert_with(|| {
            if record.rtype() == iana::Rtype::SOA { owner.clone() } else { origin }
        });
        read_record(&owner, apex, record, reader)
    }
}

/// What stands at the beginning of an entry.
enum Stated<'a> {
    /// There is nothing in it but blanks and comments.
    Nothing,
    /// A directive.
    Directive,
    /// A blank: it is of the owner of the one before.
    None,
    /// An owner.
    Owner(&'a [u8]),
    /// What readers of zone files take for different things.
    Unclear,
}

impl<'a> Stated<'a> {
    fn by(entry: &'a [u8]) -> Self {
        let is_blank = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b'(' | b')');
        let lines = entry.split(|&octet| octet == b'\n');
        let mut lines =
            lines.map(|line| line.split(|&octet| octet == b';').next().unwrap_or_default());
        if lines.all(|line| line.iter().all(is_blank)) {
            return Self::Nothing;
        }
        let end = entry.iter().position(|octet| is_blank(octet) || *octet == b';');
        match entry.split_at(end.unwrap_or(entry.len())).0 {
            [] if matches!(entry.first(), Some(b' ' | b'\t')) => Self::None,
            [] => Self::Unclear,
            [b'$', ..] => Self::Directive,
            word => Self::Owner(word),
        }
    }
}

/// Whether the zone-file reader can be trusted with `octet` in a word.
const fn is_plain(octet: u8) -> bool {
    matches!(octet, b'!'..=b'~') && !matches!(octet, b'"' | b'\\')
}

/// Whether the zone-file reader can be trusted with `entry`: a directive, nothing, or a record of one of [`TYPES`].
fn is_offered(entry: &[u8]) -> bool {
    let lines = entry.split(|&octet| octet == b'\n');
    let lines = lines.map(|line| line.split(|&octet| octet == b';').next().unwrap_or_default());
    let is_blank = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b'(' | b')');
    let mut words =
        lines.clone().flat_map(|line| line.split(is_blank)).filter(|word| !word.is_empty());
    let is_known = |octet: &u8| is_plain(*octet) || matches!(octet, b' ' | b'\t' | b'\r');
    if !lines.clone().flatten().all(is_known) {
        return false;
    }
    // The owner, unless the line begins with a blank.
    let has_owner = entry.first().is_some_and(|octet| !is_blank(octet));
    let first = if has_owner { words.next() } else { None };
    if first.is_some_and(|word| word.starts_with(b"$")) {
        return true;
    }
    let is_type = |word: &&[u8]| {
        let is_ttl = word.first().is_some_and(u8::is_ascii_digit);
        !is_ttl && ![b"IN", b"CH", b"HS"].iter().any(|class| word.eq_ignore_ascii_case(*class))
    };
    let rtype = words.find(is_type);
    rtype.is_none_or(|rtype| TYPES.iter().any(|known| rtype.eq_ignore_ascii_case(known)))
}

fn read_record<S: Sink>(
    owner: &[u8],
    apex: &[u8],
    record: &ScannedRecord,
    reader: &mut Reader<'_, S>,
) -> Result<(), Finding> {
    let rtype = Rtype(record.rtype().to_int());
    if owner.eq_ignore_ascii_case(apex) {
        // SOA and NS, for those who transfer the zone.
        return Ok(());
    }
    if record.class() != iana::Class::IN
        || matches!(rtype, Rtype::DNAME | Rtype::NS | Rtype::SOA | Rtype::RRSIG | Rtype::NSEC)
    {
        return Err(Finding::NotOffered);
    }
    let mut labels = labels_below(owner, apex).ok_or(Finding::Trigger)?;
    let mut rdata = Vec::new();
    record.data().compose_rdata(&mut rdata).map_err(|_| Finding::Record)?;
    let zoned = |owner| Rule { is_zoned: true, ..plain(owner) };
    let mut wire = Vec::new();
    let trigger = match labels.last().copied() {
        Some(last @ (b"rpz-ip" | b"rpz-client-ip")) => {
            labels.pop();
            let net = network(&labels).ok_or(Finding::Trigger)?;
            let trigger = if last == b"rpz-ip" { Trigger::Qname } else { Trigger::Client };
            let rule = Rule { trigger, ..zoned(Owner::Addresses(net)) };
            return act(rule, rtype, record, &rdata, None, reader);
        }
        Some(b"rpz-nsip") => return Err(Finding::NotOffered),
        Some(b"rpz-nsdname") => {
            labels.pop();
            Trigger::Nsdname
        }
        _ => Trigger::Qname,
    };
    let (labels, reach) = match labels.as_slice() {
        [b"*", labels @ ..] => (labels, Reach::Below),
        labels => (labels, Reach::Exact),
    };
    for label in labels {
        wire.push(u8::try_from(label.len()).map_err(|_| Finding::Trigger)?);
        wire.extend(*label);
    }
    wire.push(0);
    let name = Name::parse(&wire).map_err(|_| Finding::Trigger)?;
    let rule = Rule { trigger, reach, ..zoned(Owner::Name(name)) };
    act(rule, rtype, record, &rdata, Some(name), reader)
}

/// Completes a rule by what its record asks for.
fn act<S: Sink>(
    rule: Rule<'_>,
    rtype: Rtype,
    record: &ScannedRecord,
    rdata: &[u8],
    owner: Option<Name<'_>>,
    reader: &mut Reader<'_, S>,
) -> Result<(), Finding> {
    let target = (rtype == Rtype::CNAME).then(|| rdata.to_ascii_lowercase());
    let verb = match target.as_deref() {
        Some(b"\0") => Verb::Nxdomain,
        Some(b"\x01*\0") => Verb::Nodata,
        Some(b"\x0Crpz-passthru\0") => Verb::Allow,
        Some(b"\x08rpz-drop\0") => Verb::Drop,
        Some(b"\x0Crpz-tcp-only\0") => Verb::TcpOnly,
        // Passing by an alias to itself, as the first drafts had it.
        Some(target) if owner.is_some_and(|owner| owner.as_bytes() == target) => Verb::Allow,
        // Actions that we do not know must not become aliases.
        Some(target) if is_action(target) => return Err(Finding::NotOffered),
        Some(_) | None => Verb::Local,
    };
    let ttl = record.ttl().as_secs();
    let record = (verb == Verb::Local).then_some(LocalRecord { rtype, ttl, rdata });
    reader.emit(&Rule { verb, record, ..rule })
}

/// Whether the last label is one of those kept for actions.
fn is_action(target: &[u8]) -> bool {
    let last = Name::parse(target).ok().and_then(|name| name.labels().last());
    last.is_some_and(|label| label.starts_with(b"rpz-"))
}

/// The labels of `owner` that stand before `apex`; both are folded.
fn labels_below<'a>(owner: &'a [u8], apex: &[u8]) -> Option<Vec<&'a [u8]>> {
    let mut labels = Vec::new();
    let mut name = Name::parse(owner).ok()?;
    while !name.as_bytes().eq_ignore_ascii_case(apex) {
        labels.push(name.labels().next()?);
        name = name.parent()?;
    }
    Some(labels)
}

/// The prefix in `24.0.2.0.192`, or `48.zz.2.2001` with `zz` for `::`.
fn network(labels: &[&[u8]]) -> Option<IpNet> {
    let (bits, parts) = labels.split_first()?;
    let bits: u8 = text(bits)?.parse().ok()?;
    let mut words = parts.iter().rev();
    let net = if parts.len() == 4 && !parts.contains(&b"zz".as_slice()) {
        let mut octets = [0_u8; 4];
        for (octet, word) in octets.iter_mut().zip(words) {
            *octet = text(word)?.parse().ok()?;
        }
        IpNet::new(Ipv4Addr::from(octets).into(), bits).ok()?
    } else {
        let gap = 8_usize.checked_sub(parts.iter().filter(|part| **part != b"zz").count())?;
        let mut groups = Vec::with_capacity(8);
        let mut has_gap = false;
        words.try_for_each(|word| {
            if *word == b"zz" {
                groups.extend(std::iter::repeat_n(0_u16, if has_gap { 0 } else { gap }));
                has_gap = true;
            } else {
                groups.push(u16::from_str_radix(text(word)?, 16).ok()?);
            }
            Some(())
        })?;
        let groups = <[u16; 8]>::try_from(groups).ok()?;
        IpNet::new(Ipv6Addr::from(groups).into(), bits).ok()?
    };
    // Octets behind the prefix are a slip: which network is meant?
    (net.network() == net.addr()).then_some(net)
}
