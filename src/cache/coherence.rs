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
use super::key::{Key, KeyParts};
use super::shard::Shard;
use super::slab::Place;
use crate::time::CacheTime;
use crate::wire::{
    Answer, AnswerBuf, Encoder, Flags, Header, MESSAGE_BYTES_MAX, Response, Rtype, rdata,
};

/// How often in a row an entry may be forgotten because another core's differs. Each round costs each core one question
/// to an upstream.
const ROUNDS_MAX: u8 = 3;

/// Notices that wait for one core. A core that is further behind gets one that says "everything" instead.
const NOTICES_MAX: usize = 16_384;

/// Notices that are packed at the latest, whoever takes them.
const BATCH_NOTICES_MAX: usize = 1_024;

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
    pub fn post(&mut self, notice: Notice, now: CacheTime) {
        if !self.has_peers() {
            return;
        }
        self.pending.push(notice);
        if self.pending.len() >= BATCH_NOTICES_MAX {
            self.pack(now);
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
        bucket[place] = Echo { hash, until, round: cause.max(own).saturating_add(1) };
    }

    /// In which round the answer that comes now is.
    fn round(&self, hash: u64, now: CacheTime) -> u8 {
        let Some(at) = hash.checked_rem(self.buckets.len() as u64) else { return 0 };
        let bucket = usize::try_from(at).ok().and_then(|at| self.buckets.get(at));
        let mut echoes = bucket.into_iter().flatten();
        let known = echoes.find(|echo| echo.hash == hash && now < echo.until);
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
                fingerprint: self.fingerprint(key, &answer.view(now)),
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
        if stored.is_denial {
            key.as_denial(|denial| {
                if let Some(place) = self.place_of(denial) {
                    self.compare(denial, place, stored, now);
                }
            });
        } else {
            self.acknowledge(&mut key);
        }
    }

    /// Whether an answer under `key` stays whatever other cores get, since it has given way often enough.
    #[must_use]
    pub fn is_settled(&self, key: &Key, now: CacheTime) -> bool {
        self.echoes.round(self.hash(key.as_bytes()), now) > ROUNDS_MAX
    }

    /// Another core got a different answer while `answer` was asked for here. Says whether it may be kept all the same,
    /// since this key has given way often enough; if not, it has given way once more.
    pub fn insists(&mut self, key: &Key, answer: &AnswerBuf, now: CacheTime) -> bool {
        if self.is_settled(key, now) {
            return true;
        }
        let hash = self.hash(key.as_bytes());
        let own = self.echoes.round(hash, now);
        self.echoes.remember(hash, own, now.after_seconds(answer.lifetime), now);
        self.tally.superseded += 1;
        false
    }

    fn compare(&mut self, key: &Key, place: Place, stored: &Stored, now: CacheTime) {
        let bytes = self.slab.entry(place);
        if self.fingerprint(key, &entry::Entry::view(bytes).answer) == stored.fingerprint {
            entry::shorten(self.slab.entry_mut(place), stored.expiry);
        } else {
            self.give_way(key, place, stored, now);
        }
    }

    /// Forgets the entry at `place`, unless it has given way often enough.
    fn give_way(&mut self, key: &Key, place: Place, stored: &Stored, now: CacheTime) {
        let hash = self.hash(key.as_bytes());
        let expiry = entry::expiry(self.slab.entry(place));
        if now < expiry && self.is_settled(key, now) {
            return;
        }
        self.echoes.remember(hash, stored.round, expiry.max(stored.expiry), now);
        self.take_out(hash, place);
        self.tally.superseded += 1;
    }

    /// A number that two answers to the question of `key` share when they hold the same records, in whatever order and
    /// with whatever TTLs. Equal for all shards with the same hasher.
    #[must_use]
    pub fn fingerprint(&self, key: &Key, answer: &Answer<'_>) -> u64 {
        let begin = u64::from(answer.shape.rcode.0);
        let mut sum = begin;
        let mut start = 0;
        let mut compressed = 0;
        for pair in answer.ttls.as_chunks::<2>().0 {
            let ttl_at = usize::from(u16::from_le_bytes(*pair));
            let owner_and_type = answer.body.get(start..ttl_at).unwrap_or_default();
            let rest = answer.body.get(ttl_at + 4..).unwrap_or_default();
            let len = rest.first_chunk().map_or(0, |field| usize::from(u16::from_be_bytes(*field)));
            let rdata = rest.get(..2 + len).unwrap_or_default();
            compressed += usize::from(points_elsewhere(owner_and_type));
            sum = sum.wrapping_add(self.hash_parts(owner_and_type, rdata));
            start = ttl_at + 6 + len;
        }
        // Of several such records, what each points to depends on their order.
        if compressed < 2 { sum } else { self.expanded_fingerprint(key, answer).unwrap_or(sum) }
    }

    /// The same by records whose names are written out.
    fn expanded_fingerprint(&self, key: &Key, answer: &Answer<'_>) -> Option<u64> {
        let parts = KeyParts::of(key.as_bytes())?;
        let [answers, authorities, additional] = answer.shape.counts;
        let counts = [1, answers, authorities, additional];
        let header = Header { id: 0, flags: Flags(Flags::QR), counts };
        let mut message = Encoder::new(header, MESSAGE_BYTES_MAX);
        let qtype = parts.qtype.unwrap_or(Rtype(0));
        message.question(parts.name, qtype, parts.qclass).ok()?;
        message.bytes(answer.body).ok()?;
        let message = message.into_message();
        let response = Response::parse(&message).ok()?;
        let mut sum = u64::from(answer.shape.rcode.0);
        for record in &response.records {
            let mut written = Encoder::new(header, MESSAGE_BYTES_MAX);
            written.stop_compressing();
            rdata::copy_record(&mut written, &response, record, 0).ok()?;
            sum = sum.wrapping_add(self.hash(&written.into_message()));
        }
        Some(sum)
    }
}

