//! The whole path of a client's message: `serve::Core::answer`, a resolution with a made-up outcome, the hit after it.
//!
//! Input: one octet that chooses client, transport and outcome, then the message.

use std::sync::{Arc, LazyLock};

use heimdall_uring::cache::Shard;
use heimdall_uring::config;
use heimdall_uring::observe::Transport;
use heimdall_uring::policy::filter::syntax::{self, Syntax};
use heimdall_uring::policy::filter::{Compiler, Image, Kind, Lists, Rule};
use heimdall_uring::policy::{Acl, Filtering, Identity, LocalData, Policy};
use heimdall_uring::serve::{Admission, Asking, Client, Core, Sections, Unresolved, Verdict};
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{
    AnswerBuf, Class, Ede, Flags, Header, Malformed, Name, Query, Rcode, Rtype,
};

use super::check;

/// Largest reply over UDP in the default config.
const UDP_BYTES_MAX: usize = 1232;

static POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    let local = config::LocalZone {
        zone: "local.test.".into(),
        records: "@ SOA ns host 1 2 3 4 5\nwww A 192.0.2.1\n*.wild TXT \"wild\"\nalias CNAME www"
            .into(),
        place: String::new(),
    };
    let identity = config::Identity { version: Some("1".into()), id: Some("node".into()) };
    let policy = Policy::new(
        Acl::new(&config::Acl::default()),
        Identity::new(&identity),
        LocalData::new(&[local]).expect("a good zone"),
    );
    Arc::new(policy.filtered(Some(Arc::new(filtering()))))
});

/// A list whose name is short enough to be found by chance, with an allowance, an address and records.
fn filtering() -> Filtering {
    let mut compiler = Compiler::new([1; 16]);
    let mut take = |rule: &Rule<'_>| compiler.add(0, Kind::Block, rule).is_ok();
    let text = b"||a^\n@@||b.a^\n||192.0.2.1^\n||c.a^$dnsrewrite=NOERROR;A;192.0.2.7";
    let _ = syntax::read(text, Syntax::Adblock, &mut take);
    let image = compiler.finish(0).expect("a few rules have room");
    let image = Image::open(image.into()).expect("the compiler makes images");
    let source = config::ListSource::File("/list".into());
    let list = config::List::new("ads".into(), source, String::new());
    Filtering::new(image, &[list], Box::new([Lists::ALL]))
}

/// What can be switched off is off.
const SWITCHED_OFF: config::Optimizations = config::Optimizations {
    zero_copy_parsing: false,
    simd: false,
    hot_cache: false,
    filter_pre_filter: false,
};

/// Runs one input, both ways: no switch may change what a client gets.
pub(crate) fn run(input: &[u8]) {
    let usual = replies(input, config::Optimizations::default());
    assert_eq!(usual, replies(input, SWITCHED_OFF));
}

/// What the client gets: at once or later, and once more from the cache.
fn replies(input: &[u8], optimizations: config::Optimizations) -> Vec<Vec<u8>> {
    let Some((&choice, message)) = input.split_first() else { return Vec::new() };
    let client = Client {
        port: 4_000,
        listener: 0,
        address: if choice & 1 == 0 { [127, 0, 0, 1].into() } else { [8, 8, 8, 8].into() },
        transport: if choice & 2 == 0 { Transport::Udp } else { Transport::Tcp },
    };
    let mut core = core(optimizations);
    let mut out = vec![0xEE; 65_535];
    match core.answer(message, client, at(0), &mut out) {
        Verdict::Drop => {
            assert_silence(message);
            Vec::new()
        }
        Verdict::Reply(len) => {
            check_reply(message, client, &out[..len]);
            vec![out[..len].to_vec()]
        }
        Verdict::Refresh(..) => panic!("nothing is stored yet"),
        Verdict::Miss(ticket) => {
            let Admission::Ask(mut asking) = core.admit(ticket, (), at(0), &mut out, |(), _| {})
            else {
                panic!("the first miss is asked for");
            };
            let mut replies = Vec::new();
            let outcome = outcome(&asking, choice >> 2);
            core.finish(&mut asking, outcome, at(0), &mut out, |(), reply| {
                replies.push(reply.to_vec())
            });
            assert_eq!((replies.len(), core.in_flight()), (1, 0));
            check_reply(message, client, &replies[0]);
            if !core.shard().is_empty() {
                let hit = check_hit(&mut core, message, client, &replies[0], &mut out);
                replies.push(out[..hit].to_vec());
            }
            replies
        }
    }
}

