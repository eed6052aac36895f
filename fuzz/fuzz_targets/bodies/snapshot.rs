//! A snapshot file from anywhere: read back without a panic, and whatever comes into the cache from it can be asked for and
//! gives a well-formed reply.
//!
//! Input: one octet that chooses between a file as it stands (even) and one whose checksums and counts are made right
//! (odd), so that the entries are reached; then the file.

use heimdall_uring::cache::snapshot::{
    Block, Contents, FRAME_BYTES, Flaw, Framer, HEAD_BYTES, Step,
};
use heimdall_uring::cache::{Key, KeyParts, Lookup, Origins, Shard};
use heimdall_uring::config;
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::case::Folding;
use heimdall_uring::wire::patch::{self, Aging, Framing};
use heimdall_uring::wire::{Encoder, Flags, Header, Query, Rtype};

use super::check;

/// The clock of the node that reads the file, in seconds.
const NOW: u64 = 1_000_000;

/// What a zone takes in a file: two fingerprints.
const ZONE_BYTES: usize = 16;

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    entries_asked_for(input);
}

/// Runs one input; says how many entries came into the cache and were asked for.
pub(crate) fn entries_asked_for(input: &[u8]) -> usize {
    let Some((&choice, bytes)) = input.split_first() else { return 0 };
    let mended = if choice & 1 == 1 { mended(bytes) } else { bytes.to_vec() };
    let mut shard = shard();
    if restore(&mended, &mut shard, [0, 1]).is_err() {
        // Half a file is no file: the node forgets what came in before the flaw was met.
        shard.empty();
        assert!(shard.is_empty());
        return 0;
    }
    assert_eq!(shard.tally().evictions, 0, "nothing had to leave");
    let held = held(&shard);
    assert_eq!(held.len(), shard.len(), "every entry can be walked again");
    for key in &held {
        check_entry(&mut shard, key);
    }
    check_dealt(&mended, shard.len());
    held.len()
}

fn shard() -> Shard {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    Shard::new(&config::Cache::default(), 1 << 20, hasher)
}

fn now() -> Now {
    Now { cache: CacheTime::from_millis(NOW * 1000), ..Now::default() }
}

fn reader(file: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Flaw> {
    |at, buffer| {
        let at = usize::try_from(at).expect("it lies within the file");
        buffer.copy_from_slice(&file[at..at + buffer.len()]);
        Ok(())
    }
}

fn restore(file: &[u8], shard: &mut Shard, [core, cores]: [usize; 2]) -> Result<(), Flaw> {
    // This node has no zones; names in those of the file stray.
    let contents = Contents::survey(file.len() as u64, reader(file))?.only_of(&Origins::default());
    shard.restore(&contents, core, cores, now().cache, reader(file)).map(drop)
}

/// The file with its checksums and counts made right, so that what lies below them is reached.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let Some((head, mut rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return bytes.to_vec();
    };
    let sections = head[12] % 4 + 1;
    let (_, mut file) = Framer::begin(sections.into(), now().cache, &Origins::default());
    let zones = usize::from(head[24] % 4).min(rest.len() / ZONE_BYTES);
    file[24] = u8::try_from(zones).expect("they are few");
    let (table, behind) = rest.split_at(zones * ZONE_BYTES);
    file.extend(table);
    rest = behind;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&file);
    let (mut blocks, mut all_entries) = (0u32, 0u64);
    while let Some((frame, behind)) = rest.split_first_chunk::<FRAME_BYTES>() {
        let len = usize::from(u16::from_le_bytes([frame[8], frame[9]])).min(behind.len());
        let lens = entries(&behind[..len]);
        let whole: usize = lens.iter().map(|entry| entry.len()).sum();
        rest = &behind[len..];
        if lens.is_empty() {
            continue;
        }
        let count = u32::try_from(lens.len()).expect("few fit");
        let mut frame = *frame;
        frame[0] = 1;
        frame[4] %= sections;
        frame[5..8].fill(0);
        frame[8..12].copy_from_slice(&u32::try_from(whole).expect("it is short").to_le_bytes());
        frame[12..16].copy_from_slice(&count.to_le_bytes());
        frame[16..].copy_from_slice(&crc32fast::hash(&behind[..whole]).to_le_bytes());
        checksum.update(&frame);
        file.extend(frame);
        file.extend(&behind[..whole]);
        blocks += 1;
        all_entries += u64::from(count);
    }
    let mut end = [0; FRAME_BYTES];
    end[0] = 2;
    end[4..8].copy_from_slice(&blocks.to_le_bytes());
    end[8..16].copy_from_slice(&all_entries.to_le_bytes());
    checksum.update(&end[..16]);
    end[16..].copy_from_slice(&checksum.finalize().to_le_bytes());
    file.extend(end);
    file
}

