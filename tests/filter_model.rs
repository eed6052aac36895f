//! The filter against a naive model: random rules over a small alphabet, so that owners, ancestors and names asked for meet;
//! every decision must be the one that a walk over all rules in plain text finds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use heimdall_uring::policy::filter::{
    Asker, Client, ClientSet, Compiler, Decision, Image, Kind, Lists, Owner, Reach, Rule, Trigger,
    TypeSet, Verb,
};
use heimdall_uring::wire::{NameBuf, Rtype};
use proptest::prelude::*;

/// A rule in plain text.
#[derive(Clone, Debug)]
struct Plain {
    list: u8,
    kind: Kind,
    /// Labels from left to right; none for the root.
    owner: Vec<&'static str>,
    reach: Reach,
    verb: Verb,
    is_important: bool,
    is_zoned: bool,
    trigger: Trigger,
    /// Only this type, or all but this.
    rtype: Option<(Rtype, bool)>,
    client: Option<&'static str>,
    is_rewrite: bool,
    cancels: bool,
    /// Not for these and what is below them.
    except: Option<Vec<&'static str>>,
}

impl Plain {
    fn class(&self) -> u8 {
        match (self.kind, self.is_rewrite(), self.is_important, self.verb == Verb::Allow) {
            (Kind::Allow, _, _, _) => 6,
            (Kind::Block, true, _, _) => 5,
            (Kind::Block, false, true, true) => 3,
            (Kind::Block, false, true, false) => 2,
            (Kind::Block, false, false, true) => 1,
            (Kind::Block, false, false, false) => 0,
        }
    }

    fn is_rewrite(&self) -> bool {
        self.is_rewrite && self.kind == Kind::Block
    }

    /// Whether it takes `other` back.
    fn takes_back(&self, other: &Self) -> bool {
        let same = |rule: &Self| {
            let (kind, owner, reach, verb) = (rule.kind, &rule.owner, rule.reach, rule.verb());
            let bits = (rule.is_important, rule.is_zoned, rule.is_rewrite(), rule.trigger);
            let who = (rule.rtype, rule.client, rule.except.clone());
            (kind, owner.clone(), reach, verb, bits, who)
        };
        self.cancels && !other.cancels && same(self) == same(other)
    }

    fn verb(&self) -> Verb {
        if self.kind == Kind::Allow { Verb::Allow } else { self.verb }
    }

    fn covers(&self, name: &[&str], question: &Question) -> bool {
        let reaches = match self.reach {
            Reach::Exact => name == self.owner,
            Reach::Below => name.ends_with(&self.owner) && name.len() > self.owner.len(),
            Reach::AtAndBelow => name.ends_with(&self.owner),
        };
        let is_type = self.rtype.is_none_or(|(rtype, only)| (rtype == question.qtype) == only);
        let is_client = self.client.is_none_or(|client| Some(client) == question.client);
        let is_excepted = self.except.as_ref().is_some_and(|except| name.ends_with(except));
        reaches && is_type && is_client && !is_excepted && self.trigger == question.trigger
    }
}

#[derive(Clone, Debug)]
struct Question {
    name: Vec<&'static str>,
    lists: Vec<u8>,
    qtype: Rtype,
    client: Option<&'static str>,
    trigger: Trigger,
}

