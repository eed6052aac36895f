//! The records of one local zone as they stand in the config: zone-file text, read with the place of every mistake.

use std::collections::{BTreeMap, BTreeSet};

use domain::base::rdata::ComposeRecordData as _;
use domain::base::{ToName as _, iana};
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

use crate::config;
use crate::policy::presentation;
use crate::wire::{Name, Rtype, case};

/// The records of one owner and type, with their common TTL.
#[derive(Clone, Debug, Default)]
pub(super) struct RrSet {
    pub(super) ttl: u32,
    pub(super) rdata: BTreeSet<Vec<u8>>,
    /// Where the last of them stands.
    line: usize,
}

/// The records of one owner, by type.
pub(super) type Sets = BTreeMap<Rtype, RrSet>;

/// Records as read, by folded owner.
pub(super) type Records = BTreeMap<Vec<u8>, Sets>;

/// What is wrong with the records, and in which of their lines.
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// Reads the records of `section`, the zone at `apex`.
///
/// # Errors
/// The first [`Mistake`].
pub(super) fn read(section: &config::LocalZone, apex: Name<'_>) -> Result<Records, Mistake> {
    let mut reader = Zonefile::new();
    let origin = domain::base::Name::from_octets(apex.as_bytes().to_vec().into());
    let origin = origin.map_err(|error| Mistake { line: 1, problem: error.to_string() })?;
    reader.set_origin(origin);
    reader.set_default_class(iana::Class::IN);
    let mut records = Records::new();
    let mut line = 1;
    // The reader counts a line too many when it stumbles over a line's last word, and says nothing of the lines of
    // good records; so it gets one entry at a time.
    for text in entries(&section.records) {
        let fail = |problem| Mistake { line, problem };
        if let Some(open) = presentation::left_open(text.as_bytes()) {
            return Err(fail(open.problem().to_owned()));
        }
        reader.extend_from_slice(text.as_bytes());
        if !text.ends_with('\n') {
            reader.extend_from_slice(b"\n");
        }
        while let Some(entry) = reader.next_entry().map_err(|error| fail(without_place(&error)))? {
            match entry {
                Entry::Record(record) => {
                    add_record(&mut records, apex, &record, line).map_err(fail)?;
                }
                Entry::Include { .. } => {
                    return Err(fail("$INCLUDE is not offered: write the records here".into()));
                }
            }
        }
        line += text.matches('\n').count();
    }
    check(&records, apex)?;
    Ok(records)
}

/// What the reader says, without its own `line:column`.
fn without_place(error: &domain::zonefile::inplace::Error) -> String {
    let text = error.to_string();
    text.split_once(": ").map_or(text.as_str(), |(_, problem)| problem).to_owned()
}

/// Cuts zone-file text into entries, line ends included: a line, or several within parentheses (RFC 1035 §5.1).
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let (mut depth, mut is_quoted, mut is_comment, mut is_escaped) = (0_usize, false, false, false);
    text.split_inclusive(move |letter: char| {
        let ends = letter == '\n' && depth == 0;
        match letter {
            // A quoted text ends with its line, whether closed or not: the reader will say so.
            '\n' => (is_quoted, is_comment, is_escaped) = (false, false, false),
            _ if is_comment => {}
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            ';' => is_comment = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        ends
    })
}

fn add_record(
    records: &mut Records,
    apex: Name<'_>,
    record: &ScannedRecord,
    line: usize,
) -> Result<(), String> {
    let owner: Vec<u8> = record.owner().to_vec().into_octets();
    let name = Name::parse(&owner).map_err(|error| format!("{}: {error:?}", record.owner()))?;
    if !name.is_within(apex) {
        return Err(format!("{name} lies outside the zone"));
    }
    if record.class() != iana::Class::IN {
        return Err(format!("{name}: only class IN is served"));
    }
    let mut rdata = Vec::new();
    record.data().compose_rdata(&mut rdata).map_err(|_| format!("{name}: RDATA is too long"))?;
    let rtype = Rtype(record.rtype().to_int());
    let rdata = without_at(rtype, &rdata).unwrap_or(rdata);
    let set = records.entry(folded(name)).or_default().entry(rtype).or_default();
    let ttl = record.ttl().as_secs();
    // All records of an RRset share one TTL (RFC 2181 §5.2).
    set.ttl = if set.rdata.is_empty() { ttl } else { set.ttl.min(ttl) };
    set.rdata.insert(rdata);
    set.line = line;
    Ok(())
}

/// RDATA in which the origin, written `@`, is what it stands for (RFC 1035 §5.1): the reader knows it as an owner only, and
/// makes a label of it before the origin. Nobody has names that really begin so. `None` for RDATA without names.
fn without_at(rtype: Rtype, rdata: &[u8]) -> Option<Vec<u8>> {
    let (lead, names) = match rtype.0 {
        // NS CNAME PTR DNAME
        2 | 5 | 12 | 39 => (0, 1),
        // SOA
        6 => (0, 2),
        // MX AFSDB KX, SVCB HTTPS
        15 | 18 | 36 | 64 | 65 => (2, 1),
        // SRV
        33 => (6, 1),
        _ => return None,
    };
    let (head, mut rest) = rdata.split_at_checked(lead)?;
    let mut spelled = head.to_vec();
    for _ in 0..names {
        let name = Name::parse(rest).ok()?.as_bytes();
        spelled.extend(name.strip_prefix(b"\x01@").unwrap_or(name));
        rest = &rest[name.len()..];
    }
    spelled.extend(rest);
    Some(spelled)
}

