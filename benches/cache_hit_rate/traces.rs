//! Which names are asked for, one after the other: traces drawn from a seed, the same in every run.

/// Numbers from here on stand for names that only scans ask for.
const SCANNED: u32 = 5_000_000;

/// Scans take one turn after so many cache lengths of other requests.
const LENGTHS_BETWEEN_SCANS: usize = 4;

/// xorshift64: the lower bits are not used.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform, at least 0 and below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Draws ranks: rank `r`, from 1 on, with a probability in proportion to `r` to the power of `-exponent`.
struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    fn new(names: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=names).map(|rank| f64::from(rank).powf(-exponent));
        let cumulated = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { cumulated: cumulated.collect() }
    }

    /// A rank, from 0 on.
    #[expect(clippy::cast_possible_truncation, reason = "there are no more ranks than names")]
    fn rank(&self, dice: &mut Dice) -> u32 {
        let sum = self.cumulated.last().expect("there is a name");
        let drawn = dice.unit() * sum;
        self.cumulated.partition_point(|&sum| sum <= drawn) as u32
    }
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trace {
    /// Zipf with exponent 0.9.
    Flat,
    /// Zipf with exponent 1.1.
    Steep,
    /// `Flat`, and after every four cache lengths as many names as the cache holds that nobody asks for again.
    Scans,
    /// `Flat`, but with every tenth of the trace all ranks move by a twentieth of the names.
    Shifts,
    /// `Steep`, but all ranks move all the time, by one cache length in a twentieth of the trace.
    Drift,
    /// `Flat`, and after every four cache lengths the same names as last time, as many as the cache holds.
    Loops,
    /// Three in ten names are asked for the first time, the others were so within two cache lengths, most of them lately.
    Recency,
}

/// How large a trace is, and what for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Names that are asked for, scans and moves apart.
    pub(super) names: u32,
    /// Requests in all.
    pub(super) requests: u32,
    /// Entries that the cache holds.
    pub(super) cache: u32,
}

impl Trace {
    /// Four that the policy is held to, and behind them those that stand beside for honesty.
    pub(super) const ALL: [Self; 7] = [
        Self::Flat,
        Self::Steep,
        Self::Scans,
        Self::Shifts,
        Self::Drift,
        Self::Loops,
        Self::Recency,
    ];

    /// A few words for a table.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Flat => "Zipf 0.9",
            Self::Steep => "Zipf 1.1",
            Self::Scans => "Zipf 0.9 + scans",
            Self::Shifts => "Zipf 0.9, shifting",
            Self::Drift => "Zipf 1.1, drifting",
            Self::Loops => "Zipf 0.9 + loops",
            Self::Recency => "recency",
        }
    }

    /// The names asked for, as numbers.
    pub(super) fn requests(self, extent: Extent) -> Vec<u32> {
        let dice = &mut Dice(0x9E37_79B9_7F4A_7C15 ^ self as u64);
        let Extent { names, requests, cache } = extent;
        let flat = || Zipf::new(names, 0.9);
        match self {
            Self::Flat => ranks(&flat(), dice, requests, |_| 0),
            Self::Steep => ranks(&Zipf::new(names, 1.1), dice, requests, |_| 0),
            Self::Shifts => {
                let tenth = (requests / 10).max(1);
                ranks(&flat(), dice, requests, |turn| turn / tenth * (names / 20))
            }
            Self::Drift => {
                let lengths = |turn| u64::from(turn) * 20 * u64::from(cache) / u64::from(requests);
                let moved = |turn| u32::try_from(lengths(turn)).expect("twenty cache lengths");
                ranks(&Zipf::new(names, 1.1), dice, requests, moved)
            }
            Self::Scans => with_scans(&flat(), dice, extent, true),
            Self::Loops => with_scans(&flat(), dice, extent, false),
            Self::Recency => recent(dice, extent),
        }
    }
}

/// Ranks as `zipf` draws them; those of one turn are moved by `moved`.
fn ranks(zipf: &Zipf, dice: &mut Dice, requests: u32, moved: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..requests).map(|turn| zipf.rank(dice) + moved(turn)).collect()
}

/// Ranks as `zipf` draws them, with a scan from time to time; once a name was scanned, it may be so `only_once`.
fn with_scans(zipf: &Zipf, dice: &mut Dice, extent: Extent, only_once: bool) -> Vec<u32> {
    let (len, cache) = (extent.requests as usize, extent.cache);
    let mut from = SCANNED;
    let mut requests = Vec::with_capacity(len + cache as usize);
    while requests.len() < len {
        let others = LENGTHS_BETWEEN_SCANS * cache as usize;
        requests.extend((0..others).map(|_| zipf.rank(dice)));
        requests.extend(from..from + cache);
        if only_once {
            from += cache;
        }
    }
    requests.truncate(len);
    requests
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an age is below two cache lengths"
)]
fn recent(dice: &mut Dice, extent: Extent) -> Vec<u32> {
    let mut newest = 0;
    let requests = (0..extent.requests).map(|_| {
        if dice.unit() < 0.3 {
            newest += 1;
            return newest;
        }
        let age = dice.unit().powi(3) * 2.0 * f64::from(extent.cache);
        u32::saturating_sub(newest, age as u32)
    });
    requests.collect()
}
