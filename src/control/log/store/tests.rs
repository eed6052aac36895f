//! The store against files that are there, against restarts, limits and whoever meddles with its file; and what a search finds in it.

use std::fs;
use std::net::IpAddr;

use super::super::names::Names;
use super::super::search::{Filter, NameFilter, Stored, search};
use super::file::{APPLICATION, FORM};
use super::*;
use crate::observe::Transport;
use crate::observe::log::{Entry, How};
use crate::policy::{Acl, Groups, Identity, LocalData, Policy, Published};
use crate::time::CacheTime;
use crate::wire::NameBuf;

/// A place for a store, which goes with the test.
struct Place {
    directory: PathBuf,
    path: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let own = format!("heimdall-store-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(own);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("queries.sqlite");
        Self { directory, path }
    }

    fn open(&self) -> Store {
        Store::open(&self.path, &config::QueryLog::default()).unwrap()
    }

    fn found(&self, filter: &Filter) -> Vec<String> {
        let found = search(&self.path, filter, 100).unwrap();
        assert!(found.is_whole);
        found.queries.into_iter().map(|query| query.name).collect()
    }

    /// All there is, newest first.
    fn all(&self) -> Vec<Stored> {
        let (mut all, mut filter) = (Vec::new(), Filter::default());
        loop {
            let page = search(&self.path, &filter, 7_000).unwrap();
            assert!(page.is_whole);
            let Some(last) = page.queries.last() else { return all };
            filter.before = Some(last.id);
            all.extend(page.queries);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn names() -> Names {
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    let kids = config::Group { name: "kids".into(), log: true, ..config::Group::default() };
    let listeners = vec!["127.0.0.1:53".parse().unwrap()];
    let policy = Policy::new(acl, identity, LocalData::default());
    let policy = policy.grouped(Groups::new(&[kids], &listeners));
    Names::new(std::sync::Arc::new(Published::new(policy)), listeners)
}

/// A query for `name` at `seconds`.
fn entry(name: &NameBuf, seconds: u64) -> Entry<'_> {
    Entry {
        time: CacheTime::from_millis(seconds * 1_000),
        latency_us: None,
        address: IpAddr::from([192, 0, 2, 77]),
        port: 4_000,
        listener: 0,
        transport: Transport::Udp,
        group: 0,
        how: How::Cache,
        list: None,
        rcode: Some(0),
        qname: name.as_name().as_bytes(),
        qtype: 1,
        reply_len: 60,
        query: &[],
        reply: &[],
    }
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).unwrap()
}

/// A block of `entries`, as the recorder packs them.
fn packed(entries: &[Entry<'_>], is_anonymous: bool) -> Packed {
    let names = names();
    let mut packer = Packer::new(is_anonymous, RandomState::with_seeds(1, 2, 3, 4));
    entries.iter().for_each(|entry| packer.add(entry, |label| names.label(label)));
    packer.packed()
}

fn block(entries: &[Entry<'_>]) -> Packed {
    packed(entries, false)
}

#[test]
fn what_is_written_is_found_by_each_of_its_properties() {
    let place = Place::new("found");
    let mut store = place.open();
    let (www, ads, root) = (name("WWW.Example.com."), name("ads.test."), name("."));
    let mapped: IpAddr = "2001:db8::9".parse().unwrap();
    let entries = [
        entry(&www, 1_000),
        Entry { how: How::Blocked, list: Some(3), rcode: Some(3), ..entry(&ads, 2_000) },
        Entry { group: 1, qtype: 28, latency_us: Some(7), address: mapped, ..entry(&www, 3_000) },
        Entry { transport: Transport::Tcp, how: How::Dropped, rcode: None, ..entry(&root, 4_000) },
    ];
    store.keep(&[block(&entries[..2]), block(&entries[2..])], 0).unwrap();
    let all = search(&place.path, &Filter::default(), 9).unwrap().queries;
    assert_eq!(all.len(), 4);
    let (ads, second) = (&all[2], &all[1]);
    assert_eq!(
        (ads.list.as_deref(), ads.how.as_str(), ads.rcode),
        (Some("#3"), "blocked", Some(3))
    );
    assert_eq!((second.group.as_str(), second.latency_us, second.qtype), ("kids", Some(7), 28));
    assert_eq!((second.client.as_str(), second.time_ms), ("2001:db8::9", 3_000_000));
    assert_eq!((all[0].transport.as_str(), all[0].rcode, all[0].bytes), ("tcp", None, 60));
    assert_eq!((all[3].listener.as_str(), all[3].group.as_str()), ("127.0.0.1:53", "default"));
    let by = |filter: Filter| place.found(&filter).join(" ");
    let within =
        |text: &str| Filter { name: Some(NameFilter::Within(text.into())), ..Filter::default() };
    let contains =
        |text: &str| Filter { name: Some(NameFilter::Contains(text.into())), ..Filter::default() };
    let both = "www.example.com www.example.com";
    for (filter, expected) in [
        (Filter::default(), ". www.example.com ads.test www.example.com"),
        (within("Example.COM."), both),
        (within("www.example.com"), both),
        (within("ample.com"), ""),
        (within("."), ". www.example.com ads.test www.example.com"),
        (contains("AMPLE"), both),
        (contains("%"), ""),
        (Filter { client: Some(mapped), ..Filter::default() }, "www.example.com"),
        (Filter { group: Some("kids".into()), ..Filter::default() }, "www.example.com"),
        (Filter { list: Some("#3".into()), ..Filter::default() }, "ads.test"),
        (Filter { how: Some(How::Dropped), ..Filter::default() }, "."),
        (Filter { qtype: Some(28), ..Filter::default() }, "www.example.com"),
        (Filter { rcode: Some(3), ..Filter::default() }, "ads.test"),
        (Filter { since_ms: Some(2_000_001), ..Filter::default() }, ". www.example.com"),
        (Filter { until_ms: Some(2_000_000), ..Filter::default() }, "www.example.com"),
        (Filter { before: Some(all[2].id), ..within("com") }, "www.example.com"),
        (within("a..b"), ""),
        (contains("e.com"), both),
    ] {
        assert_eq!(by(filter.clone()), expected, "{filter:?}");
    }
    assert_eq!(search(&place.path, &Filter::default(), 2).unwrap().queries.len(), 2);
}

#[test]
fn store_goes_on_where_it_ended_and_clients_may_be_anonymous() {
    let place = Place::new("restart");
    let (first, second) = (name("a.test."), name("b.test."));
    place.open().keep(&[block(&[entry(&first, 1)])], 0).unwrap();
    let anonymous = packed(&[entry(&second, 2), entry(&first, 3)], true);
    place.open().keep(&[anonymous], 0).unwrap();
    let found = place.all();
    let told: Vec<_> = found
        .iter()
        .map(|query| (query.id, query.name.as_str(), query.client.as_str(), query.port))
        .collect();
    let network = "192.0.2.0";
    assert_eq!(
        told,
        [(3, "a.test", network, 0), (2, "b.test", network, 0), (1, "a.test", "192.0.2.77", 4_000)]
    );
}

#[test]
fn fresh_file_is_whole_at_once_whatever_another_start_has_left() {
    let place = Place::new("fresh");
    let left = ["new", "new-wal", "new-shm"].map(|ending| beside(&place.path, ending));
    left.iter().for_each(|path| fs::write(path, "rest").unwrap());
    create(&place.path).unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    let names: Vec<_> = fs::read_dir(&place.directory).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // It needs no other journal when it is opened (fileformat2, "File format version numbers").
    assert_eq!(fs::read(&place.path).unwrap()[18..20], [2, 2]);
    assert_eq!(integrity(&place.path), "ok");
}

#[test]
fn files_of_others_are_not_touched() {
    let place = Place::new("foreign");
    let section = config::QueryLog::default();
    let text = b"a letter to a friend, which is long enough to be taken for the header of a database file of this kind";
    fs::write(&place.path, text).unwrap();
    assert!(matches!(Store::open(&place.path, &section), Err(Unusable::Foreign)));
    assert!(matches!(probe(&place.path), Err(Unusable::Foreign)));
    assert_eq!(fs::read(&place.path).unwrap(), text);
    fs::remove_file(&place.path).unwrap();
    let database = Connection::open(&place.path).unwrap();
    database.execute_batch("CREATE TABLE treasure (gold INTEGER)").unwrap();
    drop(database);
    assert!(matches!(Store::open(&place.path, &section), Err(Unusable::Foreign)));
    for form in [FORM - 1, FORM + 1] {
        let database = Connection::open(&place.path).unwrap();
        database.pragma_update(None, "application_id", APPLICATION).unwrap();
        database.pragma_update(None, "user_version", form).unwrap();
        drop(database);
        let refused = Store::open(&place.path, &section).map(drop).unwrap_err();
        assert!(matches!(refused, Unusable::Form(told) if told == form));
        assert!(refused.to_string().contains("move it away to begin anew"));
    }
    fs::write(&place.path, "").unwrap();
    probe(&place.path).unwrap();
    place.open();
    assert!(probe(&place.directory.join("none/there")).is_err());
}

#[test]
fn two_nodes_do_not_write_one_file() {
    let place = Place::new("two");
    let store = place.open();
    let refused = Store::open(&place.path, &config::QueryLog::default()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("another node"), "{refused}");
    drop(store);
    place.open();
}

#[test]
fn what_is_too_old_leaves_and_numbers_are_not_used_again() {
    let place = Place::new("old");
    let section = config::QueryLog { retention: Duration::from_secs(100), ..Default::default() };
    let mut store = Store::open(&place.path, &section).unwrap();
    let (gone, kept) = (name("gone.test."), name("kept.test."));
    // Full blocks, which are not put together.
    let old = block(&vec![entry(&gone, 1_000); RECORDS_MAX]);
    store.keep(&[old.clone(), old, block(&[entry(&kept, 2_000)])], 2_050_000).unwrap();
    assert_eq!(place.found(&Filter::default()), ["kept.test"]);
    store.keep(&[], 2_100_000).unwrap();
    assert_eq!(place.found(&Filter::default()), ["kept.test"], "it is not yet older");
    store.keep(&[], 2_100_001).unwrap();
    assert!(place.all().is_empty());
    drop(store);
    let mut store = Store::open(&place.path, &section).unwrap();
    store.keep(&[block(&[entry(&gone, 2_101)])], 2_101_000).unwrap();
    let found = place.all();
    let next = i64::try_from(2 * RECORDS_MAX + 2).unwrap();
    assert_eq!((found.len(), found[0].name.as_str(), found[0].id), (1, "gone.test", next));
    let rows = "SELECT count(*) FROM block";
    let rows: i64 =
        Connection::open(&place.path).unwrap().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1, "the empty row has left, too");
}

#[test]
fn oldest_leave_when_the_store_is_full() {
    let place = Place::new("full");
    let section = config::QueryLog { bytes_max: 1 << 20, ..Default::default() };
    let mut store = Store::open(&place.path, &section).unwrap();
    for round in 0..30_u64 {
        let asked: Vec<_> =
            (0..5_000).map(|number| name(&format!("n{round}x{number}.test."))).collect();
        let entries: Vec<_> = asked.iter().map(|name| entry(name, 1_000 + round)).collect();
        store.keep(&[block(&entries)], 0).unwrap();
        let used = store.open.as_ref().unwrap().used_bytes().unwrap();
        assert!(used <= 1 << 20, "{used} in round {round}");
    }
    let newest = search(&place.path, &Filter::default(), 1).unwrap().queries;
    assert_eq!(newest[0].name, "n29x4999.test");
    let left = place.all();
    assert!(left.len() >= 15_000, "{}: a query takes some 20 octets", left.len());
    let file = fs::metadata(&place.path).unwrap().len();
    assert!(file < 16 << 20, "{file}: pages are used again");
}

#[test]
fn small_blocks_are_put_together_and_nothing_else_changes() {
    let place = Place::new("small");
    let mut store = place.open();
    let asked: Vec<_> = (0..7).map(|number| name(&format!("n{number}.test."))).collect();
    let rows = || -> i64 {
        let connection = Connection::open(&place.path).unwrap();
        connection.query_row("SELECT count(*) FROM block", [], |row| row.get(0)).unwrap()
    };
    let mut expected = Vec::new();
    for second in 0..300_u64 {
        let entries: Vec<_> = asked.iter().map(|name| entry(name, 1_000 + second)).collect();
        store.keep(&[block(&entries)], 0).unwrap();
        expected.splice(
            0..0,
            (0..7).rev().map(|number| {
                let id = i64::try_from(7 * second + number + 1).unwrap();
                (id, format!("n{number}.test"), i64::try_from(1_000 + second).unwrap() * 1_000)
            }),
        );
    }
    let told = |query: Stored| (query.id, query.name, query.time_ms);
    assert_eq!(place.all().into_iter().map(told).collect::<Vec<_>>(), expected);
    let count = rows();
    assert!((5..=70).contains(&count), "{count} blocks of a minute each, and the last ones");
    // A full block is no neighbour of theirs.
    store.keep(&[block(&vec![entry(&asked[0], 2_000); RECORDS_MAX])], 0).unwrap();
    assert!(rows() <= 8, "{}", rows());
    let found =
        search(&place.path, &Filter { until_ms: Some(1_300_000), ..Filter::default() }, 9_000);
    assert_eq!(found.unwrap().queries.into_iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn file_that_somebody_has_for_himself_is_tried_again() {
    let place = Place::new("busy");
    let mut store = place.open();
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = name("a.test.");
    let blocks = [block(&[entry(&asked, 1)])];
    assert!(store.keep(&blocks, 0).is_err());
    other.execute_batch("ROLLBACK").unwrap();
    store.keep(&blocks, 0).unwrap();
    assert_eq!(place.found(&Filter::default()), ["a.test"]);
}

#[test]
fn full_disk_is_told_and_overcome() {
    let place = Place::new("disk");
    let mut store = place.open();
    let asked: Vec<_> = (0..5_000).map(|number| name(&format!("n{number}.test."))).collect();
    let entries: Vec<_> = asked.iter().map(|name| entry(name, 1_000)).collect();
    let blocks = [block(&entries)];
    let connection = |store: &Store, pages: i64| {
        let connection = &store.open.as_ref().unwrap().connection;
        let set = format!("PRAGMA max_page_count = {pages}");
        connection.query_row(&set, [], |_| Ok(())).unwrap();
    };
    connection(&store, 8);
    let refused = store.keep(&blocks, 0).unwrap_err().to_string();
    assert!(refused.contains("full"), "{refused}");
    assert!(place.all().is_empty(), "nothing is stored by halves");
    connection(&store, 1 << 20);
    store.keep(&blocks, 0).unwrap();
    assert_eq!((place.all().len(), place.all()[0].id), (5_000, 5_000));
}

#[test]
fn file_that_was_taken_away_is_whole_and_a_fresh_one_is_begun() {
    let place = Place::new("away");
    let mut store = place.open();
    let asked = ["a.test.", "b.test.", "c.test."].map(name);
    let blocks: Vec<_> = asked.iter().map(|name| block(&[entry(name, 1)])).collect();
    store.keep(&blocks[..1], 0).unwrap();
    let away = place.directory.join("away.sqlite");
    fs::rename(&place.path, &away).unwrap();
    store.keep(&blocks[1..2], 0).unwrap();
    assert_eq!(place.found(&Filter::default()), ["b.test"]);
    let moved = search(&away, &Filter::default(), 9).unwrap().queries;
    assert_eq!((moved.len(), moved[0].name.as_str()), (1, "a.test"));
    assert_eq!(place.all()[0].id, 2, "numbers go on");
    // Something else in its place is nothing that we write to.
    fs::remove_file(&place.path).unwrap();
    fs::write(&place.path, "dear friend").unwrap();
    for _ in 0..2 {
        let refused = store.keep(&blocks[2..], 0).unwrap_err().to_string();
        assert!(refused.contains("is not touched"), "{refused}");
    }
    assert_eq!(fs::read(&place.path).unwrap(), b"dear friend");
    fs::remove_file(&place.path).unwrap();
    store.keep(&blocks[2..], 0).unwrap();
    assert_eq!(place.found(&Filter::default()), ["c.test"]);
    assert_eq!(integrity(&place.path), "ok");
}

#[test]
fn broken_block_is_passed_over_and_said() {
    let place = Place::new("broken");
    let mut store = place.open();
    let asked = ["a.test.", "b.test.", "c.test."].map(name);
    let blocks: Vec<_> = asked.iter().map(|name| block(&[entry(name, 1)])).collect();
    store.keep(&blocks, 0).unwrap();
    drop(store);
    let connection = Connection::open(&place.path).unwrap();
    let spoil =
        "UPDATE block SET octets = substr(octets, 1, length(octets) - 1) || x'55' WHERE id = 2";
    assert_eq!(connection.execute(spoil, []).unwrap(), 1);
    let found = search(&place.path, &Filter::default(), 9).unwrap();
    let names: Vec<_> = found.queries.iter().map(|query| query.name.as_str()).collect();
    assert_eq!((names, found.is_whole), (vec!["c.test", "a.test"], false));
}

fn integrity(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}
