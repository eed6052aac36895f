//! Back from a snapshot into a shard. A file may come from anywhere: every entry is looked at whole before it enters, and
//! one that the cache could not have held spoils the file.

use super::entry::{self, Entry};
use super::key::KeyParts;
use super::segment::Segment;
use super::shard::Shard;
use super::slab::PAGE_BYTES;
use super::snapshot::{Caps, Contents, Flaw};
use crate::config::ROOT_VIEW;
use crate::time::CacheTime;
use crate::wire::examine::Examiner;
use crate::wire::response::Question;
use crate::wire::{Answer, Name, Rtype};

/// What became of the entries of a snapshot, or of one core's share.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Restored {
    /// They are in the cache.
    pub kept: u64,
    /// Their time is over, or was not yet when the clock was set back.
    pub untimely: u64,
    /// Others than those who said it are asked for such names now.
    pub strayed: u64,
    /// The same key was there already, not older.
    pub known: u64,
    /// There was no room: neither for these nor for what came behind them.
    pub crowded: u64,
}

impl Shard {
    /// Takes in the share of `core` among `cores`, as of `now`, until there is no more room; nothing that is there has to
    /// leave. `read` fills its buffer with what stands at an offset of the snapshot.
    ///
    /// # Errors
    /// [`Flaw`], or what `read` says: the snapshot cannot be trusted, and what has come in from it has to be forgotten
    /// ([`Shard::empty`]).
    pub fn restore<E: From<Flaw>>(
        &mut self,
        contents: &Contents,
        core: usize,
        cores: usize,
        now: CacheTime,
        read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Restored, E> {
        self.restore_those(contents, (core, cores), now, |_| true, read)
    }

    /// The same, but takes in nothing else than what lies under names that `are_ours`.
    ///
    /// # Errors
    /// As those of [`Self::restore`].
    pub fn restore_those<E: From<Flaw>>(
        &mut self,
        contents: &Contents,
        (core, cores): (usize, usize),
        now: CacheTime,
        are_ours: impl Fn(Name<'_>) -> bool,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Restored, E> {
        let mut restored = Restored::default();
        let mut examiner = Examiner::default();
        let mut buffer = Vec::new();
        for block in contents.share(core, cores) {
            if restored.crowded > 0 {
                restored.crowded += u64::from(block.entries);
                continue;
            }
            buffer.resize(block.len, 0);
            read(block.at, &mut buffer)?;
            block.check(&buffer)?;
            let mut rest = buffer.as_slice();
            for _ in 0..block.entries {
                let (bytes, sound) = examine(rest, &mut examiner).ok_or(Flaw::Entry)?;
                rest = &rest[bytes.len()..];
                if !KeyParts::of_own(sound.key).is_some_and(|parts| are_ours(parts.name)) {
                    continue;
                }
                *match self.take_in(bytes, &sound, contents, now) {
                    Fate::Kept => &mut restored.kept,
                    Fate::Untimely => &mut restored.untimely,
                    Fate::Strayed => &mut restored.strayed,
                    Fate::Known => &mut restored.known,
                    Fate::Crowded => &mut restored.crowded,
                } += 1;
            }
            if !rest.is_empty() {
                return Err(Flaw::Entry.into());
            }
        }
        Ok(restored)
    }

    fn take_in(
        &mut self,
        bytes: &[u8],
        entry: &Entry<'_>,
        contents: &Contents,
        now: CacheTime,
    ) -> Fate {
        let stored = entry.answer.stored;
        if stored > now || now >= entry::expiry(bytes) {
            return Fate::Untimely;
        }
        if !contents.is_of_today(entry.key) {
            return Fate::Strayed;
        }
        let hash = self.hash(entry.key);
        let former = self.place_hashed(hash, entry.key);
        if former.is_some_and(|place| entry::stored(self.slab.entry(place)) >= stored) {
            return Fate::Known;
        }
        if self.is_crowded() {
            return Fate::Crowded;
        }
        let segment = usize::from(Segment::of(entry.mark.segment()).number());
        let Some(place) = self.queues[segment].append(&mut self.slab, bytes.len()) else {
            return Fate::Crowded;
        };
        if let Some(former) = former {
            self.take_out(hash, former);
        }
        let stay = &mut self.slab.entry_mut(place)[..bytes.len()];
        stay.copy_from_slice(bytes);
        cap(stay, contents.caps(), now);
        self.put_in(hash, place);
        Fate::Kept
    }
}

/// What becomes of one entry.
enum Fate {
    Kept,
    Untimely,
    Strayed,
    Known,
    Crowded,
}

/// Leaves the sound entry in `bytes`, and each of its records, no more life beyond `now` than `caps` grant. Where there is
/// an SOA in the authority section, something is denied, and that section lives as long as the denial (RFC 2308 §5).
fn cap(bytes: &mut [u8], caps: Caps, now: CacheTime) {
    let Answer { shape, body, ttls, stored } = Entry::view(bytes).answer;
    let body_at = bytes.len() - body.len();
    let ttls_at = body_at - ttls.len();
    let [answers, authorities, additional] = shape.counts.map(usize::from);
    let authority = answers..answers + authorities;
    let ttl_at = |bytes: &[u8], number: usize| {
        let at = ttls_at + 2 * number;
        body_at + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    };
    // A record's type and class stand before its TTL.
    let is_soa = |number| {
        let at = ttl_at(bytes, number);
        bytes[at - 4..at - 2] == Rtype::SOA.0.to_be_bytes()
    };
    let is_negative = authority.clone().any(is_soa);
    let age = now.seconds_since(stored);
    let mut lifetime = u32::MAX;
    for number in 0..authority.end + additional {
        let is_denial = is_negative && authority.contains(&number);
        let most = if is_denial { caps.negative_ttl } else { caps.ttl }.saturating_add(age);
        let at = ttl_at(bytes, number);
        let field = bytes[at..].first_chunk_mut::<4>().expect("a sound record has a TTL");
        let ttl = u32::from_be_bytes(*field).min(most);
        *field = ttl.to_be_bytes();
        lifetime = lifetime.min(ttl);
    }
    entry::shorten(bytes, stored.after_seconds(lifetime));
}

/// The entry at the front of `bytes`, if the cache could have held it.
fn examine<'a>(bytes: &'a [u8], examiner: &mut Examiner) -> Option<(&'a [u8], Entry<'a>)> {
    let (bytes, entry) = Entry::measure(bytes)?;
    let parts = KeyParts::of_own(entry.key)?;
    let is_denial = parts.qtype.is_none();
    let question = Question {
        qname: parts.name,
        qtype: parts.qtype.unwrap_or(Rtype::ANY),
        qclass: parts.qclass,
    };
    let least_ttl = examiner.least_ttl(&question, &entry.answer, is_denial)?;
    let is_sound = bytes.len() <= PAGE_BYTES
        && entry.mark.is_at_rest()
        && usize::from(bytes[1]) == parts.name.as_bytes().len()
        && parts.view == ROOT_VIEW
        && is_denial == entry.answer.shape.is_denial()
        && (1..=least_ttl).contains(&entry::lifetime(bytes));
    is_sound.then_some((bytes, entry))
}
