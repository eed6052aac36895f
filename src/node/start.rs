//! From a config to a serving process and back: threads, executors, listeners, the barrier, the drain.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::time::Duration;

use ahash::RandomState;
use futures_lite::future::or;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::clock::Clocks;
use super::lists::Lists;
use super::memory::{self, Plan};
use super::notify::Notifier;
use super::panel::{Counters, Panel};
use super::placement::{self, Seat};
use super::queries::Queries;
use super::reload::{Asked, Describe, InForce, Reading, Reloader, Requests, Source};
use super::snapshot::{LAST_WRITE_MAX, Snapshots};
use super::steering::{self, Owners, Steering};
use super::succession::{Settings, Succession};
use super::supervise::{self, Event, Heartbeat, Order, Supervisor};
use super::topology::Topology;
use super::vigil::{beat, leave, save_when_asked, wait_for_drain};
use super::warm::{self, WarmList};
use super::worker::{self, Outfit, Upstreams, Worker};
use super::{NodeError, claim, clock, desk, hosts, limits, log, pin, switches};
use crate::cache::Shard;
use crate::config::{self, Config, Group, IoBackend, Upstream};
use crate::control;
use crate::control::api::{About, AboutCore, Api};
use crate::control::desk::Desk;
use crate::control::schedule::{self, Timetable};
use crate::control::switches::Switchboard;
use crate::mesh::{self, Ends};
use crate::net::tcp::{self, Tcp};
use crate::net::udp::{Plane, Setup};
use crate::observe::{Decisions, ReloadCounters};
use crate::policy::{Acl, Groups, Identity, LocalData, Policy, Published, RateLimiter, Rebinding};
use crate::resolve::{CookieSecret, Forwarder};
use crate::serve::{Core, Sections};
use crate::sys::eventfd::EventFd;
use crate::sys::listen;
use crate::upstream::{
    self, ChaCha, MonotonicClock, Roots, Setting, SourcePorts, Streams, Trust, TrustError, World,
};

/// Memory that glommio registers for its own file I/O, of which we do none, in bytes. Its default of 10 MiB would pass
/// the locked-memory limit of a fresh machine.
const EXECUTOR_IO_BYTES: usize = 256 << 10;

/// When the executor's own timer ends a turn: never. glommio 0.9 arms it, looks whether it has fired, and if it has (because the
/// thread did not get the CPU in between) takes no task up but sleeps, with tasks that could run, until something else happens:
/// at the start, for ever. Tasks that could keep others waiting pause by themselves.
const PREEMPTION: Duration = Duration::from_secs(24 * 3600);

/// How often the main thread looks at the heartbeats.
const TICK: Duration = Duration::from_millis(250);

/// Connections that wait to be accepted.
const TCP_BACKLOG: u32 = 1_024;

/// What a worker and the main thread share.
pub(super) struct Shared {
    pub(super) published: Arc<Published>,
    pub(super) queries: Option<Queries>,
    /// There are none, or none yet, in a node without lists.
    pub(super) lists: OnceLock<Lists>,
    /// What the operator switches by hand.
    pub(super) switchboard: Arc<Switchboard>,
    /// That of the start.
    config: Config,
    pub(super) succession: Arc<Succession>,
    pub(super) memory: Plan,
    pub(super) clock: MonotonicClock,
    source_ports: Arc<SourcePorts>,
    owners: Owners,
    /// From which the cookies toward upstreams are made.
    cookie_secret: CookieSecret,
    /// Keys of the shards' hashes, drawn once per process.
    hasher: RandomState,
    pub(super) heartbeats: Vec<Heartbeat>,
    start: Barrier,
    must_drain: AtomicBool,
    pub(super) snapshots: Option<Snapshots>,
}

impl Shared {
    /// Waits until the workers have read the snapshot; their silence counts from now on, and lists are looked after.
    fn wait_for_workers(&self) {
        self.start.wait();
        for heartbeat in &self.heartbeats {
            heartbeat.beat(self.clock.monotonic());
        }
        if let Some(lists) = self.lists.get() {
            lists.go_on();
        }
    }
}

