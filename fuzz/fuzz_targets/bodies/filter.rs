//! A filter image from anywhere: opened without a panic, and if it opens, asked for all that could lie in it.
//!
//! Input: one octet that chooses between an image as it stands (even) and one whose length and checksum are made right
//! (odd), so that what lies below them is reached; then the image.

use heimdall_uring::policy::filter::{Asker, Image, Lists};
use heimdall_uring::wire::Rtype;

/// Where the head has the checksum, and the length behind it.
const CHECKSUM_AT: usize = 12;

/// Names that are asked for, besides those that the image itself may hold.
const NAMES: [&[u8]; 4] = [b"\0", b"\x07example\0", b"\x03ads\x07example\0", b"\x3Fcut"];

/// Octets at the end of the image in which names are looked for.
const NAMES_BYTES: usize = 100;

/// Runs one input.
pub(crate) fn run(input: &[u8]) {
    opened(input);
}

/// Runs one input; says whether the image opened.
pub(crate) fn opened(input: &[u8]) -> bool {
    let Some((&choice, bytes)) = input.split_first() else { return false };
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 && bytes.len() >= CHECKSUM_AT + 12 {
        let len = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&len.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[16..]);
        bytes[CHECKSUM_AT..16].copy_from_slice(&checksum.to_le_bytes());
    }
    let Ok(image) = Image::open(&bytes) else { return false };
    let matcher = image.matcher();
    let address = [10, 0, 0, 1].into();
    let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: Some("tv") };
    let ask = |name: &[u8]| {
        let decisions = [matcher.decide(name, &asker), matcher.decide_nsdname(name, &asker)];
        for decision in decisions.into_iter().flatten() {
            assert!(decision.owner_at < name.len());
            assert!(decision.records().count() <= bytes.len());
        }
    };
    NAMES.into_iter().for_each(ask);
    // The end of the image, where its names lie, each place as the beginning of one.
    for at in bytes.len().saturating_sub(NAMES_BYTES)..bytes.len() {
        let end = bytes.len().min(at + 40);
        let name = [&bytes[at..end], b"\0"].concat();
        ask(&name);
    }
    if let Some(decision) = matcher.decide_client(&asker) {
        assert!(decision.records().count() <= bytes.len());
    }
    for address in [[192, 0, 2, 1].into(), "2001:db8::1".parse().expect("it is one")] {
        if let Some(decision) = matcher.decide_address(address, &asker) {
            assert!(decision.records().count() <= bytes.len());
        }
    }
    true
}
