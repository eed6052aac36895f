//! Classic BPF, one instruction at a time. A is the accumulator, X the index register, M some words of memory; all have 32
//! bits, and comparisons are unsigned (Documentation/networking/filter.rst).

use super::Program;
use crate::sys::reuseport::Instruction;

/// What an instruction does, by its code.
pub(super) mod code {
    /// A = k.
    pub(in super::super) const LOAD_CONSTANT: u16 = 0x00;
    /// A = four octets at k.
    pub(in super::super) const LOAD_WORD: u16 = 0x20;
    /// A = two octets at k.
    pub(in super::super) const LOAD_HALF: u16 = 0x28;
    /// A = four octets at X + k.
    pub(in super::super) const LOAD_WORD_AT_X: u16 = 0x40;
    /// A = the octet at X + k.
    pub(in super::super) const LOAD_OCTET_AT_X: u16 = 0x50;
    /// A = M[k].
    pub(in super::super) const LOAD_MEMORY: u16 = 0x60;
    /// A = octets of the datagram.
    pub(in super::super) const LOAD_LENGTH: u16 = 0x80;
    /// X = k.
    pub(in super::super) const LOAD_X_CONSTANT: u16 = 0x01;
    /// X = M[k].
    pub(in super::super) const LOAD_X_MEMORY: u16 = 0x61;
    /// M[k] = A.
    pub(in super::super) const STORE: u16 = 0x02;
    /// M[k] = X.
    pub(in super::super) const STORE_X: u16 = 0x03;
    /// A += k.
    pub(in super::super) const ADD: u16 = 0x04;
    /// A += X.
    pub(in super::super) const ADD_X: u16 = 0x0c;
    /// A -= k.
    pub(in super::super) const SUBTRACT: u16 = 0x14;
    /// A -= X.
    pub(in super::super) const SUBTRACT_X: u16 = 0x1c;
    /// A *= k.
    pub(in super::super) const MULTIPLY: u16 = 0x24;
    /// A |= k.
    pub(in super::super) const OR: u16 = 0x44;
    /// A &= k.
    pub(in super::super) const AND: u16 = 0x54;
    /// A <<= k.
    pub(in super::super) const SHIFT_LEFT: u16 = 0x64;
    /// A >>= k.
    pub(in super::super) const SHIFT_RIGHT: u16 = 0x74;
    /// A >>= X.
    pub(in super::super) const SHIFT_RIGHT_X: u16 = 0x7c;
    /// Goes on k instructions further.
    pub(in super::super) const JUMP: u16 = 0x05;
    /// Compares A with k.
    pub(in super::super) const IF_EQUAL: u16 = 0x15;
    /// Whether A is above k.
    pub(in super::super) const IF_ABOVE: u16 = 0x25;
    /// Whether A is k or above.
    pub(in super::super) const IF_AT_LEAST: u16 = 0x35;
    /// Whether A is X or above.
    pub(in super::super) const IF_AT_LEAST_X: u16 = 0x3d;
    /// The result is k.
    pub(in super::super) const RETURN: u16 = 0x06;
    /// The result is A.
    pub(in super::super) const RETURN_A: u16 = 0x16;
    /// X = A.
    pub(in super::super) const MOVE_TO_X: u16 = 0x07;
    /// A = X.
    pub(in super::super) const MOVE_FROM_X: u16 = 0x87;
}

/// No socket has this index: the kernel's own hash decides.
pub(super) const GIVE_BACK: u32 = u32::MAX;

/// A place in a program that jumps lead to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// Jumps whose distance is not known yet.
    jumps: Vec<(usize, Label)>,
    /// Where labels stand, once they do.
    places: Vec<Option<usize>>,
}

impl Assembler {
    /// Appends an instruction without branches.
    pub(super) fn put(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction { code, if_true: 0, if_false: 0, k });
    }

    /// A label that stands nowhere yet.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label stands here.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.instructions.len());
    }

    /// Goes on at `label`, which stands further down.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.put(code::JUMP, 0);
    }

    /// Goes on at `label` if the comparison holds. Comparisons themselves reach only 255 instructions far.
    pub(super) fn jump_if(&mut self, comparison: u16, k: u32, label: Label) {
        self.instructions.push(Instruction { code: comparison, if_true: 0, if_false: 1, k });
        self.jump(label);
    }

    /// Goes on at `label` unless the comparison holds.
    pub(super) fn jump_unless(&mut self, comparison: u16, k: u32, label: Label) {
        self.instructions.push(Instruction { code: comparison, if_true: 1, if_false: 0, k });
        self.jump(label);
    }

    /// The program.
    pub(super) fn finish(mut self) -> Program {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("every label is placed");
            let distance = place.checked_sub(at + 1).expect("labels stand behind their jumps");
            self.instructions[at].k = u32::try_from(distance).expect("programs are short");
        }
        Program(self.instructions)
    }
}