/// One worker as the main thread sees it.
struct Crew {
    counters: Counters,
    desk: Desk,
    drain: EventFd,
    /// Its listeners, once more.
    listeners: Vec<OwnedFd>,
}

/// What a worker tells the main thread.
enum News {
    /// Its listeners are open.
    Open(Box<Crew>, Vec<SocketAddr>, Vec<String>),
    /// They are not.
    Failed(NodeError),
    /// Something for the supervisor.
    Event(Event),
}

/// Runs a node until it is told to stop; `source` reads its config anew for each reload, and `describe` says what stands in it.
///
/// # Errors
/// [`NodeError`]: nothing was served, or the node had to stop.
pub fn serve(reading: Reading, source: Box<Source>, describe: Describe) -> Result<(), NodeError> {
    let Reading { mut config, upstream_source, .. } = reading;
    supervise::make_panics_fatal();
    let topology = Topology::detect();
    let seats = placement::choose(&topology, &config.node.cores)?;
    let mut warnings = topology.warnings.clone();
    let warm_list = WarmList::read(&config.cache, seats.len())?;
    let (local, complaints, hosts_digest) = hosts::local(&config)?;
    let memory = Plan::new(&config, seats.len(), warm_list.bytes() + local.hosts_bytes())?;
    let in_force = InForce { config: config.clone(), hosts_digest, plan: memory };
    let toml = config.to_toml();
    let granted = limits::prepare(&config, seats.len())?;
    config.forward.sockets = granted.upstream_sockets;
    warnings.extend(granted.warnings.into_iter().chain(memory::warnings(&memory)));
    warnings.extend([clock::warning(), schedule::warning(&config.groups)].into_iter().flatten());
    tracing::info!("memory: {memory}");
    tracing::info!("switches: {}", switches::told(&config));
    warnings.extend(warm_list.complaints.iter().cloned().chain(complaints));
    let source_ports = SourcePorts::avoiding(&limits::reserved_ports());
    warnings.extend(source_ports.warning());
    let policy = policy_of(&config, local);
    let trust = trust_of(&config.forward)?;
    claim::all(&config.node.listen)?;
    let api = claim::api(&config.api)?;
    let (sender, news) = channel();
    let snapshots = begin_snapshots(&config, seats.len(), sender.clone())?;
    warnings.extend(unwritable(&config.snapshot));
    let published = Arc::new(Published::new(policy));
    let clock = MonotonicClock::start();
    let now = Clocks::new(clock).read().cache;
    let lists = Lists::begin(&config, now, &published)?;
    let directory = config.filter.directory.as_deref();
    let switchboard = Arc::new(Switchboard::begin(directory, Arc::clone(&published), now));
    let queries = Queries::begin(&config, seats.len(), &published)?;
    let settings = Settings { generation: 0, config: config.clone(), trust, flushes: Vec::new() };
    let shared = Arc::new(Shared {
        published,
        queries,
        switchboard,
        lists: lists.map_or_else(OnceLock::new, OnceLock::from),
        succession: Arc::new(Succession::new(settings)),
        source_ports: Arc::new(source_ports),
        owners: Owners::draw(&config.node, seats.len()).map_err(no_entropy)?,
        clock,
        cookie_secret: CookieSecret::new(upstream::octets_from_kernel().map_err(no_entropy)?),
        hasher: RandomState::new(),
        heartbeats: seats.iter().map(|_| Heartbeat::default()).collect(),
        start: Barrier::new(seats.len() + 1),
        must_drain: AtomicBool::new(false),
        snapshots,
        memory,
        config,
    });
    let mut about =
        about(&shared, &seats, (describe(&shared.config, &upstream_source, &shared.memory), toml));
    let (mut crew, mut refused) = open_all(&seats, warm_list, &shared, &sender, &news)?;
    let steering = steer(&shared, (&topology, &seats), &mut crew);
    refused.extend(steering.adopt(&shared.config.node));
    about.fallbacks.clone_from(&refused);
    warnings.extend(refused);
    warnings.dedup();
    warnings.iter().for_each(|warning| tracing::warn!(target: log::REPORT, "{warning}"));
    let (requests, asked) = Requests::open();
    let (panel, drains) =
        furnish((crew, steering), about, (&shared, requests), api.as_ref(), sender.clone());
    forward_signals(sender)?;
    shared.wait_for_workers();
    let known = (panel.clone(), api.as_ref().map(Api::credentials));
    let reloader = Reloader::new((source, describe), Arc::clone(&shared), known, in_force);
    oversee(&shared, &panel, &drains, &news, ((reloader, asked), api))
}

