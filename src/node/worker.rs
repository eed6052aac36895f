//! Hot path. One core at work: joins the listeners of `net` to the answers of `serve`, and misses to `resolve`.

mod exchange;

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use glommio::Task;
use glommio::timer::Timer;

pub(super) use self::exchange::{Outfit, Upstreams, apexes};
use super::clock::Clocks;
use super::succession::Settings;
use crate::cache::{Batch, Flush, Shard};
use crate::config::{self, ROOT_VIEW};
use crate::mesh::{Bell, Correspondent, Ends};
use crate::net::udp::Plane;
use crate::net::{Path, Respond, SocketId};
use crate::observe::{Decisions, Sampling, Transport};
use crate::policy::Published;
use crate::resolve::exchange::Question;
use crate::resolve::{Forwarder, Outlook, State};
use crate::serve::{
    Admission, Asking, Client, Core, Explained, Onward, Unresolved, Verdict, Warmth,
};
use crate::time::{CacheTime, Monotonic, Now};
use crate::upstream::Report;
use crate::wire::MESSAGE_BYTES_MAX;

/// How long others have the core between two steps of a sweep.
const SWEEP_PAUSE: Duration = Duration::from_micros(50);

/// What became of a question that nobody has asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Warming {
    Asked,
    Known,
    Busy,
}

/// All that one core needs to answer.
pub(super) struct Worker {
    core: RefCell<Core<Path>>,
    clocks: RefCell<Clocks>,
    now: Cell<Now>,
    plane: Rc<Plane>,
    /// Who is asked by whom; replaced as a whole. A question ends with those with whom it began.
    asking: RefCell<Rc<Upstreams>>,
    /// Asks resting upstreams in the background; ends when it is replaced.
    prober: RefCell<Option<Task<()>>>,
    /// What is logged of upstreams.
    report: Report,
    /// Replies to those who waited are written here, one by one.
    scratch: RefCell<Box<[u8]>>,
    /// Which hits are timed.
    sampling: Sampling,
    /// Rings when there is something to tell the other cores.
    news: Rc<Bell>,
    /// A task goes through what flushes have left behind.
    is_sweeping: Cell<bool>,
    /// Where the policy in force is found, and which one this core goes by.
    published: Arc<Published>,
    epoch: Cell<u64>,
    settings: RefCell<Arc<Settings>>,
    outfit: Outfit,
    /// For the tasks that outlive a batch.
    this: Weak<Self>,
}

impl Worker {
    /// Joins the parts of a core.
    pub(super) fn new(
        core: Core<Path>,
        clocks: Clocks,
        plane: Rc<Plane>,
        upstreams: Upstreams,
        (published, epoch): (Arc<Published>, u64),
        (settings, outfit): (Arc<Settings>, Outfit),
    ) -> Rc<Self> {
        let scratch = vec![0; MESSAGE_BYTES_MAX].into_boxed_slice();
        Rc::new_cyclic(|this| Self {
            core: RefCell::new(core),
            clocks: RefCell::new(clocks),
            now: Cell::default(),
            plane,
            asking: RefCell::new(Rc::new(upstreams)),
            prober: RefCell::default(),
            report: Report::new(outfit.number),
            scratch: RefCell::new(scratch),
            sampling: Sampling::new(u32::try_from(outfit.number).unwrap_or(u32::MAX)),
            news: Rc::default(),
            is_sweeping: Cell::new(false),
            published,
            epoch: Cell::new(epoch),
            settings: RefCell::new(settings),
            outfit,
            this: Weak::clone(this),
        })
    }

    /// Goes by the policy in force from now on; `false` while it is being exchanged, or what is counted of its lists is read: the
    /// next batch is early enough.
    #[inline]
    pub(super) fn take_up_policy(&self) -> bool {
        self.published.epoch() == self.epoch.get() || self.exchange_policy()
    }

    #[cold]
    fn exchange_policy(&self) -> bool {
        let Some((epoch, policy)) = self.published.current_if_free() else { return false };
        let generation = policy.generation();
        if !self.core.borrow_mut().go_by(policy) {
            return false;
        }
        self.epoch.set(epoch);
        if generation != self.settings.borrow().generation {
            self.exchange_settings(generation);
        }
        true
    }

    /// Begins to resolve the question of `message`, which nobody has asked.
    pub(super) fn warm(&self, message: &[u8]) -> Warming {
        let now = self.read_clocks();
        let warmth = self.core.borrow_mut().warm(message, now);
        match warmth {
            Warmth::Known => Warming::Known,
            Warmth::Busy => Warming::Busy,
            Warmth::Ask(asking) => {
                self.ask(asking);
                Warming::Asked
            }
        }
    }

    /// The monotonic clock.
    pub(super) fn monotonic(&self) -> Monotonic {
        self.read_clocks().monotonic
    }

    /// Questions being resolved now.
    pub(super) fn in_flight(&self) -> usize {
        self.core.borrow().in_flight()
    }

