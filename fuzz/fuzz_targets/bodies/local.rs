//! Local names from any text: refused with the place of the mistake, or compiled and answered.
//!
//! Input: one octet that chooses (`h` for a hosts file, else a zone file), then the text.

use heimdall_uring::config;
use heimdall_uring::policy::local::{Sections, Wants};
use heimdall_uring::policy::{HostsFile, Local, LocalData};
use heimdall_uring::time::CacheTime;
use heimdall_uring::wire::patch::{self, Aging, Framing};
use heimdall_uring::wire::{Class, Encoder, Flags, Header, Name, NameBuf, Query, Rtype};

use super::check;

/// The apex of the zone.
const APEX: &str = "zone.example.";

/// Words of the text that are asked for.
const WORDS_MAX: usize = 16;

/// Types that are asked for: A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, DNAME, DS.
const TYPES: [u16; 11] = [1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 43];

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    answered(input);
}

/// Runs one input; says how many answers with records it led to.
pub(crate) fn answered(input: &[u8]) -> usize {
    let Some((&choice, text)) = input.split_first() else { return 0 };
    let is_hosts = choice == b'h';
    let zone = config::LocalZone {
        zone: APEX.into(),
        records: String::from_utf8_lossy(if is_hosts { b"" } else { text }).into_owned(),
        place: "zone:1".into(),
    };
    let hosts = HostsFile { place: "hosts".into(), text: text.into() };
    let sections = Sections {
        zones: &[zone],
        special: config::Special::NONE,
        forward: &config::Forward::default(),
        rewrites: &[],
        hosts: &config::Hosts::default(),
        hosts_files: if is_hosts { &[hosts] } else { &[] },
    };
    let lines = text.split(|&octet| octet == b'\n').count();
    let data = match LocalData::compile(&sections) {
        Ok((data, complaints)) => {
            assert!(complaints.len() <= 6, "{complaints:?}");
            data
        }
        Err(error) => {
            assert!(!is_hosts, "a hosts file is never refused: {error}");
            let line = error.place.strip_prefix("zone:").and_then(|line| line.parse().ok());
            assert!(line.is_some_and(|line: usize| (1..=lines).contains(&line)), "{error}");
            return 0;
        }
    };
    let words = text.split(|octet| octet.is_ascii_whitespace());
    let words =
        words.filter_map(|word| std::str::from_utf8(word).ok()).filter(|word| !word.is_empty());
    let mut answers = 0;
    for word in words.take(WORDS_MAX) {
        for name in [word.to_owned(), format!("{word}.{APEX}"), format!("x.{word}.{APEX}")] {
            let Ok(mut name) = NameBuf::from_text(&name) else { continue };
            name.make_lower();
            answers += ask(&data, name.as_name());
        }
    }
    answers
}

/// Asks for all types at `name`; says how many answers have records.
fn ask(data: &LocalData, name: Name<'_>) -> usize {
    let mut answers = 0;
    for qtype in TYPES.map(Rtype) {
        let header = Header { id: 1, flags: Flags(0), counts: [1, 0, 0, 0] };
        let mut encoder = Encoder::new(header, 512);
        encoder.question(name, qtype, Class::IN).expect("a question fits");
        let message = encoder.into_message();
        let query = Query::parse(&message).expect("we read what we write");
        for recursion in [true, false] {
            let wants = Wants { recursion, dnssec: !recursion };
            let now = CacheTime::default();
            let Some(local) = data.lookup(name.as_bytes(), qtype, wants, now) else { continue };
            let answer = match &local {
                Local::Answer(answer) => *answer,
                Local::Made(answer) => answer.view(now),
                Local::Follow(detour) => detour.links.view(now),
                Local::FollowMade(detour) => detour.links.view(now),
            };
            for limit in [512, 65_535] {
                let mut out = vec![0xEE; limit];
                let framing = Framing { limit, payload_bytes: 1232, ede: None };
                let len = patch::reply(&query, &answer, Aging::By(1), framing, &mut out);
                check::reply(&query, &out[..len.expect("an empty reply fits")], limit);
            }
            answers += usize::from(answer.shape.counts[0] > 0);
        }
    }
    answers
}
