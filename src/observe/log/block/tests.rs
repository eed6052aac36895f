//! Blocks against what was put into them, and against strangers' octets.

use proptest::prelude::*;

use super::super::entry::tests::ENTRY;
use super::*;
use crate::time::CacheTime;
use crate::wire::NameBuf;

fn packer(is_anonymous: bool) -> Packer {
    Packer::new(is_anonymous, RandomState::with_seeds(1, 2, 3, 4))
}

fn called(label: Label) -> String {
    match label {
        Label::Listener(number) => format!("127.0.0.1:{number}"),
        Label::Group(number) => format!("group {number}"),
        Label::List(number) => format!("list {number}"),
    }
}

/// A query as a test makes it: an entry whose name lies beside it.
#[derive(Clone, Debug)]
struct Asked {
    qname: Vec<u8>,
    entry: Entry<'static>,
}

impl Asked {
    fn entry(&self) -> Entry<'_> {
        Entry { qname: &self.qname, ..self.entry }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let qname = prop::collection::vec("[a-zA-Z0-9_\\-]{1,12}", 0..5);
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical()),
        (0..3_u8).prop_map(|last| IpAddr::from([192, 0, 2, last])),
    ];
    let numbers = (any::<u16>(), 0..3_u16, 0..4_u16, any::<u16>());
    let codes = (prop::option::of(0..4_096_u16), prop::option::of(0..3_u8), 0..7_u8, 0..2_u8);
    let time = prop_oneof![0..10_u64, 1_700_000_000_000..1_700_000_001_000_u64, 0..1_u64 << 62];
    let latency = prop::option::of(any::<u32>());
    (qname, address, numbers, codes, (time, latency, any::<bool>())).prop_map(
        |(
            labels,
            address,
            (port, listener, qtype, reply_len),
            codes,
            (time, latency_us, is_tcp),
        )| {
            let (rcode, list, how, group) = codes;
            let mut qname = Vec::new();
            for label in labels {
                qname.push(u8::try_from(label.len()).unwrap());
                qname.extend_from_slice(label.as_bytes());
            }
            qname.push(0);
            let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
            let how = How::numbered(how).unwrap();
            let time = CacheTime::from_millis(time);
            let entry = Entry {
                address,
                port,
                listener,
                qtype,
                reply_len,
                rcode,
                list,
                how,
                group,
                time,
                latency_us,
                transport,
                ..ENTRY
            };
            Asked { qname, entry }
        },
    )
}

/// What a row tells of `entry`, in words.
fn expected(entry: &Entry<'_>, is_anonymous: bool) -> String {
    let qname = entry.qname.to_ascii_lowercase();
    let (address, port) =
        if is_anonymous { (anonymous(entry.address), 0) } else { (entry.address, entry.port) };
    let list = entry.list.map(|list| called(Label::List(list)));
    format!(
        "{} {qname:?} {address} {port} {:?} {} {} {list:?} {:?} {} {:?} {:?} {}",
        entry.time.as_millis(),
        entry.transport,
        called(Label::Listener(entry.listener)),
        called(Label::Group(entry.group)),
        entry.how,
        entry.qtype,
        entry.rcode,
        entry.latency_us,
        entry.reply_len,
    )
}

fn told(row: &Row<'_>) -> String {
    format!(
        "{} {:?} {} {} {:?} {} {} {:?} {:?} {} {:?} {:?} {}",
        row.time_ms,
        row.name.as_bytes(),
        row.client,
        row.port,
        row.transport,
        row.listener,
        row.group,
        row.list.map(str::to_owned),
        row.how,
        row.qtype,
        row.rcode,
        row.latency_us,
        row.reply_len,
    )
}

