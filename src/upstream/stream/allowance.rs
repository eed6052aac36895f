//! How many queries a connection to an upstream may carry, where it has turned out to be few. No I/O.

/// A connection that breaks after so many answers, or fewer, with queries unanswered, ended early. Beyond it, sending
/// them again suffices.
const EARLY_MAX: usize = 64;

/// Early ends in a row that are still chance: a server that restarts, a path that breaks.
const CHANCE_MAX: u8 = 1;

/// Connections in a row that answer all that they may carry, before they may carry more.
const KEPT_MAX: u8 = 64;

/// What a server that closes early teaches; no limit by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    limit: Option<usize>,
    early: u8,
    kept: u8,
}

impl Allowance {
    /// Whether a connection that has carried `count` queries has carried enough.
    pub(super) fn is_used_up(self, count: usize) -> bool {
        self.limit.is_some_and(|limit| count >= limit)
    }

    /// What follows a connection that broke after `answered` answers, with queries unanswered.
    pub(super) fn after_break(self, answered: usize) -> Self {
        if answered > EARLY_MAX {
            return Self { early: 0, ..self };
        }
        if self.limit.is_none() && self.early < CHANCE_MAX {
            return Self { early: self.early + 1, ..self };
        }
        let limit = self.limit.map_or(answered, |limit| limit.min(answered));
        Self { limit: Some(limit.max(1)), early: 0, kept: 0 }
    }

    /// What follows a connection that has carried `count` queries and answered all.
    pub(super) fn after_good_end(self, count: usize) -> Self {
        let Some(limit) = self.limit else { return Self::default() };
        if count < limit {
            return self;
        }
        if self.kept < KEPT_MAX {
            return Self { kept: self.kept + 1, ..self };
        }
        let limit = Some(2 * limit).filter(|&limit| limit <= EARLY_MAX);
        Self { limit, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_early_ends_in_a_row_bring_a_limit_and_one_does_not() {
        let once = Allowance::default().after_break(3);
        assert!(!once.is_used_up(usize::MAX));
        let twice = once.after_break(2);
        assert_eq!((twice.is_used_up(1), twice.is_used_up(2)), (false, true));
        assert!(twice.after_break(0).is_used_up(1) && !twice.after_break(0).is_used_up(0));
        for between in [once.after_break(EARLY_MAX + 1), once.after_good_end(1)] {
            assert!(!between.after_break(2).is_used_up(usize::MAX));
        }
    }

    #[test]
    fn limit_grows_slowly_and_goes_away() {
        let mut allowance = Allowance::default().after_break(1).after_break(1);
        let mut limits = vec![1];
        for _ in 0..1_000 {
            let Some(limit) = allowance.limit else { break };
            if limits.last() != Some(&limit) {
                limits.push(limit);
            }
            assert_eq!(allowance.after_good_end(limit - 1).kept, allowance.kept, "not used up");
            allowance = allowance.after_good_end(limit);
        }
        assert_eq!((limits, allowance.limit), (vec![1, 2, 4, 8, 16, 32, 64], None));
    }
}
