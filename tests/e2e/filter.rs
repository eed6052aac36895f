//! Blocked and allowed names at the real binary: three lists, two groups of clients, lists that are read anew under load.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::{Datagrams, Stream, dig};
use crate::message::{self, A, Message, NOERROR, NXDOMAIN, query, query_with};
use crate::node::{Node, Setup};
use crate::ports::Directory;
use crate::scripted::{Scripted, Step};

const AAAA: u16 = 28;
const CNAME: u16 = 5;

/// A client of the group for which all lists count, and one of no group, for whom ads and the exceptions count.
const KIDS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NOBODYS: Ipv4Addr = Ipv4Addr::LOCALHOST;

const GROUPS: &str = "[[group]]\nname = 'kids'\nclients = '127.0.0.2'\n\
    [[group]]\nname = 'default'\nlists = ['ads', 'fine']\n";

/// `[[list]]` tables: ads are answered by the unspecified address, games do not exist, what is fine is free.
fn lists(directory: &Directory) -> String {
    let ads = directory.write("ads", "||ads.example^\n||tracker.example^\n");
    let games = directory.write("games", "0.0.0.0 games.example\n");
    let fine = directory.write("fine", "fine.ads.example\n");
    format!(
        "[[list]]\nname = 'ads'\nfile = '{}'\n\
         [[list]]\nname = 'games'\nfile = '{}'\nanswer = 'nxdomain'\nreason = 'filtered'\nttl = 77\n\
         [[list]]\nname = 'fine'\nfile = '{}'\nkind = 'allow'\n",
        ads.display(),
        games.display(),
        fine.display()
    )
}

/// Has an address for every name; those below `shop.example` lead through a tracker.
fn upstream() -> Scripted {
    Scripted::start(|asked| {
        let qname = asked.qname();
        if !qname.ends_with("shop.example.") {
            return vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))];
        }
        let target = message::name("x.tracker.example");
        let alias = message::record(&qname, CNAME, 300, &target);
        let address = message::record("x.tracker.example", A, 300, &[192, 0, 2, 9]);
        let reply = message::response(&asked.message, NOERROR, &[alias, address], &[]);
        vec![Step::Reply(reply)]
    })
}

fn ask(node: &Node, client: Ipv4Addr, qname: &str, qtype: u16) -> Message {
    let message = query_with(7, qname, qtype, &[message::opt(1232, 0, 0, &[])]);
    Datagrams::from(client, node.address).exchange(&message)
}

/// RCODE, data of the last record, extended error.
fn told(node: &Node, client: Ipv4Addr, qname: &str) -> (u16, Vec<u8>, Option<u16>) {
    let reply = ask(node, client, qname, A);
    let data = reply.records.iter().rfind(|record| record.rtype == A);
    let data = data.map_or_else(Vec::new, |record| record.rdata.clone());
    (reply.rcode(), data, reply.extended_error())
}

const WORLD: [u8; 4] = [192, 0, 2, 1];

#[test]
fn each_group_gets_what_its_lists_say() {
    let (directory, upstream) = (Directory::create(), upstream());
    let config = lists(&directory) + GROUPS;
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let blocked = (NOERROR, vec![0; 4], Some(15));
    let free = (NOERROR, WORLD.to_vec(), None);
    let missing = (NXDOMAIN, Vec::new(), Some(17));
    // The second time what was asked for lies in the cache.
    for _ in 0..2 {
        for (qname, kids, nobodys) in [
            ("Www.ads.example", &blocked, &blocked),
            ("a.fine.ads.example", &blocked, &blocked),
            ("fine.ads.example", &free, &free),
            ("games.example", &missing, &free),
            ("www.example", &free, &free),
        ] {
            assert_eq!(&told(&node, KIDS, qname), kids, "{qname}");
            assert_eq!(&told(&node, NOBODYS, qname), nobodys, "{qname}");
        }
    }
    let denial = dig(node.address, "-b 127.0.0.2 games.example TXT");
    assert!(denial.text.contains("EDE: 17 (Filtered): (games)"), "{}", denial.text);
    assert!(denial.text.contains("77\tIN\tSOA"), "{}", denial.text);
    assert!(
        ask(&node, KIDS, "ads.example", AAAA).records.iter().any(|record| record.rdata == [0; 16])
    );
    let counters = node.counters();
    let hits = |list: &str, outcome: &str| {
        counters.sum("dns_filter_hits_total", &format!("list=\"{list}\",outcome=\"{outcome}\""))
    };
    assert_eq!(
        [hits("ads", "blocked"), hits("games", "blocked"), hits("fine", "allowed")],
        [9, 3, 4]
    );
}

