//! A worker beside its queries: signs of life, snapshots while it serves, and the drain.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_lite::future::or;
use glommio::io::BufferedFile;
use glommio::timer::Timer;

use super::start::Shared;
use super::worker::Worker;
use crate::net::tcp::Tcp;
use crate::net::udp::Plane;
use crate::sys::adopt::adopt;

/// How often a worker shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often a drain looks whether answers are still in flight.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// Returns when the main thread says that the node stops.
pub(super) async fn wait_for_drain(event: OwnedFd, must_drain: &AtomicBool) {
    let event: BufferedFile = adopt(event);
    while !must_drain.load(Ordering::Acquire) {
        if event.read_at(0, size_of::<u64>()).await.is_err() {
            // Without the eventfd the flag alone has to do.
            Timer::new(HEARTBEAT).await;
        }
    }
}

/// Walks the shard for each snapshot while the node serves, for ever.
pub(super) async fn save_when_asked(core: usize, shared: &Shared, worker: &Worker) {
    if let Some(snapshots) = &shared.snapshots {
        snapshots.follow(core, worker).await;
    }
    std::future::pending().await
}

/// Shows signs of life, for ever. An idle core, too, lets go of a policy that was replaced.
pub(super) async fn beat(core: usize, shared: &Shared, worker: &Worker) {
    loop {
        worker.take_up_policy();
        shared.heartbeats[core].beat(shared.clock.monotonic());
        Timer::new(HEARTBEAT).await;
    }
}

/// The drain: no new queries; answers in flight get `patience`; then the cache is saved and the plane closes.
pub(super) async fn leave(
    plane: &Plane,
    tcp: &Tcp,
    worker: &Worker,
    patience: Duration,
    core: usize,
    shared: &Shared,
    is_over: &Cell<bool>,
) {
    plane.stop_listening();
    tcp.close();
    let answered = async {
        while worker.in_flight() > 0 {
            Timer::new(DRAIN_STEP).await;
        }
        tcp.drained().await;
    };
    let cut_off = async {
        Timer::new(patience).await;
        let lost = worker.in_flight();
        if lost > 0 {
            tracing::warn!("core {core}: {lost} question(s) in flight are given up");
        }
    };
    or(answered, cut_off).await;
    if let Some(snapshots) = &shared.snapshots {
        snapshots.walk_last(core, worker).await;
    }
    shared.heartbeats[core].beat(shared.clock.monotonic());
    if !is_over.get() {
        plane.close();
    }
}
