//! The thread that keeps the lists: it reads or downloads them, compiles all to one image, and puts that in force. It may
//! block; nobody waits for it but the start of a node, and that for what lies on this machine only.

mod compile;
mod contents;
mod copies;
mod download;
#[cfg(test)]
mod fixture;
mod image;
mod look;
mod schedule;
mod text;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use siphasher::sip::SipHasher24;

pub use self::contents::{Unreadable, contents, unopened};

use self::compile::{Compiled, Failure, Press, Reading};
use self::copies::Copies;
use self::download::Downloader;
use self::image::Tally;
use self::look::Material;
use self::schedule::Schedule;
use crate::config;
use crate::control::files;
use crate::control::schedule::in_force;
use crate::control::snapshot::seconds;
use crate::observe::{FilterCounters, ListCounters};
use crate::policy::filter::syntax::Remarks;
use crate::policy::filter::{Image, Lists, MAGIC};
use crate::policy::{Filtering, Published};
use crate::sys::priority;
use crate::time::CacheTime;

/// Lists that have changed wait for others that are being looked at, but no longer than this.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often it is tried to give back what was in force before.
const REAP_PAUSE: Duration = Duration::from_secs(1);

/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// How long a compilation goes on before it says how far it is, and again.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);

/// The file by which a node keeps the directory of its lists to itself.
const CLAIM: &str = "lock";

/// Bad lines of a list that are told with their number.
const LINES_TOLD: usize = 3;

/// The form of what an image is made of: another one, or readers that read differently, make all images anew.
const MAKING: u64 = 2;

/// What the thread is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// To begin: the node serves, so that it may itself be whom this machine asks for the names of servers.
    Begin,
    /// To look at all lists now.
    Refresh,
    /// To look at the list with this name now.
    RefreshOne(String),
    /// To keep these lists from now on, by this `[filter]`, and to look at all of them now.
    Keep(config::Filter, Vec<config::List>),
}

/// What a keeper needs to begin.
pub struct Setup {
    /// `[filter]`.
    pub filter: config::Filter,
    /// `[[list]]`.
    pub lists: Vec<config::List>,
    /// Which lists count now, by group. From the first image on whoever follows the schedules says so in the policy.
    pub groups: Box<[Lists]>,
    /// Draws what nobody can foretell.
    pub draw: fn() -> io::Result<[u8; 16]>,
    /// Reads the clock that schedules go by.
    pub clock: fn() -> CacheTime,
}

/// Keeps the lists.
pub struct Keeper {
    filter: config::Filter,
    lists: Vec<config::List>,
    /// [`Setup::groups`], until the first image.
    groups: Option<Box<[Lists]>>,
    draw: fn() -> io::Result<[u8; 16]>,
    clock: fn() -> CacheTime,
    /// Whether long work gives way to all else.
    is_patient: bool,
    /// Where the image is kept.
    directory: Option<PathBuf>,
    /// What keeps the directory to this node.
    _claim: Option<File>,
    copies: Copies,
    downloader: Downloader,
    schedule: Schedule,
    /// The lists of whose next look the outcome is told, because somebody has asked for it.
    asked_for: BTreeSet<usize>,
    /// What the image in force was made of, by list.
    made_of: Vec<Material>,
    image: Option<Image<Bytes>>,
    /// Whether rules were left out of the image in force, for want of room.
    is_cut: bool,
    /// Whether it is of other lists than those that are kept now.
    is_of_others: bool,
    published: Arc<Published>,
    counters: Arc<FilterCounters>,
    /// Those of `lists`, in their order.
    list_counters: Vec<Arc<ListCounters>>,
}

