//! What a core counts of each list.

use super::Counter;
use super::text::{Exposition, Kind};

/// Most lists that are told apart; as many as a config may have.
const LISTS_MAX: usize = 256;

/// The counters of one core's lists, by number. Made once for all there may be, so that they outlive every reload.
#[derive(Debug)]
#[repr(align(128))]
pub struct FilterHits {
    lists: Box<[Hits; LISTS_MAX]>,
}

#[derive(Debug, Default)]
struct Hits {
    blocked: Counter,
    blocked_answers: Counter,
    allowed: Counter,
}

impl Default for FilterHits {
    fn default() -> Self {
        Self { lists: Box::new(std::array::from_fn(|_| Hits::default())) }
    }
}

impl FilterHits {
    /// A question for a name that the list blocks.
    #[inline]
    pub fn blocked(&self, list: u8) {
        self.lists[usize::from(list)].blocked.bump();
    }

    /// A question whose answer leads to what the list blocks.
    pub fn blocked_answer(&self, list: u8) {
        self.lists[usize::from(list)].blocked_answers.bump();
    }

    /// A question for a name that the list allows.
    #[inline]
    pub fn allowed(&self, list: u8) {
        self.lists[usize::from(list)].allowed.bump();
    }

    /// Writes the counters of `core`, of the lists that are called `names`.
    pub fn expose(&self, core: usize, names: &[&str], out: &mut Exposition) {
        let core = core.to_string();
        for (name, hits) in names.iter().zip(self.lists.iter()) {
            let outcomes = [
                ("blocked", &hits.blocked),
                ("blocked_answer", &hits.blocked_answers),
                ("allowed", &hits.allowed),
            ];
            for (outcome, count) in outcomes {
                let labels = [("list", *name), ("outcome", outcome), ("core", core.as_str())];
                let (family, help) =
                    ("dns_filter_hits_total", "Questions that lists have decided over");
                out.sample(Kind::Counter, family, help, &labels, count.value());
            }
        }
    }
}
