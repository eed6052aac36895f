//! Which core gets a datagram, from the config to the kernel: decides between the ways, puts the program in force for every
//! listener, and, where names have owners, has the hottest ones spread over all cores and brought back. The main thread looks;
//! reloads change the way.

mod alignment;
mod balance;
mod nearest;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::balance::{Balance, Changes, Look, Sightings, Spread};
use super::placement::Seat;
use super::topology::Topology;
use crate::config;
use crate::control::api::{Owner, Steered};
use crate::net::steer::{self, GLIMPSE_BYTES, Key, Program};
use crate::net::udp::Counts;
use crate::observe::{Exposition, Glimpses, ServingCounters, SteeringCounters};
use crate::sys::interfaces;
use crate::time::Monotonic;
use crate::upstream::words_from_kernel;
use crate::wire::{HEADER_BYTES, Name};

/// How often the cores' loads are compared.
const LOOK: Duration = Duration::from_secs(1);

const _: () = assert!(Glimpses::EACH_BYTES_MAX >= GLIMPSE_BYTES);

/// How a datagram finds its core.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Cpu,
    Flow,
    Qname,
}

impl Way {
    const fn as_text(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Flow => "flow",
            Self::Qname => "qname",
        }
    }
}

/// The way that `node` asks for on these CPUs, and why, where that is not what stands in the config.
fn decide(node: &config::Node, listen: &[SocketAddr], workers: &[usize]) -> (Way, Option<String>) {
    if workers.len() < 2 {
        return (Way::Flow, Some("there is one core".to_owned()));
    }
    match node.steering {
        config::Steering::Cpu => (Way::Cpu, None),
        config::Steering::Flow => (Way::Flow, None),
        config::Steering::Qname => (Way::Qname, None),
        config::Steering::Auto => {
            // A sandbox may hide the interfaces: then nothing is known of them.
            let addresses = interfaces::by_interface().unwrap_or_default();
            match alignment::judge(listen, &addresses, workers, Path::new("/")) {
                Ok(why) => (Way::Cpu, Some(why)),
                Err(why) => (Way::Flow, Some(why)),
            }
        }
    }
}

fn told((way, why): (Way, Option<&str>)) -> String {
    let mut text = way.as_text().to_owned();
    if let Some(why) = why {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {why}");
    }
    text
}

/// How datagrams would find their cores, in words for the operator.
pub(super) fn foretell(node: &config::Node, seats: &[Seat]) -> String {
    let workers: Vec<usize> = seats.iter().map(|seat| seat.cpu).collect();
    let (way, why) = decide(node, &node.listen, &workers);
    told((way, why.as_deref()))
}

/// Which core owns a name, from the start on.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    key: Key,
    cores: u16,
    are_kept: bool,
}

impl Owners {
    /// Draws them for so many cores.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub(super) fn draw(node: &config::Node, cores: usize) -> io::Result<Self> {
        Ok(Self {
            key: Key::new(words_from_kernel()?),
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            are_kept: node.steering == config::Steering::Qname && cores > 1,
        })
    }

    pub(super) fn key(&self) -> Key {
        self.key.clone()
    }

    /// Whether datagrams go to their name's owner when the node begins to serve.
    pub(super) const fn are_kept(&self) -> bool {
        self.are_kept
    }

    /// Whether `core` has to know what lies under `name`.
    pub(super) fn owns(&self, core: usize, name: Name<'_>) -> bool {
        let owner =
            || self.key.hash_name(name.as_bytes()).map(|hash| steer::owner(hash, self.cores));
        !self.are_kept || owner().is_none_or(|owner| usize::from(owner) == core)
    }
}

/// What is known of one core's datagrams.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) serving: Arc<ServingCounters>,
    pub(super) udp: Arc<Counts>,
    pub(super) glimpses: Arc<Glimpses>,
}

impl Core {
    /// Datagrams for it, those included that the kernel had to drop because it was too busy.
    fn datagrams(&self) -> u64 {
        self.serving.datagrams() + self.udp.snapshot().kernel_drops
    }
}

/// What one core had told at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    datagrams: u64,
    glimpses: u64,
}

#[derive(Debug)]
struct State {
    way: Way,
    why: Option<String>,
    balance: Balance,
    before: Vec<Before>,
    looked: Monotonic,
}

/// Steers the datagrams of all listeners.
#[derive(Debug)]
pub(super) struct Steering {
    /// The CPU of each worker.
    workers: Vec<usize>,
    /// For each CPU, the worker that takes its datagrams.
    nearest: Vec<u16>,
    listen: Vec<SocketAddr>,
    /// One of each group; the others share its program.
    sockets: Vec<OwnedFd>,
    cores: Vec<Core>,
    key: Key,
    counters: SteeringCounters,
    state: Mutex<State>,
}