fn check(records: &Records, apex: Name<'_>) -> Result<(), Mistake> {
    for (owner, sets) in records {
        let last = sets.values().map(|set| set.line).max().unwrap_or(1);
        let fail = |line, problem| Err(Mistake { line, problem });
        let Ok(name) = Name::parse(owner) else {
            return fail(last, "an owner is no name".to_owned());
        };
        if let Some(cname) = sets.get(&Rtype::CNAME) {
            let others = sets
                .keys()
                .any(|rtype| !matches!(*rtype, Rtype::CNAME | Rtype::NSEC | Rtype::RRSIG));
            if others || cname.rdata.len() > 1 {
                return fail(last, format!("{name} has a CNAME and other data (RFC 2181 §10.1)"));
            }
        }
        if let Some(problem) = flaw(records, apex, name, sets) {
            return fail(last, format!("{name} {problem}"));
        }
        if let Some(soa) = sets.get(&Rtype::SOA).filter(|soa| soa.rdata.len() > 1) {
            return fail(soa.line, format!("{name} has two SOA records"));
        }
    }
    Ok(())
}

/// What is wrong with the delegation or redirection at `name`.
fn flaw(records: &Records, apex: Name<'_>, name: Name<'_>, sets: &Sets) -> Option<&'static str> {
    let is_wildcard = name.as_bytes().starts_with(b"\x01*");
    let has_servers = sets.contains_key(&Rtype::NS);
    let is_cut = has_servers && !name.is_same(apex);
    if is_cut && is_wildcard {
        return Some("is a wildcard with NS records, which means nothing (RFC 4592 §4.2)");
    }
    let above = name.suffixes().skip(1).take_while(|part| part.is_within(apex));
    let is_below_dname = above.into_iter().any(|part| {
        let sets = records.get(part.as_bytes());
        sets.is_some_and(|sets| sets.contains_key(&Rtype::DNAME))
    });
    if is_below_dname {
        return Some("lies below a DNAME, which leads all such names elsewhere (RFC 6672 §2.4)");
    }
    let dname = sets.get(&Rtype::DNAME)?;
    if dname.rdata.len() > 1 {
        return Some("has two DNAME records (RFC 6672 §2.4)");
    }
    if is_wildcard {
        return Some("is a wildcard with a DNAME, which is not offered (RFC 6672 §3.3)");
    }
    is_cut.then_some("has a DNAME and is delegated: the DNAME would never be seen (RFC 6672 §2.4)")
}

/// The name in lower case, in wire form.
pub(super) fn folded(name: Name<'_>) -> Vec<u8> {
    let mut bytes = vec![0; name.as_bytes().len()];
    case::lower_into(name.as_bytes(), &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::NameBuf;

    fn read_text(records: &str) -> Result<Records, Mistake> {
        let apex = NameBuf::from_text("zone.example.").unwrap();
        let zone = "zone.example.".to_owned();
        let section = config::LocalZone { zone, records: records.into(), place: "x:1".into() };
        read(&section, apex.as_name())
    }

    /// Pieces of which zone files are made, and those that open and close something most of all.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "(",
            ")",
            "\"",
            "\"",
            "\\",
            "\n",
            "\n",
            " ",
            " ",
            ";",
            "\t",
            "\r",
            "a",
            "@",
            "*",
            ".",
            "1",
            "\\1",
            "\\065",
            "\\#",
            "TXT ",
            "TXT ",
            "TXT \"a\" ",
            "www TXT ( \"a\"",
            "HINFO ",
            "NAPTR 1 1 ",
            "CAA 0 issue ",
            "HTTPS 1 . ",
            "alpn=\"h2\"",
            "A 192.0.2.1",
            "SOA a b ( 1 2 3 4 5 )",
            "MX 1 @",
            "CNAME @",
            "TYPE16 ",
            "60 ",
            "IN ",
            "$TTL ",
            "$ORIGIN ",
            "é",
            "\u{7f}",
            "\u{0}",
            "\u{b}",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_the_reader_panic(pieces in prop::collection::vec(piece(), 0..24)) {
            let text = format!("www 60 {}", pieces.concat());
            let lines = text.matches('\n').count() + 1;
            if let Err(mistake) = read_text(&text) {
                prop_assert!((1..=lines).contains(&mistake.line) && !mistake.problem.is_empty());
            }
        }
    }

    #[test]
    fn long_texts_are_refused_and_not_read_beyond() {
        for text in ["a".repeat(256), format!("\"{}\"", "a ".repeat(200)), "\\065".repeat(300)] {
            assert!(read_text(&format!("www 60 TXT {text}\n")).is_err());
            assert!(read_text(&format!("www 60 TXT b {text} ( \"c\"\n)\n")).is_err());
        }
    }
}
