//! A block of the query store from anywhere: opened without a panic, and if it opens, all of it read, and packed anew as the store does.
//!
//! Input: one octet that chooses between a block as it stands (even) and one whose checksum is made right (odd), so that what lies
//! below it is reached; then the block.

use heimdall_uring::observe::log::{Block, Fact, Packer, RECORDS_MAX, may_hold};
use heimdall_uring::wire::Name;

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    rows(input);
}

/// Runs one input; says how many queries the block holds that opened.
pub(crate) fn rows(input: &[u8]) -> usize {
    let Some((&choice, bytes)) = input.split_first() else { return 0 };
    // Whatever stands beside a block as its facts is asked without a panic.
    let _ = may_hold(bytes, &Fact::Within(Name::ROOT)) && may_hold(bytes, &Fact::Qtype(1));
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 && bytes.len() >= 4 {
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    }
    let Ok(block) = Block::open(&bytes) else { return 0 };
    assert!((1..=RECORDS_MAX).contains(&block.len()));
    assert_eq!(block.rows().count(), block.len());
    assert!(block.row(block.len()).is_none());
    assert!(block.shapes().count() <= bytes.len() && block.clients().count() <= bytes.len());
    let mut packer = Packer::new(false, ahash::RandomState::with_seeds(1, 2, 3, 4));
    if packer.append(&block) {
        let packed = packer.packed();
        let again = Block::open(&packed.octets).expect("what we pack opens");
        assert!(again.rows().eq(block.rows()), "it holds what it was made of");
        for row in again.rows() {
            for fact in
                [Fact::Within(row.name.name()), Fact::Client(row.client), Fact::How(row.how)]
            {
                assert!(may_hold(&packed.facts, &fact));
            }
        }
    }
    block.len()
}
