//! One number of bytes for the whole node, split before the start: what each part may take at worst, and the rest for
//! the cache.
//!
//! Counted is what the parts hold in user space when all their limits are reached at once; the kernel's socket buffers
//! stand beside it.

use std::fmt;

use thiserror::Error;

use super::cgroup;
use crate::cache::key::KEY_BYTES_MAX;
use crate::cache::{Notice, SHARD_BYTES_MAX, Stored};
use crate::config::{self, Config};
use crate::control::{self, api};
use crate::net;
use crate::observe::{Glimpses, decisions};
use crate::policy::rate;
use crate::resolve::inflight::{questions_in_all_max, waiters_in_all_max};
use crate::upstream;

/// The process before any worker: program text in use, main thread, logs.
const PROCESS_BYTES: usize = 12 << 20;

/// A worker without what is planned below: stack, executor, rings, scratch areas, memory that the allocator keeps.
const WORKER_BYTES: usize = 6 << 20;

/// Notices for the other cores that a core lets wait, when there are any (`cache::coherence`).
const NOTICES: usize = 16_384;

/// One of them with the longest key, each part in a block of the allocator, and its place in a queue.
const NOTICE_BYTES: usize = 448;

const MESH_BYTES: usize = NOTICES * NOTICE_BYTES;

const _: () = assert!(size_of::<Notice>() + size_of::<Stored>() + KEY_BYTES_MAX <= NOTICE_BYTES);

/// A question being resolved: its task, its attempts (four at a time), their queries, its key, its answer. Measured with
/// 4 096 of them before silent upstreams: 7.5 kB.
const QUESTION_BYTES: usize = 8 << 10;

/// A client that waits for one.
const WAITER_BYTES: usize = 384;

/// An idle stream, glommio's share included (measured by `idle_connections_cost_little_memory`, with room).
const STREAM_BYTES: usize = 2 << 10;

/// What a byte of a local zone's text becomes as ready answers.
const LOCAL_BYTES: usize = 16;

/// TCP buffers get at most one in so many bytes: streams are few, answers are what a resolver keeps.
const TCP_SHARE: usize = 8;

/// Below this, TCP could not hold one largest message for each of a few clients.
const TCP_BYTES_MIN: usize = 1 << 20;

/// A shard below this has no room for its segments.
const SHARD_BYTES_MIN: usize = 2 << 20;

/// What each part gets, in bytes; per core where it says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Workers.
    pub cores: usize,
    /// The number that all parts together keep.
    pub total: usize,
    /// The process and its workers as such.
    pub base: usize,
    /// Datagram buffers, per core.
    pub buffers: usize,
    /// Questions in flight and those who wait, per core.
    pub resolution: usize,
    /// Streams: what an open connection costs, per core.
    pub streams: usize,
    /// Streams: requests and replies that wait, per core.
    pub stream_buffers: usize,
    /// Local zones, names of hosts files, the warm-up list and all lists of names, shared by all cores.
    pub lists: usize,
    /// The cache shard, per core.
    pub shard: usize,
    /// Bytes that were given for the cache and lie beyond what its shards can use.
    pub surplus: usize,
}

/// The memory does not suffice.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "node.memory: {} are too little for {cores} core(s) with these limits: at least {} are needed{}",
    Mebibytes(*given), Mebibytes(*needed),
    if *is_cache_fixed { " with this cache.size" } else { "" }
)]
pub struct TooLittle {
    given: usize,
    needed: usize,
    cores: usize,
    is_cache_fixed: bool,
}

