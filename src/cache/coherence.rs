//! What the cores of one node tell each other, so that none serves older data than another has already served.
//!
//! A core that got an answer says so to all others: not the data, but under which key and with what fingerprint. Who
//! holds something else there forgets it; who holds the same, no longer than the other. Names whose data differ with
//! every answer (load balancers) would have the cores chase each other for ever, so an answer that had to be fetched
//! because of another core's carries that on: after [`ROUNDS_MAX`] rounds it stays until it expires.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry;
use super::invalidate::Flush;
use super::key::Key;
use super::shard::Shard;
use super::slab::Place;
use crate::time::CacheTime;
use crate::wire::{Answer, AnswerBuf};

/// How often in a row an entry may be forgotten because another core's differs. Each round costs each core one question
/// to an upstream.
const ROUNDS_MAX: u8 = 2;

/// Notices that wait for one core. A core that is further behind gets one that says "everything" instead.
const NOTICES_MAX: usize = 16_384;

/// Keys whose last answer had to go because of another core, remembered for a while; 24 bytes each.
const ECHOES: usize = 4_096;

/// Places in which one of them may lie.
const WAYS: usize = 4;

/// What one core tells the others.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It got an answer.
    Stored(Box<Stored>),
    /// What was stored until then must not be used any more.
    Flush(Box<Flush>, CacheTime),
}

/// An answer that some core got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The octets of its key.
    pub key: Box<[u8]>,
    /// Of its records, in no order, without TTLs.
    pub fingerprint: u64,
    /// When that core will forget it; never later than any other.
    pub expiry: CacheTime,
    /// Whether it denies the whole name.
    pub is_denial: bool,
    /// How many answers had to go because of each other before this one.
    pub round: u8,
}

/// Notices on their way from one core to all others.
pub type Batch = Arc<[Notice]>;

/// The notices of one core: for whom they wait, in order, within bounds.
#[derive(Debug)]
pub struct Outbox {
    pending: Vec<Notice>,
    mailboxes: Box<[Mailbox]>,
}

#[derive(Debug, Default)]
struct Mailbox {
    batches: VecDeque<Batch>,
    notices: usize,
}

impl Outbox {
    /// An outbox towards `peers` other cores.
    #[must_use]
    pub fn new(peers: usize) -> Self {
        Self { pending: Vec::new(), mailboxes: (0..peers).map(|_| Mailbox::default()).collect() }
    }

    /// Whether there is anybody to tell.
    #[must_use]
    pub const fn has_peers(&self) -> bool {
        !self.mailboxes.is_empty()
    }

    /// Whether something waits to be packed.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds a notice for all other cores.
    pub fn post(&mut self, notice: Notice) {
        if self.has_peers() {
            self.pending.push(notice);
        }
    }

    /// Puts what was posted into all mailboxes, as one batch. A mailbox that would overflow is emptied first, and says
    /// that everything stored until `now` may be old.
    pub fn pack(&mut self, now: CacheTime) {
        let batch: Batch = std::mem::take(&mut self.pending).into();
        if batch.is_empty() {
            return;
        }
        for mailbox in &mut self.mailboxes {
            if mailbox.notices + batch.len() > NOTICES_MAX {
                mailbox.batches.clear();
                mailbox.batches.push_back(Arc::new([Notice::Flush(Box::new(Flush::All), now)]));
                mailbox.notices = 1;
            } else {
                mailbox.batches.push_back(Arc::clone(&batch));
                mailbox.notices += batch.len();
            }
        }
    }

    /// The oldest batch for the peer with that number.
    pub fn take(&mut self, peer: usize) -> Option<Batch> {
        let mailbox = self.mailboxes.get_mut(peer)?;
        let batch = mailbox.batches.pop_front()?;
        mailbox.notices -= batch.len();
        Some(batch)
    }
}

/// Which keys had to go because of other cores, and in which round.
#[derive(Debug)]
pub(super) struct Echoes {
    /// Empty in a node with one core.
    buckets: Box<[[Echo; WAYS]]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Echo {
    hash: u64,
    until: CacheTime,
    round: u8,
}

impl Echoes {
    pub(super) fn none() -> Self {
        Self { buckets: Box::default() }
    }

    fn bucket(&mut self, hash: u64) -> &mut [Echo; WAYS] {
        if self.buckets.is_empty() {
            self.buckets = vec![[Echo::default(); WAYS]; ECHOES / WAYS].into_boxed_slice();
        }
        let at = usize::try_from(hash % self.buckets.len() as u64).expect("there are few buckets");
        &mut self.buckets[at]
    }

    /// Remembers until `until` that the answer under `hash` had to go, for one of round `cause`.
    fn remember(&mut self, hash: u64, cause: u8, until: CacheTime, now: CacheTime) {
        let own = self.round(hash, now);
        let bucket = self.bucket(hash);
        let known = bucket.iter().position(|echo| echo.hash == hash);
        let oldest = bucket.iter().enumerate().min_by_key(|(_, echo)| echo.until);
        let place = known.or_else(|| oldest.map(|(place, _)| place)).expect("buckets have ways");
        bucket[place] = Echo { hash, until, round: cause.max(own) + 1 };
    }