/// The main thread from the first answer to the last counter.
fn oversee(
    shared: &Shared,
    panel: &Arc<Panel>,
    drains: &[EventFd],
    news: &Receiver<News>,
    ((reloader, asked), api): ((Reloader, Receiver<Asked>), Option<Api>),
) -> Result<(), NodeError> {
    let status = format!("serving on {} core(s)", drains.len());
    reloader.begin(asked, status.clone())?;
    // Its socket goes when this does.
    let _served = api.map(|api| api.serve(Arc::<Panel>::clone(panel))).transpose()?;
    tracing::info!("{status}");
    let notifier = Notifier::new();
    notifier.ready(&status);
    let outcome = watch(shared, panel, drains, news, &notifier);
    if let Some(queries) = &shared.queries {
        queries.end();
    }
    panel.dump();
    outcome
}

/// What the operator is told of the node.
fn about(
    shared: &Shared,
    seats: &[Seat],
    (config, toml): (Vec<(&'static str, String)>, String),
) -> About {
    let node = &shared.config.node;
    About {
        cores: seats.iter().map(|seat| AboutCore { cpu: seat.cpu, numa: seat.numa_node }).collect(),
        listen: node.listen.iter().map(ToString::to_string).collect(),
        memory: shared.memory.to_string(),
        cache_bytes_max: seats.len() * shared.memory.shard,
        io: match node.io {
            IoBackend::Uring => "uring",
            IoBackend::Mmsg => "mmsg",
        },
        fallbacks: Vec::new(),
        optimizations: switches::of(&shared.config),
        config,
        toml,
        groups: Group::names(&shared.config.groups),
    }
}

/// What steers the datagrams of `crew`, whose sockets stand in their groups in the order of the cores. The first core gives its
/// own for all.
fn steer(shared: &Shared, machine: (&Topology, &[Seat]), crew: &mut [Crew]) -> Steering {
    let seen = crew.iter().map(|Crew { counters, .. }| steering::Core {
        serving: Arc::clone(&counters.serving),
        udp: Arc::clone(&counters.udp),
        glimpses: Arc::clone(&counters.glimpses),
    });
    let cores = seen.collect();
    let sockets = crew.first_mut().map(|first| std::mem::take(&mut first.listeners));
    let listen = shared.config.node.listen.clone();
    let key = shared.owners.key();
    Steering::new(listen, machine, sockets.unwrap_or_default(), cores, key)
}

/// The operator's view of `crew`, and the bells that tell each to drain.
fn furnish(
    (crew, steering): (Vec<Crew>, Steering),
    about: About,
    (shared, requests): (&Arc<Shared>, Requests),
    api: Option<&Api>,
    sender: Sender<News>,
) -> (Arc<Panel>, Vec<EventFd>) {
    let (mut cores, mut desks, mut drains) = (Vec::new(), Vec::new(), Vec::new());
    for Crew { counters, desk, drain, listeners: _ } in crew {
        cores.push(counters);
        desks.push(desk);
        drains.push(drain);
    }
    let queries = shared.queries.as_ref().map(Queries::counters).unwrap_or_default();
    // The main thread outlives whoever asks.
    let save = Box::new(move || drop(sender.send(News::Event(Event::Save))));
    let api = api.map(Api::counters);
    let (about, shared) = (Mutex::new(Arc::new(about)), Arc::clone(shared));
    let reloads = ReloadCounters::default();
    let panel =
        Panel { about, cores, desks, steering, shared, queries, reloads, requests, api, save };
    (Arc::new(panel), drains)
}

/// The snapshot file of the cache, if there is to be one.
fn begin_snapshots(
    config: &Config,
    cores: usize,
    sender: Sender<News>,
) -> Result<Option<Snapshots>, NodeError> {
    let when_saved = move || {
        // Nobody listens any more once the process is on its way out.
        let _ = sender.send(News::Event(Event::Saved));
    };
    Snapshots::begin(&config.snapshot, &config.cache, &config.forward, cores, when_saved)
}

/// What clients may have.
pub(super) fn policy_of(config: &Config, local: LocalData) -> Policy {
    let policy = Policy::new(Acl::new(&config.acl), Identity::new(&config.identity), local);
    let policy = policy.grouped(Groups::new(&config.groups, &config.node.listen));
    let policy = policy.pre_filtered(config.optimizations.filter_pre_filter);
    policy.against(Rebinding::new(&config.rebinding, &config.forward))
}

/// By which the certificates of the upstreams are judged.
///
/// # Errors
/// When none can be judged, or the file of the config is of no use.
pub(super) fn trust_of(forward: &config::Forward) -> Result<Trust, TrustError> {
    let roots = forward.tls_roots.clone().map_or(Roots::System, Roots::File);
    let upstreams: Vec<Upstream> = forward.all_upstreams().cloned().collect();
    Trust::load(&roots, &upstreams)
}

/// Why a snapshot could not be written, if so.
pub(super) fn unwritable(section: &config::Snapshot) -> Option<String> {
    let path = section.path.as_ref()?;
    let error = control::snapshot::probe(path).err()?;
    Some(format!("cache.snapshot: {} cannot be written: {error}", path.display()))
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Starts a worker for each of `seats`; says beside them what the kernel has refused.
fn open_all(
    seats: &[Seat],
    warm_list: WarmList,
    shared: &Arc<Shared>,
    sender: &Sender<News>,
    news: &Receiver<News>,
) -> Result<(Vec<Crew>, Vec<String>), NodeError> {
    let (mut crew, mut refusals) = (Vec::with_capacity(seats.len()), Vec::new());
    // One after the other, so that sockets stand in their group in the order of the cores.
    for (seat, ends) in seats.iter().zip(mesh::between(seats.len())) {
        let (member, addresses, refused) =
            open(seat, (ends, warm_list.clone()), shared, sender, news)?;
        let (core, cpu) = (seat.core, seat.cpu);
        tracing::info!(target: log::REPORT, "core {core} on CPU {cpu} listens on {}", list(&addresses));
        refusals.extend(refused);
        crew.push(member);
    }
    // Theirs alone from here on: it is gone when the last core has asked everything.
    drop(warm_list);
    Ok((crew, refusals))
}

/// Starts a worker and waits until its listeners are open.
fn open(
    seat: &Seat,
    own: (Ends, WarmList),
    shared: &Arc<Shared>,
    sender: &Sender<News>,
    news: &Receiver<News>,
) -> Result<(Crew, Vec<SocketAddr>, Vec<String>), NodeError> {
    let core = seat.core;
    let thread = std::thread::Builder::new().name(format!("core-{core}"));
    let (seat, shared, sender) = (seat.clone(), Arc::clone(shared), sender.clone());
    let spawned = thread.spawn(move || run_worker(&seat, own, &shared, &sender));
    spawned.map_err(|cause| NodeError::System { what: "cannot start a thread", cause })?;
    opened(core, news.recv().ok())
}

/// What a worker's first words mean, or its silence.
fn opened(
    core: usize,
    news: Option<News>,
) -> Result<(Crew, Vec<SocketAddr>, Vec<String>), NodeError> {
    let early = |core, cause| Err(NodeError::Worker { core, cause });
    match news {
        Some(News::Open(member, addresses, warnings)) => Ok((*member, addresses, warnings)),
        Some(News::Failed(error)) => Err(error),
        Some(News::Event(Event::Ended { core, problem: Some(cause) })) => early(core, cause),
        Some(News::Event(_)) | None => {
            early(core, "it ended before its listeners were open".to_owned())
        }
    }
}

fn forward_signals(sender: Sender<News>) -> Result<(), NodeError> {
    let fail = |cause| NodeError::System { what: "cannot catch signals", cause };
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP]).map_err(fail)?;
    let thread = std::thread::Builder::new().name("signals".into());
    let forward = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGUSR1 => Event::Dump,
                SIGUSR2 => Event::Save,
                SIGHUP => Event::Reload,
                _ => Event::Stop,
            };
            // The main thread outlives this one.
            let _ = sender.send(News::Event(event));
        }
    };
    thread.spawn(forward).map(drop).map_err(fail)
}

