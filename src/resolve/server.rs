//! One upstream as a core knows it: how long it takes, whether it is of use, what it cannot do.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::cookie::{Cookie, CookieSecret};
use super::health::{Change, Health};
use super::room::{Claim, Guard, Room};
use super::rtt::Rtt;
use crate::config::{Protocol, Upstream};
use crate::observe::Via;
use crate::time::Monotonic;
use crate::wire::{NameBuf, Response, options};

/// Sightings of a quirk over UDP before it is believed: each takes a forger as much luck as a forged answer
/// (CVE-2026-52690 was one that sufficed).
const SIGHTINGS_MIN: u8 = 3;

/// How long a quirk is remembered: servers are mended and replaced.
const QUIRK_TIME: Duration = Duration::from_secs(3_600);

/// How long one client part of a cookie is used, in seconds.
const COOKIE_PERIOD_SECONDS: u64 = 24 * 3_600;

/// Something that a server cannot do.
#[derive(Clone, Copy, Debug, Default)]
struct Quirk {
    sightings: u8,
    until: Option<Monotonic>,
}

impl Quirk {
    fn is_known(&self, now: Monotonic) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It has shown; on a stream that is certain.
    fn note(&mut self, now: Monotonic, is_certain: bool) {
        self.sightings = self.sightings.saturating_add(1);
        if is_certain || self.sightings >= SIGHTINGS_MIN {
            *self = Self { sightings: 0, until: Some(now.after(QUIRK_TIME)) };
        }
    }
}

/// An upstream and what is known of it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) upstream: Upstream,
    /// The same for cleartext: what cut answers are fetched from, and where opportunistic TLS falls back to.
    pub(super) plain: Upstream,
    /// What it is asked in the background: data of this name it must have.
    pub(super) apex: NameBuf,
    /// Longest wait for it, of the zones that it serves.
    pub(super) patience: Duration,
    secret: CookieSecret,
    /// Attempts under way.
    room: Room,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    rtt: Rtt,
    health: Health,
    /// It cannot read EDNS.
    edns: Quirk,
    /// It does not keep the casing of names.
    casing: Quirk,
    /// Its questions go in clear for want of TLS.
    is_in_clear: bool,
    /// That this has changed, until it is told.
    news: Option<Change>,
    has_spoken_edns: bool,
    /// Answers in a row without EDNS from one that has spoken it, and no stream to ask over.
    edns_denied: u8,
    cookie: Cookie,
    /// Answers in a row without the cookie that is due, and no stream to ask over.
    cookies_missed: u8,
    /// Of which time the client's part of the cookie is.
    cookie_period: u64,
}

impl Server {
    /// A server of which nothing is known, for `attempts_max` at a time; `apex` is that of a zone that it serves.
    pub(super) fn new(
        upstream: &Upstream,
        apex: NameBuf,
        patience: Duration,
        attempts_max: usize,
        secret: &CookieSecret,
    ) -> Self {
        let plain = match upstream.protocol {
            Protocol::Udp | Protocol::Tls(_) => Upstream::udp(upstream.plain_address()),
            Protocol::Tcp => upstream.clone(),
        };
        let state = State {
            rtt: Rtt::default(),
            health: Health::default(),
            edns: Quirk::default(),
            casing: Quirk::default(),
            is_in_clear: false,
            news: None,
            has_spoken_edns: false,
            edns_denied: 0,
            cookie: Cookie::new(secret.client_part(upstream.address.ip(), 0)),
            cookies_missed: 0,
            cookie_period: 0,
        };
        let upstream = upstream.clone();
        let (room, state) = (Room::new(attempts_max), RefCell::new(state));
        Self { upstream, plain, apex, patience, secret: secret.clone(), room, state }
    }

    /// Where it is.
    pub(super) const fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// How it is named where it has answered or failed.
    pub(super) fn via(&self) -> Via {
        Via { address: self.upstream.address, protocol: self.upstream.protocol.label() }
    }

    /// Begins an attempt, for which the oldest may have to leave; `None` when there is no room.
    pub(super) fn enter(&self) -> Option<Guard> {
        self.room.enter(Claim::Firm)
    }

