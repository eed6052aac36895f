//! One datagram against a core that knows one answer and one local zone; what goes out must be well-formed.

use std::cell::RefCell;
use std::sync::Arc;

use heimdall_uring::cache::Shard;
use heimdall_uring::config;
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::{Acl, Identity, LocalData, Policy};
use heimdall_uring::serve::{Admission, Client, Core, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{Class, Rcode, Response};

thread_local! {
    static CORE: RefCell<Core<()>> = RefCell::new(core());
}

/// Runs one case. The first octet chooses transport and buffer size; the rest is the datagram.
pub(crate) fn run(data: &[u8]) {
    let Some((&choice, datagram)) = data.split_first() else { return };
    let transport = if choice & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let room = [1232, 512, 4096, 65_535][usize::from(choice >> 1) % 4];
    let client = Client { address: std::net::Ipv4Addr::LOCALHOST.into(), transport };
    let now = Now { cache: CacheTime::from_millis(1_000_000), ..Now::default() };
    let mut out = vec![0; room];
    CORE.with_borrow_mut(|core| match core.answer(datagram, client, now, &mut out) {
        Verdict::Drop => {}
        Verdict::Reply(len) => check(datagram, &out[..len], transport),
        Verdict::Miss(ticket) => resolve(core, datagram, ticket, now, transport),
    });
}

/// Resolves a miss with as many addresses as make some replies too long, and asks again: then it must be a hit.
fn resolve(
    core: &mut Core<()>,
    datagram: &[u8],
    ticket: Box<heimdall_uring::serve::Ticket>,
    now: Now,
    transport: Transport,
) {
    let mut out = vec![0; 65_535];
    let Admission::Ask(asking) = core.admit(ticket, (), now, &mut out) else { panic!("joined") };
    let query = asking.query();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    for last in 0..datagram.last().copied().unwrap_or(0) {
        let rdata = [192, 0, 2, last];
        builder.write(Section::Answer, query.qname, query.qtype, Class::IN, 60, &rdata).unwrap();
    }
    let answer = builder.finish();
    let is_kept = answer.lifetime > 0;
    core.finish(&asking, Ok(answer), now, &mut out, |(), reply| check(datagram, reply, transport));
    let client = Client { address: std::net::Ipv4Addr::LOCALHOST.into(), transport };
    if is_kept {
        let again = core.answer(datagram, client, now, &mut out);
        assert!(matches!(again, Verdict::Reply(_) | Verdict::Drop), "{again:?}");
    }
}

/// What every reply owes: the query's ID, QR, a length within bounds, and octets that two parsers accept.
fn check(datagram: &[u8], reply: &[u8], transport: Transport) {
    assert_eq!(reply[..2], datagram[..2], "the ID comes back");
    assert_eq!(reply[2] & 0x80, 0x80, "it is a response");
    if transport == Transport::Udp {
        assert!(reply.len() <= 1232);
    }
    if reply[2] & 0x78 == 0 {
        Response::parse(reply).expect("our own parser reads it");
    }
    let message = domain::base::Message::from_octets(reply).expect("it has a header");
    for section in [message.answer(), message.authority(), message.additional()] {
        for record in section.expect("the sections before are well-formed") {
            record.expect("each record is well-formed");
        }
    }
}

fn core() -> Core<()> {
    let forward = config::Forward { inflight_max: 1, waiters_max: 1, ..Default::default() };
    let local = config::LocalZone {
        zone: "heimdall.test.".into(),
        records: "@ SOA ns host 1 2 3 4 5\nwww A 192.0.2.1\nalias CNAME www\n*.w TXT x".into(),
        place: String::new(),
    };
    let identity = config::Identity { version: Some("v".into()), id: None };
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&identity),
        LocalData::new(&[local]).unwrap(),
    );
    let shard = Shard::new(1 << 20, ahash::RandomState::with_seeds(1, 2, 3, 4));
    Core::new(Arc::new(policy), shard, &forward, &config::Udp::default(), Arc::default())
}