/// The main thread from the first answer to the last.
fn watch(
    shared: &Shared,
    panel: &Panel,
    drains: &[EventFd],
    news: &Receiver<News>,
    notifier: &Notifier,
) -> Result<(), NodeError> {
    let drain = shared.config.node.drain;
    let mut supervisor = Supervisor::new(&shared.heartbeats, drain);
    if shared.snapshots.is_some() {
        supervisor = supervisor.and_save(LAST_WRITE_MAX);
    }
    let ping_interval = notifier.watchdog_interval().unwrap_or(Duration::MAX);
    let mut pinged = shared.clock.monotonic();
    let mut timetable = Timetable::default();
    let mut clocks = Clocks::new(shared.clock);
    loop {
        let event = match news.recv_timeout(TICK.min(ping_interval)) {
            Ok(News::Event(event)) => event,
            Ok(News::Open(..) | News::Failed(_)) | Err(RecvTimeoutError::Timeout) => Event::Tick,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the signal thread never ends"),
        };
        let now = shared.clock.monotonic();
        if let Some(snapshots) = &shared.snapshots {
            snapshots.tick(now);
        }
        let cache_now = clocks.read().cache;
        timetable.apply(cache_now, &shared.published);
        shared.switchboard.tick(cache_now);
        panel.steering.look(now);
        for order in supervisor.handle(event, now) {
            match order {
                Order::Drain => {
                    tracing::info!("stopping: answers in flight get {drain:?}");
                    notifier.stopping();
                    shared.must_drain.store(true, Ordering::Release);
                    drains.iter().for_each(EventFd::signal);
                }
                Order::Dump => panel.dump(),
                Order::Save => match &shared.snapshots {
                    Some(snapshots) => snapshots.ask(now),
                    None => tracing::warn!("SIGUSR2: cache.snapshot names no file"),
                },
                Order::Reload => panel.requests.ask(),
                Order::Ping if now.since(pinged) >= ping_interval => {
                    pinged = now;
                    notifier.ping();
                }
                Order::Ping => {}
                Order::Warn(warning) => tracing::warn!("{warning}"),
                Order::Leave => return Ok(()),
                Order::Die { core, problem } => {
                    return Err(NodeError::Worker { core, cause: problem });
                }
            }
        }
    }
}