    /// What a question may expect to wait for it: the usual time, as often as it has attempts under way. Nothing, if it
    /// has never been asked; but until that one question has found out, no other is to follow it.
    pub(super) fn burden(&self) -> f64 {
        let underway = u32::try_from(self.room.len()).unwrap_or(u32::MAX);
        match self.state.borrow().rtt.smoothed_us() {
            Some(smoothed) => smoothed * (f64::from(underway) + 1.0),
            None if underway == 0 => 0.0,
            None => f64::MAX,
        }
    }

    /// Attempts under way.
    pub(super) fn in_flight(&self) -> usize {
        self.room.len()
    }

    /// Whether its questions go in clear for want of TLS.
    pub(super) fn is_in_clear(&self) -> bool {
        self.state.borrow().is_in_clear
    }

    /// Works on what is known of the times.
    pub(super) fn rtt<T>(&self, work: impl FnOnce(&mut Rtt) -> T) -> T {
        work(&mut self.state.borrow_mut().rtt)
    }

    /// Works on what is known of its health.
    pub(super) fn health<T>(&self, work: impl FnOnce(&mut Health) -> T) -> T {
        work(&mut self.state.borrow_mut().health)
    }

    /// It has sent something, whatever it is worth.
    pub(super) fn was_heard(&self) {
        self.state.borrow_mut().health.was_heard();
    }

    /// It has had its say: it is not silent.
    pub(super) fn spoke(&self) -> Option<Change> {
        self.state.borrow_mut().health.spoke()
    }

    /// It has sent something useful.
    pub(super) fn answered(&self) -> Option<Change> {
        self.state.borrow_mut().health.answered()
    }

    /// It has answered, over TLS or in clear for want of it.
    pub(super) fn note_privacy(&self, is_in_clear: bool) {
        let state = &mut *self.state.borrow_mut();
        if state.is_in_clear != is_in_clear {
            state.is_in_clear = is_in_clear;
            state.news = Some(if is_in_clear { Change::InClear } else { Change::Encrypted });
        }
    }

    /// What is to be told of [`Server::note_privacy`].
    pub(super) fn take_news(&self) -> Option<Change> {
        self.state.borrow_mut().news.take()
    }

    /// Whether it may be sent an OPT record.
    pub(super) fn reads_edns(&self, now: Monotonic) -> bool {
        !self.state.borrow().edns.is_known(now)
    }

    /// Whether it has ever sent one.
    pub(super) fn has_spoken_edns(&self) -> bool {
        self.state.borrow().has_spoken_edns
    }

    /// Heeds the OPT record of `message`, if it has one.
    pub(super) fn note_edns(&self, message: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if !state.has_spoken_edns && options::has_opt(message) {
            (state.has_spoken_edns, state.edns) = (true, Quirk::default());
        }
    }

    /// It has answered without EDNS what it could not read with it.
    pub(super) fn choked_on_edns(&self, now: Monotonic, is_certain: bool) {
        let state = &mut *self.state.borrow_mut();
        state.edns.note(now, is_certain);
        state.has_spoken_edns &= !is_certain;
    }

    /// Whether it gives names back in the casing in which they were sent.
    pub(super) fn keeps_casing(&self, now: Monotonic) -> bool {
        !self.state.borrow().casing.is_known(now)
    }

    /// It has given a name back in another casing.
    pub(super) fn changed_casing(&self, now: Monotonic, is_certain: bool) {
        self.state.borrow_mut().casing.note(now, is_certain);
    }

    /// It has answered as it should: what it was suspected of did not show.
    pub(super) fn did_well(&self, had_edns: bool, had_casing: bool) {
        let state = &mut *self.state.borrow_mut();
        if had_edns {
            (state.edns.sightings, state.edns_denied) = (0, 0);
        }
        if had_casing {
            state.casing.sightings = 0;
        }
    }

    /// It denies EDNS, which it has spoken, and there is no stream to make sure: three times in a row are believed.
    pub(super) fn denied_edns(&self) {
        let state = &mut *self.state.borrow_mut();
        state.edns_denied += 1;
        if state.edns_denied >= SIGHTINGS_MIN {
            (state.edns_denied, state.has_spoken_edns) = (0, false);
        }
    }

    /// It gave no cookie although one was due, and there is no stream to make sure: three times in a row are believed.
    pub(super) fn missed_cookie(&self) {
        let state = &mut *self.state.borrow_mut();
        state.cookies_missed += 1;
        if state.cookies_missed >= SIGHTINGS_MIN {
            state.cookies_missed = 0;
            state.cookie.forget();
        }
    }

