//! From prefixes that lie within each other to ranges of addresses that follow each other.

use super::Place;

/// A prefix and who lives there. Of two that hold an address, the later in this order counts.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Claim {
    pub(super) bits: u8,
    pub(super) names_listeners: bool,
    pub(super) earlier: std::cmp::Reverse<usize>,
    pub(super) first: u128,
    pub(super) last: u128,
}

/// From which address on who lives there. Prefixes are nested or apart, so the innermost is always on top.
pub(super) fn ranges(
    mut claims: Vec<Claim>,
    place: impl Fn(&Claim) -> Place,
    default: Place,
) -> Vec<(u128, Place)> {
    // From the outermost to the innermost; of the same prefix, the one that counts last.
    claims.sort_unstable_by_key(|claim| (claim.first, *claim));
    let mut out = vec![(0, default)];
    let mut open: Vec<Claim> = Vec::new();
    let close = |open: &mut Vec<Claim>, out: &mut Vec<(u128, Place)>, before: Option<u128>| {
        while let Some(inner) = open.last().copied() {
            if before.is_some_and(|before| inner.last >= before) {
                return;
            }
            open.pop();
            let outer = open.last().map_or(default, &place);
            // Nobody lives behind the last address of all.
            if let Some(next) = inner.last.checked_add(1) {
                begin(out, next, outer);
            }
        }
    };
    for claim in claims {
        close(&mut open, &mut out, Some(claim.first));
        begin(&mut out, claim.first, place(&claim));
        open.push(claim);
    }
    close(&mut open, &mut out, None);
    out
}

/// From `first` on `place`, whatever was said of it before.
fn begin(out: &mut Vec<(u128, Place)>, first: u128, place: Place) {
    match out.last_mut() {
        Some(last) if last.0 == first => last.1 = place,
        _ => out.push((first, place)),
    }
}
