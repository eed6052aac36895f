//! Lists at work: questions, answers out of the cache, and those who wait.

use super::*;
use crate::config::{List, ListAnswer, ListSource};
use crate::policy::filter::syntax::{self, Syntax};
use crate::policy::filter::{Compiler, Image, Kind, Lists, Rule};
use crate::policy::{Filtering, Groups, local};
use crate::serve::Onward;

/// A client of the group "kids", for whom the list counts; it does not for all others.
const KID: Client = Client {
    address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)),
    listener: 0,
    transport: Transport::Udp,
};

fn alias(name: &str) -> ListAnswer {
    let text = format!("[rebinding]\nallow = ['{name}']");
    let file = config::File { name: "t", text: &text };
    let config = config::Config::load(Some(file), Vec::new(), &[]).unwrap();
    ListAnswer::Alias(config.rebinding.allow[0].clone())
}

/// A core whose list `text` counts for kids alone.
fn listing(text: &str, answer: ListAnswer) -> Core<u32> {
    let mut core = core();
    core.go_by(Arc::new(policy(text, answer)));
    core
}

fn policy(text: &str, answer: ListAnswer) -> Policy {
    let mut compiler = Compiler::new([1; 16]);
    let mut take = |rule: &Rule<'_>| compiler.add(0, Kind::Block, rule).is_ok();
    let syntax = if text.starts_with("$TTL") { Syntax::Rpz } else { Syntax::Adblock };
    assert_eq!(syntax::read(text.as_bytes(), syntax, &mut take).bad.count, 0);
    let image = Image::open(compiler.finish(0).unwrap().into()).unwrap();
    let source = ListSource::File("/list".into());
    let list = List { answer, ttl: 30, ..List::new("ads".into(), source, String::new()) };
    let kids = config::Group {
        name: "kids".into(),
        clients: vec!["127.0.0.7/32".parse().unwrap()],
        listeners: Vec::new(),
        lists: None,
        periods: Vec::new(),
        forward: None,
        log: true,
        place: String::new(),
    };
    let listeners = ["127.0.0.1:53".parse().unwrap()];
    let groups = [Lists::default(), Lists::ALL];
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    let rewrite = |name: &str, to: &str| {
        let file = format!("[[rewrite]]\nname = '{name}'\nto = '{to}'\n");
        let file = config::File { name: "t", text: &file };
        config::Config::load(Some(file), Vec::new(), &[]).unwrap().rewrites.remove(0)
    };
    let rewrites =
        [rewrite("old.example", "ads.example."), rewrite("mall.example", "shop.example.")];
    let sections = local::Sections {
        zones: &[],
        special: config::Special::NONE,
        forward: &config::Forward::default(),
        rewrites: &rewrites,
        hosts: &config::Hosts::default(),
        hosts_files: &[],
    };
    Policy::new(acl, identity, LocalData::compile(&sections).unwrap().0)
        .grouped(Groups::new(&[kids], &listeners))
        .filtered(Some(Arc::new(Filtering::new(image, &[list], Box::new(groups)))))
}

/// RCODE, flags TC and AA, types of the records, and the extended error of a reply.
fn shown(reply: &[u8]) -> String {
    let response = Response::parse(reply).unwrap();
    let flags = response.header.flags;
    let mut text = response.header.flags.rcode().mnemonic().to_owned();
    for (bit, name) in [(Flags::TC, " tc"), (Flags::AA, " aa")] {
        text += if flags.has(bit) { name } else { "" };
    }
    for record in &response.records {
        let (owner, _) = NameBuf::expand(reply, record.owner_at).unwrap();
        text += &format!(" {owner:?}/{}", record.rtype.0);
    }
    let ede = reply.windows(4).position(|octets| octets == [0, 15, 0, 5]);
    if let Some(at) = ede {
        let text_of = String::from_utf8_lossy(&reply[at + 6..at + 9]);
        text += &format!(" EDE {} {text_of}", reply[at + 5]);
    }
    text
}

fn asked(core: &mut Core<u32>, name: &str, client: Client) -> String {
    let message = with_opt(query(1, name), 1232);
    let mut out = [0; 4096];
    match core.answer(&message, client, at(10), &mut out) {
        Verdict::Reply(len) | Verdict::Refresh(len, _) => shown(&out[..len]),
        Verdict::Drop => "drop".into(),
        Verdict::Miss(_) => "miss".into(),
    }
}

/// Begins the question of `client`, who waits by `path`.
fn wait(core: &mut Core<u32>, name: &str, client: Client, path: u32) -> Option<Box<Asking>> {
    let message = with_opt(query(1, name), 1232);
    let mut out = [0; 4096];
    let Verdict::Miss(ticket) = core.answer(&message, client, at(10), &mut out) else {
        panic!("{name} is no miss")
    };
    match core.admit(ticket, path, at(10), &mut out, nobody_goes) {
        Admission::Ask(asking) => Some(asking),
        Admission::Joined => None,
        Admission::Refused(_) => panic!("refused"),
    }
}

