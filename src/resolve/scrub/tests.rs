//! Responses as upstreams send them, honest and not, and what is left of them.

use proptest::prelude::*;

use super::*;
use crate::resolve::fixture::{Reply, Rr, a, client, listing, name, nsec, pointer, rr, rrsig, soa};
use crate::time::CacheTime;
use crate::wire::patch::{self, Framing};
use crate::wire::{Query, Rtype};

fn caps() -> config::Cache {
    config::Cache { ttl_min: 5, ttl_max: 1000, negative_ttl_max: 600, ..Default::default() }
}

const ANSWER: Section = Section::Answer;
const AUTHORITY: Section = Section::Authority;

struct Asked {
    query: Vec<u8>,
}

impl Asked {
    fn plain() -> Self {
        Self { query: client("www.Example.", Rtype::A, false) }
    }

    fn dnssec() -> Self {
        Self { query: client("www.example.", Rtype::A, true) }
    }

    fn try_scrub(&self, reply: &Reply) -> Result<AnswerBuf, Unusable> {
        let query = Query::parse(&self.query).unwrap();
        let message = reply.to(&self.query);
        scrub(&message, &Question::of(&query), &caps())
    }

    /// The answer and the message that a client would get.
    fn scrub(&self, reply: &Reply) -> (AnswerBuf, Vec<u8>) {
        let answer = self.try_scrub(reply).unwrap();
        let message = replied(&self.query, &answer);
        (answer, message)
    }

    fn rejection(&self, reply: &Reply) -> Unusable {
        self.try_scrub(reply).unwrap_err()
    }
}

fn replied(query: &[u8], answer: &AnswerBuf) -> Vec<u8> {
    let query = Query::parse(query).unwrap();
    let framing = Framing { limit: 65_535, payload_bytes: 1232, ede: None };
    let mut out = vec![0; 65_535];
    let view = answer.view(CacheTime::default());
    let len = patch::reply(&query, &view, patch::Aging::By(0), framing, &mut out).unwrap();
    out.truncate(len);
    out
}

fn noerror(answer: &[Rr]) -> Reply {
    Reply::new(Rcode::NOERROR).answer(answer)
}

fn negative(rcode: Rcode, answer: &[Rr], authority: &[Rr]) -> Reply {
    Reply::new(rcode).answer(answer).authority(authority)
}

#[test]
fn only_what_was_asked_for_stays() {
    let reply = noerror(&[
        a("www.example.", 300, 1),
        a("bank.example.", 300, 66),
        rr("www.example.", Rtype::TXT, 300, b"\x01x"),
        rrsig("www.example.", Rtype::A, 300, "example."),
    ])
    .authority(&[pointer("example.", Rtype::NS, 300, "ns.evil."), soa("example.", 9, 9)])
    .additional(&[a("ns.evil.", 300, 66)]);
    let (answer, message) = Asked::plain().scrub(&reply);
    assert_eq!(listing(&message, ANSWER), ["www.Example. 1 300"]);
    assert_eq!(answer.shape.counts, [1, 0, 0]);
    assert_eq!(answer.lifetime, 300);
}

#[test]
fn aliases_are_followed_in_any_order_of_records() {
    let reply = noerror(&[
        a("c.example.", 60, 1),
        pointer("b.example.", Rtype::CNAME, 50, "C.example."),
        pointer("stray.example.", Rtype::CNAME, 50, "c.example."),
        pointer("WWW.example.", Rtype::CNAME, 70, "b.Example."),
        a("c.example.", 60, 2),
    ]);
    let (answer, message) = Asked::plain().scrub(&reply);
    let owners = ["www.Example. 5 70", "b.Example. 5 50", "C.Example. 1 60", "C.Example. 1 60"];
    let listing = listing(&message, ANSWER);
    assert_eq!(listing.len(), owners.len());
    for (line, owner) in listing.iter().zip(owners) {
        assert!(line.eq_ignore_ascii_case(owner), "{line} {owner}");
    }
    assert_eq!(answer.lifetime, 50);
}

