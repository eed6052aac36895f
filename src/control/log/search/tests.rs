//! What a search finds, beside what a look at every query would find.

use std::fs;

use ahash::RandomState;
use proptest::prelude::*;

use super::super::store::Store;
use super::*;
use crate::config;
use crate::observe::log::{Entry, Label, Packer};
use crate::time::CacheTime;
use crate::wire::NameBuf;

/// Few enough names, clients and the like that filters meet some of them.
const NAMES: [&str; 7] = [
    ".",
    "test.",
    "www.test.",
    "WWW.Example.test.",
    "other.",
    "a\\032b.test.",
    "x32.a.b.c.d.e.f.g.h.i.test.",
];

#[derive(Clone, Copy, Debug)]
struct Asked {
    name: usize,
    time_ms: u64,
    last: u8,
    qtype: u16,
    rcode: Option<u16>,
    how: u8,
    list: Option<u8>,
    group: u8,
}

fn asked() -> impl Strategy<Value = Asked> {
    let codes = (0..3_u16, prop::option::of(0..3_u16), 0..7_u8, prop::option::of(0..2_u8), 0..2_u8);
    (0..NAMES.len(), 0..5_000_u64, 0..3_u8, codes).prop_map(
        |(name, time_ms, last, (qtype, rcode, how, list, group))| Asked {
            name,
            time_ms,
            last,
            qtype,
            rcode,
            how,
            list,
            group,
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    let text = prop::sample::select(vec![
        "",
        ".",
        "test",
        "TEST.",
        "www.",
        "e",
        "32",
        "\\032",
        "a\\032b.test",
        "g.h.i.test",
        "w.t",
        "no",
    ]);
    let name = (text, any::<bool>()).prop_map(|(text, is_within)| {
        let text = text.to_owned();
        if is_within { NameFilter::Within(text) } else { NameFilter::Contains(text) }
    });
    let rarely = |strategy| prop::option::weighted(0.2, strategy);
    let labels = (rarely("group [0-2]".boxed()), rarely("list [0-2]".boxed()));
    let numbers = (
        prop::option::weighted(0.2, 0..3_u16),
        prop::option::weighted(0.2, 0..3_u16),
        prop::option::weighted(0.2, 0..7_u8),
        prop::option::weighted(0.2, 0..3_u8),
    );
    let times =
        (prop::option::weighted(0.2, 0..200_000_i64), prop::option::weighted(0.2, 0..200_000_i64));
    (prop::option::weighted(0.4, name), labels, numbers, times).prop_map(
        |(name, (group, list), (qtype, rcode, how, last), (since_ms, until_ms))| Filter {
            name,
            client: last.map(|last| IpAddr::from([192, 0, 2, last])),
            group,
            how: how.and_then(How::numbered),
            list,
            qtype,
            rcode,
            since_ms,
            until_ms,
            before: None,
        },
    )
}

/// Whether `query` is one that `filter` means, read word by word.
fn is_meant(query: &Stored, filter: &Filter) -> bool {
    let name = match &filter.name {
        None => true,
        Some(NameFilter::Contains(text)) => query.name.contains(&text.to_lowercase()),
        Some(NameFilter::Within(text)) => {
            let apex = text.to_lowercase();
            let apex = apex.trim_end_matches('.');
            apex.is_empty() || query.name == apex || query.name.ends_with(&format!(".{apex}"))
        }
    };
    name && filter.client.is_none_or(|client| query.client == client.to_string())
        && filter.group.as_ref().is_none_or(|group| query.group == *group)
        && filter.how.is_none_or(|how| query.how == how.name())
        && filter.list.as_ref().is_none_or(|list| query.list.as_ref() == Some(list))
        && filter.qtype.is_none_or(|qtype| query.qtype == qtype)
        && filter.rcode.is_none_or(|rcode| query.rcode == Some(rcode))
        && filter.since_ms.is_none_or(|since| query.time_ms >= since)
        && filter.until_ms.is_none_or(|until| query.time_ms < until)
}

fn label(label: Label) -> String {
    match label {
        Label::Listener(number) => format!("listener {number}"),
        Label::Group(number) => format!("group {number}"),
        Label::List(number) => format!("list {number}"),
    }
}

/// What stands in the store for `asked`, the `number`th query.
fn stands(number: usize, begin_ms: u64, asked: &Asked) -> Stored {
    let name = NAMES[asked.name].to_lowercase();
    Stored {
        id: i64::try_from(number + 1).unwrap(),
        time_ms: i64::try_from(begin_ms + asked.time_ms).unwrap(),
        name: if name == "." { name } else { name.trim_end_matches('.').to_owned() },
        qtype: asked.qtype,
        client: format!("192.0.2.{}", asked.last),
        port: 4_000,
        transport: "udp".to_owned(),
        listener: "listener 0".to_owned(),
        group: label(Label::Group(asked.group)),
        how: How::numbered(asked.how).unwrap().name().to_owned(),
        list: asked.list.map(|list| label(Label::List(list))),
        rcode: asked.rcode,
        latency_us: None,
        bytes: 60,
    }
}

fn packed(begin_ms: u64, queries: &[Asked]) -> crate::observe::log::Packed {
    let mut packer = Packer::new(false, RandomState::with_seeds(1, 2, 3, 4));
    for asked in queries {
        let qname = NameBuf::from_text(NAMES[asked.name]).unwrap();
        let entry = Entry {
            time: CacheTime::from_millis(begin_ms + asked.time_ms),
            latency_us: None,
            address: IpAddr::from([192, 0, 2, asked.last]),
            port: 4_000,
            listener: 0,
            transport: Transport::Udp,
            group: asked.group,
            how: How::numbered(asked.how).unwrap(),
            list: asked.list,
            rcode: asked.rcode,
            qname: qname.as_name().as_bytes(),
            qtype: asked.qtype,
            reply_len: 60,
            query: &[],
            reply: &[],
        };
        packer.add(&entry, label);
    }
    packer.packed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn search_finds_what_a_look_at_all_queries_finds(
        blocks in prop::collection::vec((prop::collection::vec(asked(), 1..40), 0..40_u64), 1..30),
        filters in prop::collection::vec(filter(), 1..12),
        page in 1..30_usize,
    ) {
        let own = format!("heimdall-search-{}-{:?}", std::process::id(), std::thread::current().id());
        let directory = std::env::temp_dir().join(own);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("queries.sqlite");
        let mut store = Store::open(&path, &config::QueryLog::default()).unwrap();
        let (mut model, mut begin_ms) = (Vec::new(), 0);
        for (queries, pause) in &blocks {
            begin_ms += pause * 1_000;
            store.keep(&[packed(begin_ms, queries)], 0).unwrap();
            for asked in queries {
                model.push(stands(model.len(), begin_ms, asked));
            }
        }
        for filter in filters {
            let expected: Vec<&Stored> =
                model.iter().rev().filter(|query| is_meant(query, &filter)).collect();
            let (mut found, mut own) = (Vec::new(), filter.clone());
            loop {
                let given = search(&path, &own, page).unwrap();
                prop_assert!(given.is_whole && given.queries.len() <= page);
                let Some(last) = given.queries.last() else { break };
                own.before = Some(last.id);
                found.extend(given.queries);
            }
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{:?}", filter);
        }
        drop(store);
        fs::remove_dir_all(directory).unwrap();
    }
}
