//! Whole resolutions in a simulated world: thousands of runs, each drawn from its seed, and what must hold in every one;
//! then one run for each kind of trouble, so that a fault that no longer strikes is noticed.
//!
//! `SIM_SEED=1234` repeats one run, `SIM_SEEDS=100000` widens the search.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heimdall_uring::config::{ROOT_VIEW, Selection};
use heimdall_uring::resolve::{Change, Reason, flights::Arrival};
use heimdall_uring::sim::{
    Asked, CookieHabit, Duty, EdnsHabit, Fault, Flood, Link, Outage, Outcome, Report, Role,
    Scenario, Spoken, StreamHabit, Tally, Traits, run,
};
use heimdall_uring::wire::Rcode;

/// Runs of an ordinary test.
const SEEDS: u64 = 2_000;

/// Of so many runs one is run twice.
const TWICE: u64 = 10;

/// Most exchanges for one question.
const EXCHANGES_MAX: usize = 8;

/// Of so many questions one may fail beside a healthy upstream because the others have used up its exchanges: one that
/// wants a cookie, then is late, then cuts its answer and has no stream costs four.
const STARVED: usize = 2_000;

/// Hedges that may have been saved up.
const HEDGES_SAVED: u64 = 10;

/// Violations that are shown of a run, and characters of each.
const SHOWN_MAX: usize = 10;
const CHARS_MAX: usize = 400;

const SECOND: u64 = 1_000_000_000;

/// What does not hold of a run although it must.
fn violations(scenario: &Scenario, report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    for asked in &report.asked {
        let name = asked.qname.as_name();
        let Some((ended, outcome)) = &asked.ended else {
            found.push(format!("{name} was never over"));
            continue;
        };
        if ended.since(asked.begun) > scenario.deadline {
            found.push(format!("{name} took {:?}", ended.since(asked.begun)));
        }
        let exchanges = report.exchanges(asked.task);
        match outcome {
            Outcome::Untrue(why) => found.push(format!("{name} got no truth: {why}")),
            Outcome::Failed(failure)
                if scenario.is_safe(duty_of(scenario, asked)) && exchanges < EXCHANGES_MAX =>
            {
                found.push(format!("{name} failed beside a healthy upstream: {failure:?}"));
            }
            Outcome::True | Outcome::Failed(_) | Outcome::Abandoned => {}
        }
        if exchanges > EXCHANGES_MAX {
            found.push(format!("{name} cost {exchanges} exchanges"));
        }
    }
    if report.left_in_flight + report.left_streams > 0 {
        let left = (report.left_in_flight, report.left_streams);
        found.push(format!("{left:?} datagrams and streams are in flight when all is over"));
    }
    let share = report.asked.len() as u64 * u64::from(scenario.hedge_percent);
    if report.hedges * 100 > share + HEDGES_SAVED * 100 {
        found.push(format!("{} hedges of {} questions", report.hedges, report.asked.len()));
    }
    for sent in &report.sent {
        let role = &scenario.roles[sent.place];
        let asked = report.asked.iter().find(|asked| asked.task == sent.task);
        // Who asks whether an upstream is back asks those of the zone for its apex, and all others for the root.
        let duty = asked.map_or_else(
            || {
                if role.duty == Duty::View {
                    Duty::View
                } else {
                    scenario.duty(sent.is_corp, ROOT_VIEW)
                }
            },
            |asked| scenario.duty(sent.is_corp, asked.view),
        );
        if role.duty != duty {
            found.push(format!("{sent:?} went to an upstream of another zone or view"));
        }
    }
    rests(scenario, report, &mut found);
    found
}

/// The duty of those who have to answer a question.
fn duty_of(scenario: &Scenario, asked: &Asked) -> Duty {
    scenario.duty(asked.is_corp, asked.view)
}

