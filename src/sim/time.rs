//! Virtual time: it stands still while anybody has something to do, and then jumps to the next alarm.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::time::Monotonic;

/// Alarms that may be set while time stands still: who sets more waits for what is past, again and again.
const SET_AT_ONCE_MAX: u64 = 1_000_000;

/// The clock of a simulated world, and who waits for it.
#[derive(Debug, Default)]
pub struct Time {
    now: Cell<Monotonic>,
    /// By time, and then in the order in which they were set.
    alarms: RefCell<BTreeMap<(Monotonic, u64), Waker>>,
    set: Cell<u64>,
    /// How many had been set when the present began.
    set_before: Cell<u64>,
}

/// Remembers that somebody was woken.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Time {
    /// The present.
    #[must_use]
    pub const fn now(&self) -> Monotonic {
        self.now.get()
    }

    /// Lets time pass without anybody noticing.
    pub fn pass(&self, duration: Duration) {
        self.move_to(self.now.get().after(duration));
    }

    fn move_to(&self, now: Monotonic) {
        if now > self.now.get() {
            self.now.set(now);
            self.set_before.set(self.set.get());
        }
    }

    /// Waits for `duration`.
    ///
    /// # Panics
    /// When that is done so often that time cannot go on.
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        let number = self.set.get();
        assert!(number - self.set_before.get() < SET_AT_ONCE_MAX, "time stands still");
        self.set.set(number + 1);
        Sleep { time: self, key: (self.now.get().after(duration), number) }
    }

    /// Runs `work` to its end.
    ///
    /// # Panics
    /// When it waits for something that is no alarm, and nobody is left to bring it.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return outcome;
            }
            while !flag.0.swap(false, Ordering::Relaxed) {
                let has_rung = self.ring_next(Monotonic::from_nanos(u64::MAX));
                assert!(has_rung, "whoever waits has an alarm, or somebody who has");
            }
        }
    }

    /// Lets time pass to the next alarm and rings it; `false` when none is due by `end`, which then is the present.
    pub fn ring_next(&self, end: Monotonic) -> bool {
        let next = {
            let mut alarms = self.alarms.borrow_mut();
            alarms
                .first_entry()
                .filter(|first| first.key().0 <= end)
                .map(|first| first.remove_entry())
        };
        let Some(((at, _), waker)) = next else {
            self.move_to(end);
            return false;
        };
        self.move_to(at);
        waker.wake();
        true
    }
}

/// What comes of `work`, if it ends within `patience`; without any it may take for ever.
pub(super) async fn within<T>(
    time: &Time,
    patience: Option<Duration>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let Some(patience) = patience else { return Some(work.await) };
    let (mut work, mut alarm) = (pin!(work), pin!(time.sleep(patience)));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// An alarm; taken back when dropped.
#[derive(Debug)]
pub struct Sleep<'a> {
    time: &'a Time,
    key: (Monotonic, u64),
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.key.0 {
            return Poll::Ready(());
        }
        self.time.alarms.borrow_mut().insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.time.alarms.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_jumps_from_alarm_to_alarm() {
        let time = Time::default();
        let seconds = time.run(async {
            time.sleep(Duration::from_secs(3)).await;
            time.sleep(Duration::from_secs(4)).await;
            time.now().since(Monotonic::default())
        });
        assert_eq!(seconds, Duration::from_secs(7));
    }

    #[test]
    #[should_panic(expected = "time stands still")]
    fn waiting_for_the_past_for_ever_is_noticed() {
        let time = Time::default();
        time.run(async {
            loop {
                time.sleep(Duration::ZERO).await;
            }
        });
    }

    #[test]
    fn dropped_alarm_does_not_ring() {
        let time = Time::default();
        time.run(async {
            let mut long = pin!(time.sleep(Duration::from_secs(60)));
            let mut short = pin!(time.sleep(Duration::from_secs(1)));
            poll_fn(|cx| {
                assert!(long.as_mut().poll(cx).is_pending());
                short.as_mut().poll(cx)
            })
            .await;
        });
        assert!(time.alarms.borrow().is_empty());
        assert_eq!(time.now(), Monotonic::from_nanos(1_000_000_000));
    }
}
