//! Hot path. A bounded queue of records between two threads: one appends, one takes out, and neither waits for the other.
//!
//! The records lie in words of eight bytes, one behind the other, in a ring. Each side owns one of two numbers, of the words
//! ever written and ever read; what lies between them belongs to the reader, the rest to the writer. The words are atomic,
//! so that all of this is safe code: on the machines we know, their loads and stores are plain ones.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const WORD_BYTES: usize = 8;

/// Words that are copied in one go: a compiler leaves loops over atomic words as they are.
const AT_ONCE: usize = 4;

/// Most words of one record: a query and a reply, both as long as messages get, and what is said beside them.
const RECORD_WORDS_MAX: usize = 2 * (1 << 16) / WORD_BYTES + 64;

/// A number that one side writes and the other one looks at, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Mark(AtomicU64);

#[derive(Debug)]
struct Ring {
    words: Box<[AtomicU64]>,
    written: Mark,
    read: Mark,
}

/// The side that appends.
#[derive(Debug)]
pub struct Producer {
    ring: Arc<Ring>,
    written: Cell<u64>,
    /// What it saw last of the other side: looked at again only when there seems to be no room.
    read: Cell<u64>,
}

/// The side that takes out.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    read: u64,
    record: Vec<[u8; WORD_BYTES]>,
}

/// A queue that holds `bytes`, rounded up to a power of two.
#[must_use]
pub fn queue(bytes: usize) -> (Producer, Consumer) {
    let words = (bytes / WORD_BYTES).max(1).next_power_of_two();
    let words = (0..words).map(|_| AtomicU64::new(0)).collect();
    let ring = Arc::new(Ring { words, written: Mark::default(), read: Mark::default() });
    let producer =
        Producer { ring: Arc::clone(&ring), written: Cell::default(), read: Cell::default() };
    (producer, Consumer::new(ring))
}

impl Ring {
    /// The word with a number that only grows.
    #[inline]
    fn word(&self, number: u64) -> &AtomicU64 {
        // The ring's length is a power of two, so that the lower bits of the number are a place in it.
        let mask = self.words.len() - 1;
        let place = usize::try_from(number & mask as u64).unwrap_or(0);
        &self.words[place]
    }

    /// The words from the one with this number on, so many of them: the first part up to the end of the ring, the rest from its
    /// beginning.
    #[inline]
    fn stretch(&self, number: u64, count: u64) -> [&[AtomicU64]; 2] {
        let mask = self.words.len() - 1;
        let begin = usize::try_from(number & mask as u64).unwrap_or(0);
        let count = usize::try_from(count).unwrap_or(0).min(self.words.len());
        let first = count.min(self.words.len() - begin);
        [&self.words[begin..begin + first], &self.words[..count - first]]
    }

    #[inline]
    const fn capacity(&self) -> u64 {
        self.words.len() as u64
    }
}

impl Producer {
    /// Appends a record made of `parts`, each of which is filled up to whole words; `false` when there is no room for it.
    #[inline]
    pub fn push(&self, parts: &[&[u8]]) -> bool {
        let words: usize =
            1 + parts.iter().map(|part| part.len().div_ceil(WORD_BYTES)).sum::<usize>();
        let begin = self.written.get();
        let end = begin + words as u64;
        if words > RECORD_WORDS_MAX || !self.has_room(end) {
            return false;
        }
        match self.ring.stretch(begin, words as u64) {
            [[first, rest @ ..], []] => {
                first.store(words as u64, Ordering::Relaxed);
                fill(rest, parts);
            }
            _ => self.fill_around(begin, words, parts),
        }
        self.written.set(end);
        // Whoever sees this number sees the words before it.
        self.ring.written.0.store(end, Ordering::Release);
        true
    }

    /// Writes a record that goes on at the beginning of the ring.
    #[cold]
    fn fill_around(&self, begin: u64, words: usize, parts: &[&[u8]]) {
        self.ring.word(begin).store(words as u64, Ordering::Relaxed);
        let mut next = begin + 1;
        for part in parts {
            for chunk in part.chunks(WORD_BYTES) {
                self.ring.word(next).store(last_word(chunk, chunk.len()), Ordering::Relaxed);
                next += 1;
            }
        }
    }

    #[inline]
    fn has_room(&self, end: u64) -> bool {
        let fits = |read: u64| end - read <= self.ring.capacity();
        if fits(self.read.get()) {
            return true;
        }
        // What the reader has given back, it has read before.
        self.read.set(self.ring.read.0.load(Ordering::Acquire));
        fits(self.read.get())
    }
}

/// Writes `parts` one behind the other, each from a word on: there is a word for each.
#[inline]
fn fill(mut words: &[AtomicU64], parts: &[&[u8]]) {
    for part in parts {
        let (whole, rest) = part.as_chunks::<WORD_BYTES>();
        let (places, behind) = words.split_at(whole.len());
        let (fours, places) = places.as_chunks::<AT_ONCE>();
        let (four_chunks, chunks) = whole.as_chunks::<AT_ONCE>();
        fours.iter().zip(four_chunks).for_each(|(words, chunks)| put(words, chunks));
        put(places, chunks);
        words = behind;
        if !rest.is_empty()
            && let [word, behind @ ..] = words
        {
            word.store(last_word(part, rest.len()), Ordering::Relaxed);
            words = behind;
        }
    }
}

#[inline]
fn put(words: &[AtomicU64], chunks: &[[u8; WORD_BYTES]]) {
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
}

