//! One core among others: what it tells them, what it heeds of what they say.

use super::answer::Core;
use crate::cache::{Batch, Flush, Key, Notice, Outbox};
use crate::resolve::Elsewhere;
use crate::time::Now;
use crate::wire::AnswerBuf;

/// Odd, so that it takes 2^64 steps to come back; the bits of a hash differ all over (the golden ratio's, as Knuth has it).
const SALT_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl<P> Core<P> {
    /// Tells the others of `answer`, which came for `key`. `true` when it must not be kept: another core got a different
    /// one meanwhile.
    pub(super) fn is_outdated(
        &mut self,
        key: &Key,
        answer: &AnswerBuf,
        elsewhere: Elsewhere,
        now: Now,
    ) -> bool {
        if !self.outbox.has_peers() {
            return false;
        }
        // Kept or not, it is served: nobody must serve an older one.
        if let Some(notice) = self.shard.notice(key, answer, now.cache) {
            self.outbox.post(notice, now.cache);
        }
        elsewhere.outdates(self.shard.fingerprint(key, &answer.view(now.cache)))
            && !self.shard.insists(key, answer, now.cache)
    }

    /// Forgets what `flush` says, here and on all other cores. [`Core::sweep`] has work then.
    pub fn flush(&mut self, flush: Flush, now: Now) {
        self.failures.clear();
        let notice = Notice::Flush(Box::new(flush.clone()), now.cache);
        self.outbox.post(notice, now.cache);
        self.shard.flush(flush, now.cache);
        self.count_shard();
    }

    /// Forgets what `flush` says, on this core alone: for what all cores learn by themselves. [`Core::sweep`] has work then.
    ///
    /// Where that is everything, nobody joins a question any more that is in flight already: its view may mean others now.
    pub fn forget(&mut self, flush: Flush, now: Now) {
        self.failures.clear();
        if matches!(flush, Flush::All) {
            self.salt = self.salt.wrapping_add(SALT_STEP);
        }
        self.shard.flush(flush, now.cache);
        self.count_shard();
    }

    /// Forgets what could not be resolved: others are asked from now on.
    pub fn forget_failures(&mut self) {
        self.failures.clear();
    }

    /// Heeds what another core says; `true` when [`Core::sweep`] has work then.
    pub fn hear(&mut self, batch: &Batch, now: Now) -> bool {
        let mut has_work = false;
        for notice in &**batch {
            match notice {
                Notice::Stored(stored) => {
                    let hash = self.shard.hash(&stored.key);
                    self.waiting.note_elsewhere(hash ^ self.salt, &stored.key, stored.fingerprint);
                    self.shard.heed(stored, now.cache);
                }
                Notice::Flush(flush, until) => {
                    self.failures.clear();
                    // What this core stored meanwhile may have been asked for before.
                    self.shard.flush(Flush::clone(flush), now.cache.max(*until));
                    has_work = true;
                }
            }
        }
        self.count_shard();
        has_work
    }

    /// Frees a little of what flushes have left behind; `false` when nothing is left.
    pub fn sweep(&mut self, now: Now) -> bool {
        let has_more = self.shard.sweep(now.cache);
        self.count_shard();
        has_more
    }

    /// Notices for the other cores.
    pub const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}