/// When upstreams rest, and when they come back.
fn rests(scenario: &Scenario, report: &Report, found: &mut Vec<String>) {
    for (place, role) in scenario.roles.iter().enumerate() {
        let turns: Vec<_> = report.turns.iter().filter(|turn| turn.place == place).collect();
        let is_told_twice = turns.windows(2).any(|pair| {
            matches!(pair[0].change, Change::Rests { .. })
                == matches!(pair[1].change, Change::Rests { .. })
        });
        if is_told_twice {
            found.push(format!("rests of {place} do not begin and end in turn: {turns:?}"));
        }
        if role.traits.is_healthy() && !turns.is_empty() {
            found.push(format!("{place} is healthy and had to rest: {turns:?}"));
        }
        if !scenario.probes {
            continue;
        }
        for (number, turn) in turns.iter().enumerate() {
            let Change::Rests { .. } = turn.change else { continue };
            let end = turns.get(number + 1).map_or(report.end, |turn| turn.at);
            // Questions that were on their way may come by yet.
            let from = turn.at.after(scenario.deadline);
            let is_safe = scenario.is_safe(role.duty);
            let vain = report.sent.iter().filter(|sent| {
                sent.place == place && !sent.is_probe && sent.at > from && sent.at < end
            });
            let vain = vain.count();
            if is_safe && vain > 0 {
                found.push(format!("{place} rests beside a healthy one and got {vain} questions"));
            }
        }
        returns(scenario, report, place, found);
    }
}

/// One whose only flaw was an outage is back soon after it.
fn returns(scenario: &Scenario, report: &Report, place: usize, found: &mut Vec<String>) {
    let traits = &scenario.roles[place].traits;
    let [Outage { from_s, until_s, .. }] = traits.outages[..] else { return };
    let flawless = Traits { outages: Vec::new(), ..traits.clone() };
    // Rests double, so one that began within the outage is at most as long, and the first has two seconds.
    let rest_s = (until_s - from_s).max(2).saturating_add(2);
    let back_by = until_s.saturating_add(rest_s).saturating_mul(SECOND);
    if !flawless.is_healthy() || report.end.as_nanos() < back_by {
        return;
    }
    let before = report.turns.iter().filter(|turn| turn.place == place);
    let last = before.take_while(|turn| turn.at.as_nanos() < back_by).last();
    if last.is_some_and(|turn| matches!(turn.change, Change::Rests { .. })) {
        found.push(format!("{place} is there again, but rests: {last:?}"));
    }
}

/// Names a seed if its run panics, whoever does.
struct Naming(u64);

impl Drop for Naming {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed) = self;
            eprintln!("repeat with: SIM_SEED={seed} cargo test --features sim --test simulation");
        }
    }
}

/// Runs a scenario in which everything must hold.
fn hold(scenario: &Scenario) -> Report {
    let _naming = Naming(scenario.seed);
    let report = run(scenario);
    let found = violations(scenario, &report);
    let shown: Vec<String> =
        found.iter().take(SHOWN_MAX).map(|it| it.chars().take(CHARS_MAX).collect()).collect();
    let (seed, count, shown) = (scenario.seed, found.len(), shown.join("\n"));
    assert!(found.is_empty(), "{scenario:#?}\nseed {seed}: {count} violations\n{shown}");
    report
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("seeds are numbers"))
}

/// What many runs amount to.
#[derive(Default)]
struct Sum {
    tally: Tally,
    questions: usize,
    /// Failed beside a healthy upstream, for want of exchanges.
    starved: usize,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.questions += other.questions;
        self.starved += other.starved;
    }

    /// Runs one seed, now and then twice.
    fn hold(&mut self, seed: u64) {
        let scenario = Scenario::draw(seed);
        let report = hold(&scenario);
        if seed.is_multiple_of(TWICE) {
            let again = run(&scenario).trace;
            assert_eq!(report.trace, again, "seed {seed}: a second run took another course");
        }
        let is_starved = |asked: &&Asked| {
            matches!(asked.ended, Some((_, Outcome::Failed(_))))
                && scenario.is_safe(duty_of(&scenario, asked))
        };
        let starved = report.asked.iter().filter(is_starved).count();
        self.add(&Self { tally: report.tally, questions: report.asked.len(), starved });
    }
}

