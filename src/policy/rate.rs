//! Hot path. How much a client may ask: a token bucket for each, in a table that never grows.
//!
//! A bucket is one point in time, the one when it will be full again (the generic cell rate algorithm): each query moves
//! it by the time that a token takes to come back, and a query that would move it further ahead than the whole bucket is
//! worth is one too many. A bucket that is full says as much as none, so that it can be given away at no loss.
//!
//! What happens when the table is full of strangers, such as a flood from millions of forged addresses: a newcomer takes
//! the bucket of its set that will be full soonest, which is the one that says least.
//!
//! * A client that is not limited may lose its bucket, and begins again with a full one. That errs in its favour, always:
//!   whoever keeps within the limit is served, whatever other addresses do.
//! * A client that is limited has a bucket that will be full later than those of all who ask once, so they push each other
//!   out, and it stays limited. To get rid of its bucket, a flood has to keep the three others of its set as empty; as nobody
//!   knows which those are (the hash is keyed), three quarters of the table: with 16 384 buckets and a limit of 100 queries
//!   per second by 1.2 million of them, each second, on one core.
//! * A debt is never passed on to a newcomer: forged addresses could then use up the bucket of an honest client.
//!
//! Streams have buckets of their own. Datagrams can be forged, and whoever sends them in a client's name uses up its bucket;
//! the client is then told to come over TCP (TC=1), where its address is proven, and must find a bucket that nobody else
//! has touched. There it is limited, too, because the limit is about work, not about forgery only.

use std::net::IpAddr;

use ahash::RandomState;
use ipnet::IpNet;

use super::Acl;
use crate::config;
use crate::observe::Transport;
use crate::time::Monotonic;

/// Buckets that a client may have its own among.
const WAYS: usize = 4;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Leading bits of an IPv4 address in IPv6 clothing that all of them share.
const MAPPED_BITS: u8 = 96;

/// One client's bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it will be full, in nanoseconds of the monotonic clock.
    full_at: u64,
    /// Whose it is: 31 bits of a keyed hash, and the transport. In one of some 2 billion cases another client of the same
    /// set has the same; they then share the bucket. An unused bucket is a full one of somebody.
    tag: u32,
    /// Queries over the limit since the last one that got a reply.
    excess: u32,
}

/// Buckets side by side in one cache line: whether it is there or not, a client costs one access to memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Bucket; WAYS]);

const _: () = assert!(size_of::<Set>() == 64);

/// What becomes of a query over the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excess {
    /// It gets no reply.
    Drop,
    /// It gets an empty reply with TC: an honest client comes back over TCP.
    Slip,
    /// It is refused: its client's address is proven, so that the reply goes to nobody else.
    Refuse,
}

/// What a client may still ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Balance {
    /// As much as it likes, because of this prefix.
    Unlimited(Option<IpNet>),
    /// So many queries at once; 0 when the next one is over the limit.
    Left(u64),
}

/// How much the clients of one core have asked.
#[derive(Debug)]
pub struct RateLimiter {
    sets: Box<[Set]>,
    hasher: RandomState,
    unlimited: Acl,
    ipv4_mask: u128,
    ipv6_mask: u128,
    /// Nanoseconds in which one token comes back.
    token: u64,
    /// Nanoseconds in which an empty bucket becomes one with room for no more than a token.
    room: u64,
    slip: u32,
    forgotten: u64,
}

/// Bytes of one core's table.
#[must_use]
pub const fn bytes(section: &config::Rate) -> usize {
    if section.is_on() { sets(section) * size_of::<Set>() } else { 0 }
}

const fn sets(section: &config::Rate) -> usize {
    section.clients_max.div_ceil(WAYS)
}

impl RateLimiter {
    /// A table in which all buckets are full; none when nobody is limited. `hasher` must not be known to clients.
    #[must_use]
    pub fn new(section: &config::Rate, hasher: RandomState) -> Option<Self> {
        let token = NANOS_PER_SECOND.checked_div(section.queries_per_second.into())?;
        Some(Self {
            sets: vec![Set::default(); sets(section).max(1)].into(),
            hasher,
            unlimited: Acl::new(&config::Acl { allow: section.allow.clone() }),
            ipv4_mask: leading(MAPPED_BITS + section.ipv4_prefix),
            ipv6_mask: leading(section.ipv6_prefix),
            token,
            room: u64::from(section.burst() - 1) * token,
            slip: section.slip,
            forgotten: 0,
        })
    }

