//! By name: a datagram goes to the core that owns the name it asks for, so that each answer is asked for and kept once.
//!
//! The hash is the same function twice: as a program for the kernel and, for the control plane, in Rust. The name without its
//! root, as it stands on the wire, is taken in words of four octets with bit 5 of each octet set, which folds the case of letters
//! (and some other octets, which does no harm: equal names still meet). Each half of a word is multiplied by a number of
//! its own and the products are added to one more; all of these are random and secret. Of the sum, the upper 16 bits tell the core.
//! So two names that differ once they are folded meet in those with a chance of 1 in 65 536, whatever they are: that is
//! multiply-shift hashing of vectors (Dietzfelbinger 1996), which is pairwise independent. Nobody can find names for one
//! core without seeing where names go, and common beginnings or ends of names do not matter.
//!
//! Bounds: labels beyond [`LABELS_MAX`] and octets beyond [`HASHED_BYTES_MAX`] do not count; names that differ only there go to
//! the same core. Type, class and whatever follows never count.

use super::Program;
use super::assemble::{Assembler, GIVE_BACK, Label, code};

/// Labels that the end of a name is looked for in; reverse names of IPv6 have 34.
const LABELS_MAX: usize = 36;

/// Octets of a name that count. The program grows with them, and kernels before 6.9 take no more than 20 kB.
const HASHED_BYTES_MAX: usize = 192;

const WORDS_MAX: usize = HASHED_BYTES_MAX / WORD_BYTES;
const WORD_BYTES: usize = 4;

const HEADER_BYTES: usize = 12;

/// Type and class of a question.
const TYPE_AND_CLASS_BYTES: usize = 4;

/// Longest label (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: u8 = 63;

/// Longest name without its root (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 254;

/// Folds the case of four letters.
const FOLD: u32 = 0x2020_2020;

/// How much of a datagram decides: a copy of this many octets has the same hash as the whole.
pub const GLIMPSE_BYTES: usize = 272;
const _: () = assert!(GLIMPSE_BYTES > HEADER_BYTES + NAME_BYTES_MAX + TYPE_AND_CLASS_BYTES);

/// Random numbers that a [`Key`] is made of.
pub const KEY_WORDS: usize = 2 * WORDS_MAX + 3;

/// The secret numbers of the hash.
#[derive(Clone)]
pub struct Key {
    words: [[u32; 2]; WORDS_MAX],
    /// For the octets behind the last whole word.
    tail: [u32; 2],
    sum: u32,
}

impl std::fmt::Debug for Key {
    /// Says nothing about the numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key that `numbers` are drawn for.
    #[must_use]
    pub fn new(numbers: [u32; KEY_WORDS]) -> Self {
        let (pairs, rest) = numbers.as_chunks::<2>();
        let mut words = [[0; 2]; WORDS_MAX];
        words.copy_from_slice(&pairs[..WORDS_MAX]);
        Self { words, tail: pairs[WORDS_MAX], sum: rest[0] }
    }

    /// The hash of the name that `datagram` asks for; `None` where the kernel's own hash decides, because nothing is asked for.
    #[must_use]
    pub fn hash(&self, datagram: &[u8]) -> Option<u32> {
        let room = datagram.len().checked_sub(HEADER_BYTES + TYPE_AND_CLASS_BYTES)?;
        if room == 0 || datagram[4..6] != [0, 1] {
            return None;
        }
        self.hash_within(&datagram[HEADER_BYTES..], room)
    }

    /// The hash of every question for `name`, which is whole and in wire form.
    #[must_use]
    pub fn hash_name(&self, name: &[u8]) -> Option<u32> {
        self.hash_within(name, name.len())
    }

    /// The hash of the name at the front of `octets`, whose root stands before `room`.
    fn hash_within(&self, octets: &[u8], room: usize) -> Option<u32> {
        let mut end = 0;
        for _ in 0..LABELS_MAX {
            match octets.get(end)? {
                0 => break,
                len if *len > LABEL_BYTES_MAX => return None,
                len => end += 1 + usize::from(*len),
            }
            if end >= room {
                return None;
            }
        }
        (end <= NAME_BYTES_MAX).then(|| self.sum(&octets[..end.min(HASHED_BYTES_MAX)]))
    }

    fn sum(&self, name: &[u8]) -> u32 {
        let halves = |word: u32, [low, high]: [u32; 2]| {
            (word & 0xFFFF).wrapping_mul(low).wrapping_add((word >> 16).wrapping_mul(high))
        };
        let (words, rest) = name.as_chunks::<WORD_BYTES>();
        let mut sum = self.sum;
        for (word, &factors) in words.iter().zip(&self.words) {
            sum = sum.wrapping_add(halves(u32::from_be_bytes(*word) | FOLD, factors));
        }
        let tail = rest.iter().fold(0, |tail, &octet| (tail << 8) | u32::from(octet | 0x20));
        sum.wrapping_add(halves(tail, self.tail))
    }
}

/// The one of `cores` that owns the names with `hash`.
#[must_use]
pub fn owner(hash: u32, cores: u16) -> u16 {
    let share = ((hash >> 16) * u32::from(cores)) >> 16;
    u16::try_from(share).expect("it is below the number of cores")
}

