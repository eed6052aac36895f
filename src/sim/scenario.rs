//! What a run is about, drawn from its seed: who is there, how they fail, what the config says.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::chance::Chance;
use super::server::{CookieHabit, EdnsHabit, Outage, StreamHabit, Traits};
use crate::config::{Config, File, Forward, ROOT_VIEW, Selection};
use crate::wire::Rcode;

/// How a server is written in the config.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spoken {
    /// Datagrams, and streams for what does not fit.
    Datagrams,
    /// Streams only.
    Streams,
    /// TLS if it can be had.
    Opportunistic,
}

/// For whom a server is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// For all names and clients that have no others.
    Root,
    /// For the names of the zone with upstreams of its own, whoever asks.
    Corp,
    /// For the clients with upstreams of their own, unless they ask for names of the zone.
    View,
}

/// A server of a scenario.
#[derive(Clone, Debug)]
pub struct Role {
    /// For whom it is asked.
    pub duty: Duty,
    /// How it is written in the config.
    pub spoken: Spoken,
    /// Whether TLS can be had of it.
    pub has_tls: bool,
    /// What is peculiar to it.
    pub traits: Traits,
}

impl Role {
    /// A server of the root, for datagrams.
    #[must_use]
    pub const fn root(traits: Traits) -> Self {
        Self { duty: Duty::Root, spoken: Spoken::Datagrams, has_tls: false, traits }
    }

    /// A server of the zone with upstreams of its own, for datagrams.
    #[must_use]
    pub fn corp(traits: Traits) -> Self {
        Self { duty: Duty::Corp, ..Self::root(traits) }
    }

    /// A server of the clients with upstreams of their own, for datagrams.
    #[must_use]
    pub fn view(traits: Traits) -> Self {
        Self { duty: Duty::View, ..Self::root(traits) }
    }

    /// Where the server at that place is.
    #[must_use]
    pub fn address(place: usize) -> Ipv4Addr {
        let last = u8::try_from(place + 1).expect("scenarios have few servers");
        Ipv4Addr::new(192, 0, 2, last)
    }

    fn text(&self, place: usize) -> String {
        let address = Self::address(place);
        match self.spoken {
            Spoken::Datagrams => format!("\"{address}\""),
            Spoken::Streams => format!("\"tcp://{address}\""),
            Spoken::Opportunistic => format!("\"tls://{address}?opportunistic\""),
        }
    }
}

/// Guesses that a forger sends all at once.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// When.
    pub at: Duration,
    /// How many.
    pub count: u32,
    /// Of a thousand, how many go to a socket that is open.
    pub socket_hits: u16,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What all chance in it follows.
    pub seed: u64,
    /// Who is there.
    pub roles: Vec<Role>,
    /// The order among the upstreams of a zone.
    pub selection: Selection,
    /// How long a question may take.
    pub deadline: Duration,
    /// Longest wait before somebody else is asked.
    pub patience: Duration,
    /// Of a hundred questions, how many may be asked of a second upstream early.
    pub hedge_percent: u8,
    /// Names are sent in random casing.
    pub mixes_casing: bool,
    /// Cookies are sent.
    pub has_cookies: bool,
    /// Resting upstreams are asked in the background.
    pub probes: bool,
    /// Sockets at most.
    pub sockets_max: usize,
    /// Questions.
    pub questions: usize,
    /// The time over which they are spread.
    pub span: Duration,
    /// Of a thousand questions, how many come together with others.
    pub bursts: u16,
    /// Of a thousand questions, how many are given up on the way.
    pub abandons: u16,
    /// Of a thousand queries, to how many each kind of forgery is sent that is right but for one thing.
    pub near_misses: u16,
    /// Guesses.
    pub floods: Vec<Flood>,
}

impl Scenario {
    /// A run without any fault.
    #[must_use]
    pub fn calm(seed: u64, roles: Vec<Role>) -> Self {
        Self {
            seed,
            roles,
            selection: Selection::Fastest,
            deadline: Duration::from_secs(5),
            patience: Duration::from_millis(800),
            hedge_percent: 5,
            mixes_casing: true,
            has_cookies: true,
            probes: true,
            sockets_max: 16,
            questions: 40,
            span: Duration::from_secs(60),
            bursts: 200,
            abandons: 0,
            near_misses: 0,
            floods: Vec::new(),
        }
    }