fn core(optimizations: config::Optimizations) -> Core<()> {
    let forward = config::Forward { inflight_max: 2, waiters_max: 2, ..Default::default() };
    let shard =
        Shard::new(&config::Cache::default(), 1 << 20, ahash::RandomState::with_seeds(1, 2, 3, 4));
    let (udp, cache) = (config::Udp::default(), config::Cache::default());
    let sections =
        Sections { forward: &forward, zones: &[], udp: &udp, cache: &cache, optimizations };
    let policy = Policy::clone(&POLICY).pre_filtered(optimizations.filter_pre_filter);
    Core::new(Arc::new(policy), shard, sections, Arc::default())
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

/// A reply from cache is the reply to those who waited, but for TTLs. Gives the length of a later one.
fn check_hit(
    core: &mut Core<()>,
    message: &[u8],
    client: Client,
    first: &[u8],
    out: &mut [u8],
) -> usize {
    let Verdict::Reply(len) = core.answer(message, client, at(0), out) else {
        panic!("what is stored is answered");
    };
    assert_eq!(&out[..len], first);
    let (Verdict::Reply(len) | Verdict::Refresh(len, _)) =
        core.answer(message, client, at(30), out)
    else {
        panic!("what is fresh is answered");
    };
    assert_eq!(len, first.len());
    check_reply(message, client, &out[..len]);
    len
}

/// Silence is for what is no query at all.
fn assert_silence(message: &[u8]) {
    let malformed = Query::parse(message).map(|_| ()).expect_err("queries get a reply");
    assert!(matches!(malformed, Malformed::Short | Malformed::Response), "{malformed:?}");
}

fn check_reply(message: &[u8], client: Client, reply: &[u8]) {
    let Ok(query) = Query::parse(message) else {
        let (asked, header) = (Header::read(message), Header::read(reply));
        let (asked, header) = asked.zip(header).expect("both have a header");
        assert_eq!((reply.len(), header.id, header.counts), (12, asked.id, [0; 4]));
        assert!(header.flags.has(Flags::QR) && header.flags.opcode() == asked.flags.opcode());
        let allowed = [Rcode::FORMERR, Rcode::NOTIMP, Rcode::REFUSED];
        assert!(allowed.contains(&header.flags.rcode()));
        return;
    };
    let claimed = query.edns.map_or(512, |edns| usize::from(edns.payload_bytes).max(512));
    let limit = match client.transport {
        Transport::Udp => claimed.min(UDP_BYTES_MAX),
        Transport::Tcp => 65_535,
    };
    check::reply(&query, reply, limit);
}

/// One of a few fixed ends of a resolution.
fn outcome(asking: &Asking, choice: u8) -> Result<AnswerBuf, Unresolved> {
    let query = asking.query();
    let begin = |rcode| {
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, rcode).expect("names fit")
    };
    match choice % 6 {
        0 => Err(Unresolved {
            ede: Ede::NETWORK_ERROR.with_text("192.0.2.1: connection refused"),
            is_ours: false,
        }),
        1 => Ok(AnswerBuf::empty(Rcode::NOERROR)),
        2 => {
            let mut builder = begin(Rcode::NXDOMAIN);
            write_soa(&mut builder, query.qname);
            builder.set_flags(Flags::AD);
            Ok(builder.finish())
        }
        many => {
            let addresses = [1, 26, 90][usize::from(many - 3)];
            let mut builder = begin(Rcode::NOERROR);
            for last in 0..addresses {
                write_a(&mut builder, Section::Answer, query.qname, last);
            }
            for last in 0..addresses / 3 {
                write_a(&mut builder, Section::Additional, Name::ROOT, last);
            }
            Ok(builder.finish())
        }
    }
}

fn write_a(builder: &mut AnswerBuilder, section: Section, owner: Name<'_>, last: u8) {
    let rdata = [192, 0, 2, last];
    builder.write(section, owner, Rtype::A, Class::IN, 60, &rdata).expect("there is room");
}

fn write_soa(builder: &mut AnswerBuilder, qname: Name<'_>) {
    let apex = qname.parent().unwrap_or(qname);
    let numbers = [1u32, 2, 3, 4, 60].map(u32::to_be_bytes);
    let rdata = [&[0, 0], numbers.as_flattened()].concat();
    let section = Section::Authority;
    builder.write(section, apex, Rtype::SOA, Class::IN, 60, &rdata).expect("there is room");
}
