//! The cache as a file, in pieces: how a shard is walked while it serves, and the frame around what comes of it. No I/O.
//!
//! ```text
//! head   magic 8 · version 4 · sections 4 · created 8, in milliseconds since the Unix epoch · zones 4
//! zones  for each: fingerprint of its apex 8 · of its upstreams 8; by apex
//! block  1 · segment 1 · 0 2 · section 4 · bytes 4 · entries 4 · CRC-32 of the bytes 4 · entries as they lie in the slab
//! end    2 · 0 3 · blocks 4 · entries 8 · CRC-32 of head, zones, all block frames and this one up to here 4
//! ```
//!
//! Numbers are little-endian. A section is what one core held; the blocks of all sections come in any order. Everything
//! is under a checksum: the frame under that of the end, which is missing when the file is torn, each block's entries
//! under the block's own, so that cores can check them side by side. What the checksums let through is still not
//! trusted: see `restore`.

use std::ops::Range;

use crc32fast::Hasher;
use thiserror::Error;

use super::entry::{self, Entry};
use super::key::KeyParts;
use super::origins::{Origins, ZONE_BYTES, ZONES_MAX};
use super::segment::Segment;
use super::shard::Shard;
use super::slab::{PAGE_BYTES, Place, footprint};
use crate::config::{self, ROOT_VIEW};
use crate::time::CacheTime;

/// The first octets of every snapshot.
pub const MAGIC: [u8; 8] = *b"heimdall";

/// The format that is written and read.
const VERSION: u32 = 2;

/// Bytes of the head.
pub const HEAD_BYTES: usize = 28;

/// Bytes of the frame before each block, and of the end.
pub const FRAME_BYTES: usize = 20;

const KIND_BLOCK: u8 = 1;
const KIND_END: u8 = 2;

/// A block with so many bytes is handed over.
const BLOCK_BYTES: usize = 256 << 10;

/// Longest block: one page may be added to all but a full one.
pub const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + PAGE_BYTES;

/// More cores than any machine has.
const SECTIONS_MAX: u32 = 8_192;

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Flaw {
    /// It does not begin as a snapshot does.
    #[error("it is no snapshot of this program")]
    Foreign,
    /// Another version of this program wrote it.
    #[error("its format is version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// It ends before its end mark.
    #[error("it is torn: the end is missing")]
    Torn,
    /// A checksum does not match.
    #[error("a checksum does not match")]
    Checksum,
    /// Its frame says what cannot be.
    #[error("its frame is broken")]
    Frame,
    /// An entry is not one that the cache could have held.
    #[error("an entry is broken")]
    Entry,
}

/// A run of entries of one segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    segment: Segment,
    entries: u32,
    bytes: Vec<u8>,
}

impl Default for Block {
    fn default() -> Self {
        Self { segment: Segment::Probation, entries: 0, bytes: Vec::new() }
    }
}

impl Block {
    /// The entries, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, segment: Segment, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.segment = segment;
            self.bytes.reserve_exact(BLOCK_BYTES_MAX);
        }
        let mark = entry::mark(bytes).at_rest();
        let at = self.bytes.len();
        self.bytes.extend(bytes);
        entry::set_mark(&mut self.bytes[at..], mark);
        self.entries += 1;
    }
}

/// How far a walk through a shard has come.
///
/// What the shard holds is taken as of the walk's beginning: what is stored later is left out, so that no two entries of
/// a snapshot contradict each other. What is for another view than the root's is left out, too.
#[derive(Clone, Debug)]
pub struct Walk {
    begun: CacheTime,
    flushes: u64,
    /// What is still to be visited; of the first, only these pages.
    segments: &'static [Segment],
    pages: Range<u64>,
}

/// How a step of a walk ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// There is more to come.
    More,
    /// The block is to be taken away before the next step.
    Full,
    /// All entries have been visited.
    Done,
    /// Something was flushed meanwhile, of which earlier blocks may hold the answers: the walk was in vain.
    Flushed,
}

impl Shard {
    /// Begins a walk through all entries, as of `now` or a little earlier.
    #[must_use]
    pub fn walk(&self, now: CacheTime) -> Walk {
        // Upwards: an entry that rises on the way is met twice rather than missed.
        let segments = &Segment::ALL;
        let pages = self.queues[usize::from(segments[0].number())].serials();
        Walk { begun: now, flushes: self.rules.made(), segments, pages }
    }

    /// Goes on by one page, some fifty microseconds, and adds what is fresh there to `block`.
    pub fn walk_on(&self, walk: &mut Walk, block: &mut Block) -> Step {
        if walk.flushes != self.rules.made() {
            return Step::Flushed;
        }
        let Some((&segment, rest)) = walk.segments.split_first() else { return Step::Done };
        let queue = &self.queues[usize::from(segment.number())];
        let Some(serial) = walk.pages.next() else {
            walk.segments = rest;
            if let Some(next) = rest.first() {
                walk.pages = self.queues[usize::from(next.number())].serials();
            }
            return if block.bytes.is_empty() { Step::More } else { Step::Full };
        };
        if let Some((page, filled)) = queue.page(serial) {
            self.copy_fresh(segment, page, filled, walk.begun, block);
        }
        if block.bytes.len() >= BLOCK_BYTES { Step::Full } else { Step::More }
    }