/// Places of M.
const ROOM: u32 = 0;
const END: u32 = 1;
const WORD: u32 = 2;
const SUM: u32 = 3;
const SHIFT: u32 = 4;

/// Sends what is asked for to one of `cores` by the hash of its name under `key`; the kernel spreads names whose hash is one of
/// `spread`, of which the first [`super::SPREAD_MAX`] count, and what asks for nothing.
#[must_use]
pub fn by_qname(key: &Key, cores: u16, spread: &[u32]) -> Program {
    let mut program = Assembler::default();
    let (give_back, tail, choose) = (program.label(), program.label(), program.label());
    find_end(&mut program, give_back);
    program.put(code::LOAD_X_CONSTANT, key.sum);
    for (&[low, high], at) in key.words.iter().zip((0u32..).step_by(WORD_BYTES)) {
        program.put(code::LOAD_MEMORY, END);
        program.jump_unless(code::IF_AT_LEAST, at + 4, tail);
        program.put(code::LOAD_WORD, 12 + at);
        program.put(code::OR, FOLD);
        add_halves(&mut program, [low, high]);
    }
    program.jump(choose);
    program.place(tail);
    take_tail(&mut program, choose);
    add_halves(&mut program, key.tail);
    program.place(choose);
    program.put(code::MOVE_FROM_X, 0);
    for &hash in spread.iter().take(super::SPREAD_MAX) {
        program.jump_if(code::IF_EQUAL, hash, give_back);
    }
    program.put(code::SHIFT_RIGHT, 16);
    program.put(code::MULTIPLY, cores.into());
    program.put(code::SHIFT_RIGHT, 16);
    program.put(code::RETURN_A, 0);
    program.place(give_back);
    program.put(code::RETURN, GIVE_BACK);
    program.finish()
}

/// M[END] = octets of the name without its root, as far as its first labels go.
///
/// No load may fail, which would end the program with core 0: X stays below M[ROOM], the octets of the datagram without
/// header, type and class.
fn find_end(program: &mut Assembler, give_back: Label) {
    program.put(code::LOAD_LENGTH, 0);
    program.jump_unless(code::IF_AT_LEAST, 12 + 4 + 1, give_back);
    program.put(code::SUBTRACT, 12 + 4);
    program.put(code::STORE, ROOM);
    program.put(code::LOAD_HALF, 4);
    program.jump_unless(code::IF_EQUAL, 1, give_back);
    program.put(code::LOAD_X_CONSTANT, 0);
    let (no_label, found) = (program.label(), program.label());
    for _ in 0..LABELS_MAX {
        program.put(code::LOAD_OCTET_AT_X, 12);
        // Less one, the root is the greatest number there is: one comparison finds it and what is no label.
        program.put(code::SUBTRACT, 1);
        program.jump_if(code::IF_AT_LEAST, LABEL_BYTES_MAX.into(), no_label);
        program.put(code::ADD, 2);
        program.put(code::ADD_X, 0);
        program.put(code::LOAD_X_MEMORY, ROOM);
        program.jump_if(code::IF_AT_LEAST_X, 0, give_back);
        program.put(code::MOVE_TO_X, 0);
    }
    program.jump(found);
    program.place(no_label);
    program.jump_unless(code::IF_EQUAL, u32::MAX, give_back);
    program.place(found);
    program.put(code::MOVE_FROM_X, 0);
    program.jump_if(code::IF_ABOVE, 254, give_back);
    program.put(code::STORE, END);
}

/// X += the halves of A by `low` and `high`.
fn add_halves(program: &mut Assembler, [low, high]: [u32; 2]) {
    program.put(code::STORE, WORD);
    program.put(code::AND, 0xFFFF);
    program.put(code::MULTIPLY, low);
    program.put(code::ADD_X, 0);
    program.put(code::MOVE_TO_X, 0);
    program.put(code::LOAD_MEMORY, WORD);
    program.put(code::SHIFT_RIGHT, 16);
    program.put(code::MULTIPLY, high);
    program.put(code::ADD_X, 0);
    program.put(code::MOVE_TO_X, 0);
}

/// A = the octets of the name behind its last whole word, in its lower bits; goes on at `none` if there are none.
///
/// They are loaded as a word, which type and class complete.
fn take_tail(program: &mut Assembler, none: Label) {
    program.put(code::LOAD_MEMORY, END);
    program.put(code::AND, 3);
    program.jump_if(code::IF_EQUAL, 0, none);
    program.put(code::STORE_X, SUM);
    program.put(code::SHIFT_LEFT, 3);
    program.put(code::MOVE_TO_X, 0);
    program.put(code::LOAD_CONSTANT, 32);
    program.put(code::SUBTRACT_X, 0);
    program.put(code::STORE, SHIFT);
    program.put(code::LOAD_MEMORY, END);
    program.put(code::AND, !3);
    program.put(code::MOVE_TO_X, 0);
    program.put(code::LOAD_WORD_AT_X, 12);
    program.put(code::OR, FOLD);
    program.put(code::LOAD_X_MEMORY, SHIFT);
    program.put(code::SHIFT_RIGHT_X, 0);
    program.put(code::LOAD_X_MEMORY, SUM);
}
