//! What can be switched off: seen in the log, in `--check`, in the status and in the counters; changed while the node runs.

use crate::client::exchange;
use crate::http::get;
use crate::message::{self, A, query};
use crate::node::{Node, Setup, eventually};
use crate::ports::{self, Directory};
use crate::scripted::{Scripted, Step};

const SWITCHES: [&str; 4] = ["zero_copy_parsing", "simd", "hot_cache", "filter_pre_filter"];

/// The same questions again: an answer from the cache, a blocked name, one that is nobody's.
fn replies(node: &Node) -> Vec<(u16, Vec<u8>)> {
    let asked = ["www.example", "WWW.Example", "x.ads.example", "LONG-label-to-be-folded.example"];
    let reply = |name| exchange(node.address, &query(7, name, A));
    let replies = asked.into_iter().map(reply);
    let rdata = |reply: &message::Message| reply.records.first().map(|record| record.rdata.clone());
    replies.map(|reply| (reply.rcode(), rdata(&reply).unwrap_or_default())).collect()
}

#[test]
fn each_switch_is_told_everywhere_and_changes_no_answer() {
    let upstream = Scripted::start(move |asked| {
        vec![Step::Reply(message::address(&asked.message, 300, [192, 0, 2, 1]))]
    });
    let directory = Directory::create();
    let list = directory.write("ads", "||ads.example^\n");
    let base = format!(
        "[forward]\nupstreams = '{}'\n[[list]]\nname = 'ads'\nfile = '{}'\n",
        upstream.address,
        list.display()
    );
    let api = ports::own();
    let node = Setup::new().upstreams_elsewhere().config(&base).api(api).start();
    let line = node.wait_for_line("switches: ");
    let all_on = "switches: zero_copy_parsing on, simd on, hot_cache on, filter_pre_filter on, prefetch on, \
        nxdomain_cut on, io uring";
    assert!(line.ends_with(all_on), "{line}");
    let is_blocked = || (replies(&node)[2].1 == [0; 4]).then_some(());
    eventually("the list is in force", is_blocked);
    let usual = replies(&node);
    for switch in SWITCHES {
        let config = format!("{base}[optimizations]\n{switch} = false\n");
        let line = node.reload_with(&config);
        assert!(line.ends_with("reload: applied optimizations"), "{line}");
        node.wait_for_line(&format!("{switch} off"));
        let told = get(api, "/api/v1/status", &[]).json();
        let cores = told["cores"].as_array().unwrap().len() as u64;
        let counters = node.counters();
        for other in SWITCHES {
            assert_eq!(told["optimizations"][other], other != switch, "{switch}: {told}");
            let in_use = counters.sum("dns_optimization_in_use", &format!("switch=\"{other}\""));
            assert_eq!(in_use, if other == switch { 0 } else { cores }, "{switch}: {other}");
        }
        assert_eq!(replies(&node), usual, "{switch}");
        let copied = node.counters().sum("dns_copied_total", "");
        assert_eq!(copied, usual.len() as u64, "only without zero_copy_parsing: {switch}");
        let plan = Setup::new().config(&config).argument("--check").printed();
        let told = plan.lines().find(|line| line.starts_with("switches:")).unwrap();
        assert!(told.contains(&format!("{switch} off")), "{told}");
        assert_eq!(told.matches(" off").count(), 1, "{told}");
    }
    let line = node.reload_with(&base);
    assert!(line.ends_with("reload: applied optimizations"), "{line}");
    assert_eq!(replies(&node), usual);
    assert_eq!(node.counters().sum("dns_copied_total", ""), usual.len() as u64);
}