    fn copy_fresh(
        &self,
        segment: Segment,
        page: u32,
        filled: Range<usize>,
        begun: CacheTime,
        block: &mut Block,
    ) {
        let mut at = filled.start;
        while at < filled.end {
            let bytes = self.slab.entry(Place::new(page, at));
            let len = Entry::view(bytes).len();
            at += footprint(len);
            // Which upstreams the number of another view belongs to is up to the config of the next start.
            let is_wanted = !entry::mark(bytes).is_dead()
                && entry::view(bytes) == ROOT_VIEW
                && entry::stored(bytes) < begun
                && begun < entry::expiry(bytes)
                && !self.is_flushed(bytes);
            if is_wanted {
                block.push(segment, &bytes[..len]);
            }
        }
    }
}

/// Frames blocks while a snapshot is written.
#[derive(Clone, Debug)]
pub struct Framer {
    checksum: Hasher,
    blocks: u32,
    entries: u64,
}

impl Framer {
    /// Begins a snapshot of `sections` cores, whose answers come from `origins`; gives head and zones.
    #[must_use]
    pub fn begin(sections: u32, created: CacheTime, origins: &Origins) -> (Self, Vec<u8>) {
        let mut head = MAGIC.to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend(sections.to_le_bytes());
        head.extend(created.as_millis().to_le_bytes());
        head.extend(origins.len().to_le_bytes());
        head.extend(origins.to_bytes());
        let mut checksum = Hasher::new();
        checksum.update(&head);
        (Self { checksum, blocks: 0, entries: 0 }, head)
    }

    /// Adds `block` of `section`; gives what goes before its bytes.
    pub fn block(&mut self, section: u32, block: &Block) -> [u8; FRAME_BYTES] {
        let len = u32::try_from(block.bytes.len()).expect("a block has a bound");
        let mut frame = [0; FRAME_BYTES];
        frame[..2].copy_from_slice(&[KIND_BLOCK, block.segment.number()]);
        frame[4..8].copy_from_slice(&section.to_le_bytes());
        frame[8..12].copy_from_slice(&len.to_le_bytes());
        frame[12..16].copy_from_slice(&block.entries.to_le_bytes());
        frame[16..].copy_from_slice(&crc32fast::hash(&block.bytes).to_le_bytes());
        self.checksum.update(&frame);
        self.blocks += 1;
        self.entries += u64::from(block.entries);
        frame
    }

    /// Entries so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// What goes to the end.
    #[must_use]
    pub fn end(mut self) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        frame[0] = KIND_END;
        frame[4..8].copy_from_slice(&self.blocks.to_le_bytes());
        frame[8..16].copy_from_slice(&self.entries.to_le_bytes());
        self.checksum.update(&frame[..16]);
        frame[16..].copy_from_slice(&self.checksum.finalize().to_le_bytes());
        frame
    }
}

/// A block in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Framed {
    pub(super) section: u32,
    pub(super) segment: Segment,
    /// Where its entries begin.
    pub(super) at: u64,
    pub(super) len: usize,
    pub(super) entries: u32,
    checksum: u32,
}

impl Framed {
    fn read(frame: &[u8; FRAME_BYTES], at: u64) -> Result<Self, Flaw> {
        let len = usize::try_from(u32_at(frame, 8)).map_err(|_| Flaw::Frame)?;
        let (segment, entries) = (frame[1], u32_at(frame, 12));
        let is_sound = segment <= Segment::Hot.number()
            && frame[2..4] == [0; 2]
            && (1..=BLOCK_BYTES_MAX).contains(&len)
            && entries > 0;
        let (section, checksum) = (u32_at(frame, 4), u32_at(frame, 16));
        let segment = Segment::of(segment);
        let framed = Self { section, segment, at, len, entries, checksum };
        if is_sound { Ok(framed) } else { Err(Flaw::Frame) }
    }

    /// Whether `bytes` are those that were written.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Flaw> {
        let is_same = bytes.len() == self.len && crc32fast::hash(bytes) == self.checksum;
        if is_same { Ok(()) } else { Err(Flaw::Checksum) }
    }
}

/// What a snapshot holds: its frame, read and checked, without the entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contents {
    created: CacheTime,
    sections: u32,
    /// The most valuable first.
    blocks: Vec<Framed>,
    /// Whom its answers come from.
    origins: Origins,
    /// Whom they would come from now, if that is not the same for all.
    today: Option<Origins>,
    caps: Caps,
}

/// How long what comes in may still live, in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Caps {
    /// Records in general.
    pub(super) ttl: u32,
    /// What says that something does not exist.
    pub(super) negative_ttl: u32,
}

