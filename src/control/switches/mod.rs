//! What the operator switches by hand while the node runs: lists that are disabled, names that are overridden, and a pause of
//! all blocking; each for a time, or until told otherwise. It takes effect by another policy, in which nothing is compiled anew, and
//! is kept in a file, so that it survives a restart. Reads no clock: the time is handed in, that of the cache clock, because a
//! time to end has to mean the same after a restart.

mod file;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::shelf::Shelf;
use crate::observe::{Exposition, Kind};
use crate::policy::{Action, OVERRIDES_MAX, Override, Overrides, Published, Switches};
use crate::time::CacheTime;
use crate::wire::{Name, NameBuf};

/// Lists that are disabled at most: more names than a config can have would be mistakes that pile up.
const DISABLED_MAX: usize = 1_000;

/// A name that is overridden, of a common length: what is kept of it here and twice in policies (one may be on its way out), and its
/// text while that is told or written.
const OVERRIDE_BYTES: usize = 600;

/// Bytes that all of this takes at most.
pub const BYTES_MAX: usize = OVERRIDES_MAX * OVERRIDE_BYTES;

/// Of names that are switched with one command, so many stand in the log: a line stays one that can be read.
const NAMES_TOLD: usize = 20;

/// Of so many looks at what is over, one tries again to keep what could not be kept: some 10 s.
const LOOKS_PER_TRIAL: u32 = 40;

/// Until when something is switched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Until {
    /// Until the operator says otherwise.
    Told,
    /// Until this time on the cache clock.
    At(CacheTime),
}

impl Until {
    /// For so long from `now` on; without a length until told.
    #[must_use]
    pub fn after(now: CacheTime, length: Option<Duration>) -> Self {
        length.map_or(Self::Told, |length| {
            let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            Self::At(CacheTime::from_millis(now.as_millis().saturating_add(millis)))
        })
    }

    /// The time at which it ends, if there is one.
    #[must_use]
    pub const fn end(self) -> Option<CacheTime> {
        match self {
            Self::Told => None,
            Self::At(end) => Some(end),
        }
    }

    fn is_over(self, now: CacheTime) -> bool {
        self.end().is_some_and(|end| end <= now)
    }

    /// In words, seen at `now`.
    fn told(self, now: CacheTime) -> String {
        match self {
            Self::Told => "until told otherwise".to_owned(),
            Self::At(end) => {
                let left = end.as_millis().saturating_sub(now.as_millis()).div_ceil(1_000);
                format!("for {left} s")
            }
        }
    }
}

/// What is said of a name that is overridden.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What becomes of it.
    pub held: Override,
    /// How long.
    pub until: Until,
}

/// All that is switched.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// By the wire form of their names, in lower case.
    overrides: BTreeMap<Box<[u8]>, Entry>,
    /// Names of lists.
    disabled: BTreeMap<String, Until>,
    pause: Option<Until>,
}

impl State {
    /// The names that are overridden.
    pub fn overrides(&self) -> impl Iterator<Item = (Name<'_>, Entry)> {
        self.overrides.iter().filter_map(|(key, entry)| Some((Name::parse(key).ok()?, *entry)))
    }

    /// How many names are overridden.
    #[must_use]
    pub fn override_count(&self) -> usize {
        self.overrides.len()
    }

    /// The nearest of the names above `name` of which something is said that reaches down to it, and what.
    #[must_use]
    pub fn above(&self, name: &NameBuf) -> Option<(Name<'_>, Action)> {
        let folded = key(name);
        let mut rest = &*folded;
        while let Some((&len @ 1.., behind)) = rest.split_first() {
            rest = behind.get(usize::from(len)..)?;
            if let Some((above, entry)) = self.overrides.get_key_value(rest)
                && entry.held.is_subtree
            {
                return Some((Name::parse(above).ok()?, entry.held.action));
            }
        }
        None
    }

    /// Until when the list with this name is disabled, if it is.
    #[must_use]
    pub fn disabled(&self, list: &str) -> Option<Until> {
        self.disabled.get(list).copied()
    }

    /// The names of all lists that are disabled, also of those that the config has no more, and until when.
    pub fn all_disabled(&self) -> impl Iterator<Item = (&str, Until)> {
        self.disabled.iter().map(|(list, until)| (list.as_str(), *until))
    }

