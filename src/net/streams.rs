//! How many streams are open on this core. They are the executor's business, and the datagram plane leaves it the core more often
//! while there are any.

use std::cell::Cell;

thread_local! {
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A stream of this core, for as long as it lives.
#[derive(Debug)]
pub struct OpenStream(());

impl OpenStream {
    /// Counts one more.
    #[must_use]
    pub fn new() -> Self {
        OPEN.set(OPEN.get() + 1);
        Self(())
    }
}

impl Default for OpenStream {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        OPEN.set(OPEN.get() - 1);
    }
}

/// Whether there are any on this core.
#[must_use]
pub fn are_open() -> bool {
    OPEN.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_while_they_live_and_on_their_own_core() {
        assert!(!are_open());
        let first = OpenStream::new();
        let second = OpenStream::new();
        drop(first);
        assert!(are_open());
        assert!(!std::thread::spawn(are_open).join().unwrap());
        drop(second);
        assert!(!are_open());
    }
}
