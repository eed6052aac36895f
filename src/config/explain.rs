//! `[explain]`: what a node remembers of its decisions, for the question why.

/// `[explain]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explain {
    /// Decisions that each core remembers; 0 for none.
    pub decisions: usize,
}

impl Default for Explain {
    fn default() -> Self {
        Self { decisions: 1_024 }
    }
}