#[test]
fn ttls_of_one_set_become_equal_and_stay_within_limits() {
    let (answer, message) =
        Asked::plain().scrub(&noerror(&[a("www.example.", 300, 1), a("www.example.", 200, 2)]));
    assert_eq!(listing(&message, ANSWER), ["www.Example. 1 200", "www.Example. 1 200"]);
    assert_eq!(answer.lifetime, 200);
    let (answer, _) = Asked::plain().scrub(&noerror(&[a("www.example.", 0, 1)]));
    assert_eq!(answer.lifetime, 5);
    let (answer, _) = Asked::plain().scrub(&noerror(&[a("www.example.", 70_000, 1)]));
    assert_eq!(answer.lifetime, 1000);
}

#[test]
fn signatures_share_the_ttl_of_what_they_sign_and_come_only_when_wanted() {
    let reply = noerror(&[
        a("www.example.", 300, 1),
        rrsig("www.example.", Rtype::A, 100, "example."),
        rrsig("www.example.", Rtype::TXT, 1, "example."),
    ]);
    let (_, message) = Asked::dnssec().scrub(&reply);
    assert_eq!(listing(&message, ANSWER), ["www.example. 1 100", "www.example. 46 100"]);
    let (_, message) = Asked::plain().scrub(&reply);
    assert_eq!(listing(&message, ANSWER), ["www.Example. 1 300"]);
}

#[test]
fn repeated_records_are_dropped() {
    let records = [a("www.example.", 300, 1), a("www.example.", 300, 2), a("www.example.", 300, 1)];
    let (answer, _) = Asked::plain().scrub(&noerror(&records));
    assert_eq!(answer.shape.counts, [2, 0, 0]);
}

#[test]
fn of_two_aliases_at_one_name_the_followed_one_stays() {
    let reply = noerror(&[
        pointer("www.example.", Rtype::CNAME, 60, "b.example."),
        pointer("www.example.", Rtype::CNAME, 60, "c.example."),
        a("c.example.", 60, 3),
        a("b.example.", 60, 2),
    ]);
    let (_, message) = Asked::plain().scrub(&reply);
    assert_eq!(listing(&message, ANSWER), ["www.Example. 5 60", "b.Example. 1 60"]);
}

#[test]
fn loops_and_endless_chains_are_refused() {
    let looped = noerror(&[
        pointer("www.example.", Rtype::CNAME, 60, "b.example."),
        pointer("b.example.", Rtype::CNAME, 60, "WWW.example."),
    ]);
    assert_eq!(Asked::plain().rejection(&looped), Unusable::AliasChain);
    let chain = |aliases: usize| {
        let host = |at| if at == 0 { "www.example.".to_owned() } else { format!("h{at}.example.") };
        let alias = |at| pointer(&host(at), Rtype::CNAME, 60, &host(at + 1));
        let mut records: Vec<Rr> = (0..aliases).map(alias).collect();
        records.push(a(&host(aliases), 60, 1));
        noerror(&records)
    };
    assert_eq!(Asked::plain().scrub(&chain(11)).0.shape.counts, [12, 0, 0]);
    assert_eq!(Asked::plain().rejection(&chain(12)), Unusable::AliasChain);
}

#[test]
fn dname_redirects_what_lies_below_it_and_its_cname_is_written_when_missing() {
    let asked = Asked { query: client("a.b.old.example.", Rtype::A, true) };
    let dname = pointer("old.example.", Rtype::DNAME, 80, "new.test.");
    let cname = pointer("a.b.old.example.", Rtype::CNAME, 80, "a.b.new.test.");
    let signature = rrsig("old.example.", Rtype::DNAME, 80, "example.");
    let end = a("a.b.new.test.", 60, 1);
    let expected =
        ["old.example. 39 80", "old.example. 46 80", "a.b.old.example. 5 80", "a.b.new.test. 1 60"];
    let given = noerror(&[dname.clone(), signature.clone(), cname, end.clone()]);
    assert_eq!(listing(&asked.scrub(&given).1, ANSWER), expected);
    let missing = noerror(&[dname.clone(), signature, end]);
    assert_eq!(listing(&asked.scrub(&missing).1, ANSWER), expected);
    let other = pointer("a.b.old.example.", Rtype::CNAME, 80, "evil.test.");
    assert_eq!(asked.rejection(&noerror(&[dname, other])), Unusable::Contradiction);
}

