//! The thread that empties the queues: what it finds goes into the open block, and as frames to the receivers of dnstap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::names::Names;
use super::{Sketches, frames, locked, monotonic};
use crate::observe::log::{
    Consumer, Encoder, Entry, LogCounters, Octets, Packed, Packer, Sketch, Told,
};

/// How often the queues are looked at: while there is much to do, and at least.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Bytes of frames from which on they are handed on.
pub(super) const FRAMES_BYTES: usize = 256 << 10;

/// How long a frame waits for others to go on with: whoever takes them is woken for many at a time.
const FRAMES_AGE: Duration = Duration::from_millis(250);

/// The part of a queue that may fill before it is looked at more often: each look costs what a hundred queries do.
const BUSY_PART: usize = 4;

/// How long a query waits in a block that does not fill.
const BLOCK_AGE: Duration = Duration::from_secs(1);

/// How often counts of what is seen most are halved.
const AGING: Duration = Duration::from_secs(600);

/// One way out for frames.
#[derive(Debug)]
pub(super) struct Way {
    /// Takes frames.
    pub(super) frames: SyncSender<Vec<u8>>,
    /// Gives room for frames back: fresh memory would cost more than what is written into it.
    pub(super) spare: Receiver<Vec<u8>>,
}

/// The thread's own.
pub(super) struct Drain {
    pub(super) encoder: Encoder,
    pub(super) octets: Octets,
    pub(super) names: Names,
    pub(super) packing: Option<Packing>,
    pub(super) ways: Vec<Way>,
    pub(super) frames: Frames,
}

/// Frames that go on as a whole.
#[derive(Debug)]
pub(super) struct Frames {
    octets: Vec<u8>,
    /// When the first of them came.
    since: Instant,
    /// How many are of each core, and what is counted of that core.
    cores: Vec<(u64, Arc<LogCounters>)>,
}

impl Drain {
    /// Empties the queues of `cores` until the node `is_ending`.
    pub(super) fn run(
        mut self,
        mut cores: Vec<(Consumer, Arc<LogCounters>)>,
        is_ending: &AtomicBool,
    ) {
        let mut pause = PAUSE_MAX;
        loop {
            // Seen before the queues are looked at: what is in them then is the rest.
            let is_last = is_ending.load(Ordering::Acquire);
            if self.names.take_up()
                && let Some(packing) = &mut self.packing
            {
                packing.packer.forget_labels();
            }
            let mut is_busy = false;
            for (number, (consumer, counters)) in cores.iter_mut().enumerate() {
                let waiting = consumer.waiting_bytes();
                counters.queue_bytes.set(waiting as u64);
                is_busy |= waiting > consumer.capacity_bytes() / BUSY_PART;
                self.empty(number, consumer, counters);
            }
            if let Some(packing) = &mut self.packing {
                packing.look(is_last);
            }
            self.frames.look(&self.ways, is_last);
            if is_last {
                return;
            }
            pause = if is_busy { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            std::thread::sleep(pause);
        }
    }

    /// Takes all out of the queue of core `number` that is in it now.
    fn empty(&mut self, number: usize, consumer: &mut Consumer, counters: &LogCounters) {
        let Self { encoder, octets, names, packing, ways, frames } = self;
        let mut records = 0;
        consumer.drain(|record| {
            let Some(entry) = Entry::read(record) else { return };
            records += 1;
            if let Some(packing) = packing {
                packing.add(number, &entry, names);
            }
            if !ways.is_empty() {
                frames.append(number, &entry, *octets, encoder, names);
                if frames.octets.len() >= FRAMES_BYTES {
                    frames.hand_on(ways);
                }
            }
        });
        counters.records.add(records);
    }
}

impl Frames {
    pub(super) fn new(cores: Vec<Arc<LogCounters>>) -> Self {
        let cores = cores.into_iter().map(|counters| (0, counters)).collect();
        Self { octets: Vec::new(), since: monotonic(), cores }
    }