    /// Takes a token out of the bucket of `client`. When there is none, says what becomes of the query.
    #[inline]
    pub fn charge(
        &mut self,
        client: IpAddr,
        transport: Transport,
        now: Monotonic,
    ) -> Option<Excess> {
        if self.unlimited.allows(client) {
            return None;
        }
        let (token, room, slip) = (self.token, self.room, self.slip);
        let now = now.as_nanos();
        let bucket = self.bucket(client, transport, now);
        // Capped: should the clock ever go back, nobody waits longer than an empty bucket takes.
        let debt = bucket.full_at.saturating_sub(now).min(room + token);
        if debt > room {
            bucket.full_at = now.saturating_add(debt);
            return Some(bucket.exceed(transport, slip));
        }
        bucket.full_at = now.saturating_add(debt + token);
        None
    }

    /// What `client` may still ask, without a charge.
    #[must_use]
    pub fn balance(&self, client: IpAddr, transport: Transport, now: Monotonic) -> Balance {
        if self.unlimited.allows(client) {
            return Balance::Unlimited(self.unlimited.prefix_of(client));
        }
        let (place, tag) = self.place_of(client, transport);
        let Set(ways) = &self.sets[place];
        let known = ways.get(way_of(tag, ways));
        let full_at = known.map_or(0, |bucket| bucket.full_at);
        let debt = full_at.saturating_sub(now.as_nanos()).min(self.room + self.token);
        Balance::Left((self.room + self.token - debt) / self.token)
    }

    /// Buckets that were given away before they were full again.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// In which set a client's bucket lies, and with which tag.
    #[inline]
    fn place_of(&self, client: IpAddr, transport: Transport) -> (usize, u32) {
        let hash = self.hasher.hash_one(self.prefix(client));
        let is_stream = matches!(transport, Transport::Tcp);
        let [t0, t1, t2, t3, high @ ..] = hash.to_le_bytes();
        // Both buckets of a client lie in one set, and are never taken for each other.
        let tag = u32::from_le_bytes([t0, t1, t2, t3]) & !1 | u32::from(is_stream);
        let place = (u64::from(u32::from_le_bytes(high)) * self.sets.len() as u64) >> 32;
        (usize::try_from(place).expect("below the number of sets"), tag)
    }

    #[inline]
    fn bucket(&mut self, client: IpAddr, transport: Transport, now: u64) -> &mut Bucket {
        let (place, tag) = self.place_of(client, transport);
        let Set(ways) = &mut self.sets[place];
        let mut way = way_of(tag, ways);
        if way == WAYS {
            way = fullest(ways);
            self.forgotten += u64::from(ways[way].full_at > now);
            ways[way] = Bucket { tag, ..Bucket::default() };
        }
        &mut ways[way]
    }

    /// The bits that make a client. IPv4 addresses in IPv6 clothing count as IPv4.
    #[inline]
    fn prefix(&self, client: IpAddr) -> u128 {
        match client.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits() & self.ipv4_mask,
            IpAddr::V6(address) => address.to_bits() & self.ipv6_mask,
        }
    }
}

impl Bucket {
    #[cold]
    const fn exceed(&mut self, transport: Transport, slip: u32) -> Excess {
        match transport {
            Transport::Tcp => Excess::Refuse,
            Transport::Udp if slip == 0 => Excess::Drop,
            Transport::Udp => {
                self.excess += 1;
                if self.excess < slip {
                    return Excess::Drop;
                }
                self.excess = 0;
                Excess::Slip
            }
        }
    }
}

/// Where the bucket with `tag` is; [`WAYS`] when there is none.
#[inline]
fn way_of(tag: u32, ways: &[Bucket; WAYS]) -> usize {
    // All are looked at, without a branch: which one it is cannot be foretold, and a wrong guess costs more than that.
    let numbered = (0..WAYS).zip(ways);
    numbered.fold(WAYS, |found, (way, bucket)| if bucket.tag == tag { way } else { found })
}

/// The bucket that will be full before the others.
fn fullest(ways: &[Bucket; WAYS]) -> usize {
    let mut fullest = 0;
    for way in 1..WAYS {
        if ways[way].full_at < ways[fullest].full_at {
            fullest = way;
        }
    }
    fullest
}

/// A mask of the first `count` bits.
fn leading(count: u8) -> u128 {
    let behind = u128::BITS.saturating_sub(count.into());
    u128::MAX.checked_shl(behind).unwrap_or(0)
}

#[cfg(test)]
mod tests;