/// What the module's documentation says, word for word: list, verb, labels of the owner.
fn expected(rules: &[Plain], question: &Question) -> Option<(u8, Verb, usize)> {
    let name = question.name.as_slice();
    let covering = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| question.lists.contains(&rule.list) && rule.covers(name, question));
    let rank = |(at, rule): &(usize, &Plain)| {
        (std::cmp::Reverse(rule.class()), std::cmp::Reverse(rule.owner.len()), rule.list, *at)
    };
    let covering = covering
        .filter(|(_, rule)| !rule.cancels && !rules.iter().any(|other| other.takes_back(rule)));
    let covering: Vec<_> = covering.collect();
    let plain = covering.iter().filter(|(_, rule)| !rule.is_zoned && !rule.is_rewrite());
    let plain = plain.min_by_key(|found| rank(found));
    // An allowance takes rewrites back, those that are important only if it is.
    let rewrites = || covering.iter().filter(|(_, rule)| !rule.is_zoned && rule.is_rewrite());
    let muted = rewrites().filter(|(_, rule)| rule.verb == Verb::Allow);
    let muted = muted.map(|(_, rule)| rule.is_important).max();
    let standing = rewrites().filter(|(_, rule)| {
        rule.verb != Verb::Allow && muted.is_none_or(|important| rule.is_important && !important)
    });
    let rewrite = standing.min_by_key(|(at, rule)| {
        // Of equals in all else one that is not important, as it was looked at first.
        let (class, owner, list, _) = rank(&(*at, rule));
        (class, owner, list, rule.is_important, *at)
    });
    // The first zone that has an owner; of that zone the nearest.
    let zoned = covering.iter().filter(|(_, rule)| rule.is_zoned).min_by_key(|(at, rule)| {
        let nearest = std::cmp::Reverse(rule.owner.len());
        (rule.list, nearest, std::cmp::Reverse(rule.class()), *at)
    });
    let winner = plain.into_iter().chain(zoned).chain(rewrite).min_by_key(|found| {
        let (class, owner, list, _) = rank(found);
        // A plain rule before a zone's where all else is equal.
        (class, owner, list, found.1.is_zoned)
    });
    winner.map(|(_, rule)| (rule.list, rule.verb(), rule.owner.len()))
}

const LABELS: [&str; 4] = ["a", "b", "aa", "a-label-that-is-longer-than-sixteen-octets"];

fn name() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&LABELS[..]), 0..5)
}

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![8 => Just(Trigger::Qname), 1 => Just(Trigger::Nsdname)]
}

fn rule() -> impl Strategy<Value = Plain> {
    let reach = prop::sample::select(vec![Reach::Exact, Reach::Below, Reach::AtAndBelow]);
    let verb = prop_oneof![
        3 => Just(Verb::Block),
        2 => Just(Verb::Allow),
        1 => Just(Verb::Nxdomain),
        1 => Just(Verb::Drop),
    ];
    let rtype = prop::option::weighted(
        0.2,
        (prop::sample::select(vec![Rtype::A, Rtype::MX]), any::<bool>()),
    );
    let client = prop::option::weighted(0.2, prop::sample::select(vec!["tv", "phone"]));
    let except = prop::option::weighted(0.1, name());
    let bits = [0.2, 0.3, 0.2, 0.1].map(prop::bool::weighted);
    let rest = (trigger(), rtype, client, bits, except);
    (0..6_u8, name(), reach, verb, rest).prop_map(|(list, owner, reach, verb, rest)| {
        let (trigger, rtype, client, bits, except) = rest;
        let [is_important, is_zoned, is_rewrite, cancels] = bits;
        let is_rewrite = is_rewrite && !is_zoned;
        // List 5 allows.
        let kind = if list == 5 { Kind::Allow } else { Kind::Block };
        Plain {
            list,
            kind,
            owner,
            reach,
            verb,
            is_important,
            is_zoned,
            trigger,
            rtype,
            client,
            is_rewrite,
            cancels,
            except,
        }
    })
}

fn question() -> impl Strategy<Value = Question> {
    let lists = prop::collection::vec(0..6_u8, 1..6);
    let qtype = prop::sample::select(vec![Rtype::A, Rtype::MX, Rtype::TXT]);
    let client = prop::option::of(prop::sample::select(vec!["tv", "phone"]));
    (name(), lists, qtype, client, trigger()).prop_map(|(name, lists, qtype, client, trigger)| {
        Question { name, lists, qtype, client, trigger }
    })
}

fn wire(labels: &[&str]) -> NameBuf {
    NameBuf::from_text(&labels.join(".")).unwrap()
}