fn rows(packed: &Packed) -> Vec<String> {
    Block::open(&packed.octets).unwrap().rows().map(|row| told(&row)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_out_again(
        asked in prop::collection::vec(asked(), 1..150),
        is_anonymous in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let expect = |asked: &[Asked]| -> Vec<String> {
            asked.iter().map(|asked| expected(&asked.entry(), is_anonymous)).collect()
        };
        let mut whole = packer(is_anonymous);
        asked.iter().for_each(|asked| whole.add(&asked.entry(), called));
        let packed = whole.packed();
        prop_assert_eq!(rows(&packed), expect(&asked));
        let times = || asked.iter().map(|asked| asked.entry.time.as_millis());
        prop_assert_eq!(Some(packed.begin_ms), times().min());
        prop_assert_eq!(Some(packed.end_ms), times().max());
        prop_assert!(packed.octets.len() <= BYTES_MAX);
        // Two blocks put together are as one.
        let (first, second) = asked.split_at(cut.index(asked.len()));
        let mut joined = packer(false);
        for part in [first, second] {
            let mut own = packer(is_anonymous);
            part.iter().for_each(|asked| own.add(&asked.entry(), called));
            if own.records() > 0 {
                prop_assert!(joined.append(&Block::open(&own.packed().octets).unwrap()));
            }
        }
        prop_assert_eq!(rows(&joined.packed()), expect(&asked));
        // Nothing of before is left after a new beginning.
        whole.clear();
        whole.add(&asked[0].entry(), called);
        prop_assert_eq!(rows(&whole.packed()), expect(&asked[..1]));
    }

    #[test]
    fn what_a_block_holds_it_may_hold(asked in prop::collection::vec(asked(), 1..60)) {
        let mut packer = packer(false);
        asked.iter().for_each(|asked| packer.add(&asked.entry(), called));
        let facts = packer.packed().facts;
        for asked in &asked {
            let entry = asked.entry();
            let lower = entry.qname.to_ascii_lowercase();
            let (group, list) = (called(Label::Group(entry.group)), entry.list.map(Label::List));
            let list = list.map(called);
            let name = Name::parse(&lower).unwrap();
            let mut held = vec![
                Fact::Client(entry.address),
                Fact::Group(&group),
                Fact::How(entry.how),
                Fact::Qtype(entry.qtype),
            ];
            held.extend(list.as_deref().map(Fact::List));
            held.extend(entry.rcode.map(Fact::Rcode));
            held.extend(name.suffixes().map(Fact::Within));
            for fact in held {
                prop_assert!(may_hold(&facts, &fact), "{:?}", fact);
            }
        }
    }

    #[test]
    fn counts_are_those_of_names_and_clients(asked in prop::collection::vec(asked(), 1..100)) {
        let mut packer = packer(false);
        let mut names: HashMap<Vec<u8>, (u32, u32)> = HashMap::new();
        let mut clients: HashMap<Vec<u8>, (u32, u32)> = HashMap::new();
        for asked in &asked {
            packer.add(&asked.entry(), called);
            let blocked = u32::from(asked.entry.how == How::Blocked);
            for (key, counts) in [
                (asked.qname.to_ascii_lowercase(), &mut names),
                (octets(asked.entry.address).to_vec(), &mut clients),
            ] {
                let (all, own) = counts.entry(key).or_default();
                *all += 1;
                *own += blocked;
            }
        }
        let seen = |seen: Seen<'_>| (seen.key.to_vec(), (seen.count, seen.blocked));
        prop_assert_eq!(packer.names_seen().map(seen).collect::<HashMap<_, _>>(), names);
        prop_assert_eq!(packer.clients_seen().map(seen).collect::<HashMap<_, _>>(), clients);
    }
}

#[test]
fn few_blocks_are_looked_at_in_vain() {
    let mut packer = packer(false);
    for number in 0..2_000 {
        let qname = NameBuf::from_text(&format!("w{number}.example{}.com.", number % 500)).unwrap();
        packer.add(&Entry { qname: qname.as_name().as_bytes(), ..ENTRY }, called);
    }
    let facts = packer.packed().facts;
    let absent = |number| NameBuf::from_text(&format!("absent{number}.com.")).unwrap();
    let absent: Vec<NameBuf> = (0..1_000).map(absent).collect();
    let taken = absent.iter().filter(|name| may_hold(&facts, &Fact::Within(name.as_name())));
    let taken = taken.count();
    assert!(taken < 40, "{taken} of 1000");
    assert!(may_hold(&[], &Fact::Qtype(9)), "nothing is known");
    assert!(may_hold(&facts, &Fact::Within(Name::ROOT)));
}

#[test]
fn names_deeper_than_facts_go_are_found_by_their_ancestors() {
    let deep = "a.b.c.d.e.f.g.h.i.j.k.test.";
    let qname = NameBuf::from_text(deep).unwrap();
    let mut packer = packer(false);
    packer.add(&Entry { qname: qname.as_name().as_bytes(), ..ENTRY }, called);
    let facts = packer.packed().facts;
    for within in qname.as_name().suffixes() {
        assert!(may_hold(&facts, &Fact::Within(within)), "{within}");
    }
    let other = NameBuf::from_text("a.b.c.d.e.f.g.h.i.j.k.tess.").unwrap();
    assert!(!may_hold(&facts, &Fact::Within(other.as_name())));
}

#[test]
fn full_blocks_stay_within_their_bounds() {
    let mut packer = packer(false);
    let mut count = 0_u32;
    while !packer.is_full() {
        // The longest names there are, all different.
        let labels = [format!("{count:063}"), "x".repeat(63), "y".repeat(63), "z".repeat(61)];
        let qname = NameBuf::from_text(&labels.join(".")).unwrap();
        let entry = Entry {
            qname: qname.as_name().as_bytes(),
            time: CacheTime::from_millis(u64::from(count % 2) << 62),
            latency_us: Some(u32::MAX),
            address: IpAddr::from(u128::from(count).to_be_bytes()),
            qtype: u16::try_from(count).unwrap(),
            ..ENTRY
        };
        packer.add(&entry, called);
        count += 1;
    }
    assert!((2_000..RECORDS_MAX).contains(&packer.records()), "{}", packer.records());
    let packed = packer.packed();
    assert!(packed.octets.len() <= BYTES_MAX);
    let block = Block::open(&packed.octets).unwrap();
    let mut other = self::packer(false);
    other.add(&ENTRY, called);
    assert!(!other.append(&block), "there is no room for all of them");
    packer.clear();
    while !packer.is_full() {
        packer.add(&ENTRY, called);
    }
    assert_eq!(packer.records(), RECORDS_MAX);
}

#[test]
fn each_flaw_has_its_error() {
    let mut packer = packer(false);
    packer.add(&Entry { list: Some(1), ..ENTRY }, called);
    let good = packer.packed().octets;
    let opened = |mend: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        mend(&mut octets);
        let checksum = crc32fast::hash(&octets[4..]);
        octets[..4].copy_from_slice(&checksum.to_le_bytes());
        Block::open(&octets).map(|block| block.len())
    };
    let labels: usize = packer.labels.iter().map(|label| 2 + label.len()).sum();
    let shape = HEAD_BYTES + labels;
    let name = shape + SHAPE_BYTES + CLIENT_BYTES;
    let column = name + ENTRY.qname.len();
    assert_eq!(opened(&|_| {}), Ok(1));
    assert_eq!(Block::open(&good[..20]).err(), Some(BlockError::Length));
    let mut flipped = good.clone();
    flipped[shape] ^= 1;
    assert_eq!(Block::open(&flipped).err(), Some(BlockError::Checksum));
    for (at, octet, error) in [
        (4, 2, BlockError::Form(2)),
        (6, 0, BlockError::Records(0)),
        (7, 0xFF, BlockError::Records(0xFF01)),
        (HEAD_BYTES + 2, 0xFF, BlockError::Label),
        (HEAD_BYTES, 0xFF, BlockError::Label),
        (shape + 4, 9, BlockError::Shape),
        (shape + 10, 7, BlockError::Shape),
        (shape + 11, 2, BlockError::Shape),
        (name, 0xC0, BlockError::Name),
        (column, 1, BlockError::Number),
        (column + 1, 1, BlockError::Number),
        (column + 2, 1, BlockError::Number),
        (column + 8, 0x80, BlockError::Time),
        (23, 0xFF, BlockError::Time),
    ] {
        assert_eq!(opened(&|octets| octets[at] = octet), Err(error), "{at}");
    }
    assert_eq!(opened(&|octets| octets.push(0)), Err(BlockError::Length));
    assert_eq!(opened(&|octets| octets.truncate(octets.len() - 1)), Err(BlockError::Length));
}
