//! A simulated upstream: what it can do, when it is there, and what it says.

use std::time::Duration;

use super::chance::Chance;
use super::message::{self, Opt, Reply, Rr};
use super::trace::{Fault, Tally, Trace};
use super::truth::{FORGED, Truth, named};
use crate::time::Monotonic;
use crate::wire::{CLASSIC_UDP_BYTES, Flags, Name, NameBuf, Query, Rcode, Rtype, options};

/// Octets of a client's part of a cookie (RFC 7873 §4).
const CLIENT_BYTES: usize = 8;

/// How a server's datagrams fare, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The shortest time, in milliseconds.
    pub delay_ms: u64,
    /// What is added to it at most, in milliseconds: datagrams overtake each other within it.
    pub spread_ms: u64,
    /// Of a thousand datagrams, how many take [`Link::STRAGGLE`] times as long.
    pub straggles: u16,
    /// Of a thousand, how many get lost.
    pub losses: u16,
    /// Of a thousand, how many come twice.
    pub doubles: u16,
    /// Of a thousand answers, before how many random octets come.
    pub garbage: u16,
}

impl Link {
    /// How much longer stragglers take.
    pub const STRAGGLE: u32 = 30;

    /// A link without flaw.
    pub const CLEAN: Self =
        Self { delay_ms: 3, spread_ms: 5, straggles: 0, losses: 0, doubles: 0, garbage: 0 };

    /// A link that loses so many of a thousand datagrams in each direction.
    #[must_use]
    pub const fn losing(losses: u16) -> Self {
        Self { losses, ..Self::CLEAN }
    }

    /// How long one datagram takes.
    pub(super) fn delay(&self, chance: &Chance, tally: &Tally) -> Duration {
        let delay = chance.millis(self.delay_ms, self.delay_ms + self.spread_ms + 1);
        if !chance.hits(self.straggles) {
            return delay;
        }
        tally.strike(Fault::Straggled);
        delay * Self::STRAGGLE
    }
}

/// A time in which a server is not there.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// From when on, in seconds.
    pub from_s: u64,
    /// Until when, in seconds.
    pub until_s: u64,
    /// Whether the network says so; else queries vanish.
    pub is_refused: bool,
}

impl Outage {
    /// From the beginning to the end of time.
    pub const ALWAYS: Self = Self { from_s: 0, until_s: u64::MAX, is_refused: false };

    fn holds(&self, now: Monotonic) -> bool {
        (self.from_s..self.until_s).contains(&(now.as_nanos() / 1_000_000_000))
    }
}

/// What a server does with EDNS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EdnsHabit {
    /// It speaks it.
    Speaks,
    /// It passes over it.
    Ignores,
    /// It answers FORMERR or NOTIMP.
    Chokes(Rcode),
}

/// What a server does with cookies, if it speaks EDNS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CookieHabit {
    /// Nothing.
    Ignores,
    /// It gives one.
    Gives,
    /// It gives one, and answers over UDP only who sends it back.
    Demands,
    /// It gives one, until this second.
    GivesUntil(u64),
}

/// What becomes of streams to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamHabit {
    /// They work.
    Works,
    /// They are refused.
    Refuses,
    /// Nobody ever answers.
    Hangs,
    /// Of a thousand exchanges, during how many the connection breaks.
    Breaks(u16),
}

/// All that is peculiar to a server.
#[derive(Clone, Debug)]
pub struct Traits {
    /// The way there and back.
    pub link: Link,
    /// When it is not there.
    pub outages: Vec<Outage>,
    /// What it does with EDNS.
    pub edns: EdnsHabit,
    /// What it does with cookies.
    pub cookies: CookieHabit,
    /// Streams.
    pub streams: StreamHabit,
    /// Whether it gives names back in the casing in which they came.
    pub keeps_casing: bool,
    /// Of a thousand queries, how many it answers with this code.
    pub fails: (Rcode, u16),
    /// Of a thousand answers over UDP, how many it cuts although they would fit.
    pub cuts: u16,
    /// Of a thousand answers, how many say what is not true or not its business.
    pub lies: u16,
}

impl Traits {
    /// A server without flaw.
    pub const HEALTHY: Self = Self {
        link: Link::CLEAN,
        outages: Vec::new(),
        edns: EdnsHabit::Speaks,
        cookies: CookieHabit::Gives,
        streams: StreamHabit::Works,
        keeps_casing: true,
        fails: (Rcode::SERVFAIL, 0),
        cuts: 0,
        lies: 0,
    };