    /// Until when blocking is paused, if it is.
    #[must_use]
    pub const fn pause(&self) -> Option<Until> {
        self.pause
    }

    /// Drops what is over; says of each what it was.
    fn expire(&mut self, now: CacheTime) -> Vec<String> {
        let mut told = Vec::new();
        self.overrides.retain(|key, entry| {
            let is_over = entry.until.is_over(now);
            if is_over && let Ok(name) = Name::parse(key) {
                told.push(format!("override of {name} is over"));
            }
            !is_over
        });
        self.disabled.retain(|list, until| {
            let is_over = until.is_over(now);
            if is_over {
                told.push(format!("list {list:?} is enabled again"));
            }
            !is_over
        });
        if self.pause.is_some_and(|until| until.is_over(now)) {
            self.pause = None;
            told.push("blocking goes on: the pause is over".to_owned());
        }
        told
    }

    /// Takes from `earlier` what is not said here, as far as there is room.
    fn complete_with(&mut self, mut earlier: Self) {
        earlier.overrides.retain(|key, _| !self.overrides.contains_key(key));
        let room = OVERRIDES_MAX.saturating_sub(self.overrides.len());
        self.overrides.extend(earlier.overrides.into_iter().take(room));
        earlier.disabled.retain(|list, _| !self.disabled.contains_key(list));
        let room = DISABLED_MAX.saturating_sub(self.disabled.len());
        self.disabled.extend(earlier.disabled.into_iter().take(room));
        self.pause = self.pause.or(earlier.pause);
    }

    /// In a few words, seen at `now`.
    fn told(&self, now: CacheTime) -> String {
        let Self { overrides, disabled, pause } = self;
        let (overrides, disabled) = (overrides.len(), disabled.len());
        let pause = pause.map(|until| format!(", blocking paused {}", until.told(now)));
        let pause = pause.unwrap_or_default();
        format!("{overrides} name(s) overridden, {disabled} list(s) disabled{pause}")
    }

    /// As the policy has it.
    fn switches(&self) -> Switches {
        let all = self.overrides().map(|(name, entry)| (name, entry.held));
        let is_any = !self.overrides.is_empty();
        Switches {
            overrides: is_any.then(|| Arc::new(Overrides::new(all))),
            disabled: Arc::new(self.disabled.keys().cloned().collect::<BTreeSet<_>>()),
            is_paused: self.pause.is_some(),
        }
    }
}

/// What is kept under `name`.
fn key(name: &NameBuf) -> Box<[u8]> {
    let mut folded = name.clone();
    folded.make_lower();
    folded.as_name().as_bytes().into()
}