/// A worker's thread from start to end.
fn run_worker(seat: &Seat, own: (Ends, WarmList), shared: &Shared, sender: &Sender<News>) {
    log::never_wait();
    let core = seat.core;
    let warnings = pin::settle(seat);
    let outcome =
        executor(seat).and_then(|executor| executor.run(work(core, own, shared, sender, warnings)));
    // Nobody listens any more once the process is on its way out.
    let _ = sender.send(match outcome {
        Ok(()) => News::Event(Event::Ended { core, problem: None }),
        Err(error @ (NodeError::Udp { .. } | NodeError::Tcp { .. })) => News::Failed(error),
        Err(NodeError::Worker { cause, .. }) => {
            News::Event(Event::Ended { core, problem: Some(cause) })
        }
        Err(error) => News::Failed(error),
    });
}

/// The executor of a worker on `seat`, for the calling thread.
///
/// # Errors
/// [`NodeError::Worker`] with glommio's own cause.
pub(super) fn executor(seat: &Seat) -> Result<LocalExecutor, NodeError> {
    let core = seat.core;
    LocalExecutorBuilder::new(Placement::Fixed(seat.cpu))
        .name(&format!("core-{core}"))
        .io_memory(EXECUTOR_IO_BYTES)
        .preempt_timer(PREEMPTION)
        .make()
        .map_err(|error| NodeError::Worker { core, cause: format!("no executor: {error}") })
}