/// The entries that `bytes` begin with, by their own lengths alone: a second reader of the format.
fn entries(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(len) = entry_len(bytes).filter(|&len| len <= bytes.len()) {
        let (entry, rest) = bytes.split_at(len);
        found.push(entry);
        bytes = rest;
    }
    found
}

/// Where the key of an entry begins: behind a head of 14 octets and one count, or three and where the body may be cut.
fn key_at(entry: &[u8]) -> Option<usize> {
    Some(if *entry.get(2)? & 0xC0 == 0x80 { 22 } else { 15 })
}

/// The octets of a key: name, type, view, bits, and a class if they say so.
fn key_len(entry: &[u8]) -> Option<usize> {
    let plain = usize::from(*entry.get(1)?) + 4;
    let bits = *entry.get(key_at(entry)? + plain - 1)?;
    Some(plain + if bits & 4 == 0 { 0 } else { 2 })
}

fn entry_len(entry: &[u8]) -> Option<usize> {
    let pair =
        |at: usize| Some(usize::from(u16::from_le_bytes([*entry.get(at)?, *entry.get(at + 1)?])));
    let key_at = key_at(entry)?;
    let records = match key_at {
        22 => pair(14)? + pair(16)? + pair(18)?,
        _ => usize::from(*entry.get(14)?),
    };
    Some(key_at + key_len(entry)? + 2 * records + pair(12)?)
}

/// The keys of all entries.
fn held(shard: &Shard) -> Vec<Vec<u8>> {
    let (mut walk, mut block) = (shard.walk(now().cache.after_seconds(1)), Block::default());
    let mut keys = Vec::new();
    loop {
        match shard.walk_on(&mut walk, &mut block) {
            Step::More => {}
            Step::Full => {
                let block = std::mem::take(&mut block);
                keys.extend(entries(block.bytes()).into_iter().map(|entry| {
                    let at = key_at(entry).expect("entries are whole");
                    entry[at..at + key_len(entry).expect("entries are whole")].to_vec()
                }));
            }
            Step::Done => return keys,
            Step::Flushed => panic!("nothing is flushed"),
        }
    }
}

/// Whoever asks for what `key` stands for gets a well-formed reply, whole or cut.
fn check_entry(shard: &mut Shard, key: &[u8]) {
    let parts = KeyParts::of(key).expect("keys in a shard are whole");
    let message = query(&parts);
    let query = Query::parse(&message).expect("we read what we write");
    let mut key = Key::default();
    key.set(&query, parts.view, Folding::WORDS);
    let answer = match shard.lookup(&mut key, now()) {
        Lookup::Fresh { answer, .. } | Lookup::Denied(answer) => answer,
        Lookup::Stale(_) | Lookup::Absent => panic!("what was restored is found: {key:?}"),
    };
    assert!(answer.stored <= now().cache);
    for (limit, age) in [(65_535, 0), (1_232, 7), (512, u32::MAX)] {
        let mut out = vec![0xEE; 65_535];
        let framing = Framing { limit, payload_bytes: 1232, ede: None };
        let len = patch::reply(&query, &answer, Aging::By(age), framing, &mut out);
        out.truncate(len.expect("question and OPT fit"));
        check::reply(&query, &out, limit);
    }
}

fn query(parts: &KeyParts<'_>) -> Vec<u8> {
    let cd = if parts.is_checking_disabled { 0x0010 } else { 0 };
    let header = Header { id: 7, flags: Flags(Flags::RD | cd), counts: [1, 0, 0, 1] };
    let mut encoder = Encoder::new(header, 512);
    let mut write = || {
        encoder.question(parts.name, parts.qtype.unwrap_or(Rtype::A), parts.qclass)?;
        let wants_dnssec = if parts.wants_dnssec { 0x80 } else { 0 };
        encoder.bytes(&[0, 0, 41, 4, 208, 0, 0, wants_dnssec, 0, 0, 0])
    };
    write().expect("a question fits");
    encoder.into_message()
}

/// Dealt to two and three cores, each entry lies on some core, and none holds more than the whole.
fn check_dealt(file: &[u8], whole: usize) {
    for cores in [2, 3] {
        let mut sum = 0;
        for core in 0..cores {
            let mut shard = shard();
            restore(file, &mut shard, [core, cores]).expect("it was good as a whole");
            assert!(shard.len() <= whole);
            sum += shard.len();
        }
        assert!(sum >= whole, "{sum} of {whole} on {cores} cores");
    }
}