    fn append(
        &mut self,
        core: usize,
        entry: &Entry<'_>,
        octets: Octets,
        encoder: &mut Encoder,
        names: &Names,
    ) {
        if self.octets.is_empty() {
            self.since = monotonic();
        }
        let list = entry.list.map(|list| names.list(list));
        let wanted = [
            (Told::Query, octets.queries),
            (Told::Response, octets.replies && entry.rcode.is_some()),
        ];
        for (told, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            frames::append(&mut self.octets, |out| {
                encoder.append(told, entry, list.as_deref(), out);
            });
            if let Some((count, _)) = self.cores.get_mut(core) {
                *count += 1;
            }
        }
    }

    /// Hands on what has waited for long, or whatever there is when it `is_last`.
    fn look(&mut self, ways: &[Way], is_last: bool) {
        if !self.octets.is_empty() && (is_last || monotonic() - self.since >= FRAMES_AGE) {
            self.hand_on(ways);
        }
    }

    fn hand_on(&mut self, ways: &[Way]) {
        let Some((last, others)) = ways.split_last() else { return };
        let mut dropped = 0;
        for way in others {
            let mut copy = way.spare.try_recv().unwrap_or_default();
            copy.extend_from_slice(&self.octets);
            dropped += u64::from(way.frames.try_send(copy).is_err());
        }
        let room = last.spare.try_recv().unwrap_or_default();
        let octets = std::mem::replace(&mut self.octets, room);
        dropped += u64::from(last.frames.try_send(octets).is_err());
        for (count, counters) in &mut self.cores {
            counters.dnstap_dropped.add(dropped * std::mem::take(count));
        }
    }
}

/// The open block, from which the store and the counts are fed.
pub(super) struct Packing {
    packer: Packer,
    /// When the open block began.
    since: Instant,
    /// How many queries of each core are in it, and what is counted of that core.
    cores: Vec<(u64, Arc<LogCounters>)>,
    stored: Option<SyncSender<Packed>>,
    counts: Option<Arc<Mutex<Sketches>>>,
    /// How many queries each one that is told stands for.
    sample: u64,
    aged: Instant,
}

impl Packing {
    pub(super) fn new(
        packer: Packer,
        cores: Vec<Arc<LogCounters>>,
        stored: Option<SyncSender<Packed>>,
        counts: Option<Arc<Mutex<Sketches>>>,
        sample: u64,
    ) -> Self {
        let cores = cores.into_iter().map(|counters| (0, counters)).collect();
        let now = monotonic();
        Self { packer, since: now, cores, stored, counts, sample, aged: now }
    }

    fn add(&mut self, core: usize, entry: &Entry<'_>, names: &Names) {
        if self.packer.is_full() {
            self.close(false);
        }
        if self.packer.records() == 0 {
            self.since = monotonic();
        }
        self.packer.add(entry, |label| names.label(label));
        if let Some((records, _)) = self.cores.get_mut(core) {
            *records += 1;
        }
    }

    /// Hands the open block on once it has been open for long. While there is no room for it, it goes on growing.
    fn look(&mut self, is_last: bool) {
        let now = monotonic();
        if self.packer.records() > 0 && (is_last || now - self.since >= BLOCK_AGE) {
            self.close(is_last);
        }
        if now - self.aged >= AGING
            && let Some(counts) = &self.counts
        {
            self.aged = now;
            locked(counts).iter_mut().for_each(Sketch::age);
        }
    }

    /// Ends the block. The last one waits for room; another one that is full and finds none is lost, one that is not stays open.
    fn close(&mut self, is_last: bool) {
        let is_taken = match &self.stored {
            None => true,
            Some(stored) if is_last => stored.send(self.packer.packed()).is_ok(),
            Some(stored) => stored.try_send(self.packer.packed()).is_ok(),
        };
        if !is_taken && !is_last && !self.packer.is_full() {
            self.since = monotonic();
            return;
        }
        for (records, counters) in &mut self.cores {
            let records = std::mem::take(records);
            counters.store_dropped.add(if is_taken { 0 } else { records });
        }
        if let Some(counts) = &self.counts {
            let [names, clients, blocked] = &mut *locked(counts);
            for seen in self.packer.names_seen() {
                names.add(seen.key, u64::from(seen.count) * self.sample);
                if seen.blocked > 0 {
                    blocked.add(seen.key, u64::from(seen.blocked) * self.sample);
                }
            }
            for seen in self.packer.clients_seen() {
                clients.add(seen.key, u64::from(seen.count) * self.sample);
            }
        }
        self.packer.clear();
    }
}