/// The last `count` octets of `part`, which are at most a word, and zeros behind them.
#[inline]
fn last_word(part: &[u8], count: usize) -> u64 {
    if let Some(chunk) = part.last_chunk() {
        // A whole word is read and moved down: a call for some octets would cost more.
        return u64::from_le_bytes(*chunk) >> (8 * (WORD_BYTES - count));
    }
    part.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

/// Copies `words` to `chunks`, of which there are as many.
#[inline]
fn copy(words: &[AtomicU64], chunks: &mut [[u8; WORD_BYTES]]) {
    let (fours, words) = words.as_chunks::<AT_ONCE>();
    let (four_chunks, chunks) = chunks.as_chunks_mut::<AT_ONCE>();
    fours.iter().zip(four_chunks).for_each(|(words, chunks)| take(words, chunks));
    take(words, chunks);
}

#[inline]
fn take(words: &[AtomicU64], chunks: &mut [[u8; WORD_BYTES]]) {
    for (word, chunk) in words.iter().zip(chunks) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

impl Consumer {
    fn new(ring: Arc<Ring>) -> Self {
        Self { ring, read: 0, record: Vec::new() }
    }

    /// Hands each record that is there now to `each`, oldest first, and gives its room back.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let written = self.ring.written.0.load(Ordering::Acquire);
        while self.read < written {
            let words = self.ring.word(self.read).load(Ordering::Relaxed).max(1);
            let [first, second] = self.ring.stretch(self.read + 1, words - 1);
            let len = first.len() + second.len();
            if self.record.len() < len {
                self.record.resize(len, [0; WORD_BYTES]);
            }
            let record = &mut self.record[..len];
            let (before, behind) = record.split_at_mut(first.len());
            copy(first, before);
            copy(second, behind);
            self.read += words;
            // Record by record, so that the writer has room again while this side works.
            self.ring.read.0.store(self.read, Ordering::Release);
            each(record.as_flattened());
        }
    }

    /// Gives the room of all records that are there now back, unread.
    pub fn forget(&mut self) {
        self.read = self.ring.written.0.load(Ordering::Acquire);
        self.ring.read.0.store(self.read, Ordering::Release);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        let words = self.ring.written.0.load(Ordering::Relaxed) - self.read;
        usize::try_from(words).map_or(usize::MAX, |words| words * WORD_BYTES)
    }

    /// Bytes that can wait.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.ring.words.len() * WORD_BYTES
    }

    /// Whether the other side is gone: what is taken out after that is the rest.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        let is_alone = Arc::strong_count(&self.ring) == 1;
        // The other side let go after its last record.
        fence(Ordering::Acquire);
        is_alone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn padded(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut record = Vec::new();
        for part in parts {
            record.extend_from_slice(part);
            record.resize(record.len().next_multiple_of(8), 0);
        }
        record
    }

    #[test]
    fn record_that_does_not_fit_is_refused_and_changes_nothing() {
        let (producer, mut consumer) = queue(64);
        assert!(producer.push(&[&[1; 24], &[2; 17]]), "seven words of eight");
        assert!(!producer.push(&[&[3; 8]]));
        let mut seen = Vec::new();
        consumer.drain(|record| seen.push(record.to_vec()));
        assert_eq!(seen, [padded(&[vec![1; 24], vec![2; 17]])]);
        assert!(producer.push(&[&[3; 8]]), "there is room again");
        assert!(!producer.push(&[&[4; 64]]), "longer than the ring");
        drop(producer);
        assert!(consumer.is_abandoned());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<Vec<u8>>),
        Drain,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let part = prop::collection::vec(any::<u8>(), 0..60);
        let push = prop::collection::vec(part, 1..4).prop_map(Step::Push);
        prop::collection::vec(prop_oneof![4 => push, 1 => Just(Step::Drain)], 0..200)
    }

    proptest! {
        #[test]
        fn queue_holds_what_a_model_holds(steps in steps(), shift in 6..11_u32) {
            let (producer, mut consumer) = queue(1 << shift);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(parts) => {
                        let record = padded(&parts);
                        let held: usize = model.iter().map(|record| record.len() + 8).sum();
                        let fits = held + record.len() + 8 <= 1 << shift;
                        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                        prop_assert_eq!(producer.push(&parts), fits);
                        if fits {
                            model.push_back(record);
                        }
                    }
                    Step::Drain => {
                        let mut seen = VecDeque::new();
                        consumer.drain(|record| seen.push_back(record.to_vec()));
                        prop_assert_eq!(&seen, &model);
                        model.clear();
                    }
                }
                let held: usize = model.iter().map(|record| record.len() + 8).sum();
                prop_assert_eq!(consumer.waiting_bytes(), held);
            }
        }

        #[test]
        fn two_threads_see_the_same_records_in_the_same_order(
            lengths in prop::collection::vec(0..90_usize, 1..2_000),
            shift in 7..12_u32,
        ) {
            let (producer, mut consumer) = queue(1 << shift);
            let record = |(number, len): (usize, &usize)| {
                [&number.to_le_bytes()[..], &vec![number.to_le_bytes()[0]; *len]].concat()
            };
            let records: Vec<Vec<u8>> = lengths.iter().enumerate().map(record).collect();
            let sent = records.clone();
            let writer = std::thread::spawn(move || {
                let fits = |record: &Vec<u8>| producer.push(&[record]);
                sent.iter().map(fits).collect::<Vec<bool>>()
            });
            let mut seen = Vec::new();
            while !consumer.is_abandoned() {
                consumer.drain(|record| seen.push(record.to_vec()));
            }
            consumer.drain(|record| seen.push(record.to_vec()));
            let fitted = writer.join().unwrap();
            let expected = records.into_iter().zip(fitted).filter(|(_, fitted)| *fitted);
            let expected: Vec<Vec<u8>> = expected.map(|(record, _)| padded(&[record])).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