    /// In which round the answer that comes now is.
    fn round(&mut self, hash: u64, now: CacheTime) -> u8 {
        if self.buckets.is_empty() {
            return 0;
        }
        let known = self.bucket(hash).iter().find(|echo| echo.hash == hash && now < echo.until);
        known.map_or(0, |echo| echo.round)
    }
}

impl Shard {
    /// What to tell the others about `answer`, which came for `key` at `now`; nothing after the last round.
    #[must_use]
    pub fn notice(&mut self, key: &Key, answer: &AnswerBuf, now: CacheTime) -> Option<Notice> {
        let round = self.echoes.round(self.hash(key.as_bytes()), now);
        (round <= ROUNDS_MAX).then(|| {
            Notice::Stored(Box::new(Stored {
                key: key.as_bytes().into(),
                fingerprint: self.fingerprint(&answer.view(now)),
                expiry: now.after_seconds(answer.lifetime),
                is_denial: answer.is_denial(),
                round,
            }))
        })
    }

    /// Heeds what another core got: afterwards nothing different is left here, and nothing that lives longer.
    pub fn heed(&mut self, stored: &Stored, now: CacheTime) {
        let Some(mut key) = Key::of_bytes(&stored.key) else { return };
        if let Some(place) = self.place_of(&key) {
            if stored.is_denial {
                self.give_way(&key, place, stored, now);
            } else {
                self.compare(&key, place, stored, now);
            }
        }
        if self.denials == 0 {
            return;
        }
        key.as_denial(|denial| {
            let own = self.place_of(denial);
            match own {
                Some(place) if stored.is_denial => self.compare(denial, place, stored, now),
                Some(place) => self.give_way(denial, place, stored, now),
                None => {}
            }
            if !stored.is_denial {
                // What exists has ancestors that exist.
                let cuts: Vec<Place> =
                    denial.ancestors().filter_map(|above| self.place_of_bytes(above)).collect();
                for place in cuts {
                    self.take_out(self.hash(entry::key_of(self.slab.entry(place))), place);
                }
            }
        });
    }

    fn compare(&mut self, key: &Key, place: Place, stored: &Stored, now: CacheTime) {
        let bytes = self.slab.entry(place);
        if self.fingerprint(&entry::Entry::view(bytes).answer) == stored.fingerprint {
            entry::shorten(self.slab.entry_mut(place), stored.expiry);
        } else {
            self.give_way(key, place, stored, now);
        }
    }

    /// Forgets the entry at `place`, unless it has given way often enough.
    fn give_way(&mut self, key: &Key, place: Place, stored: &Stored, now: CacheTime) {
        let hash = self.hash(key.as_bytes());
        let expiry = entry::expiry(self.slab.entry(place));
        if now < expiry && self.echoes.round(hash, now) > ROUNDS_MAX {
            return;
        }
        self.echoes.remember(hash, stored.round, expiry.max(stored.expiry), now);
        self.take_out(hash, place);
        self.tally.superseded += 1;
    }

    /// A number that two answers share when they hold the same records, in whatever order and with whatever TTLs.
    /// Equal for all shards with the same hasher.
    #[must_use]
    pub fn fingerprint(&self, answer: &Answer<'_>) -> u64 {
        let mut sum = u64::from(answer.shape.rcode.0);
        let mut start = 0;
        for pair in answer.ttls.as_chunks::<2>().0 {
            let ttl_at = usize::from(u16::from_le_bytes(*pair));
            let owner_and_type = answer.body.get(start..ttl_at).unwrap_or_default();
            let rest = answer.body.get(ttl_at + 4..).unwrap_or_default();
            let len = rest.first_chunk().map_or(0, |field| usize::from(u16::from_be_bytes(*field)));
            let rdata = rest.get(..2 + len).unwrap_or_default();
            sum = sum.wrapping_add(self.hash_parts(owner_and_type, rdata));
            start = ttl_at + 6 + len;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flush(number: u64) -> Notice {
        Notice::Flush(Box::new(Flush::All), CacheTime::from_millis(number))
    }

    #[test]
    fn notices_leave_in_order_to_every_peer() {
        let mut outbox = Outbox::new(2);
        for number in 0..3 {
            outbox.post(flush(number));
            outbox.post(flush(number + 10));
            outbox.pack(CacheTime::default());
        }
        for peer in 0..2 {
            let mut times = Vec::new();
            while let Some(batch) = outbox.take(peer) {
                for notice in &*batch {
                    let Notice::Flush(_, until) = notice else { panic!("not posted") };
                    times.push(until.as_millis());
                }
            }
            assert_eq!(times, [0, 10, 1, 11, 2, 12]);
        }
        assert!(outbox.take(2).is_none());
    }

    #[test]
    fn mailbox_that_overflows_says_everything_and_stays_within_its_bound() {
        let mut outbox = Outbox::new(2);
        for number in 0..3 * NOTICES_MAX as u64 {
            outbox.post(flush(number));
            outbox.pack(CacheTime::from_millis(number));
            while outbox.take(1).is_some() {}
            assert!(outbox.mailboxes[0].notices <= NOTICES_MAX);
        }
        let first = outbox.take(0).unwrap();
        let [Notice::Flush(flush, until)] = &first[..] else { panic!("{first:?}") };
        assert!(matches!(**flush, Flush::All));
        assert_eq!(until.as_millis(), 2 * NOTICES_MAX as u64, "it overflowed twice");
    }

    #[test]
    fn without_peers_nothing_is_kept() {
        let mut outbox = Outbox::new(0);
        outbox.post(flush(1));
        assert!(!outbox.has_news() && !outbox.has_peers());
    }
}
