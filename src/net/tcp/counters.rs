//! What the TCP listeners of one core count. One core writes, any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and others may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The value now; a moment old when another thread reads it.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    // Load and store instead of one locked instruction: nobody else writes.
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.read().wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, count: u64) {
        self.0.store(self.read().wrapping_sub(count), Ordering::Relaxed);
    }
}

/// The counters of one core. Padded, so that no other core's writes share a cache line (two, with the prefetcher).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections that got a seat.
    pub accepted: Count,
    /// Newcomers turned away: the listener was full and no connection idle.
    pub refused_full: Count,
    /// Newcomers turned away: their client had its share.
    pub refused_client: Count,
    /// Closed without a complete query for the idle timeout, half a query included.
    pub closed_idle: Count,
    /// Closed because the client did not take its replies.
    pub closed_slow: Count,
    /// Closed because a query got no answer and no refusal: the responder lost it.
    pub closed_unanswered: Count,
    /// Idle connections closed to make room for a newcomer.
    pub evicted_idle: Count,
    /// Streams with a message too short for a header, or that ended inside a message.
    pub malformed: Count,
    /// Messages handed to the responder.
    pub queries: Count,
    /// Replies queued for writing.
    pub replies: Count,
    /// Failures of accept itself.
    pub accept_errors: Count,
    /// Open connections now.
    pub open: Count,
}
