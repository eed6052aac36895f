//! Hosts files as a client would see them.

use super::super::{HostsFile, Local, LocalData, Sections, Wants};
use super::*;
use crate::config::{self, Config, File};
use crate::wire::NameBuf;

const WANTS: Wants = Wants { recursion: true, dnssec: false };

/// The names of `text`, beside the config `toml`, and what the operator is told.
fn read_beside(toml: &str, text: &str) -> (LocalData, Vec<String>) {
    let config = Config::load(Some(File { name: "node.toml", text: toml }), [], &[]).unwrap();
    let files = [HostsFile { place: "/etc/hosts".into(), text: text.into() }];
    let sections = Sections {
        zones: &config.local,
        special: config::Special::default(),
        forward: &config.forward,
        rewrites: &config.rewrites,
        hosts: &config.hosts,
        hosts_files: &files,
    };
    LocalData::compile(&sections).unwrap()
}

fn read(text: &str) -> LocalData {
    let (data, complaints) = read_beside("", text);
    assert_eq!(complaints, Vec::<String>::new());
    data
}

/// The RDATA of the answers, with their TTL; `None` when others are asked.
fn ask(data: &LocalData, name: &str, qtype: Rtype) -> Option<Vec<(u32, Vec<u8>)>> {
    let mut name = NameBuf::from_text(name).unwrap();
    name.make_lower();
    let now = CacheTime::default();
    let local = data.lookup(name.as_name().as_bytes(), qtype, WANTS, now)?;
    let Local::Answer(answer) = local else { panic!("{local:?}") };
    assert_eq!((answer.shape.rcode, answer.shape.flags), (Rcode::NOERROR, Flags::AA));
    assert_eq!(usize::from(answer.shape.essential_bytes), answer.body.len());
    if answer.shape.counts[0] == 0 {
        let soa = b"\xC0\x0C\0\x06\0\x01\0\0\0\x3C\0\x26\xC0\x0C\x06nobody\x07invalid\0\0\0\0\x01";
        assert!(answer.body.starts_with(soa) && answer.body.ends_with(&[0, 0, 0, 60]));
        assert_eq!((answer.shape.counts, answer.ttls), ([0, 1, 0], &[6, 0][..]));
        return Some(Vec::new());
    }
    assert_eq!(answer.ttls.len(), 2 * usize::from(answer.shape.counts[0]));
    let starts =
        answer.ttls.as_chunks().0.iter().map(|pair| usize::from(u16::from_le_bytes(*pair)));
    let records = starts.map(|at| {
        let ttl = u32::from_be_bytes(*answer.body[at..].first_chunk().unwrap());
        let len = usize::from(u16::from_be_bytes(*answer.body[at + 4..].first_chunk().unwrap()));
        assert_eq!(answer.body[at - 4..at - 2], qtype.0.to_be_bytes());
        (ttl, answer.body[at + 6..at + 6 + len].to_vec())
    });
    Some(records.collect())
}

/// As [`ask`], for addresses in text.
fn addresses(data: &LocalData, name: &str, qtype: Rtype) -> Option<Vec<String>> {
    let records = ask(data, name, qtype)?;
    let text = |(_, rdata): (u32, Vec<u8>)| match rdata.as_array::<4>() {
        Some(octets) => std::net::Ipv4Addr::from(*octets).to_string(),
        None => std::net::Ipv6Addr::from(*rdata.as_array::<16>().unwrap()).to_string(),
    };
    Some(records.into_iter().map(text).collect())
}

#[test]
fn names_have_all_addresses_of_all_lines_and_other_types_nothing() {
    let data = read(
        "# the lab\n192.0.2.7\tNAS.lab.example nas # two names\r\n\n  192.0.2.8 nas.LAB.example.\n\
         2001:db8::7 nas.lab.example\n192.0.2.7 nas.lab.example\n192.0.2.9 big_one",
    );
    assert_eq!(addresses(&data, "nas.lab.example", Rtype::A).unwrap(), ["192.0.2.7", "192.0.2.8"]);
    assert_eq!(addresses(&data, "Nas.Lab.Example", Rtype::AAAA).unwrap(), ["2001:db8::7"]);
    assert_eq!(ask(&data, "nas", Rtype::A).unwrap(), [(60, vec![192, 0, 2, 7])]);
    assert_eq!(addresses(&data, "big_one", Rtype::A).unwrap(), ["192.0.2.9"]);
    for (name, qtype) in
        [("nas", Rtype::AAAA), ("nas.lab.example", Rtype::MX), ("nas.lab.example", Rtype::PTR)]
    {
        assert_eq!(ask(&data, name, qtype).unwrap(), [], "{name}");
    }
    for name in ["lab.example", "x.nas.lab.example", "other.lab.example", "as", "."] {
        assert_eq!(ask(&data, name, Rtype::A), None, "{name}");
    }
}