    /// The views whose answers this core keeps.
    pub(super) fn views(&self) -> RangeInclusive<u8> {
        let settings = self.settings.borrow();
        let own = config::Group::views(&settings.config.groups).len();
        ROOT_VIEW..=u8::try_from(own).unwrap_or(u8::MAX)
    }

    /// Lets `work` look at what this core holds, or change it, at the present time.
    pub(super) fn change_shard<T>(&self, work: impl FnOnce(&mut Shard, CacheTime) -> T) -> T {
        let now = self.read_clocks().cache;
        self.core.borrow_mut().change_shard(|shard| work(shard, now))
    }

    /// Has this core and all others forget what `flush` says.
    pub(super) fn flush(&self, flush: Flush) {
        let now = self.read_clocks();
        self.core.borrow_mut().flush(flush, now);
        self.news.ring();
        self.sweep();
    }

    /// What this core knows of the upstreams.
    pub(super) fn upstreams(&self) -> Vec<State> {
        let now = self.read_clocks().monotonic;
        self.asking.borrow().forwarder.states(now)
    }

    /// What would become of `message`, and who would be asked if it comes to that; nothing for what is no query.
    pub(super) fn explain(
        &self,
        message: &[u8],
        client: Client,
    ) -> Option<(Explained, Option<Outlook>)> {
        let now = self.read_clocks();
        self.take_up_policy();
        let explained = self.core.borrow().explain(message, client, now).ok()?;
        let asking = self.asking.borrow();
        let outlook = explained
            .asked
            .as_ref()
            .map(|(qname, view)| asking.forwarder.outlook(qname.as_name(), *view, now.monotonic));
        Some((explained, outlook))
    }

    /// Lets `work` look at what was decided last.
    pub(super) fn look_at_decisions<T>(&self, work: impl FnOnce(&Decisions) -> T) -> T {
        work(self.core.borrow().decisions())
    }

    /// Notes how many answers were there from the start.
    pub(super) fn note_restored(&self, count: u64) {
        self.core.borrow().counters().restored.set(count);
    }

    /// Logs what has become of upstreams.
    fn tell_changes(&self, forwarder: &Forwarder, now: Now) {
        self.report.changed(&forwarder.take_changes(), now.monotonic);
    }

    /// Begins to tell the other cores what this one learns, and to heed what they say.
    pub(super) fn correspond(self: &Rc<Self>, ends: Ends) {
        ends.carry(self, &self.news);
    }

    /// Frees what flushes have left behind, a little at a time.
    fn sweep(&self) {
        if self.is_sweeping.replace(true) {
            return;
        }
        let worker = self.this.upgrade().expect("a worker that hears is alive");
        glommio::spawn_local(worker.sweep_to_the_end()).detach();
    }

    async fn sweep_to_the_end(self: Rc<Self>) {
        while self.core.borrow_mut().sweep(self.now.get()) {
            Timer::new(SWEEP_PAUSE).await;
        }
        self.is_sweeping.set(false);
    }

    /// Notes how long a sampled query took from the beginning of its batch, if it was a hit.
    #[inline]
    fn time_hit(&self, core: &Core<Path>, hits_before: Option<u64>, now: Now) {
        let Some(hits_before) = hits_before else { return };
        let counters = core.counters();
        if counters.hits.value() != hits_before {
            let taken = self.clocks.borrow().monotonic().since(now.monotonic);
            counters.hit_durations.note(taken, Sampling::PERIOD);
        }
    }

    fn read_clocks(&self) -> Now {
        let now = self.clocks.borrow_mut().read();
        self.now.set(now);
        now
    }

    /// Starts the resolution of a question that nobody has asked yet.
    fn ask(&self, asking: Box<Asking>) {
        let worker = self.this.upgrade().expect("a worker that answers is alive");
        // Pinned before it is spawned: on its way into the executor it is moved several times, and it is large.
        // These and no others: the number of the question's view is theirs.
        let upstreams = Rc::clone(&self.asking.borrow());
        glommio::spawn_local(Box::pin(async move { worker.resolve(asking, &upstreams).await }))
            .detach();
    }

    async fn resolve(&self, mut asking: Box<Asking>, upstreams: &Upstreams) {
        let Upstreams { world, forwarder } = upstreams;
        // The question is the task's own, so that `asking` is free for the stale answer meanwhile.
        let query = asking.query().into_owned();
        let query = query.view();
        let question = Question::of(&query);
        let (view, evicted) = (asking.view(), asking.evicted());
        let speaker = Cell::new(None);
        let resolving =
            async { Some(forwarder.resolve_telling(world, view, &question, &speaker).await) };
        let mut resolution = pin!(or(resolving, async {
            evicted.await;
            None
        }));
        let outcome = loop {
            let Some(patience) = asking.patience() else { break resolution.await };
            let in_time = async { Some(resolution.as_mut().await) };
            let too_late = async {
                Timer::new(patience).await;
                None
            };
            match or(in_time, too_late).await {
                Some(outcome) => break outcome,
                // Again and again: what is fresh now may be stale the next time.
                None => self.answer_stale(&mut asking),
            }
        };
        let now = self.read_clocks();
        self.take_up_policy();
        asking.note_via(speaker.get());
        let Some(outcome) = outcome else { return self.evict(&mut asking, now) };
        self.tell_changes(forwarder, now);
        if let Err(failure) = outcome {
            self.report.failed(failure, now.monotonic);
        }
        let outcome = outcome
            .map_err(|failure| Unresolved { ede: failure.ede(), is_ours: failure.is_ours() });
        let mut scratch = self.scratch.borrow_mut();
        let mut core = self.core.borrow_mut();
        let send = |path: &Path, reply: &[u8]| self.send(path, reply);
        let onward = core.finish(&mut asking, outcome, now, &mut scratch, send);
        if core.outbox().has_news() {
            self.news.ring();
        }
        drop(core);
        drop(scratch);
        self.admit_all(onward, now);
    }