#[test]
fn dname_does_not_redirect_its_own_owner_or_overflow_names() {
    let own = noerror(&[pointer("www.example.", Rtype::DNAME, 80, "new.test.")]);
    assert_eq!(Asked::plain().scrub(&own).0.shape.counts, [0, 0, 0]);
    let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63), "v".repeat(58)].join(".");
    let long = noerror(&[pointer("example.", Rtype::DNAME, 80, &long)]);
    assert_eq!(Asked::plain().rejection(&long), Unusable::Records);
}

#[test]
fn negative_answer_lives_as_long_as_its_soa_allows() {
    for (ttl, minimum, expected) in [(300, 60, 60), (60, 300, 60), (9000, 9000, 600), (0, 60, 0)] {
        for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
            let reply = negative(rcode, &[], &[soa("Example.", ttl, minimum)]);
            let (answer, message) = Asked::plain().scrub(&reply);
            assert_eq!(answer.lifetime, expected);
            assert_eq!(answer.shape.rcode, rcode);
            assert_eq!(listing(&message, AUTHORITY), [format!("Example. 6 {expected}")]);
        }
    }
}

#[test]
fn negative_answer_without_a_fitting_soa_is_not_kept() {
    for authority in [vec![], vec![soa("other.", 300, 300)], vec![soa("a.www.example.", 300, 300)]]
    {
        let (answer, _) = Asked::plain().scrub(&negative(Rcode::NXDOMAIN, &[], &authority));
        assert_eq!((answer.lifetime, answer.shape.counts), (0, [0, 0, 0]));
    }
}

#[test]
fn negative_end_of_a_chain_takes_the_soa_of_the_end() {
    let alias = pointer("www.example.", Rtype::CNAME, 500, "gone.test.");
    let reply = negative(Rcode::NXDOMAIN, std::slice::from_ref(&alias), &[soa("test.", 90, 90)]);
    let (answer, message) = Asked::plain().scrub(&reply);
    assert_eq!(listing(&message, ANSWER), ["www.Example. 5 500"]);
    assert_eq!(listing(&message, AUTHORITY), ["test. 6 90"]);
    assert_eq!((answer.lifetime, answer.shape.rcode), (90, Rcode::NXDOMAIN));
    let wrong = negative(Rcode::NXDOMAIN, &[alias], &[soa("example.", 90, 90)]);
    assert_eq!(Asked::plain().scrub(&wrong).0.lifetime, 0);
}

#[test]
fn proofs_come_with_signatures_of_the_zone_or_not_at_all() {
    let reply = negative(
        Rcode::NXDOMAIN,
        &[],
        &[
            soa("example.", 90, 60),
            rrsig("example.", Rtype::SOA, 90, "example."),
            nsec("v.example.", "x.example."),
            rrsig("v.example.", Rtype::NSEC, 3600, "example."),
            nsec("unsigned.example.", "z.example."),
            nsec("a.test.", "z.test."),
            rrsig("a.test.", Rtype::NSEC, 3600, "test."),
            rrsig("stray.example.", Rtype::NSEC, 3600, "example."),
        ],
    );
    let (_, message) = Asked::dnssec().scrub(&reply);
    let kept = ["example. 6 60", "v.example. 47 60", "example. 46 60", "v.example. 46 60"];
    assert_eq!(listing(&message, AUTHORITY), kept);
    let (_, message) = Asked::plain().scrub(&reply);
    assert_eq!(listing(&message, AUTHORITY), ["Example. 6 60"]);
}