fn compile(rules: &[Plain], key: u8) -> Image<Vec<u8>> {
    let mut compiler = Compiler::new([key; 16]);
    for rule in rules {
        let owner = wire(&rule.owner);
        let mut types = TypeSet::default();
        if let Some((rtype, is_only)) = rule.rtype {
            let side = if is_only { &mut types.only } else { &mut types.except };
            side.push(rtype);
        }
        let only = rule.client.map(|name| Client::Named(name.into())).into_iter().collect();
        let clients = ClientSet { only, except: Vec::new() };
        let except: Vec<_> = rule.except.iter().map(|name| wire(name)).collect();
        let stated = Rule {
            owner: Owner::Name(owner.as_name()),
            is_rewrite: rule.is_rewrite,
            cancels: rule.cancels,
            except: &except,
            trigger: rule.trigger,
            reach: rule.reach,
            verb: rule.verb,
            record: None,
            is_important: rule.is_important,
            is_zoned: rule.is_zoned,
            types: &types,
            clients: &clients,
        };
        compiler.add(rule.list, rule.kind, &stated).unwrap();
    }
    Image::open(compiler.finish(0).unwrap()).unwrap()
}

fn decide<'a>(image: &'a Image<Vec<u8>>, question: &Question) -> Option<Decision<'a>> {
    let name = wire(&question.name);
    let lists = question.lists.iter().copied().collect::<Lists>();
    let address = [192, 0, 2, 1].into();
    let asker = Asker { lists: &lists, qtype: question.qtype, address, name: question.client };
    let folded = name.as_name().as_bytes();
    let decide = |is_exact| {
        let matcher = image.matcher().exact(is_exact);
        match question.trigger {
            Trigger::Qname => matcher.decide(folded, &asker),
            Trigger::Nsdname => matcher.decide_nsdname(folded, &asker),
            Trigger::Client => None,
        }
    };
    let (decided, exactly) = (decide(false), decide(true));
    assert_eq!(format!("{decided:?}"), format!("{exactly:?}"), "without the filter: {question:?}");
    decided
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_those_of_the_naive_model(
        rules in prop::collection::vec(rule(), 0..60),
        questions in prop::collection::vec(question(), 40),
        key in any::<u8>(),
    ) {
        let image = compile(&rules, key);
        for question in &questions {
            let decided = decide(&image, question).map(|decision| {
                let wire = wire(&question.name);
                let above = wire.as_name().suffixes().find(|suffix| {
                    wire.as_name().as_bytes().len() - suffix.as_bytes().len() == decision.owner_at
                });
                (decision.list, decision.verb, above.unwrap().labels().count())
            });
            prop_assert_eq!(decided, expected(&rules, question), "{:?}", question);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// With thousands of names buckets fill and spill, and tags meet: whatever is listed is found, nothing else is.
    #[test]
    fn full_buckets_lose_nothing(key in any::<u8>(), step in 1..1_000_usize) {
        const COUNT: usize = 3_000;
        const DIGITS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let owner = |number: usize| -> Vec<&'static str> {
            (0..5).map(|place| DIGITS[number >> (3 * place) & 7]).collect()
        };
        let plain = |number: usize| Plain {
            list: u8::try_from(number % 200).unwrap(),
            kind: Kind::Block,
            owner: owner(number),
            reach: Reach::Exact,
            verb: Verb::Block,
            is_important: false,
            is_zoned: false,
            trigger: Trigger::Qname,
            rtype: None,
            client: None,
            is_rewrite: false,
            cancels: false,
            except: None,
        };
        let rules: Vec<_> = (0..COUNT).map(|number| plain(step + number)).collect();
        let image = compile(&rules, key);
        prop_assert_eq!(image.footprint().names, COUNT as u64);
        for number in 0..8_usize.pow(5) {
            let question = Question {
                name: owner(number),
                lists: (0..=255).collect(),
                qtype: Rtype::A,
                client: None,
                trigger: Trigger::Qname,
            };
            let is_listed = (step..step + COUNT).contains(&number);
            let decided = decide(&image, &question).map(|decision| usize::from(decision.list));
            prop_assert_eq!(decided, is_listed.then_some(number % 200));
        }
    }
}