/// Names as the log has them: one; or their number and the first of them.
fn told(names: &[NameBuf]) -> String {
    let text = |name: &NameBuf| name.as_name().to_string().to_ascii_lowercase();
    if let [name] = names {
        return text(name);
    }
    let first: Vec<String> = names.iter().take(NAMES_TOLD).map(text).collect();
    let rest = names.len() - first.len();
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{} names ({}{rest})", names.len(), first.join(", "))
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Full {
    /// Of overrides.
    #[error("{OVERRIDES_MAX} names are overridden already: remove some, or make them a list")]
    Overrides,
    /// Of lists.
    #[error("{DISABLED_MAX} lists are disabled already")]
    Disabled,
}

/// What is switched in a node, where it is put in force, and where it is kept.
#[derive(Debug)]
pub struct Switchboard {
    published: Arc<Published>,
    state: Mutex<State>,
    /// Something was switched that has not been written down. Changes under the lock of the state.
    is_unwritten: AtomicBool,
    /// What is switched survives a restart, as far as is known.
    is_kept: AtomicBool,
    /// Looks at what is over.
    looks: AtomicU32,
    /// Somebody tries again to keep what could not be kept.
    is_trying: AtomicBool,
    /// Held while the file is read or written: the last state is the one that stays. `None` where no place is named.
    shelf: Option<Mutex<Shelf>>,
}

impl Switchboard {
    /// Puts in force what is kept in `directory` and is not over `now`. Without a directory nothing is kept.
    #[must_use]
    pub fn begin(directory: Option<&Path>, published: Arc<Published>, now: CacheTime) -> Self {
        let board = Self {
            published,
            state: Mutex::default(),
            is_unwritten: AtomicBool::new(false),
            is_kept: AtomicBool::new(false),
            looks: AtomicU32::new(0),
            is_trying: AtomicBool::new(false),
            shelf: directory.map(|directory| Mutex::new(Shelf::new(directory))),
        };
        if let (Err(error), Some(directory)) = (board.settle(now), directory) {
            let directory = directory.display();
            tracing::warn!(
                "filter.directory: {directory}: what is switched by hand cannot be kept there for now: {error}"
            );
        }
        board
    }

    /// Takes up what the file says if that has not been done, writes down what it does not say, and notes what came of it; `false`
    /// when there is no place for it.
    fn settle(&self, now: CacheTime) -> io::Result<bool> {
        let Some(shelf) = &self.shelf else { return Ok(false) };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.settle_on(&mut shelf, now);
        self.is_kept.store(outcome.is_ok(), Ordering::Relaxed);
        outcome.map(|()| true)
    }

    fn settle_on(&self, shelf: &mut Shelf, now: CacheTime) -> io::Result<()> {
        let was_known = shelf.is_known();
        let (earlier, outcome) = shelf.take_up();
        if let Some(earlier) = earlier {
            self.take_up(earlier, was_known, now);
        }
        outcome?;
        let state = {
            let state = self.locked();
            if !self.is_unwritten.swap(false, Ordering::Relaxed) {
                return Ok(());
            }
            state.clone()
        };
        shelf.keep(&state).inspect_err(|_| {
            let _state = self.locked();
            self.is_unwritten.store(true, Ordering::Relaxed);
        })
    }

    /// Goes by what the file says, in so far as nobody has said otherwise since. `was_known` says whether an earlier look at it
    /// was the ground for that: then nothing in it is news.
    fn take_up(&self, mut earlier: State, was_known: bool, now: CacheTime) {
        let mut state = self.locked();
        let is_changed = self.is_unwritten.load(Ordering::Relaxed);
        if is_changed && was_known {
            return;
        }
        for told in earlier.expire(now) {
            tracing::info!("{told}");
        }
        if is_changed {
            let mut merged = state.clone();
            merged.complete_with(earlier);
            earlier = merged;
        }
        if earlier == *state {
            return;
        }
        *state = earlier;
        tracing::warn!("as switched by hand before: {}", state.told(now));
        self.put_in_force(&state);
    }

    /// What is switched.
    #[must_use]
    pub fn state(&self) -> State {
        self.locked().clone()
    }

    /// What `look` sees in what is switched. It holds up all others: a short look.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.locked())
    }

    /// Has `names` and, if wanted, all names below them blocked or allowed, whatever was said of them before.
    ///
    /// # Errors
    /// [`Full`]: nothing has changed.
    pub fn override_names(
        &self,
        names: &[NameBuf],
        held: Override,
        until: Until,
        now: CacheTime,
    ) -> Result<(), Full> {
        let keys: BTreeSet<Box<[u8]>> = names.iter().map(key).collect();
        let mut state = self.locked();
        let known = keys.iter().filter(|key| state.overrides.contains_key(*key)).count();
        if state.overrides.len() + keys.len() - known > OVERRIDES_MAX {
            return Err(Full::Overrides);
        }
        let verb = match held.action {
            Action::Block => "blocked",
            Action::Allow => "allowed",
        };
        let below = if held.is_subtree { " with all below" } else { "" };
        tracing::info!("{}{below}: {verb} {} by command", told(names), until.told(now));
        state.overrides.extend(keys.into_iter().map(|key| (key, Entry { held, until })));
        self.change(&state);
        Ok(())
    }

    /// Takes the overrides of `names` back, and gives those of which there was none.
    pub fn remove_overrides<'n>(&self, names: &'n [NameBuf]) -> Vec<&'n NameBuf> {
        let mut state = self.locked();
        let (mut removed, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match state.overrides.remove(&key(name)) {
                Some(_) => removed.push(name.clone()),
                None => missing.push(name),
            }
        }
        if !removed.is_empty() {
            tracing::info!("{}: override removed by command", told(&removed));
            self.change(&state);
        }
        missing
    }

    /// Has the list with this name count for nobody.
    ///
    /// # Errors
    /// [`Full`]: nothing has changed.
    pub fn disable(&self, list: &str, until: Until, now: CacheTime) -> Result<(), Full> {
        let mut state = self.locked();
        if state.disabled.len() >= DISABLED_MAX && !state.disabled.contains_key(list) {
            return Err(Full::Disabled);
        }
        tracing::warn!("list {list:?} is disabled {} by command", until.told(now));
        state.disabled.insert(list.to_owned(), until);
        self.change(&state);
        Ok(())
    }

    /// Has the list with this name count again; `false` when it was not disabled.
    pub fn enable(&self, list: &str) -> bool {
        let mut state = self.locked();
        let was_disabled = state.disabled.remove(list).is_some();
        if was_disabled {
            tracing::info!("list {list:?} is enabled by command");
            self.change(&state);
        }
        was_disabled
    }

    /// Has nothing blocked: neither lists nor overrides are asked.
    pub fn pause(&self, until: Until, now: CacheTime) {
        let mut state = self.locked();
        tracing::warn!("blocking is paused {} by command", until.told(now));
        state.pause = Some(until);
        self.change(&state);
    }

    /// Has blocking go on; `false` when it was not paused.
    pub fn resume(&self) -> bool {
        let mut state = self.locked();
        let was_paused = state.pause.take().is_some();
        if was_paused {
            tracing::info!("blocking goes on by command");
            self.change(&state);
        }
        was_paused
    }

    /// Ends what is over, and tries now and then to keep what could not be kept; to be called several times a second. The file is left
    /// for what is over: that is not taken up from there, either.
    pub fn tick(self: &Arc<Self>, now: CacheTime) {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        if looks % LOOKS_PER_TRIAL == LOOKS_PER_TRIAL - 1 {
            self.try_again(now);
        }
        let mut state = self.locked();
        let told = state.expire(now);
        if told.is_empty() {
            return;
        }
        self.put_in_force(&state);
        drop(state);
        told.iter().for_each(|told| tracing::info!("{told}"));
    }

    /// On a thread of its own: a disk may take its time, and whoever ticks must not wait. What is wrong was told before.
    fn try_again(self: &Arc<Self>, now: CacheTime) {
        let is_amiss = self.shelf.is_some() && !self.is_kept();
        if !is_amiss || self.is_trying.swap(true, Ordering::Relaxed) {
            return;
        }
        let board = Arc::clone(self);
        let work = move || {
            if board.settle(now).is_ok() {
                tracing::info!("what is switched by hand survives a restart again");
            }
            board.is_trying.store(false, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("switches".into()).spawn(work).is_err() {
            self.is_trying.store(false, Ordering::Relaxed);
        }
    }

    /// Writes down what is switched, if that has not been done; `false` when there is no place for it.
    ///
    /// # Errors
    /// What the system says: it is in force, but does not survive a restart unless a later attempt succeeds.
    pub fn keep(&self, now: CacheTime) -> io::Result<bool> {
        self.settle(now)
    }

    /// Whether what is switched survives a restart, as far as the last attempt to keep it tells.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Writes the gauges.
    pub fn expose(&self, out: &mut Exposition) {
        const GAUGE: Kind = Kind::Gauge;
        let (blocked, allowed, disabled, is_paused) = {
            let state = self.locked();
            let held = |action| {
                state.overrides.values().filter(|entry| entry.held.action == action).count() as u64
            };
            let disabled = state.disabled.len() as u64;
            (held(Action::Block), held(Action::Allow), disabled, state.pause.is_some())
        };
        for (action, count) in [("block", blocked), ("allow", allowed)] {
            let (family, help) = ("dns_overrides", "Names that the operator blocks or allows");
            out.sample(GAUGE, family, help, &[("action", action)], count);
        }
        let help = "Lists that the operator has disabled";
        out.sample(GAUGE, "dns_lists_disabled", help, &[], disabled);
        let help = "1 while the operator has paused all blocking";
        out.sample(GAUGE, "dns_blocking_paused", help, &[], u64::from(is_paused));
        let help = "1 if what the operator has switched by hand survives a restart";
        out.sample(GAUGE, "dns_switches_kept", help, &[], u64::from(self.is_kept()));
    }

    /// Puts in force what somebody has said.
    fn change(&self, state: &State) {
        self.is_unwritten.store(true, Ordering::Relaxed);
        self.put_in_force(state);
    }

    /// Whoever comes later puts in force what is later: the state is held meanwhile.
    fn put_in_force(&self, state: &State) {
        self.published.replace(|policy| policy.clone().switched(state.switches()));
        self.published.reap();
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