#[test]
fn wildcard_answer_keeps_its_proof() {
    let reply = noerror(&[a("www.example.", 300, 1)])
        .authority(&[nsec("v.example.", "x.example."), rrsig("v.example.", Rtype::NSEC, 9, ".")]);
    let (_, message) = Asked::dnssec().scrub(&reply);
    assert_eq!(listing(&message, AUTHORITY), ["v.example. 47 1000", "v.example. 46 9"]);
}

#[test]
fn padded_proofs_and_answers_are_refused() {
    let signature = |at| rrsig(&format!("h{at}.example."), Rtype::NSEC, 9, "example.");
    let padded: Vec<Rr> = (0..65).map(signature).collect();
    let reply = negative(Rcode::NXDOMAIN, &[], &padded);
    assert_eq!(Asked::dnssec().rejection(&reply), Unusable::Records);
    let host = |at: u16| {
        rr("www.example.", Rtype::A, 9, &[10, 0, at.to_be_bytes()[0], at.to_be_bytes()[1]])
    };
    let padded: Vec<Rr> = (0..513).map(host).collect();
    assert_eq!(Asked::plain().rejection(&noerror(&padded)), Unusable::Records);
    assert_eq!(Asked::plain().scrub(&noerror(&padded[1..])).0.shape.counts, [512, 0, 0]);
}

#[test]
fn referrals_contradictions_and_broken_data_are_refused() {
    let referral =
        negative(Rcode::NOERROR, &[], &[pointer("example.", Rtype::NS, 60, "ns.example.")]);
    assert_eq!(Asked::plain().rejection(&referral), Unusable::Referral);
    let contradiction = Reply::new(Rcode::NXDOMAIN).answer(&[a("www.example.", 60, 1)]);
    assert_eq!(Asked::plain().rejection(&contradiction), Unusable::Contradiction);
    let broken = noerror(&[rr("www.example.", Rtype::A, 60, &[1, 2, 3])]);
    assert_eq!(Asked::plain().rejection(&broken), Unusable::Records);
    let broken = negative(Rcode::NXDOMAIN, &[], &[rr("example.", Rtype::SOA, 60, &[0; 9])]);
    assert_eq!(Asked::plain().rejection(&broken), Unusable::Records);
    let broken = noerror(&[rr("www.example.", Rtype::CNAME, 60, b"\x09x")]);
    assert_eq!(Asked::plain().rejection(&broken), Unusable::Records);
    assert_eq!(
        Asked::plain().rejection(&Reply::new(Rcode::SERVFAIL)),
        Unusable::Rcode(Rcode::SERVFAIL)
    );
}

#[test]
fn answer_to_another_question_is_refused() {
    let query = client("www.example.", Rtype::A, false);
    let query = Query::parse(&query).unwrap();
    for other in
        [client("ww.example.", Rtype::A, false), client("www.example.", Rtype::AAAA, false)]
    {
        let message = noerror(&[]).to(&other);
        let outcome = scrub(&message, &Question::of(&query), &caps());
        assert_eq!(outcome, Err(Unusable::OtherQuestion));
    }
}

#[test]
fn cut_response_is_told_apart_even_when_it_ends_inside_a_record() {
    let mut reply = noerror(&[a("www.example.", 60, 1)]);
    reply.flags |= Flags::TC;
    assert_eq!(Asked::plain().rejection(&reply), Unusable::Truncated);
    let asked = Asked::plain();
    let mut message = reply.to(&asked.query);
    message.truncate(message.len() - 15);
    let question = Query::parse(&asked.query).unwrap();
    let outcome = scrub(&message, &Question::of(&question), &caps());
    assert_eq!(outcome, Err(Unusable::Truncated));
    message[2] &= !2;
    let outcome = scrub(&message, &Question::of(&question), &caps());
    assert!(matches!(outcome, Err(Unusable::Malformed(_))));
}