/// The runs of all seeds, over all CPUs.
fn hold_all(seeds: std::ops::Range<u64>) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return sum;
            }
            sum.hold(seed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = Sum::default();
        for thread in threads {
            match thread.join() {
                Ok(part) => sum.add(&part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        sum
    })
}

#[test]
fn everything_holds_whatever_the_seed() {
    if let Some(seed) = number("SIM_SEED") {
        let scenario = Scenario::draw(seed);
        let report = hold(&scenario);
        assert_eq!(report.trace, run(&scenario).trace, "a second run took another course");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let Sum { tally, questions, starved } = hold_all(0..seeds);
    assert!(starved * STARVED <= questions, "{starved} of {questions} failed needlessly");
    for fault in Fault::ALL {
        assert!(tally.of(fault) > 0, "{fault:?} never struck");
    }
    for arrival in [
        Arrival::Answer,
        Arrival::OtherCasing,
        Arrival::Late,
        Arrival::WrongId,
        Arrival::WrongSource,
        Arrival::WrongQuestion,
        Arrival::WrongCookie,
    ] {
        assert!(tally.arrived(arrival) > 0, "{arrival:?} never arrived");
    }
    assert!(tally.floods() > 0, "no flood was found out");
}

#[test]
fn two_seeds_are_two_runs() {
    let mut seen = BTreeMap::new();
    for seed in 0..50 {
        let scenario = Scenario::calm(seed, vec![Role::root(Traits::HEALTHY)]);
        let other = seen.insert(run(&scenario).trace, seed);
        assert_eq!(other, None, "seed {seed} runs as another");
    }
}

/// A run of many questions, in which all but one kind of trouble is away.
fn calm(roles: Vec<Role>) -> Scenario {
    Scenario { questions: 300, ..Scenario::calm(7, roles) }
}

/// As [`calm`], with upstreams that are asked in their order.
fn ordered(roles: Vec<Role>) -> Scenario {
    Scenario { selection: Selection::Ordered, ..calm(roles) }
}

fn healthy() -> Role {
    Role::root(Traits::HEALTHY)
}

fn with(change: impl FnOnce(&mut Traits)) -> Role {
    let mut traits = Traits::HEALTHY;
    change(&mut traits);
    Role::root(traits)
}

/// Runs a scenario in which everything must hold and nothing may fail.
fn succeed(scenario: &Scenario) -> Report {
    let report = hold(scenario);
    assert_eq!(report.failures(), 0);
    report
}

/// Queries of clients' questions to one server.
fn questions_to(report: &Report, place: usize, seconds: std::ops::Range<u64>) -> usize {
    report.sent_to(place, seconds).iter().filter(|sent| !sent.is_probe).count()
}

const ALL_TIME: std::ops::Range<u64> = 0..u64::MAX;

#[test]
fn calm_costs_one_exchange_and_another_for_what_does_not_fit() {
    let scenario = Scenario { hedge_percent: 0, ..calm(vec![healthy(), healthy()]) };
    let report = succeed(&scenario);
    for asked in &report.asked {
        let is_large = asked.qname.as_name().to_string().contains("large");
        assert_eq!(report.exchanges(asked.task), 1 + usize::from(is_large));
    }
    for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::Cut) {
        assert_eq!(report.tally.of(fault), 0, "{fault:?}");
    }
    assert!(report.tally.of(Fault::Cut) > 0);
    assert!(report.turns.is_empty() && report.probes == 0);
}

#[test]
fn loss_everywhere_costs_few_questions() {
    let (mut questions, mut failures, tally) = (0, 0, Tally::default());
    for seed in 0..40 {
        let lossy = || with(|traits| traits.link = Link::losing(300));
        let roles = vec![lossy(), lossy(), lossy()];
        let report = hold(&Scenario { seed, ..calm(roles) });
        questions += report.asked.len();
        failures += report.failures();
        tally.add(&report.tally);
    }
    assert!(tally.of(Fault::Lost) > 10_000);
    // Half of all exchanges get lost, and eight in a row one time in two hundred.
    assert!(failures * 100 < questions * 2, "{failures} of {questions}");
}

#[test]
fn dead_upstream_costs_its_silence_twice_and_then_rests() {
    let dead = with(|traits| traits.outages = vec![Outage::ALWAYS]);
    let report = succeed(&Scenario { bursts: 0, ..ordered(vec![dead, healthy()]) });
    let Change::Rests { reason: Reason::Silence, .. } = report.turns[0].change else {
        panic!("{:?}", report.turns);
    };
    // Those that came while it was not yet known to be silent.
    let asked = questions_to(&report, 0, ALL_TIME);
    assert!((2..20).contains(&asked), "{asked}");
    // After 2, 4, 8, 16 seconds.
    assert!((3..=5).contains(&report.probes), "{}", report.probes);
    assert!(report.tally.of(Fault::Silence) >= 5);
}

#[test]
fn upstream_that_comes_back_is_used_again() {
    for is_refused in [false, true] {
        let outage = Outage { from_s: 5, until_s: 20, is_refused };
        let back = with(|traits| traits.outages = vec![outage]);
        let report = succeed(&Scenario { hedge_percent: 0, ..ordered(vec![back, healthy()]) });
        let [rests, returns] = report.turns[..] else { panic!("{:?}", report.turns) };
        assert!(matches!(rests.change, Change::Rests { .. }), "{rests:?}");
        assert!(matches!(returns.change, Change::Returned), "{returns:?}");
        let returned_s = returns.at.as_nanos() / SECOND + 1;
        assert!((20..40).contains(&returned_s), "{returned_s}");
        assert!(questions_to(&report, 0, 0..5) > 0);
        assert_eq!(questions_to(&report, 0, 12..20), 0, "it rests");
        assert!(questions_to(&report, 0, returned_s..60) > 0);
        assert_eq!(questions_to(&report, 1, returned_s..60), 0, "the first is first again");
    }
}

#[test]
fn refused_datagrams_cost_no_wait() {
    let refusing = Outage { is_refused: true, ..Outage::ALWAYS };
    let refusing = with(|traits| traits.outages = vec![refusing]);
    let report = succeed(&ordered(vec![refusing, healthy()]));
    assert!(report.tally.of(Fault::Refused) > 0);
    for asked in &report.asked {
        let (ended, _) = asked.ended.as_ref().unwrap();
        assert!(ended.since(asked.begun) < Duration::from_millis(120), "{asked:?}");
    }
}

#[test]
fn guesses_never_win_and_floods_are_found_out() {
    for mixes_casing in [true, false] {
        let flood =
            |second| Flood { at: Duration::from_secs(second), count: 300, socket_hits: 900 };
        let scenario = Scenario {
            mixes_casing,
            has_cookies: false,
            sockets_max: 1,
            bursts: 990,
            floods: (0..60).map(flood).collect(),
            ..calm(vec![healthy(), healthy()])
        };
        let report = succeed(&scenario);
        assert!(report.tally.of(Fault::GuessedSocket) > 10_000);
        assert!(report.tally.arrived(Arrival::WrongId) > 10_000);
        assert!(report.tally.floods() > 100);
    }
}

#[test]
fn forgeries_that_are_right_but_for_one_thing_are_no_answers() {
    let scenario = Scenario { near_misses: 400, ..calm(vec![healthy(), healthy()]) };
    let report = succeed(&scenario);
    for (fault, arrival) in [
        (Fault::ForgedId, Arrival::WrongId),
        (Fault::ForgedQuestion, Arrival::WrongQuestion),
        (Fault::ForgedSource, Arrival::WrongSource),
        (Fault::ForgedCasing, Arrival::OtherCasing),
        (Fault::ForgedCookie, Arrival::WrongCookie),
        (Fault::ForgedNoCookie, Arrival::Answer),
    ] {
        assert!(report.tally.of(fault) > 50, "{fault:?}");
        assert!(report.tally.arrived(arrival) > 10, "{arrival:?}");
    }
}

#[test]
fn demanded_cookie_is_learnt_once() {
    let demanding = || with(|traits| traits.cookies = CookieHabit::Demands);
    let report = succeed(&calm(vec![demanding(), demanding()]));
    let demands = report.tally.of(Fault::CookieDemanded);
    assert!((2..10).contains(&demands), "{demands}");
}

#[test]
fn cookie_that_is_given_no_longer_leads_to_one_stream() {
    let stopping = with(|traits| traits.cookies = CookieHabit::GivesUntil(30));
    let report = succeed(&calm(vec![stopping]));
    let stopped = report.tally.of(Fault::CookieStopped);
    assert!((2..10).contains(&stopped), "{stopped}");
}

#[test]
fn server_that_chokes_on_edns_is_soon_asked_without() {
    for rcode in [Rcode::FORMERR, Rcode::NOTIMP] {
        let report = succeed(&calm(vec![with(|traits| traits.edns = EdnsHabit::Chokes(rcode))]));
        let choked = report.tally.of(Fault::Choked);
        assert!((1..20).contains(&choked), "{choked}");
    }
}

#[test]
fn server_that_lowers_names_is_found_out_on_a_stream() {
    let report = succeed(&calm(vec![with(|traits| traits.keeps_casing = false)]));
    assert!(report.tally.of(Fault::Lowered) >= 300);
    let doubts = report.tally.arrived(Arrival::OtherCasing);
    assert!((1..20).contains(&doubts), "{doubts}");
}

#[test]
fn where_streams_fail_the_next_upstream_gives_what_does_not_fit() {
    for habit in [StreamHabit::Refuses, StreamHabit::Hangs, StreamHabit::Breaks(1_000)] {
        let report = succeed(&ordered(vec![with(|traits| traits.streams = habit), healthy()]));
        let fault = match habit {
            StreamHabit::Refuses => Fault::StreamRefused,
            StreamHabit::Hangs => Fault::StreamHung,
            StreamHabit::Works | StreamHabit::Breaks(_) => Fault::StreamBroken,
        };
        assert!(report.tally.of(fault) > 10, "{habit:?}");
        assert!(report.turns.is_empty(), "{habit:?}: what fits is answered as before");
    }
}

#[test]
fn opportunistic_upstream_without_tls_is_asked_in_clear() {
    for has_tls in [true, false] {
        let role = Role { spoken: Spoken::Opportunistic, has_tls, ..healthy() };
        let report = succeed(&calm(vec![role]));
        let datagrams = report.sent.iter().filter(|sent| !sent.is_stream).count();
        assert_eq!(datagrams == 0, has_tls);
        assert_eq!(report.tally.of(Fault::StreamRefused) == 0, has_tls);
    }
}

#[test]
fn failing_upstream_rests_and_the_next_answers() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED] {
        let failing = with(|traits| traits.fails = (rcode, 1_000));
        let report = succeed(&ordered(vec![failing, healthy()]));
        assert!(report.tally.of(Fault::Failed) >= 4);
        let first = report.turns[0].change;
        assert!(matches!(first, Change::Rests { reason: Reason::Failures, .. }), "{first:?}");
        assert!(questions_to(&report, 0, ALL_TIME) < 50);
    }
}