impl Plan {
    /// Splits the memory of `config` among `cores` workers, beside lists that take `list_bytes`: names to warm up with, names of
    /// hosts files.
    ///
    /// # Errors
    /// [`TooLittle`].
    pub fn new(config: &Config, cores: usize, list_bytes: usize) -> Result<Self, TooLittle> {
        let forward = &config.forward;
        let tcp = &config.tcp;
        let connections = config.node.listen.len() * tcp.connections_max;
        let mesh = if cores > 1 { MESH_BYTES } else { 0 };
        let snapshot = if config.snapshot.path.is_some() { super::snapshot::BYTES } else { 0 };
        let upstreams = upstream::connections_max(forward) * upstream::CONNECTION_BYTES;
        let clients = rate::bytes(&config.rate);
        let api = api::bytes_max(&config.api, cores);
        let decisions = decisions::bytes(config.explain.decisions);
        let queries = control::log::bytes(&config.query_log, &config.dnstap, cores);
        let base = PROCESS_BYTES
            + api
            + queries
            + cores * (WORKER_BYTES + Glimpses::BYTES + mesh + snapshot + upstreams + clients)
            + cores * decisions;
        let buffers = net::arena_bytes(&config.udp);
        let resolution = questions_in_all_max(forward) * QUESTION_BYTES
            + waiters_in_all_max(forward) * WAITER_BYTES;
        let streams = connections * STREAM_BYTES;
        let records: usize = config.local.iter().map(|zone| zone.records.len()).sum();
        let filter = if config.lists.is_empty() { 0 } else { config.filter.bytes };
        let lists = records * LOCAL_BYTES + list_bytes + filter;
        let worst = connections.saturating_mul(net::tcp::connection_bytes_max(tcp));
        let fixed = base + cores * (buffers + resolution + streams) + lists;
        let cache_max = cores * SHARD_BYTES_MAX;
        let given = config.cache.bytes;
        let least = given.unwrap_or(0).max(cores * SHARD_BYTES_MIN).min(cache_max);
        let wanted = given.unwrap_or(config::CACHE_BYTES_DEFAULT).max(least).min(cache_max);
        let tcp_share = match config.node.memory {
            Some(total) => total / TCP_SHARE,
            None => (fixed + wanted) / (TCP_SHARE - 1),
        };
        let buffers_of = |share: usize| worst.min(share / cores).max(TCP_BYTES_MIN);
        let stream_buffers = buffers_of(tcp_share);
        let beside = fixed + cores * stream_buffers;
        let total = config.node.memory.unwrap_or(beside + wanted);
        if total < beside + least {
            let is_cache_fixed = given.is_some();
            let suffices =
                |total: usize| fixed + cores * buffers_of(total / TCP_SHARE) + least <= total;
            let needed = smallest(fixed + least, suffices);
            return Err(TooLittle { given: total, needed, cores, is_cache_fixed });
        }
        let is_left_over = given.is_none() && config.node.memory.is_some();
        let (cache, surplus) = if is_left_over {
            let left = total - beside;
            (left.min(cache_max), left.saturating_sub(cache_max))
        } else {
            (wanted, given.unwrap_or(0).saturating_sub(cache_max))
        };
        // With a cache of a stated size the parts may need less than was given.
        let total = beside + cache;
        let shard = cache / cores;
        Ok(Self {
            cores,
            total,
            base,
            buffers,
            resolution,
            streams,
            stream_buffers,
            lists,
            shard,
            surplus,
        })
    }
}

impl Plan {
    /// By how many MiB all but the cache may take more than by `other`; `None` if by none.
    pub(super) fn beyond(&self, other: &Self) -> Option<usize> {
        let beside = |plan: &Self| plan.total.saturating_sub(plan.cores * plan.shard);
        let more = beside(self).saturating_sub(beside(other)).div_ceil(1 << 20);
        (more > 0).then_some(more)
    }
}

/// The smallest whole number of MiB from `bytes` on that `suffices`. The share of TCP grows with the whole, but by less: an
/// eighth more at most, and the search ends.
fn smallest(bytes: usize, suffices: impl Fn(usize) -> bool) -> usize {
    let mut mebibytes = bytes.div_ceil(1 << 20);
    while !suffices(mebibytes << 20) {
        mebibytes += 1;
    }
    mebibytes << 20
}

/// For the operator: one line, everything of all cores together.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |per_core: usize| Mebibytes(self.cores * per_core);
        write!(
            f,
            "{} at most: cache {}, questions in flight {}, TCP {}, datagram buffers {}, lists {}, process {}",
            Mebibytes(self.total),
            all(self.shard),
            all(self.resolution),
            all(self.streams + self.stream_buffers),
            all(self.buffers),
            Mebibytes(self.lists),
            Mebibytes(self.base),
        )?;
        if self.cores > 1 {
            write!(f, " ({} cores, {} of cache each)", self.cores, Mebibytes(self.shard))?;
        }
        Ok(())
    }
}

/// Bytes that this machine and the process's cgroup grant.
fn granted_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes =
        total.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    [kibibytes.map(|number| number << 10), cgroup::memory()].into_iter().flatten().min()
}