    /// The run of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let chance = Chance::from_seed(seed);
        let mut roles: Vec<_> = (0..=chance.below(4)).map(|_| role(&chance)).collect();
        for _ in 0..chance.below(3) {
            roles.push(Role { duty: Duty::Corp, ..role(&chance) });
        }
        let mut scenario = Self::calm(seed, roles);
        let selections = [Selection::Fastest, Selection::Ordered, Selection::RoundRobin];
        scenario.selection = chance.pick(&selections);
        scenario.deadline = chance.pick(&[2, 3, 5].map(Duration::from_secs));
        scenario.patience = chance.pick(&[400, 800, 2_000].map(Duration::from_millis));
        scenario.hedge_percent = chance.pick(&[0, 5, 5, 30]);
        scenario.mixes_casing = !chance.hits(100);
        scenario.has_cookies = !chance.hits(100);
        scenario.probes = !chance.hits(200);
        scenario.sockets_max = chance.pick(&[1, 4, 16]);
        scenario.questions = 15 + chance.below(40);
        scenario.bursts = chance.pick(&[0, 200, 900]);
        scenario.abandons = chance.pick(&[0, 50]);
        scenario.near_misses = chance.pick(&[0, 0, 100, 300]);
        let floods = if chance.hits(400) { 1 + chance.below(3) } else { 0 };
        let flood = |_| Flood {
            at: chance.millis(0, 60_000),
            count: chance.pick(&[20, 100, 300]),
            socket_hits: chance.pick(&[10, 500, 1_000]),
        };
        scenario.floods = (0..floods).map(flood).collect();
        for _ in 0..chance.below(3) {
            scenario.roles.push(Role { duty: Duty::View, ..role(&chance) });
        }
        scenario
    }

    /// The config of this run.
    ///
    /// # Panics
    /// When a zone of the scenario cannot be written down: one with upstreams has a server for the root.
    #[must_use]
    pub fn forward(&self) -> Forward {
        let list = |duty: Duty| {
            let roles = self.roles.iter().enumerate().filter(|(_, role)| role.duty == duty);
            roles.map(|(place, role)| role.text(place)).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("[[forward]]\nupstreams = [{}]\n", list(Duty::Root));
        if self.has(Duty::Corp) {
            let corp = list(Duty::Corp);
            text += &format!("[[forward]]\nzone = \"corp.example\"\nupstreams = [{corp}]\n");
        }
        if self.has(Duty::View) {
            let own = list(Duty::View);
            text +=
                &format!("[[group]]\nname = \"view\"\nclients = \"::1\"\nupstreams = [{own}]\n");
        }
        let file = File { name: "scenario", text: &text };
        let config = Config::load(Some(file), [], &[]).expect("scenarios make good configs");
        let mut forward = config.forward;
        let Forward { root, zones, views, .. } = &mut forward;
        for zone in std::iter::once(root).chain(zones).chain(views) {
            zone.selection = self.selection;
            zone.attempt_timeout = self.patience;
        }
        forward.deadline = self.deadline;
        forward.hedge_percent = self.hedge_percent;
        forward.case_randomization = self.mixes_casing;
        forward.cookies = self.has_cookies;
        forward.probe = self.probes;
        forward.sockets = self.sockets_max;
        forward
    }

    /// Whether there are servers with that duty.
    #[must_use]
    pub fn has(&self, duty: Duty) -> bool {
        self.roles.iter().any(|role| role.duty == duty)
    }

    /// The duty of those who are asked for names of the zone, or others, in a view.
    #[must_use]
    pub fn duty(&self, is_corp: bool, view: u8) -> Duty {
        match (is_corp && self.has(Duty::Corp), view) {
            (true, _) => Duty::Corp,
            (false, ROOT_VIEW) => Duty::Root,
            (false, _) => Duty::View,
        }
    }

    /// Whether some server with that duty is healthy.
    #[must_use]
    pub fn is_safe(&self, duty: Duty) -> bool {
        self.roles.iter().any(|role| role.duty == duty && role.traits.is_healthy())
    }
}

/// A server with one flaw, none, or several.
fn role(chance: &Chance) -> Role {
    let mut traits = Traits::HEALTHY;
    traits.link.delay_ms = 1 + chance.bits() % 10;
    traits.link.spread_ms = chance.bits() % 10;
    traits.link.doubles = chance.pick(&[0, 0, 50]);
    traits.link.garbage = chance.pick(&[0, 0, 50]);
    traits.cookies = match chance.below(4) {
        0 => CookieHabit::Ignores,
        1 => CookieHabit::Demands,
        2 => CookieHabit::GivesUntil(10 + chance.bits() % 40),
        _ => CookieHabit::Gives,
    };
    for _ in 0..chance.pick(&[0, 0, 1, 1, 1, 2, 3]) {
        flaw(&mut traits, chance);
    }
    let (spoken, has_tls) = match chance.below(10) {
        0 => (Spoken::Streams, false),
        1 => (Spoken::Opportunistic, true),
        2 => (Spoken::Opportunistic, false),
        _ => (Spoken::Datagrams, false),
    };
    Role { duty: Duty::Root, spoken, has_tls, traits }
}

fn flaw(traits: &mut Traits, chance: &Chance) {
    match chance.below(13) {
        0 => traits.link.losses = chance.pick(&[20, 100, 300]),
        1 => traits.link.straggles = chance.pick(&[20, 100]),
        2 => traits.link.delay_ms = 50 + chance.bits() % 400,
        3 => traits.link.spread_ms = 50 + chance.bits() % 300,
        4 => traits.outages = vec![Outage { is_refused: chance.hits(300), ..Outage::ALWAYS }],
        5 | 6 => {
            let from_s = 2 + chance.bits() % 20;
            let until_s = from_s + 1 + chance.bits() % 25;
            let is_refused = chance.hits(300);
            traits.outages = vec![Outage { from_s, until_s, is_refused }];
        }
        7 => {
            let codes = [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::FORMERR, Rcode::NOTIMP];
            traits.fails = (chance.pick(&codes), chance.pick(&[100, 1_000]));
        }
        8 => {
            let codes = [Rcode::FORMERR, Rcode::NOTIMP];
            let chokes = EdnsHabit::Chokes(chance.pick(&codes));
            traits.edns = if chance.hits(300) { EdnsHabit::Ignores } else { chokes };
        }
        9 => traits.keeps_casing = false,
        10 => {
            let habits = [StreamHabit::Refuses, StreamHabit::Hangs, StreamHabit::Breaks(300)];
            traits.streams = chance.pick(&habits);
        }
        11 => traits.cuts = chance.pick(&[100, 1_000]),
        _ => traits.lies = chance.pick(&[200, 1_000]),
    }
}