    /// Whether it is quick, honest, and always there.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let Link { delay_ms, spread_ms, straggles, losses, .. } = self.link;
        self.outages.is_empty()
            && self.keeps_casing
            && self.streams == StreamHabit::Works
            && !matches!(self.edns, EdnsHabit::Chokes(_))
            && self.fails.1 + self.cuts + self.lies + straggles + losses == 0
            && delay_ms + spread_ms <= 20
    }

    /// What happens to a query that comes at `now`.
    pub(super) fn outage(&self, now: Monotonic) -> Option<&Outage> {
        self.outages.iter().find(|outage| outage.holds(now))
    }

    /// Answers `query`.
    pub(super) fn answer(
        &self,
        query: &[u8],
        (now, is_stream): (Monotonic, bool),
        chance: &Chance,
        tally: &Tally,
    ) -> Vec<u8> {
        let asked = Query::parse(query).expect("our own queries can be read");
        let mut message = self.reply(query, &asked, (now, is_stream), chance, tally).to(query);
        let limit = match asked.edns {
            Some(edns) if self.edns == EdnsHabit::Speaks => edns.payload_bytes,
            _ => CLASSIC_UDP_BYTES,
        };
        if !is_stream && (message.len() > usize::from(limit) || chance.hits(self.cuts)) {
            tally.strike(Fault::Cut);
            message = cut(query, &message);
        }
        if !self.keeps_casing {
            tally.strike(Fault::Lowered);
            message::lower_casing(&mut message);
        }
        message
    }

    fn reply(
        &self,
        query: &[u8],
        asked: &Query<'_>,
        (now, is_stream): (Monotonic, bool),
        chance: &Chance,
        tally: &Tally,
    ) -> Reply {
        if let (EdnsHabit::Chokes(rcode), Some(_)) = (self.edns, asked.edns) {
            tally.strike(Fault::Choked);
            return Reply::bare(rcode);
        }
        let speaks_edns = self.edns == EdnsHabit::Speaks && asked.edns.is_some();
        let sent = options::option(query, options::COOKIE).filter(|_| speaks_edns);
        let cookie = sent.and_then(|sent| self.cookie(sent, now));
        let with_opt = |reply: Reply, cookie| {
            let opt = speaks_edns.then_some(Opt { cookie });
            Reply { opt, ..reply }
        };
        if let (CookieHabit::Demands, false) = (self.cookies, is_stream)
            && cookie.is_some()
            && cookie.as_deref() != sent
        {
            tally.strike(Fault::CookieDemanded);
            return with_opt(Reply::bare(Rcode::BADCOOKIE), cookie);
        }
        if cookie.is_none() && sent.is_some_and(|sent| sent.len() > CLIENT_BYTES) {
            tally.strike(Fault::CookieStopped);
        }
        let (code, failures) = self.fails;
        if chance.hits(failures) {
            tally.strike(Fault::Failed);
            return with_opt(Reply::bare(code), cookie);
        }
        let truth = Truth::of(asked.qname, asked.qtype);
        if chance.hits(self.lies) {
            tally.strike(Fault::Lied);
            return with_opt(lie(&truth, asked.qname, asked.qtype, chance), cookie);
        }
        with_opt(Reply::honest(&truth), cookie)
    }

    /// The whole cookie for who sent `sent`.
    fn cookie(&self, sent: &[u8], now: Monotonic) -> Option<Vec<u8>> {
        let is_given = match self.cookies {
            CookieHabit::Ignores => false,
            CookieHabit::Gives | CookieHabit::Demands => true,
            CookieHabit::GivesUntil(second) => now.as_nanos() < second * 1_000_000_000,
        };
        let client = sent.get(..CLIENT_BYTES).filter(|_| is_given)?;
        let mut hash = Trace::default();
        hash.bytes(client);
        Some([client, &hash.value().to_be_bytes()].concat())
    }
}

/// `message` without its records but the OPT, and with TC.
fn cut(query: &[u8], message: &[u8]) -> Vec<u8> {
    let opt = options::has_opt(message)
        .then(|| Opt { cookie: options::option(message, options::COOKIE).map(<[u8]>::to_vec) });
    let empty = Reply::bare(Rcode::NOERROR);
    Reply { flags: empty.flags | Flags::TC, opt, ..empty }.to(query)
}

/// What can be found out without asking anybody else: data that nobody asked for beside the truth, or what is no answer.
fn lie(truth: &Truth, qname: Name<'_>, qtype: Rtype, chance: &Chance) -> Reply {
    let record = |owner: &NameBuf, rtype, rdata: &[u8]| Rr {
        owner: owner.clone(),
        rtype,
        ttl: 86_400,
        rdata: rdata.to_vec(),
    };
    let (qname_buf, evil) = (NameBuf::new(qname), named("www.evil.example."));
    let name = |name: &NameBuf| name.as_name().as_bytes().to_vec();
    let mut reply = Reply::honest(truth);
    let [answer, authority, additional] = &mut reply.sections;
    match chance.below(6) {
        0 => answer.push(record(&named("bank.example."), Rtype::A, &FORGED)),
        1 => {
            authority.push(record(&named("example."), Rtype::NS, &name(&evil)));
            additional.push(record(&evil, Rtype::A, &FORGED));
        }
        2 => return Reply { rcode: Rcode::NXDOMAIN, ..Reply::forged(qname, qtype) },
        3 => *answer = vec![record(&qname_buf, Rtype::CNAME, &name(&qname_buf))],
        4 => {
            let referral = record(&named("example."), Rtype::NS, &name(&evil));
            reply.sections = [Vec::new(), vec![referral], vec![record(&evil, Rtype::A, &FORGED)]];
            reply.rcode = Rcode::NOERROR;
        }
        _ => return Reply { missing: 3, ..Reply::forged(qname, qtype) },
    }
    reply
}