/// Warnings when `plan` is more than the machine has, and when it cannot use what was given.
pub(super) fn warnings(plan: &Plan) -> Vec<String> {
    let granted = granted_bytes().and_then(|bytes| usize::try_from(bytes).ok());
    let beyond = granted.filter(|&granted| plan.total > granted).map(|granted| {
        format!(
            "node.memory: {} are planned at most, this machine grants {}",
            Mebibytes(plan.total),
            Mebibytes(granted)
        )
    });
    beyond.into_iter().chain(unused(plan)).collect()
}

fn unused(plan: &Plan) -> Option<String> {
    (plan.surplus > 0).then(|| {
        format!(
            "cache.size: a core's part of the cache is {} at most; {} that were given beyond are not used",
            Mebibytes(SHARD_BYTES_MAX),
            Mebibytes(plan.surplus)
        )
    })
}

/// Bytes in MiB, with one decimal below ten.
struct Mebibytes(usize);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10).div_ceil(1 << 20);
        if tenths < 100 && !tenths.is_multiple_of(10) {
            write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
        } else {
            write!(f, "{} MiB", tenths.div_ceil(10))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(memory: Option<usize>, cache: Option<usize>) -> Config {
        let mut config = Config::default();
        config.node.memory = memory;
        config.cache.bytes = cache;
        config
    }

    fn sum(plan: &Plan) -> usize {
        let per_core =
            plan.buffers + plan.resolution + plan.streams + plan.stream_buffers + plan.shard;
        plan.base + plan.lists + plan.cores * per_core
    }

    #[test]
    fn parts_never_exceed_the_whole() {
        for cores in [1, 2, 3, 16, 128] {
            for memory in [None, Some(1 << 30), Some(16 << 30), Some(64 << 30)] {
                for cache in [None, Some(256 << 20), Some(512 << 20)] {
                    let Ok(plan) = Plan::new(&config(memory, cache), cores, 0) else {
                        assert!(memory == Some(1 << 30), "{cores} {memory:?} {cache:?}");
                        continue;
                    };
                    assert!(sum(&plan) <= plan.total, "{plan:?}");
                    assert!(
                        plan.total - sum(&plan) < plan.total / 2 || cache.is_some(),
                        "{plan:?}"
                    );
                    assert!(plan.shard >= SHARD_BYTES_MIN);
                    let planned = plan.total + plan.surplus;
                    let is_right =
                        |memory| planned == memory || planned < memory && cache.is_some();
                    assert!(memory.is_none_or(is_right), "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn cache_gets_what_is_left_or_what_it_was_given() {
        let left = Plan::new(&config(Some(1 << 30), None), 1, 0).unwrap();
        assert_eq!(sum(&left), 1 << 30);
        assert!(left.shard > 700 << 20, "{left}");
        let given = Plan::new(&config(Some(1 << 30), Some(64 << 20)), 2, 0).unwrap();
        assert_eq!(given.shard, 32 << 20);
        let default = Plan::new(&config(None, None), 2, 0).unwrap();
        assert_eq!(default.shard, 128 << 20);
    }

    #[test]
    fn blocks_of_a_snapshot_are_part_of_the_plan() {
        let mut config = config(Some(1 << 30), None);
        let without = Plan::new(&config, 2, 0).unwrap();
        config.snapshot.path = Some("/var/cache/x".into());
        let with = Plan::new(&config, 2, 0).unwrap();
        assert_eq!(with.base - without.base, 2 * super::super::snapshot::BYTES);
        assert!(with.shard < without.shard);
    }

    #[test]
    fn buckets_of_clients_are_part_of_the_plan_when_they_are_limited() {
        let mut config = config(Some(1 << 30), None);
        config.rate.clients_max = 1 << 20;
        let without = Plan::new(&config, 2, 0).unwrap();
        config.rate.queries_per_second = 100;
        let with = Plan::new(&config, 2, 0).unwrap();
        assert_eq!(with.base - without.base, 2 * (16 << 20));
        assert!(with.shard < without.shard);
    }

    #[test]
    fn all_connections_to_upstreams_are_part_of_the_plan() {
        let base = |upstreams: Vec<config::Upstream>| {
            let mut config = config(None, None);
            config.forward.root.upstreams = upstreams;
            Plan::new(&config, 2, 0).unwrap().base
        };
        let address = "192.0.2.1:53".parse().unwrap();
        let one = base(vec![config::Upstream::udp(address)]);
        assert_eq!(one - base(Vec::new()), 2 * 4 * upstream::CONNECTION_BYTES);
        let authentication =
            config::Authentication { is_opportunistic: true, ..config::Authentication::default() };
        let protocol = config::Protocol::Tls(authentication);
        let both = base(vec![config::Upstream { address, protocol }]);
        assert_eq!(both - base(Vec::new()), 2 * 8 * upstream::CONNECTION_BYTES, "in clear, too");
    }

    #[test]
    fn warm_up_list_is_part_of_the_plan_and_printed() {
        let config = config(Some(1 << 30), None);
        let without = Plan::new(&config, 2, 0).unwrap();
        let with = Plan::new(&config, 2, 16 << 20).unwrap();
        assert_eq!(with.lists - without.lists, 16 << 20);
        assert_eq!(2 * (without.shard - with.shard), 16 << 20);
        assert!(with.to_string().contains("lists 16 MiB"), "{with}");
    }

    #[test]
    fn lists_of_names_are_part_of_the_plan_if_there_are_any() {
        let mut config = config(None, None);
        config.filter.bytes = 64 << 20;
        let without = Plan::new(&config, 2, 0).unwrap();
        let source = config::ListSource::File("/a".into());
        config.lists = vec![config::List::new("a".into(), source, String::new())];
        let with = Plan::new(&config, 2, 0).unwrap();
        assert_eq!((without.lists, with.lists), (0, 64 << 20));
    }

    #[test]
    fn notices_with_the_longest_keys_are_part_of_the_plan() {
        let base = |cores| {
            let config = config(None, None);
            Plan::new(&config, cores, 0).unwrap().base - api::bytes_max(&config.api, cores)
        };
        let each = base(1) - PROCESS_BYTES;
        let mesh = base(3) - PROCESS_BYTES - 3 * each;
        assert!(mesh >= 3 * 16_384 * (KEY_BYTES_MAX + size_of::<Stored>() + size_of::<Notice>()));
    }

    #[test]
    fn shard_gets_no_more_than_it_can_use_and_the_rest_is_told() {
        let left = Plan::new(&config(Some(64 << 30), None), 1, 0).unwrap();
        assert_eq!((left.shard, sum(&left)), (16 << 30, left.total));
        assert_eq!(left.total + left.surplus, 64 << 30);
        let given = Plan::new(&config(None, Some(40 << 30)), 2, 0).unwrap();
        assert_eq!((given.shard, given.surplus), (16 << 30, 8 << 30));
        assert!(given.total < 34 << 30, "{given}");
        let told = unused(&given).unwrap();
        assert!(told.contains("16384 MiB at most; 8192 MiB that were given"), "{told}");
        let enough = Plan::new(&config(Some(8 << 30), None), 1, 0).unwrap();
        assert_eq!((enough.surplus, unused(&enough)), (0, None));
        // A cache that cannot be used needs no memory either.
        Plan::new(&config(Some(20 << 30), Some(1 << 40)), 1, 0).unwrap();
    }

    #[test]
    fn too_little_says_how_much_will_do_and_no_more() {
        for (cores, cache) in [(1, None), (4, None), (64, None), (2, Some(300 << 20))] {
            let refused = |bytes| Plan::new(&config(Some(bytes), cache), cores, 0).err();
            let error = refused(32 << 20).unwrap();
            let enough = error.needed;
            assert_eq!(refused(enough), None, "{error}");
            assert_eq!(refused(enough - (1 << 20)).unwrap().needed, enough, "{error}");
            assert!(
                error.to_string().contains(&format!("{} MiB are needed", enough >> 20)),
                "{error}"
            );
        }
        let text = Plan::new(&config(Some(64 << 20), None), 4, 0).unwrap_err().to_string();
        assert!(text.starts_with("node.memory: 64 MiB are too little for 4 core(s)"), "{text}");
    }

    #[test]
    fn plan_reads_like_a_sentence() {
        let mut config = config(None, None);
        let records = "x".repeat(20_000);
        config.local = vec![config::LocalZone { zone: "a.".into(), records, place: String::new() }];
        let text = Plan::new(&config, 2, 0).unwrap().to_string();
        for part in [" at most: cache 256 MiB", "lists 0.4 MiB", "(2 cores, 128 MiB of cache each)"]
        {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
    }
}
