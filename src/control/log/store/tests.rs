//! The store against files that are there, against restarts and limits, and what a search finds in it.

use std::net::IpAddr;

use super::super::search::{Filter, NameFilter, search};
use super::*;
use crate::observe::log::How;
use crate::policy::{Acl, Groups, Identity, LocalData, Policy, Published};
use crate::time::CacheTime;

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

fn batch(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut batch = Vec::new();
    entries.iter().for_each(|entry| entry.append_bare(&mut batch));
    batch
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
    store.write(&[batch(&entries[..2]), batch(&entries[2..])], &names()).unwrap();
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
    ] {
        assert_eq!(by(filter.clone()), expected, "{filter:?}");
    }
    assert_eq!(search(&place.path, &Filter::default(), 2).unwrap().queries.len(), 2);
}

#[test]
fn store_goes_on_where_it_ended_and_clients_may_be_anonymous() {
    let place = Place::new("restart");
    let (first, second) = (name("a.test."), name("b.test."));
    place.open().write(&[batch(&[entry(&first, 1)])], &names()).unwrap();
    let section = config::QueryLog { anonymize: true, ..config::QueryLog::default() };
    let mut store = Store::open(&place.path, &section).unwrap();
    store.write(&[batch(&[entry(&second, 2), entry(&first, 3)])], &names()).unwrap();
    let found = search(&place.path, &Filter::default(), 9).unwrap().queries;
    let told: Vec<_> = found
        .iter()
        .map(|query| (query.name.as_str(), query.client.as_str(), query.port))
        .collect();
    let anonymous = "192.0.2.0";
    assert_eq!(
        told,
        [("a.test", anonymous, 0), ("b.test", anonymous, 0), ("a.test", "192.0.2.77", 4_000)]
    );
    let dictionary = "SELECT count(*) FROM name";
    let count: i64 = store.connection.query_row(dictionary, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2, "each name stands once");
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
    let database = Connection::open(&place.path).unwrap();
    database.pragma_update(None, "application_id", APPLICATION).unwrap();
    database.pragma_update(None, "user_version", FORM + 1).unwrap();
    drop(database);
    assert!(matches!(Store::open(&place.path, &section), Err(Unusable::Form(2))));
    fs::write(&place.path, "").unwrap();
    probe(&place.path).unwrap();
    place.open();
    assert!(probe(&place.directory.join("none/there")).is_err());
}

#[test]
fn what_is_too_old_leaves_with_its_names_and_numbers_are_not_used_again() {
    let place = Place::new("old");
    let section = config::QueryLog { retention: Duration::from_secs(100), ..Default::default() };
    let mut store = Store::open(&place.path, &section).unwrap();
    let (gone, kept) = (name("gone.test."), name("kept.test."));
    let old: Vec<_> = (0..7_000).map(|_| entry(&gone, 1_000)).collect();
    store.write(&[batch(&old), batch(&[entry(&kept, 2_000)])], &names()).unwrap();
    let mut steps = 0;
    while store.shrink(2_050_000).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(place.found(&Filter::default()), ["kept.test"]);
    let texts = "SELECT group_concat(text) FROM name";
    let texts: String = store.connection.query_row(texts, [], |row| row.get(0)).unwrap();
    assert_eq!(texts, "kept.test");
    store.write(&[batch(&[entry(&gone, 2_001)])], &names()).unwrap();
    let found = search(&place.path, &Filter::default(), 9).unwrap().queries;
    assert_eq!((found[0].name.as_str(), found[0].id), ("gone.test", 7_002));
}

#[test]
fn oldest_leave_when_the_store_is_full() {
    let place = Place::new("full");
    let section = config::QueryLog { bytes_max: 1 << 20, ..Default::default() };
    let mut store = Store::open(&place.path, &section).unwrap();
    for round in 0..7_u64 {
        let asked: Vec<_> =
            (0..5_000).map(|number| name(&format!("n{round}x{number}.test."))).collect();
        // A minute apart, so that names are known to be unused.
        let entries: Vec<_> = asked.iter().map(|name| entry(name, 1_000 + 120 * round)).collect();
        store.write(&[batch(&entries)], &names()).unwrap();
        while store.shrink(1_000_000 + 120_000 * i64::try_from(round).unwrap()).unwrap() {}
        assert!(store.used_bytes().unwrap() <= 2 << 20, "round {round}");
    }
    let found = search(&place.path, &Filter::default(), 1).unwrap().queries;
    assert!(found.is_empty() || found[0].name == "n6x4999.test");
    let file = fs::metadata(&place.path).unwrap().len();
    assert!(file < 8 << 20, "{file}: pages are used again");
}

#[test]
fn file_that_somebody_has_for_himself_is_tried_again() {
    let place = Place::new("busy");
    let mut store = place.open();
    let other = Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = name("a.test.");
    let batches = [batch(&[entry(&asked, 1)])];
    assert!(store.write(&batches, &names()).is_err());
    other.execute_batch("ROLLBACK").unwrap();
    store.write(&batches, &names()).unwrap();
    assert_eq!(place.found(&Filter::default()), ["a.test"]);
}
