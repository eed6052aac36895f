//! Classic BPF as the kernel runs it, for tests: slow, and strict where a program would be refused.

use super::Program;
use super::assemble::code;
use super::cpu::CPU;

fn load(datagram: &[u8], at: u64, len: u64) -> Option<u32> {
    let octets = datagram.get(usize::try_from(at).ok()?..usize::try_from(at + len).ok()?)?;
    Some(octets.iter().fold(0, |word, &octet| (word << 8) | u32::from(octet)))
}

/// What `program` returns for `datagram` on `cpu`.
pub(super) fn run(program: &Program, datagram: &[u8], cpu: u32) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [None; 16], 0);
    loop {
        let step = program.instructions()[at];
        let k = step.k;
        let stored = |memory: &[Option<u32>; 16]| memory[k as usize].expect("stored before");
        at += 1;
        let mut branch =
            |holds| at += usize::from(if holds { step.if_true } else { step.if_false });
        let mut found = |loaded: Option<u32>| loaded.map(|word| a = word);
        let is_in_reach = match step.code {
            code::LOAD_WORD if k == CPU => found(Some(cpu)),
            code::LOAD_WORD => found(load(datagram, k.into(), 4)),
            code::LOAD_HALF => found(load(datagram, k.into(), 2)),
            code::LOAD_WORD_AT_X => found(load(datagram, u64::from(x) + u64::from(k), 4)),
            code::LOAD_OCTET_AT_X => found(load(datagram, u64::from(x) + u64::from(k), 1)),
            _ => Some(()),
        };
        if is_in_reach.is_none() {
            return 0;
        }
        match step.code {
            code::LOAD_WORD | code::LOAD_HALF | code::LOAD_WORD_AT_X | code::LOAD_OCTET_AT_X => {}
            code::LOAD_CONSTANT => a = k,
            code::LOAD_MEMORY => a = stored(&memory),
            code::LOAD_LENGTH => a = u32::try_from(datagram.len()).expect("a datagram"),
            code::LOAD_X_CONSTANT => x = k,
            code::LOAD_X_MEMORY => x = stored(&memory),
            code::STORE => memory[k as usize] = Some(a),
            code::STORE_X => memory[k as usize] = Some(x),
            code::ADD => a = a.wrapping_add(k),
            code::ADD_X => a = a.wrapping_add(x),
            code::SUBTRACT => a = a.wrapping_sub(k),
            code::SUBTRACT_X => a = a.wrapping_sub(x),
            code::MULTIPLY => a = a.wrapping_mul(k),
            code::OR => a |= k,
            code::AND => a &= k,
            code::SHIFT_LEFT => a <<= k,
            code::SHIFT_RIGHT => a >>= k,
            code::SHIFT_RIGHT_X => a = a.checked_shr(x).expect("shifts stay within a word"),
            code::JUMP => at += k as usize,
            code::IF_EQUAL => branch(a == k),
            code::IF_ABOVE => branch(a > k),
            code::IF_AT_LEAST => branch(a >= k),
            code::IF_AT_LEAST_X => branch(a >= x),
            code::RETURN => return k,
            code::RETURN_A => return a,
            code::MOVE_TO_X => x = a,
            code::MOVE_FROM_X => a = x,
            unknown => panic!("no such instruction: {unknown:#x}"),
        }
    }
}