#[test]
fn addresses_lead_to_the_first_name_of_their_first_line() {
    let data = read(
        "192.168.1.2 nas.example nas\n192.168.1.2 other\n2001:db8::1 six.example\n\
         127.0.0.1 ads.example\n0.0.0.0 ads.example\n::1 ads.example\n127.0.1.1 me\n",
    );
    let ptr = |name: &str| ask(&data, name, Rtype::PTR).map(|records| records[0].1.clone());
    assert_eq!(ptr("2.1.168.192.in-addr.arpa").unwrap(), b"\x03nas\x07example\0");
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(ptr(six).unwrap(), b"\x03six\x07example\0");
    assert_eq!(ask(&data, six, Rtype::A).unwrap(), []);
    assert_eq!(ptr("1.1.0.127.in-addr.arpa").unwrap(), b"\x02me\0");
    assert_eq!(ptr("1.0.0.127.in-addr.arpa").unwrap(), b"\x09localhost\0", "a special name");
    assert_eq!(addresses(&data, "ads.example", Rtype::A).unwrap(), ["0.0.0.0", "127.0.0.1"]);
    let (without, _) = read_beside("[hosts]\nptr = false\nttl = 5", "192.0.9.2 nas.example");
    assert_eq!(ask(&without, "2.9.0.192.in-addr.arpa", Rtype::PTR), None);
    assert_eq!(ask(&without, "nas.example", Rtype::A).unwrap()[0].0, 5);
}

#[test]
fn names_of_the_machine_itself_are_passed_over() {
    let data = read(
        "127.0.0.1 localhost localhost.localdomain\n::1 ip6-localhost ip6-loopback x.LOCALHOST.\n\
         fe00::0 ip6-localnet\nfe80::1%lo0 localhost\n255.255.255.255 broadcasthost\n",
    );
    assert_eq!(data.hosts_names(), 0);
    assert_eq!(ask(&data, "ip6-localhost", Rtype::A), None);
    assert_eq!(addresses(&data, "localhost", Rtype::A).unwrap(), ["127.0.0.1"]);
}

#[test]
fn bad_lines_are_told_and_spoil_nothing() {
    let label = "a".repeat(64);
    let text = format!(
        "192.0.2.1 good\n192.0.2.256 bad\n192.0.2.2\nnas 192.0.2.2\n\
         192.0.2.3 -a b..c {label} a.1 also\n192.0.2.4 b\u{fc}cher\n"
    );
    let (data, complaints) = read_beside("", &text);
    assert_eq!(complaints.len(), 4, "{complaints:?}");
    for (complaint, part) in complaints.iter().zip([
        "/etc/hosts:2: \"192.0.2.256 bad\" does not begin with an IPv4 or IPv6 address",
        "/etc/hosts:3: \"192.0.2.2\" names nothing",
        "/etc/hosts:4: \"nas 192.0.2.2\" does not begin",
        "/etc/hosts has 5 bad lines in all",
    ]) {
        assert!(complaint.starts_with(part), "{complaint}");
    }
    for name in ["good", "also"] {
        assert!(ask(&data, name, Rtype::A).is_some(), "{name}");
    }
    assert!(ask(&data, "bad", Rtype::A).is_none());
}

#[test]
fn zones_and_rewrites_keep_their_names() {
    let (data, complaints) = read_beside(
        "[[local]]\nzone = 'lab.example.'\nrecords = 'nas A 192.0.2.1'\n\
         [[local]]\nzone = '2.0.192.in-addr.arpa.'\n\
         [[rewrite]]\nname = 'single.example'\nto = '192.0.2.99'\n\
         [[rewrite]]\nname = '*.apps.example'\nto = '192.0.2.98'\n",
        "192.0.2.5 nas.lab.example other.lab.example\n192.0.2.6 single.example one.apps.example\n",
    );
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints[0].starts_with("hosts.files: 3 name(s) belong to [[local]]"),
        "{complaints:?}"
    );
    assert_eq!(addresses(&data, "nas.lab.example", Rtype::A).unwrap(), ["192.0.2.1"]);
    assert_eq!(addresses(&data, "single.example", Rtype::A).unwrap(), ["192.0.2.99"]);
    assert_eq!(addresses(&data, "one.apps.example", Rtype::A).unwrap(), ["192.0.2.6"]);
    assert_eq!(addresses(&data, "two.apps.example", Rtype::A).unwrap(), ["192.0.2.98"]);
    assert_eq!(data.hosts_names(), 1, "no PTR in a zone of the operator");
}

#[test]
fn aliases_and_rewrites_lead_to_names_of_hosts_files() {
    let (data, _) = read_beside(
        "[[local]]\nzone = 'lab.example.'\nrecords = 'www CNAME nas.home.'\n\
         [[rewrite]]\nname = 'tv.example'\nto = 'nas.home'\n",
        "192.0.2.5 nas.home\n",
    );
    for name in ["www.lab.example", "tv.example"] {
        let records = {
            let name = NameBuf::from_text(name).unwrap();
            let local =
                data.lookup(name.as_name().as_bytes(), Rtype::A, WANTS, CacheTime::default());
            let Some(Local::Answer(answer)) = local else { panic!("{local:?}") };
            assert!(answer.body.ends_with(&[192, 0, 2, 5]));
            answer.shape.counts[0]
        };
        assert_eq!(records, 2, "{name}");
    }
}

#[test]
fn more_addresses_than_an_answer_takes_are_left_out() {
    let lines = (0..3_000).map(|host| format!("10.0.{}.{} many\n", host / 250, host % 250));
    let (data, complaints) = read_beside("[hosts]\nptr = false", &lines.collect::<String>());
    assert_eq!(ask(&data, "many", Rtype::A).unwrap().len(), ADDRESSES_MAX);
    assert_eq!(
        complaints,
        ["hosts.files: 1976 address(es) are left out: a name has 1024 of a family at most"]
    );
}