impl Steering {
    /// Of a node whose cores listen; `sockets` are one core's listeners. By flow until [`Self::adopt`].
    pub(super) fn new(
        listen: Vec<SocketAddr>,
        (topology, seats): (&Topology, &[Seat]),
        sockets: Vec<OwnedFd>,
        cores: Vec<Core>,
        key: Key,
    ) -> Self {
        let state = State {
            way: Way::Flow,
            why: None,
            balance: Balance::new(0),
            before: vec![Before::default(); cores.len()],
            looked: Monotonic::default(),
        };
        Self {
            workers: seats.iter().map(|seat| seat.cpu).collect(),
            nearest: nearest::workers(topology, seats),
            listen,
            sockets,
            cores,
            key,
            counters: SteeringCounters::default(),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes the way that `node` asks for from now on; gives a warning where the kernel refuses it, and goes by flow.
    pub(super) fn adopt(&self, node: &config::Node) -> Option<String> {
        let mut state = self.lock();
        let (way, why) = decide(node, &self.listen, &self.workers);
        (state.way, state.why) = (way, why);
        state.balance = Balance::new(node.spread_above_percent);
        self.count(&Changes::default(), &state.balance);
        let warning = self.attach(&self.program(&state)).err().map(|refusal| {
            (state.way, state.why) = (Way::Flow, Some(refusal.clone()));
            // What has never been cannot be refused, and where one listener took a program it lets it go.
            let _ = self.attach(&Program::by_flow());
            format!("node.steering: {refusal}; datagrams go by flow")
        });
        let are_wanted = state.way == Way::Qname && node.spread_above_percent > 0;
        for core in &self.cores {
            core.glimpses.want(are_wanted);
        }
        self.look_away(&mut state);
        tracing::info!("datagrams find their cores by {}", told((state.way, state.why.as_deref())));
        warning
    }

    fn program(&self, state: &State) -> Program {
        match state.way {
            Way::Flow => Program::by_flow(),
            Way::Cpu => steer::by_cpu(&self.nearest),
            Way::Qname => {
                let hashes: Vec<u32> =
                    state.balance.spread().iter().map(|spread| spread.hash).collect();
                let cores = u16::try_from(self.cores.len()).unwrap_or(u16::MAX);
                steer::by_qname(&self.key, cores, &hashes)
            }
        }
    }

    /// Puts `program` in force for all listeners.
    ///
    /// # Errors
    /// The kernel's refusal for one of them, in words.
    fn attach(&self, program: &Program) -> Result<(), String> {
        for (socket, address) in self.sockets.iter().zip(&self.listen) {
            program.attach(socket.as_fd()).map_err(|cause| {
                self.counters.refusals.bump();
                format!("the kernel refuses the program for {address}: {}", steer::explain(&cause))
            })?;
        }
        Ok(())
    }

    /// Begins to count from here.
    fn look_away(&self, state: &mut State) {
        for (before, core) in state.before.iter_mut().zip(&self.cores) {
            let (datagrams, glimpses) = (core.datagrams(), core.glimpses.count());
            *before = Before { datagrams, glimpses };
        }
    }

    /// Compares the cores, at most once a second, and has names spread or brought back.
    pub(super) fn look(&self, now: Monotonic) {
        let mut state = self.lock();
        if state.way != Way::Qname || now.since(state.looked) < LOOK {
            return;
        }
        state.looked = now;
        let look = self.see(&mut state);
        let balance = state.balance.clone();
        let changes = state.balance.judge(&look);
        if changes == Changes::default() {
            return;
        }
        if let Err(refusal) = self.attach(&self.program(&state)) {
            state.balance = balance;
            tracing::warn!("steering: {refusal}; what is spread stays as it is");
            return;
        }
        self.count(&changes, &state.balance);
        for Spread { name, share, .. } in &changes.spread {
            let percent = share * 100.0;
            tracing::info!(
                "steering: {name} is {percent:.0} % of all datagrams and goes to all cores"
            );
        }
        for Spread { name, .. } in &changes.returned {
            tracing::info!("steering: {name} goes to one core again");
        }
    }

    /// What has come since the last look.
    fn see(&self, state: &mut State) -> Look {
        let mut look = Look::default();
        for (before, core) in state.before.iter_mut().zip(&self.cores) {
            let datagrams = core.datagrams();
            let load = real(datagrams.saturating_sub(before.datagrams));
            let mut seen = Vec::new();
            let glimpses = core.glimpses.read(before.glimpses, |datagram| {
                if let Some(hash) = self.key.hash(datagram) {
                    let sightings: &mut Sightings = look.seen.entry(hash).or_default();
                    sightings.count += 1;
                    if sightings.count == balance::SIGHTINGS_MIN {
                        sightings.name = name_of(datagram);
                    }
                    seen.push(hash);
                }
            });
            let weight = load / real(seen.len() as u64).max(1.0);
            for hash in seen {
                look.seen.entry(hash).or_default().weight += weight;
            }
            look.loads.push(load);
            *before = Before { datagrams, glimpses };
        }
        look
    }

    fn count(&self, changes: &Changes, balance: &Balance) {
        self.counters.spread.set(balance.spread().len() as u64);
        self.counters.spreads.add(changes.spread.len() as u64);
        self.counters.returns.add(changes.returned.len() as u64);
    }

    /// How it is now.
    pub(super) fn told(&self) -> Steered {
        let state = self.lock();
        let spread = state.balance.spread().len();
        Steered { mode: state.way.as_text(), why: state.why.clone(), spread }
    }

    /// Which core datagrams for `name` go to, where that depends on the name.
    pub(super) fn owner(&self, name: Name<'_>) -> Option<Owner> {
        let state = self.lock();
        let hash = self.key.hash_name(name.as_bytes()).filter(|_| state.way == Way::Qname)?;
        if state.balance.spread().iter().any(|spread| spread.hash == hash) {
            return Some(Owner::All);
        }
        let cores = u16::try_from(self.cores.len()).unwrap_or(u16::MAX);
        Some(Owner::Core(steer::owner(hash, cores).into()))
    }

    /// Writes the counters.
    pub(super) fn expose(&self, out: &mut Exposition) {
        self.counters.expose(out);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a second")]
const fn real(count: u64) -> f64 {
    count as f64
}

/// The name that `datagram` asks for, for people.
fn name_of(datagram: &[u8]) -> String {
    let name = datagram.get(HEADER_BYTES..).and_then(|body| Name::parse(body).ok());
    name.map_or_else(|| "?".to_owned(), |name| name.to_string().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::steer::KEY_WORDS;
    use crate::sys::sockopt::{UdpSettings, bind_udp};

    /// Two workers on CPUs 0 and 1, and one listener that shares its address if it may.
    fn steering(is_shared: bool) -> Steering {
        let settings = UdpSettings { is_shared, buffer_bytes: None };
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), settings).unwrap();
        let seat = |core| Seat { core, cpu: core, numa_node: None, reason: String::new() };
        let core =
            || Core { serving: Arc::default(), udp: Arc::default(), glimpses: Arc::default() };
        let seats = [seat(0), seat(1)];
        let machine = (&Topology::default(), &seats[..]);
        let key = Key::new(std::array::from_fn::<u32, KEY_WORDS, _>(|number| {
            u32::try_from(number).unwrap().wrapping_mul(0x9E37_79B9) | 1
        }));
        Steering::new(vec![bound.address], machine, vec![bound.fd], vec![core(), core()], key)
    }

    fn node(steering: config::Steering) -> config::Node {
        config::Node { steering, ..config::Node::default() }
    }

    #[test]
    fn refused_program_is_one_warning_and_flow() {
        let steering = steering(false);
        for wanted in [config::Steering::Qname, config::Steering::Cpu] {
            let warning = steering.adopt(&node(wanted)).unwrap();
            assert!(warning.starts_with("node.steering: the kernel refuses"), "{warning}");
            assert!(warning.ends_with("datagrams go by flow"), "{warning}");
            assert_eq!(steering.told().mode, "flow");
            assert!(!steering.cores[0].glimpses.is_wanted());
        }
        assert_eq!(steering.counters.refusals.value(), 2 * 2);
    }

    #[test]
    fn each_way_is_taken_and_told() {
        let steering = steering(true);
        for (wanted, mode, is_explained) in [
            (config::Steering::Qname, "qname", false),
            (config::Steering::Cpu, "cpu", false),
            (config::Steering::Auto, "flow", true),
            (config::Steering::Flow, "flow", false),
        ] {
            assert_eq!(steering.adopt(&node(wanted)), None);
            let told = steering.told();
            assert_eq!((told.mode, told.why.is_some()), (mode, is_explained), "{wanted:?}");
            assert_eq!(steering.cores[1].glimpses.is_wanted(), mode == "qname");
        }
    }

    #[test]
    fn hot_name_is_named_and_counted() {
        let steering = steering(true);
        steering.adopt(&node(config::Steering::Qname));
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03Hot\x07example\0\0\x01\0\x01";
        let owner = steer::owner(steering.key.hash(query).unwrap(), 2);
        let core = &steering.cores[usize::from(owner)];
        for second in 1..=3 {
            for _ in 0..100 {
                core.serving.query(crate::observe::Transport::Udp, None);
                core.glimpses.note(query);
            }
            steering.look(Monotonic::default().after(LOOK * second));
            assert_eq!(steering.told().spread, usize::from(second >= 2), "look {second}");
        }
        assert_eq!(steering.lock().balance.spread()[0].name, "hot.example.");
        assert_eq!((steering.counters.spread.value(), steering.counters.spreads.value()), (1, 1));
        steering.adopt(&node(config::Steering::Qname));
        assert_eq!((steering.told().spread, steering.counters.spread.value()), (0, 0));
    }
}