#[test]
fn only_a_server_without_opt_may_be_older_than_edns() {
    for rcode in [Rcode::FORMERR, Rcode::NOTIMP] {
        let knows = Reply::new(rcode);
        assert_eq!(Asked::plain().rejection(&knows), Unusable::Rcode(rcode));
        let ignorant = Reply { has_opt: false, ..knows };
        assert_eq!(Asked::plain().rejection(&ignorant), Unusable::Edns);
    }
}

#[test]
fn ad_of_an_upstream_is_not_passed_on() {
    let mut reply = noerror(&[a("www.example.", 60, 1)]);
    assert_eq!(Asked::plain().scrub(&reply).0.shape.flags, 0);
    reply.flags |= Flags::AD | Flags::AA;
    assert_eq!(Asked::plain().scrub(&reply).0.shape.flags, 0);
}

fn any_rr() -> impl Strategy<Value = Rr> {
    const OWNERS: &[&str] = &["www.example.", "b.example.", "c.test.", "example.", "test.", "."];
    let owner = proptest::sample::select(OWNERS);
    (owner.clone(), owner, 0..10u8, any::<u32>()).prop_map(
        |(owner, target, kind, ttl)| match kind {
            0..=2 => a(owner, ttl, 1),
            3 | 4 => pointer(owner, Rtype::CNAME, ttl, target),
            5 => pointer(owner, Rtype::DNAME, ttl, target),
            6 => soa(owner, ttl, 60),
            7 => nsec(owner, target),
            8 => rrsig(owner, Rtype::NSEC, ttl, target),
            _ => rrsig(owner, Rtype::A, ttl, target),
        },
    )
}

fn any_message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let section = || proptest::collection::vec(any_rr(), 0..8);
    let mutations =
        proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (any::<bool>(), any::<bool>(), section(), section(), mutations).prop_map(
        |(wants_dnssec, is_nxdomain, answer, authority, mutations)| {
            let query = client("www.example.", Rtype::A, wants_dnssec);
            let rcode = if is_nxdomain { Rcode::NXDOMAIN } else { Rcode::NOERROR };
            let mut message = negative(rcode, &answer, &authority).to(&query);
            for (index, octet) in mutations {
                let at = index.index(message.len());
                message[at] = octet;
            }
            (query, message)
        },
    )
}

/// Each answer record hangs on the chain that its predecessors built.
fn check_chain(message: &[u8]) {
    let response = Response::parse(message).unwrap();
    let mut end = name("www.example.");
    let mut previous = end.clone();
    for record in response.section(ANSWER) {
        let owner = response.owner(record).unwrap();
        let is_signature = record.rtype == Rtype::RRSIG;
        let signs_dname = is_signature && covered(&response, record) == Some(Rtype::DNAME);
        let is_dname = record.rtype == Rtype::DNAME || signs_dname;
        let is_on_chain = owner.as_name().is_same(end.as_name())
            || is_dname && end.as_name().is_within(owner.as_name())
            || is_signature && owner.as_name().is_same(previous.as_name());
        assert!(is_on_chain, "{owner:?} is not {end:?}");
        assert!(record.ttl >= caps().ttl_min && record.ttl <= caps().ttl_max);
        if record.rtype == Rtype::CNAME {
            previous = end;
            end = response.target(record).unwrap();
        }
    }
    for record in response.section(AUTHORITY) {
        let known = [Rtype::SOA, Rtype::NSEC, Rtype::NSEC3, Rtype::RRSIG];
        assert!(known.contains(&record.rtype), "{record:?}");
        assert!(record.ttl <= caps().ttl_max);
    }
    assert_eq!(response.section(Section::Additional).count(), 0);
}

proptest! {
    #[test]
    fn whatever_comes_the_answer_parses_and_stays_on_the_chain((query, message) in any_message()) {
        let asked = Query::parse(&query).unwrap();
        if let Ok(answer) = scrub(&message, &Question::of(&asked), &caps()) {
            check_chain(&replied(&query, &answer));
        }
    }
}