impl Keeper {
    /// Puts in force what the lists on this machine say: the image of before if it still fits, or a fresh one, of files and
    /// the copies of what was downloaded. `None` without lists.
    pub fn begin(setup: Setup, published: Arc<Published>) -> Option<Self> {
        let Setup { filter, lists, groups, draw, clock } = setup;
        if lists.is_empty() {
            return None;
        }
        let claim = filter.directory.as_deref().and_then(|directory| {
            let claim = probe(directory).and_then(|()| files::claim(&directory.join(CLAIM)));
            claim.inspect_err(|error| tracing::warn!("{}", unwritable(directory, error))).ok()
        });
        let directory = filter.directory.clone().filter(|_| claim.is_some());
        let copies = directory.clone().map_or_else(|| Copies::Held(HashMap::new()), Copies::Kept);
        let counters = FilterCounters::of(lists.iter().map(|list| list.name.clone()));
        let roots = look::roots(&lists);
        let mut keeper = Self {
            downloader: Downloader::new(filter.download_timeout, filter.list_bytes_max, &roots),
            schedule: Schedule::new(&filter, &lists, draw),
            asked_for: BTreeSet::new(),
            made_of: vec![Material::Nothing; lists.len()],
            image: None,
            list_counters: counters.lists(),
            is_cut: false,
            is_of_others: false,
            counters: Arc::new(counters),
            filter,
            lists,
            groups: Some(groups),
            draw,
            clock,
            is_patient: false,
            directory,
            _claim: claim,
            copies,
            published,
        };
        let present = keeper.survey();
        if !keeper.take_up(&present) {
            keeper.compile();
        }
        Some(keeper)
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<FilterCounters> {
        Arc::clone(&self.counters)
    }

    /// Looks at each list when it is time, and at all of them when told so, from the first order on and as long as there is
    /// somebody who could give one.
    pub fn run(mut self, orders: &Receiver<Order>) {
        self.is_patient = true;
        let mut order = orders.recv().map_err(|_| RecvTimeoutError::Disconnected);
        loop {
            match order {
                Ok(Order::Refresh) => {
                    self.refresh();
                    self.asked_for = (0..self.lists.len()).collect();
                }
                Ok(Order::RefreshOne(name)) => {
                    if let Some(number) = self.lists.iter().position(|list| list.name == name) {
                        self.schedule.at_once(number, monotonic());
                        self.asked_for.insert(number);
                    }
                }
                Ok(Order::Keep(filter, lists)) => {
                    self.keep_others(filter, lists);
                    self.refresh();
                }
                Ok(Order::Begin) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_at_due();
            self.note_turns();
            let rest = if self.published.reap() > 0 { REAP_PAUSE } else { SLEEP_MAX };
            order = orders.recv_timeout(self.schedule.rest(monotonic()).min(rest));
        }
    }

    /// Has all lists looked at.
    fn refresh(&mut self) {
        self.counters.asked.bump();
        self.schedule.all(monotonic());
    }

    /// Does `work` on a thread that gives way to all others, once the node serves. Nothing may be put in force there: others wait
    /// for whoever does.
    fn behind<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> T + Send) -> T {
        if !self.is_patient {
            return work(self);
        }
        let behind = || {
            priority::give_way();
            work(self)
        };
        std::thread::scope(|scope| {
            let done = scope.spawn(behind).join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Keeps `lists` from now on and puts in force what of them lies on this machine, as at the start; what does not is
    /// downloaded behind that. Where everything is kept, stays as it is.
    fn keep_others(&mut self, filter: config::Filter, lists: Vec<config::List>) {
        let is_known = |list: &config::List| {
            let place = self.lists.iter().position(|known| known.name == list.name)?;
            (self.lists[place].source == list.source).then(|| self.made_of[place].clone())
        };
        let made_of = lists.iter().map(|list| is_known(list).unwrap_or(Material::Nothing));
        self.made_of = made_of.collect();
        self.list_counters = self.counters.follow(lists.iter().map(|list| list.name.clone()));
        self.downloader =
            Downloader::new(filter.download_timeout, filter.list_bytes_max, &look::roots(&lists));
        self.schedule = Schedule::new(&filter, &lists, self.draw);
        self.asked_for.clear();
        self.copies.retain(&lists);
        self.is_of_others |= !are_same(&self.lists, &lists);
        (self.filter, self.lists) = (filter, lists);
        if self.lists.is_empty() {
            self.image = None;
            self.counters.names.set(0);
            self.counters.image_bytes.set(0);
            self.counters.published.bump();
            self.published.replace(|policy| policy.clone().filtered(None));
            tracing::info!("lists: there are none any more");
            return;
        }
        let present = self.behind(Self::survey);
        let stamp = self.stamp(&present);
        match self.image.clone().filter(|image| image.stamp() == stamp) {
            // Other answers perhaps, but the same rules.
            Some(image) => {
                (self.made_of, self.is_of_others) = (present, false);
                self.publish(image);
            }
            None => {
                let before = self.image.as_ref().map(Image::stamp);
                self.compile();
                let is_kept = |image: &Image<Bytes>| Some(image.stamp()) == before;
                // The same rules as before, for want of others; but other answers perhaps.
                if let Some(image) = self.image.clone().filter(is_kept)
                    && !self.is_of_others
                {
                    self.publish(image);
                }
            }
        }
    }

    /// Notes for whoever asks when each list is looked at next.
    fn note_turns(&self) {
        let (now, at) = (monotonic(), wall());
        for (number, counters) in self.list_counters.iter().enumerate() {
            let due = self.schedule.rest_of(number, now).and_then(|rest| at.checked_add(rest));
            counters.due.set(due.map_or(0, |due| since_epoch(due) / 1_000));
        }
    }

    /// Looks at the lists whose time has come, and compiles when one of them has changed.
    fn look_at_due(&mut self) {
        let mut changed_at = None;
        for number in self.schedule.due(monotonic()) {
            let is_changed = self.behind(|keeper| keeper.look(number));
            if is_changed {
                changed_at.get_or_insert_with(monotonic);
            }
            self.answer(number, is_changed);
            if changed_at.is_some_and(|changed| monotonic() - changed > CHANGE_WAIT_MAX) {
                changed_at = None;
                self.compile();
            }
        }
        if changed_at.is_some() {
            self.compile();
        }
    }

    /// Tells what came of a look that somebody has asked for; a failure has been told.
    fn answer(&mut self, number: usize, is_changed: bool) {
        if self.asked_for.remove(&number) && !self.schedule.is_failing(number) {
            let outcome = if is_changed { "changed" } else { "unchanged" };
            tracing::info!("list {:?}: looked at as asked: {outcome}", self.lists[number].name);
        }
    }

    /// Takes up the image of before, if it was made of what is `present`.
    fn take_up(&mut self, present: &[Material]) -> bool {
        let Some(directory) = self.directory.clone() else { return false };
        let found = match image::find(&directory) {
            Ok(found) => found,
            Err(useless) => {
                let path = directory.join(image::IMAGE);
                tracing::warn!("lists: {}: ignored: {useless}", path.display());
                None
            }
        };
        let stamp = self.stamp(present);
        let Some(image) = found.filter(|image| image.stamp() == stamp) else { return false };
        for (list, tally) in self.list_counters.iter().zip(image::noted(&directory, stamp)) {
            list.rules.set(tally.rules);
            list.bad_lines.set(tally.bad);
            list.skipped_lines.set(tally.skipped);
            list.left_out_lines.set(tally.left_out);
            list.bytes.set(tally.bytes);
            self.is_cut |= tally.left_out > 0;
        }
        self.made_of = present.to_vec();
        let (names, bytes) = (image.footprint().names, image.footprint().bytes);
        tracing::info!("lists: {names} names, {bytes} bytes, from the image of before");
        self.publish(image);
        true
    }

    /// Makes an image of all lists and puts it in force. If it cannot be made, what is in force stays.
    fn compile(&mut self) {
        let begun = monotonic();
        let (outcome, made_of) = self.behind(|keeper| keeper.press(begun));
        match outcome {
            Ok(compiled) => self.take_over(compiled, made_of, begun),
            Err(failure) => {
                self.counters.failed.bump();
                tracing::error!("lists: no image can be made: {failure}; what is in force stays");
            }
        }
    }

    /// An image of all lists, and what it is made of.
    fn press(&self, begun: Instant) -> (Result<Compiled, Failure>, Vec<Material>) {
        let press = Press {
            lists: &self.lists,
            bytes_max: compile::share(self.filter.bytes.saturating_sub(self.copies.bytes())),
            draw_key: self.draw,
        };
        let made_of = RefCell::new(vec![Material::Nothing; self.lists.len()]);
        let (mut read, mut told) = (0, begun);
        let text_of = |number: usize| {
            if monotonic() - told > PROGRESS_PAUSE {
                told = monotonic();
                tracing::info!("lists: {read} of {} are read", self.lists.len());
            }
            read += 1;
            let (material, text) = self.text(number)?;
            made_of.borrow_mut()[number] = material;
            text
        };
        let outcome = press.run(text_of, || self.stamp(&made_of.borrow()));
        (outcome, made_of.into_inner())
    }

    fn take_over(&mut self, compiled: Compiled, made_of: Vec<Material>, begun: Instant) {
        let is_cut = compiled.is_cut();
        let is_whole = self.image.is_some() && !self.is_cut && !self.is_of_others;
        if is_cut && is_whole {
            self.refuse(&compiled.readings);
            return;
        }
        let Compiled { image, readings } = compiled;
        let Some(image) = self.settle(image) else {
            self.counters.failed.bump();
            return;
        };
        for (number, reading) in readings.iter().enumerate() {
            let is_changed = self.made_of[number] != made_of[number];
            self.count(number, reading.as_ref(), is_changed);
        }
        if let Some(directory) = &self.directory {
            let tallies: Vec<Tally> = readings
                .iter()
                .map(|reading| reading.as_ref().map_or_else(Tally::default, tally))
                .collect();
            if let Err(error) = image::note(directory, image.stamp(), &tallies) {
                tracing::warn!("lists: the counts of lists cannot be kept: {error}");
            }
        }
        self.made_of = made_of;
        (self.is_cut, self.is_of_others) = (is_cut, false);
        self.mend();
        let took = monotonic() - begun;
        self.counters.built.bump();
        self.counters.build_us.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let (names, bytes) = (image.footprint().names, image.footprint().bytes);
        tracing::info!("lists: {names} names, {bytes} bytes, made in {}", seconds(took));
        self.publish(image);
    }

    /// Tells that an image with rules left out does not take the place of a whole one.
    fn refuse(&self, readings: &[Option<Reading>]) {
        self.counters.failed.bump();
        let left_out = |(list, reading): (&config::List, &Option<Reading>)| {
            Some(format!("list {:?} from line {} on", list.name, reading.as_ref()?.cut_at()?))
        };
        let left_out: Vec<String> = self.lists.iter().zip(readings).filter_map(left_out).collect();
        tracing::error!(
            "lists: the memory of all lists is full: the rules of {} would be left out; what is in force, which is whole, \
             stays; raise filter.memory = {} bytes",
            left_out.join(", "),
            self.filter.bytes
        );
    }

    /// Puts an image where all cores can read it: into its file, or else into memory.
    fn settle(&self, octets: Vec<u8>) -> Option<Image<Bytes>> {
        if let Some(directory) = &self.directory {
            match image::keep(directory, &octets) {
                Ok(image) => return Some(image),
                Err(error) => {
                    let path = directory.join(image::IMAGE);
                    tracing::warn!("lists: {}: cannot be written: {error}", path.display());
                }
            }
        }
        let held = image::hold(&octets);
        if let Err(error) = &held {
            tracing::error!("lists: no memory for the image: {error}; what is in force stays");
        }
        held.ok()
    }

    /// Counts and tells what was read of a list.
    fn count(&self, number: usize, reading: Option<&Reading>, is_changed: bool) {
        let (list, counters) = (&self.lists[number], &self.list_counters[number]);
        let counts = reading.map_or_else(Tally::default, tally);
        counters.rules.set(counts.rules);
        counters.bad_lines.set(counts.bad);
        counters.skipped_lines.set(counts.skipped);
        counters.left_out_lines.set(counts.left_out);
        counters.bytes.set(counts.bytes);
        let name = &list.name;
        let Some(Reading { report, bytes }) = reading else { return };
        if is_changed {
            tracing::info!(
                "list {name:?}: {} rules, {} bad lines{}, {} lines skipped{}, {bytes} bytes, from {}",
                report.rules,
                report.bad.count,
                first(&report.bad),
                report.skipped.count,
                first(&report.skipped),
                list.source
            );
        }
        if is_changed && report.rules == 0 {
            tracing::warn!("list {name:?}: {} holds no rule: nothing is listed by it", list.source);
        }
        if let Some(line) = reading.and_then(Reading::cut_at) {
            tracing::error!(
                "list {name:?}: the memory of all lists is full: the rules from line {line} on are left out ({} lines); raise \
                 filter.memory = {} bytes",
                report.left_out.count,
                self.filter.bytes
            );
        }
    }

    /// Puts `image` in force, with the lists that count now for each group.
    fn publish(&mut self, image: Image<Bytes>) {
        self.counters.names.set(image.footprint().names);
        self.counters.image_bytes.set(image.footprint().bytes as u64);
        self.counters.published.bump();
        let at_first = self.groups.take();
        let at = (self.clock)();
        self.published.replace(|policy| {
            // Whoever follows the schedules has said which lists count, as long as they are the same.
            let said =
                policy.filtering().filter(|filtering| is_numbered_alike(filtering, &self.lists));
            let groups = match (said, &at_first) {
                (Some(filtering), _) => filtering.groups().into(),
                (None, Some(groups)) => groups.clone(),
                (None, None) => in_force(policy.groups().sections(), &self.lists, at),
            };
            let filtering = Filtering::new(image.clone(), &self.lists, groups);
            policy.clone().filtered(Some(Arc::new(filtering)))
        });
        self.image = Some(image);
    }

    /// A fingerprint of everything that makes an image what it is.
    fn stamp(&self, made_of: &[Material]) -> u64 {
        let mut hasher = SipHasher24::new();
        let config::Filter { list_bytes_max, bytes, .. } = self.filter;
        let version = env!("CARGO_PKG_VERSION");
        hasher.write(format!("{MAKING} {version} {list_bytes_max} {bytes}\n").as_bytes());
        for (list, material) in self.lists.iter().zip(made_of) {
            let config::List { name, source, kind, syntax, .. } = list;
            // As text, with marks between the parts: this is no hot path.
            let said = format!("{name:?}\n{source:?}\n{kind:?}\n{syntax:?}\n{material:?}\n");
            hasher.write(said.as_bytes());
        }
        hasher.finish()
    }
}

/// Whether both would be compiled to the same, if there is room.
fn are_same(some: &[config::List], others: &[config::List]) -> bool {
    let said = |list: &config::List| {
        let config::List { name, source, kind, syntax, .. } = list;
        format!("{name:?} {source:?} {kind:?} {syntax:?}")
    };
    some.iter().map(said).eq(others.iter().map(said))
}

/// Whether each of `lists` has the number that it has in `filtering`.
fn is_numbered_alike(filtering: &Filtering, lists: &[config::List]) -> bool {
    let names = filtering.lists().iter().map(|list| &list.name);
    names.eq(lists.iter().map(|list| &list.name))
}

/// What an operator should know: that nothing can be kept in the directory of the lists.
#[must_use]
pub fn warning(filter: &config::Filter, lists: &[config::List]) -> Option<String> {
    // What is switched by hand is kept there without lists, too.
    let directory = filter.directory.as_ref()?;
    let is_there = directory.exists();
    let outcome = probe(directory);
    if !is_there {
        // A check leaves nothing behind, least of all what belongs to another user than the node's.
        let _ = std::fs::remove_dir(directory);
    }
    let error = outcome.err()?;
    Some(if lists.is_empty() {
        let directory = directory.display();
        format!(
            "filter.directory: {directory}: what is switched by hand cannot be kept there: {error}"
        )
    } else {
        unwritable(directory, &error)
    })
}

/// Says whether lists could be kept in `directory`, which is made if only its last part is missing.
fn probe(directory: &Path) -> io::Result<()> {
    files::make_directory(directory)?;
    files::probe(&directory.join(image::IMAGE), &MAGIC)
}

/// What an operator is told when lists cannot be kept in `directory`.
fn unwritable(directory: &Path, error: &io::Error) -> String {
    let directory = directory.display();
    format!("filter.directory: {directory}: lists cannot be kept there: {error}")
}

fn tally(reading: &Reading) -> Tally {
    let Reading { report, bytes, .. } = reading;
    let bytes = *bytes as u64;
    let (bad, skipped, left_out) = (report.bad.count, report.skipped.count, report.left_out.count);
    Tally { rules: report.rules, bad, skipped, left_out, bytes }
}

/// The first remarks, in brackets, if there are any.
fn first(remarks: &Remarks) -> String {
    let told: Vec<String> = remarks
        .first
        .iter()
        .take(LINES_TOLD)
        .map(|remark| format!("line {}: {}", remark.line, remark.finding))
        .collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
}

/// A fingerprint that is the same in every build.
fn fingerprint(octets: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(octets);
    hasher.finish()
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock")]
fn monotonic() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "control reads the clock")]
fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
