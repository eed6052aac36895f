//! What the operator switches by hand while the node runs: lists that are disabled, names that are overridden, and a pause of
//! all blocking; each for a time, or until told otherwise. It takes effect by another policy, in which nothing is compiled anew, and
//! is kept in a file, so that it survives a restart. Reads no clock: the time is handed in, that of the cache clock, because a
//! time to end has to mean the same after a restart.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control::files;
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

/// The file by which a node keeps what it writes there to itself.
const CLAIM: &str = "switches.lock";

/// The file that holds what was switched, in the directory of the lists.
const FILE: &str = "switches";

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

    /// Until when the list with this name is disabled, if it is.
    #[must_use]
    pub fn disabled(&self, list: &str) -> Option<Until> {
        self.disabled.get(list).copied()
    }

    /// Until when blocking is paused, if it is.
    #[must_use]
    pub const fn pause(&self) -> Option<Until> {
        self.pause
    }

    /// Drops what is over; says of each what it was.
    fn expire(&mut self, now: CacheTime) -> Vec<String> {
        let mut told = Vec::new();
        for (name, _) in self.overrides().filter(|(_, entry)| entry.until.is_over(now)) {
            told.push(format!("override of {name} is over"));
        }
        self.overrides.retain(|_, entry| !entry.until.is_over(now));
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
    /// `None` when it does not survive a restart.
    path: Option<PathBuf>,
    /// Held while the file is written: the last state is the one that stays.
    writer: Mutex<()>,
    /// What keeps the file to this node.
    _claim: Option<File>,
}

impl Switchboard {
    /// Puts in force what is kept in `directory` and is not over `now`. Without a directory nothing is kept.
    #[must_use]
    pub fn begin(directory: Option<&Path>, published: Arc<Published>, now: CacheTime) -> Self {
        let claim = directory.and_then(|directory| {
            let claimed = files::make_directory(directory)
                .and_then(|()| files::claim(&directory.join(CLAIM)));
            let warn = |error: &io::Error| {
                let directory = directory.display();
                tracing::warn!(
                    "filter.directory: {directory}: what is switched by hand cannot be kept there: {error}"
                );
            };
            claimed.inspect_err(warn).ok()
        });
        let path = directory.filter(|_| claim.is_some()).map(|directory| directory.join(FILE));
        let mut state = path.as_deref().map(file::take_up).unwrap_or_default();
        for told in state.expire(now) {
            tracing::info!("{told}");
        }
        if state != State::default() {
            let State { overrides, disabled, pause } = &state;
            tracing::warn!(
                "as switched by hand before: {} name(s) overridden, {} list(s) disabled{}",
                overrides.len(),
                disabled.len(),
                pause.map_or_else(String::new, |until| format!(
                    ", blocking paused {}",
                    until.told(now)
                ))
            );
            published.replace(|policy| policy.clone().switched(state.switches()));
        }
        let (state, writer) = (Mutex::new(state), Mutex::default());
        Self { published, state, path, writer, _claim: claim }
    }

    /// What is switched.
    #[must_use]
    pub fn state(&self) -> State {
        self.locked().clone()
    }

    /// Has `name` and, if wanted, all names below it blocked or allowed, whatever was said of it before.
    ///
    /// # Errors
    /// [`Full`]: nothing has changed.
    pub fn override_name(
        &self,
        name: Name<'_>,
        held: Override,
        until: Until,
        now: CacheTime,
    ) -> Result<(), Full> {
        let mut name = NameBuf::new(name);
        name.make_lower();
        let mut state = self.locked();
        let key = name.as_name().as_bytes();
        if state.overrides.len() >= OVERRIDES_MAX && !state.overrides.contains_key(key) {
            return Err(Full::Overrides);
        }
        let verb = match held.action {
            Action::Block => "blocked",
            Action::Allow => "allowed",
        };
        let below = if held.is_subtree { " with all below" } else { "" };
        tracing::info!("{}{below} is {verb} {} by command", name.as_name(), until.told(now));
        state.overrides.insert(key.into(), Entry { held, until });
        self.put_in_force(&state);
        Ok(())
    }

    /// Takes the override of `name` back; `false` when there is none.
    pub fn remove_override(&self, name: Name<'_>) -> bool {
        let mut folded = NameBuf::new(name);
        folded.make_lower();
        let mut state = self.locked();
        let is_there = state.overrides.remove(folded.as_name().as_bytes()).is_some();
        if is_there {
            tracing::info!("override of {} is removed by command", folded.as_name());
            self.put_in_force(&state);
        }
        is_there
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
        self.put_in_force(&state);
        Ok(())
    }

    /// Has the list with this name count again; `false` when it was not disabled.
    pub fn enable(&self, list: &str) -> bool {
        let mut state = self.locked();
        let was_disabled = state.disabled.remove(list).is_some();
        if was_disabled {
            tracing::info!("list {list:?} is enabled by command");
            self.put_in_force(&state);
        }
        was_disabled
    }

    /// Has nothing blocked: neither lists nor overrides are asked.
    pub fn pause(&self, until: Until, now: CacheTime) {
        let mut state = self.locked();
        tracing::warn!("blocking is paused {} by command", until.told(now));
        state.pause = Some(until);
        self.put_in_force(&state);
    }

    /// Has blocking go on; `false` when it was not paused.
    pub fn resume(&self) -> bool {
        let mut state = self.locked();
        let was_paused = state.pause.take().is_some();
        if was_paused {
            tracing::info!("blocking goes on by command");
            self.put_in_force(&state);
        }
        was_paused
    }

    /// Ends what is over; to be called several times a second. Its file is left: what is over is not taken up from there, either.
    pub fn tick(&self, now: CacheTime) {
        let mut state = self.locked();
        let told = state.expire(now);
        if told.is_empty() {
            return;
        }
        self.put_in_force(&state);
        drop(state);
        told.iter().for_each(|told| tracing::info!("{told}"));
    }

    /// Writes down what is switched; `false` when there is no place for it.
    ///
    /// # Errors
    /// What the system says: it is in force, but does not survive a restart.
    pub fn keep(&self) -> io::Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        file::keep(path, &self.state())?;
        Ok(true)
    }

    /// Whether what is switched survives a restart.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.path.is_some()
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