#[test]
fn name_that_leads_to_a_tracker_is_blocked_out_of_the_cache_and_over_tcp_too() {
    let (directory, upstream) = (Directory::create(), upstream());
    let config = lists(&directory) + "[[group]]\nname = 'lab'\nclients = '127.0.0.3'\nlists = []\n";
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let blocked = (NOERROR, vec![0; 4], Some(15));
    let lab = Ipv4Addr::new(127, 0, 0, 3);
    for _ in 0..2 {
        assert_eq!(told(&node, NOBODYS, "www.shop.example"), blocked);
        assert_eq!(told(&node, lab, "www.shop.example").1, [192, 0, 2, 9]);
    }
    assert_eq!(upstream.count("www.shop.example."), 1);
    let reply = Stream::connect(node.address).exchange(&query(3, "www.shop.example", A));
    assert_eq!(reply.records[0].rdata, [0; 4]);
    let hits = "list=\"ads\",outcome=\"blocked_answer\"";
    assert_eq!(node.counters().sum("dns_filter_hits_total", hits), 3);
}

#[test]
fn client_is_led_to_where_a_list_or_a_rewrite_says() {
    let (directory, upstream) = (Directory::create(), upstream());
    let ads = directory.write("ads", "ads.example\n");
    let config = format!(
        "[[list]]\nname = 'ads'\nfile = '{}'\nanswer = 'cname:wall.example'\n\
         [[rewrite]]\nname = 'old.example'\nto = 'www.example'\n",
        ads.display()
    );
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    for (qname, target, error) in
        [("ads.example", "wall.example.", Some(15)), ("old.example", "www.example.", None)]
    {
        for _ in 0..2 {
            let reply = ask(&node, NOBODYS, qname, A);
            assert_eq!((reply.rcode(), reply.extended_error()), (NOERROR, error), "{qname}");
            let types: Vec<u16> = reply.records.iter().map(|record| record.rtype).collect();
            assert_eq!(types[..2], [CNAME, A], "{qname}");
            assert_eq!(reply.records[1].rdata, WORLD, "{qname}");
        }
        assert_eq!((upstream.count(target), upstream.count(&format!("{qname}."))), (1, 0));
    }
}

/// Has two clients ask without a pause until `is_over`; says how many answers there were. Every answer has to come, and
/// to be the right one.
fn load(node: &Node, is_over: &AtomicBool) -> u64 {
    let ask = |client: Ipv4Addr| {
        let (datagrams, mut count) = (Datagrams::from(client, node.address), 0);
        while !is_over.load(Ordering::Relaxed) {
            for (id, qname, address) in [
                (1, "www.example", WORLD),
                (2, "ads.example", [0; 4]),
                (3, "fine.ads.example", WORLD),
            ] {
                let reply = datagrams.try_exchange(&query(id, qname, A));
                let reply = reply.unwrap_or_else(|| panic!("no answer for {qname} after {count}"));
                assert_eq!((reply.id, &reply.records[0].rdata[..]), (id, &address[..]), "{qname}");
                count += 1;
            }
        }
        count
    };
    std::thread::scope(|scope| {
        let [kids, nobodys] = [KIDS, NOBODYS].map(|client| scope.spawn(move || ask(client)));
        kids.join().unwrap() + nobodys.join().unwrap()
    })
}

#[test]
fn lists_read_anew_under_load_lose_no_query_and_count_at_once() {
    const RELOADS: u64 = 8;
    let (directory, upstream) = (Directory::create(), upstream());
    let config = lists(&directory) + GROUPS;
    let node = Setup::new().upstream(upstream.address).config(&config).start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&node, &is_over));
        for reload in 1..=RELOADS {
            // One more name, then one less; long enough that an image takes a moment.
            let many: String = (0..20_000).map(|number| format!("||l{number}.test^\n")).collect();
            let late = if reload % 2 == 1 { "||late.example^\n" } else { "" };
            let text = format!("||ads.example^\n||tracker.example^\n{late}{many}");
            let next = directory.write("ads.next", &text);
            std::fs::rename(next, directory.path().join("ads")).unwrap();
            node.signal("HUP");
            node.wait_for_count("dns_filter_published_total", 1 + reload);
            let expected = if reload % 2 == 1 { [0; 4] } else { WORLD };
            assert_eq!(told(&node, KIDS, "late.example").1, expected, "reload {reload}");
        }
        is_over.store(true, Ordering::Relaxed);
        let answers = load.join().unwrap();
        assert!(answers > RELOADS, "{answers} answers");
    });
}