impl Contents {
    /// The same, with no more life in its entries than `section` grants to answers that come in now.
    #[must_use]
    pub const fn capped(mut self, section: &config::Cache) -> Self {
        self.caps = Caps { ttl: section.ttl_max, negative_ttl: section.negative_ttl_max };
        self
    }

    /// The same, without what comes from others than `today` would be asked.
    #[must_use]
    pub fn only_of(mut self, today: &Origins) -> Self {
        self.today = (self.origins != *today).then(|| today.clone());
        self
    }

    /// Whether the answer under `key` comes from those who would be asked now.
    pub(super) fn is_of_today(&self, key: &[u8]) -> bool {
        let Some(today) = &self.today else { return true };
        KeyParts::of(key).is_some_and(|parts| today.agree(&self.origins, parts.name))
    }

    pub(super) const fn caps(&self) -> Caps {
        self.caps
    }

    /// Reads the frame of a snapshot of `size` bytes; `read` fills its buffer with what stands at an offset.
    ///
    /// # Errors
    /// [`Flaw`], or what `read` says.
    pub fn survey<E: From<Flaw>>(
        size: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut head = [0; HEAD_BYTES];
        let mut at = step(0, HEAD_BYTES, size).map_err(|_| Flaw::Foreign)?;
        read(0, &mut head)?;
        let Head { sections, created, zones } = Head::read(&head)?;
        let behind = step(at, zones * ZONE_BYTES, size)?;
        let mut table = vec![0; zones * ZONE_BYTES];
        read(at, &mut table)?;
        at = behind;
        let mut checksum = Hasher::new();
        checksum.update(&head);
        checksum.update(&table);
        let origins = Origins::of_bytes(&table).ok_or(Flaw::Frame)?;
        // Only a section's last block of a segment may be short.
        let blocks_max = size / BLOCK_BYTES as u64 + 3 * u64::from(sections);
        let (mut blocks, mut entries) = (Vec::new(), 0);
        loop {
            let mut frame = [0; FRAME_BYTES];
            let behind = step(at, FRAME_BYTES, size)?;
            read(at, &mut frame)?;
            match frame[0] {
                KIND_BLOCK => {
                    let block = Framed::read(&frame, behind)?;
                    at = step(behind, block.len, size)?;
                    if block.section >= sections || blocks.len() as u64 >= blocks_max {
                        return Err(Flaw::Frame.into());
                    }
                    checksum.update(&frame);
                    entries += u64::from(block.entries);
                    blocks.push(block);
                }
                KIND_END => {
                    checksum.update(&frame[..16]);
                    let counts = (u64::from(u32_at(&frame, 4)), u64_at(&frame, 8));
                    if checksum.finalize() != u32_at(&frame, 16) {
                        return Err(Flaw::Checksum.into());
                    }
                    if counts != (blocks.len() as u64, entries) || behind != size {
                        return Err(Flaw::Frame.into());
                    }
                    break;
                }
                _ => return Err(Flaw::Frame.into()),
            }
        }
        blocks.sort_by_key(|block| std::cmp::Reverse(block.segment.number()));
        let caps = Caps { ttl: u32::MAX, negative_ttl: u32::MAX };
        Ok(Self { created, sections, blocks, origins, today: None, caps })
    }

    /// When it was written.
    #[must_use]
    pub const fn created(&self) -> CacheTime {
        self.created
    }

    /// The blocks for `core` of `cores`, the most valuable first.
    ///
    /// With fewer cores than sections each core takes several; with more, each section goes to several cores, because a
    /// name may be asked for on any.
    pub(super) fn share(&self, core: usize, cores: usize) -> impl Iterator<Item = &Framed> {
        let sections = usize::try_from(self.sections).unwrap_or(usize::MAX);
        self.blocks.iter().filter(move |block| {
            let section = usize::try_from(block.section).unwrap_or(usize::MAX);
            if sections >= cores { section % cores == core } else { core % sections == section }
        })
    }
}

/// What stands at the beginning.
struct Head {
    sections: u32,
    created: CacheTime,
    zones: usize,
}

impl Head {
    fn read(head: &[u8; HEAD_BYTES]) -> Result<Self, Flaw> {
        if head[..8] != MAGIC {
            return Err(Flaw::Foreign);
        }
        let (version, sections) = (u32_at(head, 8), u32_at(head, 12));
        if version != VERSION {
            return Err(Flaw::Version(version));
        }
        let created = CacheTime::from_millis(u64_at(head, 16));
        let zones = usize::try_from(u32_at(head, 24)).map_err(|_| Flaw::Frame)?;
        let is_sound = (1..=SECTIONS_MAX).contains(&sections) && zones <= ZONES_MAX;
        if is_sound { Ok(Self { sections, created, zones }) } else { Err(Flaw::Frame) }
    }
}

/// The offset `len` bytes behind `at`, if the file goes so far.
fn step(at: u64, len: usize, size: u64) -> Result<u64, Flaw> {
    at.checked_add(len as u64).filter(|&end| end <= size).ok_or(Flaw::Torn)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("frames have their fields"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("frames have their fields"))
}

#[cfg(test)]
mod tests;