#[test]
fn lies_are_left_out_or_left_alone() {
    let lying = || with(|traits| traits.lies = 500);
    let report = succeed(&Scenario { probes: false, ..ordered(vec![lying(), healthy()]) });
    assert!(report.tally.of(Fault::Lied) > 50);
}

#[test]
fn stragglers_are_hedged_within_bounds() {
    let straggling = with(|traits| traits.link.straggles = 80);
    let report = succeed(&Scenario { bursts: 0, ..ordered(vec![straggling, healthy()]) });
    assert!(report.tally.of(Fault::Straggled) > 20);
    assert!(report.hedges >= 10, "{}", report.hedges);
}

#[test]
fn names_of_a_zone_go_to_its_upstreams_alone() {
    let corp = Role::corp(Traits::HEALTHY);
    let report = succeed(&calm(vec![healthy(), corp]));
    assert!(questions_to(&report, 1, ALL_TIME) > 50);
    // Nobody steps in for them.
    let dead = Role::corp(Traits { outages: vec![Outage::ALWAYS], ..Traits::HEALTHY });
    let report = hold(&calm(vec![healthy(), dead]));
    let corp = report.asked.iter().filter(|asked| asked.is_corp).count();
    assert_eq!(report.failures(), corp);
}

#[test]
fn clients_of_a_view_are_answered_by_its_upstreams_alone() {
    let view = Role::view(Traits::HEALTHY);
    let corp = Role::corp(Traits::HEALTHY);
    let report = succeed(&calm(vec![healthy(), corp.clone(), view]));
    for place in 0..3 {
        assert!(questions_to(&report, place, ALL_TIME) > 50, "{place}");
    }
    // Nobody steps in for them, but for names of the zone they need not be there.
    let dead = Role::view(Traits { outages: vec![Outage::ALWAYS], ..Traits::HEALTHY });
    let report = hold(&calm(vec![healthy(), corp, dead]));
    let own = report.asked.iter().filter(|asked| asked.view != ROOT_VIEW && !asked.is_corp);
    assert_eq!(report.failures(), own.count());
}

#[test]
fn doubled_late_and_random_datagrams_change_nothing() {
    let noisy = || {
        with(|traits| {
            traits.link = Link { doubles: 500, garbage: 500, spread_ms: 15, ..Link::CLEAN };
        })
    };
    let report = succeed(&calm(vec![noisy(), noisy()]));
    assert!(report.tally.of(Fault::Doubled) > 50 && report.tally.of(Fault::Garbage) > 50);
    assert!(report.tally.arrived(Arrival::Late) > 50);
}

#[test]
fn abandoned_questions_leave_nothing_behind() {
    let slow = with(|traits| traits.link.delay_ms = 200);
    let report = hold(&Scenario { abandons: 700, ..calm(vec![slow]) });
    assert!(report.tally.of(Fault::Abandoned) > 50);
}
