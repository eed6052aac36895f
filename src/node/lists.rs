//! The lists of a node: in force, as far as they lie on this machine, before the first answer; kept by a thread of their own
//! from then on.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::NodeError;
use super::clock::Clocks;
use crate::config::{Config, List};
use crate::control::lists::{Keeper, Order, Setup};
use crate::control::schedule::in_force;
use crate::observe::{FilterCounters, ListCounters};
use crate::policy::Published;
use crate::time::CacheTime;
use crate::upstream::{self, MonotonicClock};

/// The thread that keeps the lists.
pub(super) struct Lists {
    /// It ends when this does.
    orders: Sender<Order>,
    counters: Arc<FilterCounters>,
    /// Those of the config in force.
    kept: Mutex<Vec<List>>,
}

impl Lists {
    /// Puts the lists of `config` in force and starts the thread. `None` without lists.
    ///
    /// # Errors
    /// [`NodeError::System`] without a thread.
    pub(super) fn begin(
        config: &Config,
        now: CacheTime,
        published: &Arc<Published>,
    ) -> Result<Option<Self>, NodeError> {
        let setup = Setup {
            filter: config.filter.clone(),
            lists: config.lists.clone(),
            groups: in_force(&config.groups, &config.lists, now),
            draw: upstream::octets_from_kernel,
            clock: || Clocks::new(MonotonicClock::start()).read().cache,
        };
        if !config.lists.is_empty() {
            tracing::info!("lists: {} to be put in force", config.lists.len());
        }
        let Some(keeper) = Keeper::begin(setup, Arc::clone(published)) else { return Ok(None) };
        let counters = keeper.counters();
        let (orders, received) = channel();
        let keep = move || keeper.run(&received);
        let spawned = std::thread::Builder::new().name("lists".into()).spawn(keep);
        spawned.map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
        Ok(Some(Self { orders, counters, kept: Mutex::new(config.lists.clone()) }))
    }

    /// Has the lists looked at when it is time: the node serves.
    pub(super) fn go_on(&self) {
        self.tell(Order::Begin);
    }

    /// Has all lists looked at, and the log say what came of it.
    pub(super) fn refresh(&self) {
        self.tell(Order::Refresh);
    }

    /// Has the list with this name looked at, and the log say what came of it.
    pub(super) fn refresh_one(&self, name: &str) {
        self.tell(Order::RefreshOne(name.to_owned()));
    }

    /// The lists of the config in force, each with what is counted of it.
    pub(super) fn all(&self) -> Vec<(List, Option<Arc<ListCounters>>)> {
        let counters = self.counters.lists();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counted = |list: List| {
            let own = counters.iter().find(|own| own.name() == list.name).map(Arc::clone);
            (list, own)
        };
        kept.into_iter().map(counted).collect()
    }

    /// Has those of `config` kept from now on, and all of them looked at.
    pub(super) fn keep(&self, config: &Config) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&config.lists);
        self.tell(Order::Keep(config.filter.clone(), config.lists.clone()));
    }

    fn tell(&self, order: Order) {
        // The thread lives as long as this does.
        let _ = self.orders.send(order);
    }

    /// What is counted.
    pub(super) const fn counters(&self) -> &Arc<FilterCounters> {
        &self.counters
    }
}