    /// The cookie to send at `now`. The client's part is another one every day (RFC 7873 §7.1).
    pub(super) fn cookie(&self, now: Monotonic) -> Vec<u8> {
        let state = &mut *self.state.borrow_mut();
        let period = now.since(Monotonic::default()).as_secs() / COOKIE_PERIOD_SECONDS;
        if period != state.cookie_period {
            state.cookie_period = period;
            state.cookie = Cookie::new(self.secret.client_part(self.address().ip(), period));
        }
        state.cookie.as_bytes().to_vec()
    }

    /// Learns from the cookie of `message`; `false` when one was to be expected and is not there: it may be forged
    /// (RFC 7873 §5.3). On a stream that only means that the server no longer gives any; a broken message means nothing.
    pub(super) fn heed_cookie(&self, message: &[u8], is_certain: bool) -> bool {
        let State { cookie, cookies_missed, .. } = &mut *self.state.borrow_mut();
        let has_one =
            options::option(message, options::COOKIE).is_some_and(|back| cookie.learn(back));
        if has_one || !cookie.is_whole() {
            *cookies_missed = 0;
            return true;
        }
        if is_certain && Response::parse(message).is_ok() {
            cookie.forget();
        }
        is_certain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * 1_000_000_000)
    }

    fn server() -> Server {
        let upstream = Upstream::udp("192.0.2.1:53".parse().unwrap());
        let apex = NameBuf::from_text(".").unwrap();
        Server::new(&upstream, apex, Duration::from_secs(1), 100, &CookieSecret::new([1; 16]))
    }

    #[test]
    fn quirk_is_believed_after_three_datagrams_or_one_stream_and_forgotten_in_an_hour() {
        let server = server();
        for _ in 1..SIGHTINGS_MIN {
            server.choked_on_edns(at(0), false);
            assert!(server.reads_edns(at(0)));
        }
        server.choked_on_edns(at(0), false);
        assert!(!server.reads_edns(at(3_599)) && server.reads_edns(at(3_600)));
        server.changed_casing(at(0), true);
        assert!(!server.keeps_casing(at(1)));
    }

    #[test]
    fn missing_cookie_is_doubtful_only_from_who_has_given_one() {
        const BARE: &[u8] = b"\x12\x34\x81\x80\x00\x00\x00\x00\x00\x00\x00\x01\
            \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        let server = server();
        assert!(server.heed_cookie(BARE, false));
        let ours = server.cookie(at(0));
        let mut with_cookie = BARE[..BARE.len() - 1].to_vec();
        with_cookie.extend(b"\x14\x00\x0a\x00\x10");
        with_cookie.extend([&ours[..], b"server-1"].concat());
        assert!(server.heed_cookie(&with_cookie, false));
        assert_eq!(server.cookie(at(1)).len(), 16);
        assert!(!server.heed_cookie(BARE, false));
        let broken = &BARE[..BARE.len() - 1];
        assert!(server.heed_cookie(broken, true) && !server.heed_cookie(BARE, false));
        assert!(server.heed_cookie(BARE, true), "a stream tells that it gives none any more");
        assert!(server.heed_cookie(BARE, false));
    }

    #[test]
    fn clients_part_of_the_cookie_changes_with_the_day_and_the_servers_goes() {
        let server = server();
        let first = server.cookie(at(0));
        assert_eq!(server.cookie(at(86_399)), first);
        let second = server.cookie(at(86_400));
        assert!(second != first && second.len() == 8);
        assert_eq!(server.cookie(at(86_401)), second);
    }

    #[test]
    fn burden_grows_with_what_is_under_way() {
        let server = server();
        assert!(server.burden() < f64::EPSILON);
        let scout = server.enter().unwrap();
        assert!(server.burden() > 1e9, "one question finds out for all");
        drop(scout);
        server.rtt(|rtt| rtt.note(Duration::from_millis(2)));
        let one = server.burden();
        let first = server.enter().unwrap();
        assert!((server.burden() - 2.0 * one).abs() < 1.0);
        drop(first);
        assert!((server.burden() - one).abs() < 1.0);
    }
}
