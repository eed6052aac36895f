//! Which names are too hot for the core that owns them. A state machine without threads, clocks or sockets: shares in, names
//! out.
//!
//! A name begins to be spread when the cores are uneven twice in a row, and its share alone brings its core half-way
//! from even to too much. What it is asked for does not depend on where it goes, so its share, smoothed, tells as well when it is over:
//! below half of that it goes back.

use std::collections::BTreeMap;

use crate::net::steer::{SPREAD_MAX, owner};

/// Looks in a row at which the cores have to be uneven.
const STRIKES: u8 = 2;

/// Glimpses without which a look says nothing: some 2 000 queries.
const GLIMPSES_MIN: u32 = 32;

/// Glimpses of one name without which it is not hot.
pub(super) const SIGHTINGS_MIN: u32 = 8;

/// How often one name was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sightings {
    /// Queries that these stand for.
    pub(super) weight: f64,
    pub(super) count: u32,
    /// The name, for people.
    pub(super) name: String,
}

/// What has come since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// Datagrams of each core.
    pub(super) loads: Vec<f64>,
    /// By the hash of the name.
    pub(super) seen: BTreeMap<u32, Sightings>,
}

/// A name that goes to all cores.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) hash: u32,
    /// Of all datagrams, smoothed.
    pub(super) share: f64,
    pub(super) name: String,
}

/// What is to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) spread: Vec<Spread>,
    pub(super) returned: Vec<Spread>,
}

/// The names that are spread, and what leads there.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    /// The busiest core by the mean of all, from which on names are spread; never, if not above 1.
    above: f64,
    strikes: u8,
    spread: Vec<Spread>,
}

impl Balance {
    /// Nothing is spread yet.
    pub(super) fn new(above_percent: u16) -> Self {
        Self { above: f64::from(above_percent) / 100.0, strikes: 0, spread: Vec::new() }
    }

    /// What is spread now.
    pub(super) fn spread(&self) -> &[Spread] {
        &self.spread
    }

    /// Judges by `look`, and takes note of what it orders.
    pub(super) fn judge(&mut self, look: &Look) -> Changes {
        let total: f64 = look.loads.iter().sum();
        let glimpses: u32 = look.seen.values().map(|sightings| sightings.count).sum();
        let cores = look.loads.len();
        if self.above <= 1.0 || cores < 2 || total <= 0.0 || glimpses < GLIMPSES_MIN {
            return Changes::default();
        }
        let cores_real = f64::from(u16::try_from(cores).unwrap_or(u16::MAX));
        let hot = (self.above - 1.0) / (2.0 * cores_real);
        let mut changes =
            Changes { returned: self.cool_down(look, total, hot), ..Changes::default() };
        let loads: Vec<f64> = look.loads.iter().map(|load| load / total).collect();
        let is_uneven = most(&loads).1 * cores_real > self.above;
        self.strikes = if is_uneven { (self.strikes + 1).min(STRIKES) } else { 0 };
        if self.strikes == STRIKES {
            self.relieve(look, total, loads, &mut changes);
        }
        changes
    }

    /// Smooths the shares of what is spread, and gives back what is hot no longer.
    fn cool_down(&mut self, look: &Look, total: f64, hot: f64) -> Vec<Spread> {
        for spread in &mut self.spread {
            let weight = look.seen.get(&spread.hash).map_or(0.0, |sightings| sightings.weight);
            spread.share = spread.share.midpoint(weight / total);
        }
        self.spread.extract_if(.., |spread| spread.share < hot / 2.0).collect()
    }

    /// Spreads the hottest name of the busiest core, again and again, until that is half-way back to the mean.
    fn relieve(&mut self, look: &Look, total: f64, mut loads: Vec<f64>, changes: &mut Changes) {
        let cores = u16::try_from(loads.len()).unwrap_or(u16::MAX);
        let hot = (self.above - 1.0) / (2.0 * f64::from(cores));
        // Those that come back now stay back until the next look.
        let mut passed: Vec<u32> = changes.returned.iter().map(|spread| spread.hash).collect();
        let enough = f64::midpoint(self.above, 1.0) / f64::from(cores);
        while let (busiest, load) = most(&loads)
            && load > enough
        {
            let is_spread = |hash| self.spread.iter().any(|spread| spread.hash == hash);
            let candidates = look.seen.iter().filter(|&(&hash, sightings)| {
                usize::from(owner(hash, cores)) == busiest
                    && sightings.count >= SIGHTINGS_MIN
                    && sightings.weight / total >= hot
                    && !is_spread(hash)
                    && !passed.contains(&hash)
            });
            let hottest = candidates.max_by(|one, other| one.1.weight.total_cmp(&other.1.weight));
            let Some((&hash, sightings)) = hottest else { break };
            passed.push(hash);
            let share = sightings.weight / total;
            let spread = Spread { hash, share, name: sightings.name.clone() };
            if !self.make_room(share, changes) {
                break;
            }
            let evenly = share / f64::from(cores);
            loads[busiest] -= share;
            loads.iter_mut().for_each(|load| *load += evenly);
            changes.spread.push(spread.clone());
            self.spread.push(spread);
        }
    }

    /// Whether there is room for one more, if need be in the place of one that is less than half as hot.
    fn make_room(&mut self, share: f64, changes: &mut Changes) -> bool {
        if self.spread.len() < SPREAD_MAX {
            return true;
        }
        let coolest = (0..self.spread.len())
            .min_by(|&one, &other| self.spread[one].share.total_cmp(&self.spread[other].share));
        let coolest = coolest.filter(|&at| self.spread[at].share < share / 2.0);
        if let Some(at) = coolest {
            changes.returned.push(self.spread.remove(at));
        }
        coolest.is_some()
    }
}