/// Ends the question with `answer`: what each one who waited gets, and who has to wait on.
fn ended(
    core: &mut Core<u32>,
    mut asking: Box<Asking>,
    answer: AnswerBuf,
) -> (Vec<(u32, String)>, Vec<Onward<u32>>) {
    let (mut out, mut replies) = ([0; 4096], Vec::new());
    let send = |path: &u32, reply: &[u8]| replies.push((*path, shown(reply)));
    let onward = core.finish(&mut asking, Ok(answer), at(10), &mut out, send);
    (replies, onward)
}

/// `shop.example CNAME www.tracker.example`, and that name's address.
fn cloaked(asking: &Asking) -> AnswerBuf {
    let query = asking.query();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NOERROR).unwrap();
    let target = NameBuf::from_text("www.tracker.example.").unwrap();
    let target = target.as_name();
    let rdata = target.as_bytes();
    builder.write(Section::Answer, query.qname, Rtype::CNAME, Class::IN, 300, rdata).unwrap();
    builder.write(Section::Answer, target, Rtype::A, Class::IN, 300, &[192, 0, 2, 9]).unwrap();
    builder.finish()
}

const CLOAKED: &str = "NOERROR shop.example./5 www.tracker.example./1";
const ZERO: &str = "NOERROR aa shop.example./1 EDE 15 ads";

#[test]
fn blocked_name_is_answered_for_the_group_and_asked_for_others() {
    let mut core = listing("||ads.example^", ListAnswer::ZeroIp);
    let zero = "NOERROR aa Www.Ads.example./1 EDE 15 ads";
    assert_eq!(asked(&mut core, "Www.Ads.example.", KID), zero);
    assert_eq!(asked(&mut core, "Www.Ads.example.", CLIENT), "miss");
    assert_eq!(core.counters().blocked.value(), 1);
}

#[test]
fn other_policy_counts_from_the_next_question_on() {
    let mut core = listing("||ads.example^", ListAnswer::Nxdomain);
    assert_eq!(asked(&mut core, "ads.example.", KID), "NXDOMAIN aa ads.example./6 EDE 15 ads");
    core.go_by(Arc::new(policy("||other.example^", ListAnswer::Refused)));
    assert_eq!(asked(&mut core, "ads.example.", KID), "miss");
    assert_eq!(asked(&mut core, "other.example.", KID), "REFUSED EDE 15 ads");
}

#[test]
fn cached_answer_is_looked_at_for_whom_lists_count() {
    let mut core = listing("||tracker.example^", ListAnswer::ZeroIp);
    let asking = wait(&mut core, "shop.example.", CLIENT, 1).unwrap();
    let answer = cloaked(&asking);
    assert_eq!(ended(&mut core, asking, answer).0, [(1, CLOAKED.to_owned())]);
    assert_eq!(asked(&mut core, "shop.example.", KID), ZERO);
    assert_eq!(asked(&mut core, "shop.example.", CLIENT), CLOAKED);
    // An answer that is in the cache is judged by the lists of today.
    core.go_by(Arc::new(policy("||else.example^", ListAnswer::ZeroIp)));
    assert_eq!(asked(&mut core, "shop.example.", KID), CLOAKED);
}

#[test]
fn allowance_of_a_name_frees_its_aliases() {
    let rules = "||tracker.example^\n@@||shop.example^";
    let mut core = listing(rules, ListAnswer::ZeroIp);
    let asking = wait(&mut core, "shop.example.", KID, 1).unwrap();
    let answer = cloaked(&asking);
    assert_eq!(ended(&mut core, asking, answer).0, [(1, CLOAKED.to_owned())]);
    assert_eq!(asked(&mut core, "shop.example.", KID), CLOAKED);
}

#[test]
fn those_who_wait_for_one_question_get_what_their_lists_say() {
    let mut core = listing("||tracker.example^", ListAnswer::ZeroIp);
    let asking = wait(&mut core, "shop.example.", CLIENT, 1).unwrap();
    assert!(wait(&mut core, "shop.example.", KID, 2).is_none());
    let answer = cloaked(&asking);
    let (replies, onward) = ended(&mut core, asking, answer);
    assert_eq!(replies, [(1, CLOAKED.to_owned()), (2, ZERO.to_owned())]);
    assert!(onward.is_empty());
}

#[test]
fn client_is_led_to_another_name() {
    let mut core = listing("||ads.example^", alias("wall.example"));
    let asking = wait(&mut core, "Www.ads.example.", KID, 1).unwrap();
    assert_eq!(asking.query().qname.to_string(), "wall.example.");
    // Somebody asks for that name himself, and is told nothing of aliases.
    assert!(wait(&mut core, "wall.example.", CLIENT, 2).is_none());
    let reply = answer(&asking, 1);
    let led = "NOERROR aa Www.ads.example./5 wall.example./1 EDE 15 ads".to_owned();
    let (replies, _) = ended(&mut core, asking, reply);
    assert_eq!(replies, [(1, led.clone()), (2, "NOERROR wall.example./1".to_owned())]);
    assert_eq!(asked(&mut core, "Www.ads.example.", KID), led);
}

