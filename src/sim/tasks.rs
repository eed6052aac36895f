//! Many tasks on one virtual clock, in an order that depends on nothing but what they do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use super::Time;
use crate::time::Monotonic;

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that live side by side.
#[derive(Default)]
pub(super) struct Tasks {
    alive: RefCell<BTreeMap<u64, Work>>,
    ready: Arc<Ready>,
    spawned: Cell<u64>,
    current: Cell<u64>,
}

/// Who has been woken. Whoever was spawned first is polled first: in which order they were woken may depend on how some
/// hash table lies in memory.
#[derive(Debug, Default)]
struct Ready(Mutex<BTreeSet<u64>>);

impl Ready {
    fn insert(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
    }

    fn pop(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

/// Wakes one task.
#[derive(Debug)]
struct Bell {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.insert(self.task);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("alive", &self.alive.borrow().len()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Starts a task and gives its number.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + 'static) -> u64 {
        let task = self.spawned.get();
        self.spawned.set(task + 1);
        self.alive.borrow_mut().insert(task, Box::pin(work));
        self.ready.insert(task);
        task
    }

    /// The task that is running.
    #[must_use]
    pub(super) const fn current(&self) -> u64 {
        self.current.get()
    }

    /// Ends a task where it stands.
    pub(super) fn cancel(&self, task: u64) {
        let work = self.alive.borrow_mut().remove(&task);
        // What it holds may spawn or cancel when it goes.
        drop(work);
    }

    /// Ends all tasks.
    pub(super) fn clear(&self) {
        while let Some((_, work)) = { self.alive.borrow_mut().pop_first() } {
            drop(work);
        }
    }

    /// Runs all tasks until `end`, and calls `after_each` whenever one has taken a step.
    pub(super) fn run(&self, time: &Time, end: Monotonic, after_each: impl Fn()) {
        loop {
            while let Some(task) = self.ready.pop() {
                self.step(task);
                after_each();
            }
            if !time.ring_next(end) {
                return;
            }
        }
    }

    fn step(&self, task: u64) {
        let Some(mut work) = self.alive.borrow_mut().remove(&task) else { return };
        self.current.set(task);
        let waker = Waker::from(Arc::new(Bell { task, ready: Arc::clone(&self.ready) }));
        if work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.alive.borrow_mut().insert(task, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn tasks_take_turns_in_order_until_the_end() {
        let (time, tasks) = (Rc::new(Time::default()), Tasks::default());
        let seen = Rc::new(RefCell::new(Vec::new()));
        for name in [3u64, 1, 2] {
            let (time, seen) = (Rc::clone(&time), Rc::clone(&seen));
            tasks.spawn(async move {
                seen.borrow_mut().push(0);
                time.sleep(Duration::from_secs(name)).await;
                seen.borrow_mut().push(name);
            });
        }
        tasks.run(&time, Monotonic::from_nanos(2_000_000_000), || {});
        assert_eq!(seen.take(), [0, 0, 0, 1, 2]);
        assert_eq!(time.now(), Monotonic::from_nanos(2_000_000_000));
        tasks.clear();
        assert!(!time.ring_next(Monotonic::from_nanos(u64::MAX)), "the alarm went with its task");
    }

    #[test]
    fn cancelled_task_takes_no_further_step() {
        let (time, tasks) = (Time::default(), Tasks::default());
        let seen = Rc::new(Cell::new(false));
        let inner = Rc::clone(&seen);
        let task = tasks.spawn(async move { inner.set(true) });
        tasks.cancel(task);
        tasks.run(&time, Monotonic::from_nanos(1), || {});
        assert!(!seen.get());
    }
}
