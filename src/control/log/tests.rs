//! From the queues of two cores to counts and the store.

use std::net::IpAddr;

use super::*;
use crate::observe::Transport;
use crate::observe::log::{Entry, How, Producer, Tap, queue};
use crate::policy::{Acl, Identity, LocalData, Policy};
use crate::time::CacheTime;
use crate::wire::NameBuf;

fn published() -> Arc<Published> {
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    Arc::new(Published::new(Policy::new(acl, identity, LocalData::default())))
}

/// Two cores' ways to a recorder that has not begun.
fn setup(query_log: config::QueryLog) -> (Setup, Vec<(Producer, Arc<LogCounters>)>) {
    let (mut cores, mut producers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (producer, consumer) = queue(1 << 16);
        let counters = Arc::<LogCounters>::default();
        cores.push((consumer, Arc::clone(&counters)));
        producers.push((producer, counters));
    }
    let (dnstap, published) = (config::Dnstap::default(), published());
    (Setup { query_log, dnstap, listeners: Vec::new(), published, cores }, producers)
}

fn told(name: &NameBuf, last: u8, how: How) -> Entry<'_> {
    Entry {
        time: CacheTime::from_millis(1_000),
        latency_us: None,
        address: IpAddr::from([192, 0, 2, last]),
        port: 4_000,
        listener: 0,
        transport: Transport::Udp,
        group: 0,
        how,
        list: None,
        rcode: Some(0),
        qname: name.as_name().as_bytes(),
        qtype: 1,
        reply_len: 60,
        query: &[],
        reply: &[],
    }
}

fn shown(often: &[Often]) -> String {
    let lines = often.iter().map(|Often { what, count, error }| format!("{what} {count}-{error}"));
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_all_cores_saw_most_is_told_together() {
    let section = config::QueryLog { top: 8, sample: 10, ..config::QueryLog::default() };
    let (setup, cores) = setup(section);
    let (www, ads) = ("WWW.test.", "ads.test.");
    let [www, ads] = [www, ads].map(|text| NameBuf::from_text(text).unwrap());
    for (last, (producer, counters)) in (1..).zip(cores) {
        let tap = Tap::new(producer, counters, Octets::default(), 1);
        (0..last).for_each(|_| tap.tell(&told(&www, last, How::Cache)));
        tap.tell(&told(&ads, 1, How::Blocked));
    }
    let recorder = Recorder::begin(setup).unwrap();
    recorder.end();
    assert_eq!(shown(&recorder.top(Kind::Names, 9)), "www.test. 30-0, ads.test. 20-0");
    assert_eq!(shown(&recorder.top(Kind::Names, 1)), "www.test. 30-0");
    assert_eq!(shown(&recorder.top(Kind::Clients, 9)), "192.0.2.1 30-0, 192.0.2.2 20-0");
    assert_eq!(shown(&recorder.top(Kind::Blocked, 9)), "ads.test. 20-0");
    assert_eq!(recorder.store(), None);
}

#[test]
fn end_waits_for_what_is_in_the_queues() {
    let directory = std::env::temp_dir().join(format!("heimdall-recorder-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("queries.sqlite");
    let section = config::QueryLog {
        path: Some(path.clone()),
        retention: Duration::from_secs(u32::MAX.into()),
        anonymize: true,
        ..config::QueryLog::default()
    };
    let (setup, cores) = setup(section);
    let name = NameBuf::from_text("a.test.").unwrap();
    let counters: Vec<_> = cores.iter().map(|(_, counters)| Arc::clone(counters)).collect();
    for (producer, counters) in cores {
        let tap = Tap::new(producer, counters, Octets::default(), 1);
        (0..500).for_each(|_| tap.tell(&told(&name, 9, How::Cache)));
    }
    let recorder = Recorder::begin(setup).unwrap();
    recorder.end();
    let found = search(recorder.store().unwrap(), &Filter::default(), ROWS_MAX).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(found.queries.len(), 1_000);
    assert!(found.queries.iter().all(|query| query.client == "192.0.2.0"));
    let seen: u64 = counters.iter().map(|counters| counters.records.value()).sum();
    assert_eq!(seen, 1_000);
    assert!(recorder.top(Kind::Names, 9).is_empty(), "nothing is counted");
}