    /// Has clients wait for what they were led to.
    fn admit_all(&self, onward: Vec<Onward<Path>>, now: Now) {
        for Onward { ticket, path } in onward {
            let mut scratch = self.scratch.borrow_mut();
            let send = |path: &Path, reply: &[u8]| self.send(path, reply);
            let admission =
                self.core.borrow_mut().admit(ticket, path.to_owned(), now, &mut scratch, send);
            match admission {
                Admission::Ask(asking) => self.ask(asking),
                Admission::Joined => {}
                Admission::Refused(len) => self.send(&path, &scratch[..len]),
            }
        }
    }

    /// The question makes room for newer ones.
    fn evict(&self, asking: &mut Asking, now: Now) {
        let mut scratch = self.scratch.borrow_mut();
        let mut core = self.core.borrow_mut();
        let onward = core.evict(asking, now, &mut scratch, |path, reply| self.send(path, reply));
        drop(core);
        drop(scratch);
        self.admit_all(onward, now);
    }

    /// Those who have waited long enough get what is left from before.
    fn answer_stale(&self, asking: &mut Asking) {
        let now = self.read_clocks();
        self.take_up_policy();
        let mut scratch = self.scratch.borrow_mut();
        let mut core = self.core.borrow_mut();
        let onward =
            core.answer_stale(asking, now, &mut scratch, |path, reply| self.send(path, reply));
        drop(core);
        drop(scratch);
        self.admit_all(onward, now);
    }

    /// Sends a late reply; an empty one only ends the wait.
    fn send(&self, path: &Path, reply: &[u8]) {
        match path {
            Path::Udp(_) if reply.is_empty() => {}
            Path::Udp(path) => self.plane.send(path, reply),
            Path::Tcp(path) => {
                let Some(connection) = path.connection.upgrade() else { return };
                if reply.is_empty() {
                    connection.forget();
                } else {
                    connection.reply(reply);
                }
            }
        }
    }
}

impl Correspondent for Worker {
    fn take(&self, peer: usize) -> Option<Batch> {
        let mut core = self.core.borrow_mut();
        if core.outbox().has_news() {
            core.outbox().pack(self.now.get().cache);
        }
        core.outbox().take(peer)
    }

    fn hear(&self, batch: &Batch) {
        let now = self.read_clocks();
        if self.core.borrow_mut().hear(batch, now) {
            self.sweep();
        }
    }
}

impl Respond for Worker {
    fn begin(&self) {
        self.read_clocks();
        self.take_up_policy();
    }

    fn foresee<'d>(&self, requests: impl Iterator<Item = &'d [u8]>) {
        self.core.borrow_mut().foresee(requests);
    }

    fn request(&self, request: &[u8], path: &Path, reply: &mut [u8]) -> usize {
        let transport = match path {
            Path::Udp(_) => Transport::Udp,
            Path::Tcp(_) => Transport::Tcp,
        };
        let (peer, listener) = (path.peer(), path.listener());
        let client = Client { address: peer.ip(), port: peer.port(), listener, transport };
        let now = self.now.get();
        let mut core = self.core.borrow_mut();
        let is_sampled = self.sampling.is_due();
        if is_sampled && transport == Transport::Udp {
            self.outfit.glimpses.note(request);
        }
        let hits_before = is_sampled.then(|| core.counters().hits.value());
        let len = match core.answer(request, client, now, reply) {
            Verdict::Reply(len) => {
                self.time_hit(&core, hits_before, now);
                len
            }
            Verdict::Refresh(len, asking) => {
                self.time_hit(&core, hits_before, now);
                drop(core);
                self.ask(asking);
                len
            }
            Verdict::Drop => 0,
            Verdict::Miss(ticket) => {
                let send = |path: &Path, reply: &[u8]| self.send(path, reply);
                match core.admit(ticket, path.to_owned(), now, reply, send) {
                    Admission::Ask(asking) => {
                        drop(core);
                        self.ask(asking);
                        return 0;
                    }
                    Admission::Joined => return 0,
                    Admission::Refused(len) => len,
                }
            }
        };
        if len == 0 {
            self.send(path, &[]);
        }
        len
    }

    fn response(&self, socket: SocketId, from: std::net::SocketAddr, datagram: &[u8]) {
        self.asking.borrow().world.deliver(socket, from, datagram);
    }
}
