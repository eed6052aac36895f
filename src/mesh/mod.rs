//! From core to core: batches of notices over glommio's shared channels, one channel for each pair, in order.
//!
//! What is told stands in `cache::coherence`. Nothing here waits for a core that is busy: its batches stay in the sender's
//! outbox, which is bounded and never loses what they mean.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use glommio::channels::shared_channel::{self, SharedReceiver, SharedSender};

use crate::cache::Batch;

/// Batches in the channel between two cores. More wait in the outbox.
const CHANNEL_BATCHES: usize = 16;

/// A core that has something to say and hears what others say.
pub trait Correspondent {
    /// The next batch for the peer with that number, counted from 0 without this core itself.
    fn take(&self, peer: usize) -> Option<Batch>;

    /// Heeds a batch of another core.
    fn hear(&self, batch: &Batch);
}

/// One core's ends of the channels, to be moved to its thread.
pub struct Ends {
    /// Towards each other core and from it, in the order of the cores.
    peers: Vec<(SharedSender<Batch>, SharedReceiver<Batch>)>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ends({} peers)", self.peers.len())
    }
}

/// Channels between `cores` cores; the ends of each.
#[must_use]
pub fn between(cores: usize) -> Vec<Ends> {
    let mut receivers: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    let mut senders = Vec::with_capacity(cores);
    for from in 0..cores {
        let others = receivers.iter_mut().enumerate().filter(|&(to, _)| to != from);
        let channels = others.map(|(_, receivers)| {
            let (sender, receiver) = shared_channel::new_bounded(CHANNEL_BATCHES);
            receivers.push(receiver);
            sender
        });
        senders.push(channels.collect::<Vec<_>>());
    }
    let pairs = senders.into_iter().zip(receivers);
    pairs.map(|(to, from)| Ends { peers: to.into_iter().zip(from).collect() }).collect()
}

impl Ends {
    /// Carries batches for as long as the executor lives: two tasks per other core. `bell` says that there is something
    /// to take.
    pub fn carry<C: Correspondent + 'static>(self, correspondent: &Rc<C>, bell: &Rc<Bell>) {
        for (peer, (sender, receiver)) in self.peers.into_iter().enumerate() {
            let task = send(peer, sender, Rc::clone(correspondent), Rc::clone(bell));
            glommio::spawn_local(task).detach();
            let correspondent = Rc::clone(correspondent);
            glommio::spawn_local(async move {
                let receiver = receiver.connect().await;
                while let Some(batch) = receiver.recv().await {
                    correspondent.hear(&batch);
                }
            })
            .detach();
        }
    }
}

async fn send<C: Correspondent>(
    peer: usize,
    sender: SharedSender<Batch>,
    correspondent: Rc<C>,
    bell: Rc<Bell>,
) {
    let sender = sender.connect().await;
    let mut seen = 0;
    loop {
        while let Some(batch) = correspondent.take(peer) {
            if sender.send(batch).await.is_err() {
                // The other core has ended, and with it soon the process.
                return;
            }
        }
        seen = bell.rung_since(seen).await;
    }
}

/// Wakes all who listen.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    /// Wakes them.
    pub fn ring(&self) {
        self.rung.set(self.rung.get() + 1);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Waits until it has rung more than `seen` times, and says how often.
    async fn rung_since(&self, seen: u64) -> u64 {
        poll_fn(|cx| {
            if self.rung.get() > seen {
                return Poll::Ready(self.rung.get());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::Duration;

    use glommio::timer::Timer;
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::cache::{Flush, Notice};
    use crate::time::CacheTime;

    /// Remembers what it hears; has as many batches for each peer as it was given.
    struct Scribe {
        letters: RefCell<Vec<VecDeque<Batch>>>,
        heard: RefCell<Vec<u64>>,
    }

    impl Correspondent for Scribe {
        fn take(&self, peer: usize) -> Option<Batch> {
            self.letters.borrow_mut()[peer].pop_front()
        }

        fn hear(&self, batch: &Batch) {
            let times = batch.iter().map(|notice| match notice {
                Notice::Flush(_, until) => until.as_millis(),
                Notice::Stored(_) => panic!("never sent"),
            });
            self.heard.borrow_mut().extend(times);
        }
    }

    fn batch(number: u64) -> Batch {
        Arc::new([Notice::Flush(Box::new(Flush::All), CacheTime::from_millis(number))])
    }

    #[test]
    fn every_core_hears_every_other_in_order_even_beyond_the_channels_capacity() {
        const CORES: usize = 3;
        const LETTERS: u64 = 10 * CHANNEL_BATCHES as u64;
        let cores: Vec<_> = (0..CORES as u64)
            .zip(between(CORES))
            .map(|(core, ends)| {
                let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
                let life = move || async move {
                    let letters = vec![VecDeque::new(); CORES - 1];
                    let scribe = Rc::new(Scribe {
                        letters: RefCell::new(letters),
                        heard: RefCell::default(),
                    });
                    let bell = Rc::new(Bell::default());
                    ends.carry(&scribe, &bell);
                    for letter in 0..LETTERS {
                        for letters in scribe.letters.borrow_mut().iter_mut() {
                            letters.push_back(batch(core * 1_000 + letter));
                        }
                        bell.ring();
                        if letter % 7 == 0 {
                            Timer::new(Duration::from_millis(1)).await;
                        }
                    }
                    let expected = (CORES - 1) * usize::try_from(LETTERS).unwrap();
                    while scribe.heard.borrow().len() < expected
                        || scribe.letters.borrow().iter().any(|letters| !letters.is_empty())
                    {
                        Timer::new(Duration::from_millis(1)).await;
                    }
                    // What was sent last may still be on its way to the others.
                    Timer::new(Duration::from_millis(200)).await;
                    scribe.heard.take()
                };
                executor.spawn(life).unwrap()
            })
            .collect();
        for (core, handle) in (0..).zip(cores) {
            let heard = handle.join().unwrap();
            for other in (0..CORES as u64).filter(|&other| other != core) {
                let range = other * 1_000..(other + 1) * 1_000;
                let of: Vec<u64> =
                    heard.iter().copied().filter(|number| range.contains(number)).collect();
                assert_eq!(of, (range.start..range.start + LETTERS).collect::<Vec<_>>());
            }
        }
    }
}