/// Whether records like this, whose owner and type are given, hold names that we compress.
fn points_elsewhere(owner_and_type: &[u8]) -> bool {
    let rtype = owner_and_type.len().checked_sub(4).and_then(|at| owner_and_type.get(at..at + 2));
    let rtype = rtype.and_then(|field| field.first_chunk()).map(|field| u16::from_be_bytes(*field));
    matches!(rtype.map(Rtype), Some(Rtype::NS | Rtype::MX | Rtype(12 | 14)))
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
            outbox.post(flush(number), CacheTime::from_millis(number));
            outbox.post(flush(number + 10), CacheTime::default());
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
            outbox.post(flush(number), CacheTime::from_millis(number));
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
    fn notices_that_nobody_takes_are_bounded() {
        let mut outbox = Outbox::new(1);
        for number in 0..10 * NOTICES_MAX as u64 {
            outbox.post(flush(number), CacheTime::from_millis(number));
            assert!(outbox.pending.len() < BATCH_NOTICES_MAX);
            assert!(outbox.mailboxes[0].notices <= NOTICES_MAX);
        }
    }

    fn mail(order: [(u8, &str); 2]) -> AnswerBuf {
        use crate::wire::answer::AnswerBuilder;
        use crate::wire::response::Section;
        use crate::wire::{Class, NameBuf, Rcode};
        let name = NameBuf::from_text("example.").unwrap();
        let name = name.as_name();
        // As an upstream writes it, uncompressed; copying compresses.
        let mut encoder = Encoder::new(
            Header { id: 0, flags: Flags(Flags::QR), counts: [1, 2, 0, 0] },
            MESSAGE_BYTES_MAX,
        );
        encoder.question(name, Rtype::MX, Class::IN).unwrap();
        encoder.stop_compressing();
        for (preference, exchange) in order {
            let (_, open) = encoder.begin_record(name, Rtype::MX, Class::IN, 60).unwrap();
            encoder.bytes(&[0, preference]).unwrap();
            encoder.name(NameBuf::from_text(exchange).unwrap().as_name()).unwrap();
            encoder.end_rdata(open).unwrap();
        }
        let message = encoder.into_message();
        let response = Response::parse(&message).unwrap();
        let mut builder = AnswerBuilder::new(name, Rtype::MX, Class::IN, Rcode::NOERROR).unwrap();
        for record in &response.records {
            builder.copy(Section::Answer, &response, record, 60).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn fingerprint_knows_no_order_even_where_names_are_compressed() {
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let shard = Shard::new(&crate::config::Cache::default(), 2 << 20, hasher);
        let name = crate::wire::NameBuf::from_text("example.").unwrap();
        let key = Key::plain(name.as_name(), Rtype::MX);
        let (first, second) = ((10, "mail.provider.test."), (20, "spare.provider.test."));
        let [one, other] = [mail([first, second]), mail([second, first])];
        assert_ne!(one.body, other.body);
        let fingerprint =
            |answer: &AnswerBuf| shard.fingerprint(&key, &answer.view(CacheTime::default()));
        assert_eq!(fingerprint(&one), fingerprint(&other));
        let different = mail([first, (30, "spare.provider.test.")]);
        assert_ne!(fingerprint(&one), fingerprint(&different));
    }

    #[test]
    fn without_peers_nothing_is_kept() {
        let mut outbox = Outbox::new(0);
        outbox.post(flush(1), CacheTime::default());
        assert!(!outbox.has_news() && !outbox.has_peers());
    }
}
