//! Our own shard, asked as a node asks it.

use heimdall_uring::cache::{Key, Lookup, Shard};
use heimdall_uring::config;
use heimdall_uring::time::{CacheTime, Now};
use heimdall_uring::wire::answer::AnswerBuilder;
use heimdall_uring::wire::response::Section;
use heimdall_uring::wire::{AnswerBuf, Class, NameBuf, Rcode, Rtype};

use super::lru::hasher;

/// Longer than the clock, which stands still.
const TTL: u32 = 86_400;

/// A shard that is asked for names by number, all of the same length.
pub(super) struct Ours {
    /// What is asked.
    pub(super) shard: Shard,
    answer: AnswerBuf,
    now: Now,
}

impl Ours {
    /// An empty shard of at most `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let shard = Shard::new(&config::Cache::default(), bytes, hasher());
        let name = name(0);
        let mut builder =
            AnswerBuilder::new(name.as_name(), Rtype::A, Class::IN, Rcode::NOERROR).expect("fits");
        let rdata = [192, 0, 2, 1];
        builder
            .write(Section::Answer, name.as_name(), Rtype::A, Class::IN, TTL, &rdata)
            .expect("one address fits");
        let now = Now { cache: CacheTime::from_millis(1_000_000), ..Now::default() };
        Self { shard, answer: builder.finish(), now }
    }

    /// Asks for the name with `number`, and stores an address under it if it is not there; says whether it was.
    pub(super) fn request(&mut self, number: u32) -> bool {
        let mut key = Key::plain(name(number).as_name(), Rtype::A);
        if matches!(self.shard.lookup(&mut key, self.now), Lookup::Fresh { .. }) {
            return true;
        }
        self.shard.insert(&mut key, &self.answer, self.now.cache, self.now);
        false
    }
}

/// A name as in the other benches.
fn name(number: u32) -> NameBuf {
    let text = format!("host{number:07}.site{:03}.example.com.", number % 997);
    NameBuf::from_text(&text).expect("it is a name")
}