#[test]
fn client_who_waited_for_a_cloaked_name_is_led_on() {
    let mut core = listing("||tracker.example^", alias("wall.example"));
    let asking = wait(&mut core, "shop.example.", KID, 1).unwrap();
    let reply = cloaked(&asking);
    let (replies, mut onward) = ended(&mut core, asking, reply);
    assert!(replies.is_empty());
    let Onward { ticket, path } = onward.remove(0);
    let mut out = [0; 4096];
    let Admission::Ask(asking) = core.admit(ticket, path, at(10), &mut out, nobody_goes) else {
        panic!("nobody asked for the wall yet")
    };
    let reply = answer(&asking, 1);
    let led = "NOERROR aa shop.example./5 wall.example./1 EDE 15 ads".to_owned();
    assert_eq!(ended(&mut core, asking, reply).0, [(1, led)]);
}

#[test]
fn where_an_alias_leads_nowhere_the_client_hears_it() {
    let mut core = listing("||ads.example^", alias("wall.example"));
    let asking = wait(&mut core, "ads.example.", KID, 1).unwrap();
    let query = asking.query();
    let mut builder =
        AnswerBuilder::new(query.qname, query.qtype, query.qclass, Rcode::NXDOMAIN).unwrap();
    let class = Class::IN;
    builder.write(Section::Authority, query.qname, Rtype::SOA, class, 60, &[0; 22]).unwrap();
    let denial = builder.finish();
    let led = "NXDOMAIN aa ads.example./5 wall.example./6 EDE 15 ads".to_owned();
    assert_eq!(ended(&mut core, asking, denial).0, [(1, led)]);
}

#[test]
fn lists_count_for_where_a_rewrite_leads_as_for_the_name_itself() {
    let mut core = listing("||ads.example^\n||tracker.example^", ListAnswer::ZeroIp);
    let zero = |name: &str| format!("NOERROR aa {name}/1 EDE 15 ads");
    assert_eq!(asked(&mut core, "old.example.", KID), zero("old.example."));
    let asking = wait(&mut core, "mall.example.", CLIENT, 1).unwrap();
    assert!(wait(&mut core, "mall.example.", KID, 2).is_none());
    let answer = cloaked(&asking);
    let free = "NOERROR aa mall.example./5 shop.example./5 www.tracker.example./1".to_owned();
    let (replies, _) = ended(&mut core, asking, answer);
    assert_eq!(replies, [(1, free.clone()), (2, zero("mall.example."))]);
    // And out of the cache.
    assert_eq!(asked(&mut core, "mall.example.", KID), zero("mall.example."));
    assert_eq!(asked(&mut core, "mall.example.", CLIENT), free);
}

#[test]
fn stale_answer_of_another_name_is_given_at_once_when_asking_is_vain() {
    let mut core = listing("||ads.example^", alias("wall.example"));
    let asking = wait(&mut core, "ads.example.", KID, 1).unwrap();
    let reply = answer(&asking, 1);
    ended(&mut core, asking, reply);
    let message = with_opt(query(1, "ads.example."), 1232);
    let (late, mut out) = (at(1_000), [0; 4096]);
    let Verdict::Miss(ticket) = core.answer(&message, KID, late, &mut out) else {
        panic!("it has run out")
    };
    let Admission::Ask(mut asking) = core.admit(ticket, 1, late, &mut out, nobody_goes) else {
        panic!("nobody asks")
    };
    let failure = Unresolved { ede: Ede::NETWORK_ERROR, is_ours: false };
    let mut replies = Vec::new();
    let send = |_: &u32, reply: &[u8]| replies.push(shown(reply));
    core.finish(&mut asking, Err(failure), late, &mut out, send);
    let led = "NOERROR aa ads.example./5 wall.example./1 EDE 15 ads".to_owned();
    assert_eq!(replies, std::slice::from_ref(&led));
    let Verdict::Reply(len) = core.answer(&message, KID, late, &mut out) else {
        panic!("asking has just failed")
    };
    assert_eq!(shown(&out[..len]), led);
    assert_eq!(core.counters().stale.value(), 2);
}

#[test]
fn silence_and_streams_of_policy_zones_are_kept() {
    let zone = "$TTL 60\n@ SOA . . 1 1 1 1 1\n\
        hush.example CNAME rpz-drop.\nstream.example CNAME rpz-tcp-only.\n";
    let mut core = listing(zone, ListAnswer::ZeroIp);
    assert_eq!(asked(&mut core, "hush.example.", KID), "drop");
    assert_eq!(asked(&mut core, "stream.example.", KID), "NOERROR tc EDE 15 ads");
    let stream = Client { transport: Transport::Tcp, ..KID };
    assert_eq!(asked(&mut core, "stream.example.", stream), "miss");
}