/// The busiest, and its load.
fn most(loads: &[f64]) -> (usize, f64) {
    let most = loads.iter().copied().enumerate().max_by(|one, other| one.1.total_cmp(&other.1));
    most.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that core 0 of two owns, and core 1.
    const OF_FIRST: u32 = 0x1000_0000;
    const OF_SECOND: u32 = 0x9000_0000;

    /// A look at two cores at which each of `shares` was seen, in percent; the rest are names asked for once.
    fn look(loads: [f64; 2], shares: &[(u32, u32)]) -> Look {
        let sightings = |count: u32| Sightings {
            weight: f64::from(count),
            count,
            name: format!("{count} in 100"),
        };
        let mut seen: BTreeMap<u32, Sightings> =
            shares.iter().map(|&(hash, count)| (hash, sightings(count))).collect();
        let rest = 100 - shares.iter().map(|(_, count)| count).sum::<u32>();
        seen.extend((0..rest).map(|name| (name << 20 | 1, sightings(1))));
        Look { loads: loads.to_vec(), seen }
    }

    fn hashes(spread: &[Spread]) -> Vec<u32> {
        spread.iter().map(|spread| spread.hash).collect()
    }

    #[test]
    fn hot_name_is_spread_at_the_second_uneven_look_and_returns_when_it_has_cooled_down() {
        let mut balance = Balance::new(125);
        let uneven = look([80.0, 20.0], &[(OF_FIRST, 60)]);
        assert_eq!(balance.judge(&uneven), Changes::default());
        let changes = balance.judge(&uneven);
        assert_eq!((hashes(&changes.spread), changes.returned.len()), (vec![OF_FIRST], 0));
        assert_eq!(changes.spread[0].name, "60 in 100");
        // Now it is even, and stays spread: its share is what it was.
        let even = look([50.0, 50.0], &[(OF_FIRST, 60)]);
        for _ in 0..50 {
            assert_eq!(balance.judge(&even), Changes::default());
        }
        let gone = look([50.0, 50.0], &[]);
        let returned = (1..20).find(|_| !balance.judge(&gone).returned.is_empty());
        assert_eq!((returned, balance.spread().len()), (Some(5), 0));
    }

    #[test]
    fn one_uneven_look_between_even_ones_changes_nothing() {
        let mut balance = Balance::new(125);
        let hot = [(OF_FIRST, 60)];
        for _ in 0..10 {
            assert_eq!(balance.judge(&look([80.0, 20.0], &hot)), Changes::default());
            assert_eq!(balance.judge(&look([55.0, 45.0], &hot)), Changes::default());
        }
    }

    #[test]
    fn names_of_idle_cores_and_cool_names_stay() {
        let mut balance = Balance::new(125);
        let uneven = look([70.0, 30.0], &[(OF_SECOND, 25), (OF_FIRST, 5)]);
        for _ in 0..10 {
            assert_eq!(balance.judge(&uneven), Changes::default());
        }
        assert_eq!(balance.judge(&look([70.0, 30.0], &[(OF_FIRST, 30)])).spread.len(), 1);
    }

    #[test]
    fn no_more_are_spread_than_it_takes() {
        let mut balance = Balance::new(125);
        let shares = [(OF_FIRST, 40), (OF_FIRST + 1, 30), (OF_FIRST + 2, 10)];
        let uneven = look([90.0, 10.0], &shares);
        balance.judge(&uneven);
        // 90 and 10 become 70 and 30, then 55 and 45: that is less than half-way to 125 %.
        assert_eq!(hashes(&balance.judge(&uneven).spread), [OF_FIRST, OF_FIRST + 1]);
    }

    #[test]
    fn hotter_ones_take_the_places_of_cooler_ones_when_all_are_taken() {
        let mut balance = Balance::new(105);
        let many: Vec<(u32, u32)> = (0..8).map(|name| (OF_FIRST + name, 8)).collect();
        let uneven = look([90.0, 10.0], &many);
        balance.judge(&uneven);
        assert_eq!(balance.judge(&uneven).spread.len(), SPREAD_MAX);
        let mut hotter = many;
        hotter[7].1 = 3;
        hotter.push((OF_FIRST + 100, 40));
        let hotter = look([95.0, 5.0], &hotter);
        let changes = (0..5).map(|_| balance.judge(&hotter)).find(|it| *it != Changes::default());
        let changes = changes.unwrap();
        assert_eq!(hashes(&changes.spread), [OF_FIRST + 100]);
        assert_eq!(hashes(&changes.returned), [OF_FIRST + 7]);
        assert_eq!(balance.spread().len(), SPREAD_MAX);
    }

    #[test]
    fn too_few_glimpses_say_nothing_and_never_means_never() {
        let mut balance = Balance::new(125);
        let few = Look {
            loads: vec![80.0, 20.0],
            seen: [(OF_FIRST, Sightings { weight: 31.0, count: 31, name: String::new() })].into(),
        };
        let uneven = look([80.0, 20.0], &[(OF_FIRST, 60)]);
        let mut never = Balance::new(0);
        for _ in 0..5 {
            assert_eq!(balance.judge(&few), Changes::default());
            assert_eq!(never.judge(&uneven), Changes::default());
        }
    }
}
