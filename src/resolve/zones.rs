//! Which upstreams a question goes to, and in which order.

use std::cell::Cell;
use std::rc::Rc;

use ahash::RandomState;
use hashbrown::HashMap;

use super::ports::Entropy;
use super::server::Server;
use crate::config::{Forward, ForwardZone, ROOT_VIEW, Selection};
use crate::wire::{Name, NameBuf};
use std::time::Duration;

/// The upstreams of one forward zone.
#[derive(Debug)]
pub(super) struct Group {
    /// Indices of the servers, in the operator's order.
    pub(super) members: Box<[usize]>,
    selection: Selection,
    /// Longest wait before somebody else is asked, too.
    pub(super) patience: Duration,
    /// Where the next round begins.
    turn: Cell<usize>,
}

/// All forward zones of a node: the root first, and the views, which stand in its place for some clients, last.
#[derive(Debug)]
pub(super) struct Zones {
    groups: Vec<Group>,
    /// Where those of the views begin.
    views_at: usize,
    /// Apex, in lower case, to the index of its group.
    apexes: HashMap<Box<[u8]>, usize, RandomState>,
}

impl Zones {
    /// Those of `section`; `place` gives the index of a server.
    pub(super) fn new<'z>(
        section: &'z Forward,
        mut place: impl FnMut(&'z ForwardZone, usize) -> usize,
    ) -> Self {
        let (mut groups, mut apexes) = (Vec::new(), HashMap::default());
        for (index, zone) in section.all_zones().enumerate() {
            let members = (0..zone.upstreams.len()).map(|number| place(zone, number)).collect();
            let (selection, patience) = (zone.selection, zone.attempt_timeout);
            groups.push(Group { members, selection, patience, turn: Cell::new(0) });
            for apex in &zone.apexes {
                apexes.insert(apex.as_name().as_bytes().into(), index);
            }
        }
        Self { views_at: groups.len() - section.views.len(), groups, apexes }
    }

    /// Those who are to be asked for `qname`: of the closest zone that holds it, else of `view`.
    ///
    /// The type does not matter, not even DS, which stands on the parent's side of a zone cut (RFC 4035 §2.4): those who
    /// are asked are resolvers, and what the parent's say of a name must not be taken for the zone's own word.
    pub(super) fn group(&self, qname: Name<'_>, view: u8) -> &Group {
        let zone = if self.apexes.is_empty() { None } else { self.search(qname) };
        let root = || match view {
            ROOT_VIEW => 0,
            other => self.views_at + usize::from(other) - 1,
        };
        // A question may be led on when its view is gone with the config that had it.
        let root = || Some(root()).filter(|&group| group < self.groups.len()).unwrap_or_default();
        &self.groups[zone.unwrap_or_else(root)]
    }

    fn search(&self, qname: Name<'_>) -> Option<usize> {
        let mut name = NameBuf::new(qname);
        name.make_lower();
        let mut suffixes = name.as_name().suffixes();
        suffixes.find_map(|suffix| self.apexes.get(suffix.as_bytes()).copied())
    }

    /// The apex of the closest zone that holds `qname`; `None` where the view decides.
    pub(super) fn apex(&self, qname: Name<'_>) -> Option<NameBuf> {
        let mut name = NameBuf::new(qname);
        name.make_lower();
        let mut suffixes = name.as_name().suffixes();
        suffixes.find(|suffix| self.apexes.contains_key(suffix.as_bytes())).map(NameBuf::new)
    }
}

impl Group {
    /// The order in which one question goes through the servers: those that rest come last.
    ///
    /// Where nobody asks in the background whether they are back, `is_tried` says of a resting one whether this question
    /// is to try it first.
    pub(super) fn order(
        &self,
        servers: &[Rc<Server>],
        entropy: &impl Entropy,
        is_tried: impl Fn(&Server) -> bool,
    ) -> Vec<usize> {
        let [mut tried, mut awake, mut resting] = self.divided(servers, is_tried);
        match self.selection {
            Selection::Ordered => {}
            Selection::RoundRobin if awake.is_empty() => {}
            Selection::RoundRobin => {
                let turn = self.turn.get() % awake.len();
                self.turn.set(turn + 1);
                awake.rotate_left(turn);
            }
            Selection::Fastest => fastest_first(&mut awake, servers, entropy),
        }
        // In front, or it would be tried only where the others fail.
        tried.append(&mut awake);
        tried.append(&mut resting);
        tried
    }

    /// The order in which a question would go through the servers now; nobody's turn is taken. Where chance decides, those with
    /// the least burden stand first.
    pub(super) fn outlook(
        &self,
        servers: &[Rc<Server>],
        is_tried: impl Fn(&Server) -> bool,
    ) -> Vec<usize> {
        let [tried, mut awake, resting] = self.divided(servers, is_tried);
        match self.selection {
            Selection::Ordered => {}
            Selection::RoundRobin if awake.is_empty() => {}
            Selection::RoundRobin => {
                let turn = self.turn.get() % awake.len();
                awake.rotate_left(turn);
            }
            Selection::Fastest => lightest_first(&mut awake, servers),
        }
        [tried, awake, resting].concat()
    }

    /// Those that are to be tried although they rest, those that are awake, and those that rest.
    fn divided(
        &self,
        servers: &[Rc<Server>],
        is_tried: impl Fn(&Server) -> bool,
    ) -> [Vec<usize>; 3] {
        let mut awake = Vec::with_capacity(self.members.len());
        let (mut tried, mut resting) = (Vec::new(), Vec::new());
        for &place in &self.members {
            let server = &servers[place];
            if !server.health(|health| health.is_resting()) {
                awake.push(place);
            } else if is_tried(server) {
                tried.push(place);
            } else {
                resting.push(place);
            }
        }
        [tried, awake, resting]
    }

    /// How one of those that are awake is chosen.
    pub(super) const fn selection(&self) -> Selection {
        self.selection
    }
}

/// Puts the better of two drawn at random in front, the others behind it from light to heavy.
///
/// Two choices spread load nearly as well as knowing all, and do not send everybody to the one that looks best.
fn fastest_first(places: &mut [usize], servers: &[Rc<Server>], entropy: &impl Entropy) {
    let count = places.len();
    if count < 2 {
        return;
    }
    let draw = |below: usize| usize::from(entropy.u16()) % below;
    let first = draw(count);
    // Another one: the draw leaves the first out.
    let second = (first + 1 + draw(count - 1)) % count;
    let burden = |place: usize| servers[place].burden();
    let is_swapped = burden(places[second]) < burden(places[first]);
    let (winner, loser) = if is_swapped { (second, first) } else { (first, second) };
    servers[places[loser]].rtt(|rtt| rtt.forgive());
    places.swap(0, winner);
    lightest_first(&mut places[1..], servers);
}

fn lightest_first(places: &mut [usize], servers: &[Rc<Server>]) {
    let burden = |place: usize| servers[place].burden();
    places.sort_by(|&left, &right| burden(left).total_cmp(&burden(right)));
}
