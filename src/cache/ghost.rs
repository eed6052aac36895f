//! What had to go lately, by fingerprint: a name that comes back soon went too early, and says which border to move.

use super::segment::Segment;

/// Fingerprints of one bucket; the last two octets hold the position of the next one to be written.
const WAYS: usize = 15;

const WAYS_U16: u16 = 15;

const _: () = assert!(WAYS == WAYS_U16 as usize);

/// The bit of a fingerprint that says from which segment the entry went.
const WAS_PROTECTED: u16 = 1 << 15;

/// Small rings of fingerprints. One in some two thousand strangers is taken for a name that was here.
#[derive(Debug)]
pub(super) struct Ghosts {
    buckets: Box<[[u16; WAYS + 1]]>,
    /// Remembered from probation, and from the protected segment.
    counts: [usize; 2],
}

impl Ghosts {
    /// Remembers about `entries` names.
    pub(super) fn new(entries: usize) -> Self {
        let buckets = vec![[0; WAYS + 1]; entries.div_ceil(WAYS).max(1)].into_boxed_slice();
        Self { buckets, counts: [0; 2] }
    }

    /// Bytes for `entries` names.
    pub(super) fn bytes_for(entries: usize) -> usize {
        entries.div_ceil(WAYS).max(1) * size_of::<[u16; WAYS + 1]>()
    }

    /// Bytes in use.
    pub(super) const fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Names remembered from probation, and from the segments above it.
    pub(super) const fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// Notes that the entry with `hash` had to go from `segment`.
    pub(super) fn remember(&mut self, hash: u64, segment: Segment) {
        let fingerprint = match segment {
            Segment::Probation => fingerprint(hash),
            Segment::Protected | Segment::Hot => fingerprint(hash) | WAS_PROTECTED,
        };
        let place = self.bucket(hash);
        let [ways @ .., next] = &mut self.buckets[place];
        let way = &mut ways[usize::from(*next) % WAYS];
        let forgotten = std::mem::replace(way, fingerprint);
        *next = (*next + 1) % WAYS_U16;
        self.count(fingerprint, 1);
        self.count(forgotten, -1);
    }

    /// Forgets the name with `hash`, and says from where it had to go, if it is remembered.
    pub(super) fn take(&mut self, hash: u64) -> Option<Segment> {
        let wanted = fingerprint(hash);
        let place = self.bucket(hash);
        let [ways @ .., _] = &mut self.buckets[place];
        let way = ways.iter_mut().find(|way| **way & !WAS_PROTECTED == wanted)?;
        let found = std::mem::take(way);
        self.count(found, -1);
        let was_protected = found & WAS_PROTECTED != 0;
        Some(if was_protected { Segment::Protected } else { Segment::Probation })
    }

    fn count(&mut self, fingerprint: u16, change: isize) {
        if fingerprint != 0 {
            let kind = usize::from(fingerprint & WAS_PROTECTED != 0);
            self.counts[kind] = self.counts[kind].saturating_add_signed(change);
        }
    }

    /// The index's segment and tag come from other bits.
    fn bucket(&self, hash: u64) -> usize {
        (((hash & 0xFFFF_FFFF) * self.buckets.len() as u64) >> 32) as usize
    }
}

/// Fifteen bits, never zero.
fn fingerprint(hash: u64) -> u16 {
    let [.., high, low] = (hash >> 40).to_be_bytes();
    (u16::from_be_bytes([high, low]) & !WAS_PROTECTED).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(number: u64) -> u64 {
        let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ number >> 31
    }

    #[test]
    fn name_is_remembered_once_with_where_it_went_from() {
        let mut ghosts = Ghosts::new(1000);
        ghosts.remember(mix(1), Segment::Probation);
        ghosts.remember(mix(2), Segment::Protected);
        assert_eq!(ghosts.counts(), [1, 1]);
        assert_eq!(ghosts.take(mix(3)), None);
        assert_eq!(ghosts.take(mix(1)), Some(Segment::Probation));
        assert_eq!(ghosts.take(mix(1)), None);
        assert_eq!(ghosts.take(mix(2)), Some(Segment::Protected));
        assert_eq!(ghosts.counts(), [0, 0]);
    }

    #[test]
    fn oldest_names_are_forgotten_first_and_strangers_are_seldom_known() {
        let mut ghosts = Ghosts::new(15_000);
        for number in 0..150_000 {
            ghosts.remember(mix(number), Segment::Probation);
        }
        assert!(ghosts.counts()[0] <= 15_000);
        let known = |ghosts: &mut Ghosts, from: u64| {
            (from..from + 5_000).filter(|&number| ghosts.take(mix(number)).is_some()).count()
        };
        let (recent, old, strangers) =
            (known(&mut ghosts, 145_000), known(&mut ghosts, 0), known(&mut ghosts, 1_000_000));
        assert!(recent > 4_900, "{recent}");
        assert!(old < 20 && strangers < 20, "{old} {strangers}");
    }
}