/// Upstream-facing sockets that a worker can have open at a time: two families, and as many that are closing.
pub(super) fn upstream_sockets_max(config: &Config) -> u16 {
    u16::try_from(4 * config.forward.sockets).unwrap_or(u16::MAX)
}

/// A worker's life on its executor: open, wait for the others, serve, drain.
async fn work(
    core: usize,
    (ends, warm_list): (Ends, WarmList),
    shared: &Shared,
    sender: &Sender<News>,
    mut warnings: Vec<String>,
) -> Result<(), NodeError> {
    let config = &shared.config;
    let system = |what| move |cause| NodeError::System { what, cause };
    let upstream_max = upstream_sockets_max(config);
    let plane = Plane::open(&Setup::new(&config.node, &config.udp, upstream_max));
    let plane = plane.map_err(|cause| NodeError::Udp { core, cause })?;
    warnings.extend(plane.fallbacks().iter().map(ToString::to_string));
    let counters = Counters {
        serving: Arc::default(),
        glimpses: Arc::default(),
        upstream: Arc::default(),
        forward: Forwarder::counters(&config.forward),
        udp: plane.counts(),
        tcp: Arc::default(),
    };
    let tcp = Tcp::new(&config.tcp, shared.memory.stream_buffers, Arc::clone(&counters.tcp));
    let streams = open_streams(core, &tcp, plane.addresses())?;
    let drain = EventFd::open().map_err(system("cannot open an eventfd"))?;
    let drain_reader = drain.duplicate().map_err(system("cannot open an eventfd"))?;
    let worker = assemble(core, shared, &plane, &counters, &tcp)?;
    let (desk, inbox) = Desk::open().map_err(system("cannot open an eventfd"))?;
    let listeners = if core == 0 { plane.duplicate_listeners() } else { Ok(Vec::new()) };
    let listeners = listeners.map_err(system("cannot duplicate a socket"))?;
    let member = Box::new(Crew { counters, desk, drain, listeners });
    let addresses = plane.addresses().to_vec();
    // The main thread waits for this.
    let _ = sender.send(News::Open(member, addresses, warnings));
    if let Some(snapshots) = &shared.snapshots {
        snapshots.restore(core, &worker, &shared.owners, shared.clock);
    }
    shared.start.wait();
    worker.correspond(ends);
    worker.probe();

    for stream in streams {
        glommio::spawn_local(stream.serve(Rc::clone(&worker))).detach();
    }
    let is_over = Rc::new(Cell::new(false));
    let failure = glommio::spawn_local(Rc::clone(&plane).run(Rc::clone(&worker)));
    let warmed = async {
        warm::up(Rc::clone(&worker), core, &shared.owners, warm_list).await;
        std::future::pending().await
    };
    let living = or(wait_for_drain(drain_reader, &shared.must_drain), beat(core, shared, &worker));
    let living = or(living, save_when_asked(core, shared, &worker));
    let living = or(living, warmed);
    let living = or(living, desk::attend(&worker, inbox));
    let serving = async {
        let ended = failure.await;
        is_over.set(true);
        ended.map_err(|error| NodeError::Worker { core, cause: format!("its ring broke: {error}") })
    };
    let leaving = async {
        living.await;
        leave(&plane, &tcp, &worker, config.node.drain, core, shared, &is_over).await;
        std::future::pending::<Result<(), NodeError>>().await
    };
    or(serving, leaving).await
}

