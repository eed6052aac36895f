//! From one config to the next, on one core: what it goes by beside the policy changes between two batches, and questions in
//! flight end with those who were asked.

use std::rc::Rc;
use std::sync::Arc;

use ahash::RandomState;

use super::Worker;
use crate::config;
use crate::net::tcp::Tcp;
use crate::net::udp::Plane;
use crate::node::succession::{Settings, Succession};
use crate::observe::{Glimpses, UpstreamCounters};
use crate::policy::RateLimiter;
use crate::resolve::{CookieSecret, Forwarder};
use crate::serve::Sections;
use crate::upstream::{MonotonicClock, Streams, World};
use crate::wire::NameBuf;

/// The upstreams of a config, and the ways to them.
pub(in crate::node) struct Upstreams {
    pub(in crate::node) world: World<Plane>,
    pub(in crate::node) forwarder: Forwarder,
}

/// What a core keeps at hand to go by other settings.
pub(in crate::node) struct Outfit {
    /// Which core it is.
    pub(in crate::node) number: usize,
    pub(in crate::node) succession: Arc<Succession>,
    pub(in crate::node) clock: MonotonicClock,
    pub(in crate::node) cookie_secret: CookieSecret,
    pub(in crate::node) hasher: RandomState,
    pub(in crate::node) upstream_counters: Arc<UpstreamCounters>,
    /// Where a few of the datagrams are noted.
    pub(in crate::node) glimpses: Arc<Glimpses>,
    pub(in crate::node) tcp: Tcp,
}

/// The apexes of all zones with upstreams of their own.
pub(in crate::node) fn apexes(forward: &config::Forward) -> Vec<NameBuf> {
    let apexes = forward.zones.iter().flat_map(|zone| &zone.apexes);
    apexes.map(|apex| NameBuf::new(apex.as_name())).collect()
}

impl Worker {
    /// Goes by the settings with this number, in the same moment as by the policy that belongs to them.
    pub(super) fn exchange_settings(&self, generation: u64) {
        let before = Arc::clone(&self.settings.borrow());
        let steps = self.outfit.succession.between(before.generation, generation);
        let Some(settings) = steps.last() else { return };
        let (old, new) = (&before.config, &settings.config);
        let now = self.read_clocks();
        let zones = apexes(&new.forward);
        let mut core = self.core.borrow_mut();
        core.adopt(Sections {
            forward: &new.forward,
            zones: &zones,
            udp: &new.udp,
            cache: &new.cache,
            optimizations: new.optimizations,
        });
        if old.rate != new.rate {
            core.limit(RateLimiter::new(&new.rate, self.outfit.hasher.clone()));
        }
        for flush in steps.iter().flat_map(|step| &step.flushes) {
            core.forget(flush.clone(), now);
        }
        let is_trust_kept = before.trust.is_same(&settings.trust);
        let are_upstreams_other =
            old.forward != new.forward || old.cache != new.cache || !is_trust_kept;
        if are_upstreams_other {
            core.forget_failures();
        }
        // Tasks begin in the moment in which they are spawned.
        drop(core);
        if are_upstreams_other {
            self.exchange_upstreams(&before, settings, is_trust_kept);
        }
        self.outfit.tcp.adopt(&new.tcp);
        self.settings.replace(Arc::clone(settings));
        self.sweep();
    }

    /// Asks the upstreams of other settings. Connections stay where all upstreams do.
    fn exchange_upstreams(&self, before: &Settings, after: &Settings, is_trust_kept: bool) {
        let (old, new) = (&before.config.forward, &after.config.forward);
        let current = Rc::clone(&self.asking.borrow());
        let Outfit { number, clock, cookie_secret, upstream_counters, .. } = &self.outfit;
        let is_kept = is_trust_kept && old.all_upstreams().eq(new.all_upstreams());
        let streams = (!is_kept).then(|| {
            let (numbers, counters) = (current.world.numbers(), Arc::clone(upstream_counters));
            Streams::new(*number, *clock, Rc::clone(numbers), after.trust.clone(), counters)
        });
        let caps = after.config.cache.clone();
        let world = current.world.succeeded_by(new, streams);
        let forwarder = current.forwarder.succeeded_by(new, caps, cookie_secret);
        self.asking.replace(Rc::new(Upstreams { world, forwarder }));
        self.probe();
    }

    /// Asks resting upstreams in the background whether they are back, from now on.
    pub(in crate::node) fn probe(&self) {
        let worker = self.this.upgrade().expect("a worker that asks is alive");
        let upstreams = Rc::clone(&self.asking.borrow());
        let probing = async move {
            let Upstreams { world, forwarder } = &*upstreams;
            let after_each = || worker.tell_changes(forwarder, worker.read_clocks());
            forwarder.probe(world, after_each).await;
        };
        // The one before ends here.
        self.prober.replace(Some(glommio::spawn_local(probing)));
    }
}