const fn no_entropy(cause: std::io::Error) -> NodeError {
    NodeError::System { what: "no random numbers from the kernel", cause }
}

fn open_streams(
    core: usize,
    tcp: &Tcp,
    addresses: &[SocketAddr],
) -> Result<Vec<tcp::Listener>, NodeError> {
    let open = |(number, &address): (u16, &SocketAddr)| {
        let socket = listen::tcp_listener(address, TCP_BACKLOG);
        let socket = socket.map_err(|cause| NodeError::Tcp { core, address, cause })?;
        Ok(tcp.listen(socket, number))
    };
    (0..).zip(addresses).map(open).collect()
}

fn assemble(
    number: usize,
    shared: &Shared,
    plane: &Rc<Plane>,
    counters: &Counters,
    tcp: &Tcp,
) -> Result<Rc<Worker>, NodeError> {
    let config = &shared.config;
    let shard = Shard::new(&config.cache, shared.memory.shard, shared.hasher.clone());
    let (epoch, policy) = shared.published.current();
    let serving = Arc::clone(&counters.serving);
    let settings = shared.succession.newest();
    let zones = worker::apexes(&config.forward);
    let sections = Sections {
        forward: &config.forward,
        zones: &zones,
        udp: &config.udp,
        cache: &config.cache,
        optimizations: config.optimizations,
    };
    let peers = shared.heartbeats.len() - 1;
    let rate = RateLimiter::new(&config.rate, shared.hasher.clone());
    let tap = shared.queries.as_ref().and_then(|queries| queries.tap(number));
    let core = Core::new(policy, shard, sections, serving).among(peers).limited(rate);
    let core = core.tapped(tap).recorded(Decisions::new(config.explain.decisions, number));
    let entropy = ChaCha::from_kernel();
    let entropy = entropy.map_err(no_entropy)?;
    let sockets = config.forward.sockets;
    let upstream = Arc::clone(&counters.upstream);
    let ports = Arc::clone(&shared.source_ports);
    let setting = Setting {
        sockets: Rc::clone(plane),
        sockets_max: sockets,
        ports,
        clock: shared.clock,
        counters: Arc::clone(&upstream),
    };
    let (clock, entropy) = (shared.clock, Rc::new(entropy));
    let streams = Streams::new(
        number,
        clock,
        Rc::clone(&entropy),
        settings.trust.clone(),
        Arc::clone(&upstream),
    );
    let world = World::new(setting, streams, &config.forward, entropy);
    glommio::spawn_local(world.watch_refusals()).detach();
    let secret = &shared.cookie_secret;
    let forward = Arc::clone(&counters.forward);
    let forwarder = Forwarder::new(&config.forward, config.cache.clone(), secret, forward);
    let clocks = Clocks::new(shared.clock);
    let published = (Arc::clone(&shared.published), epoch);
    let outfit = Outfit {
        number,
        succession: Arc::clone(&shared.succession),
        clock,
        cookie_secret: secret.clone(),
        hasher: shared.hasher.clone(),
        upstream_counters: upstream,
        glimpses: Arc::clone(&counters.glimpses),
        tcp: tcp.clone(),
    };
    let (upstreams, settings) = (Upstreams { world, forwarder }, (settings, outfit));
    Ok(Worker::new(core, clocks, Rc::clone(plane), upstreams, published, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(news: Option<News>) -> String {
        let Err(error) = opened(1, news) else { panic!("no worker opened") };
        error.to_string()
    }

    #[test]
    fn worker_that_ends_early_says_why() {
        let problem = Some("no executor: too many open files".to_owned());
        let ended = News::Event(Event::Ended { core: 1, problem });
        assert_eq!(words(Some(ended)), "core 1 died: no executor: too many open files");
        let silent = "core 1 died: it ended before its listeners were open";
        assert_eq!(words(Some(News::Event(Event::Ended { core: 1, problem: None }))), silent);
        assert_eq!(words(None), silent);
    }
}
