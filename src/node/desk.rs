//! A core at its desk: what the control plane asks for is done between batches, a little at a time.

mod trace;

use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_lite::future::yield_now;
use glommio::io::BufferedFile;
use glommio::timer::Timer;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::worker::Worker;
use crate::cache::{Explanation, Inspection, Key, Shard};
use crate::control::desk::{Finding, Inbox, Request, Row, UpstreamState};
use crate::resolve::{Reason, State};
use crate::sys::adopt::adopt;
use crate::time::CacheTime;
use crate::wire::{Name, NameBuf};

/// How long others have the core after each part of a dump.
const PART_PAUSE: Duration = Duration::from_micros(200);

/// How long a dump waits for whoever reads it before it tries again to hand a part over.
const READER_PAUSE: Duration = Duration::from_millis(5);

/// Entries after which a step of a dump ends, with the part of the shard that it is in.
const SEEN_MIN: usize = 512;

/// Parts of the shard that a step visits at most.
const PARTS_MAX: usize = 64;

/// How long a core waits before it tries again to take up what is in force.
const EXCHANGE_PAUSE: Duration = Duration::from_micros(200);

/// How often the queue is looked at when the bell cannot be heard.
const DEAF_PAUSE: Duration = Duration::from_secs(1);

/// Does what is asked of `worker`, for ever.
pub(super) async fn attend(worker: &Rc<Worker>, inbox: Inbox) {
    let bell: BufferedFile = adopt(inbox.bell);
    loop {
        if bell.read_at(0, size_of::<u64>()).await.is_err() {
            Timer::new(DEAF_PAUSE).await;
        }
        while let Ok(request) = inbox.queue.try_recv() {
            carry_out(worker, request);
            yield_now().await;
        }
    }
}

/// Whoever does not wait any more for an answer gets none.
fn carry_out(worker: &Rc<Worker>, request: Request) {
    match request {
        Request::TakeUp(done) => {
            glommio::spawn_local(take_up(Rc::clone(worker), done)).detach();
        }
        Request::Flush(flush, done) => {
            worker.flush(*flush);
            let _ = done.send(());
        }
        Request::Explain(qname, qtype, back) => {
            let key = |view| Key::plain_in(view, qname.as_name(), qtype);
            let keys: Vec<Key> = worker.views().map(key).collect();
            let findings = worker.change_shard(|shard, now| {
                keys.into_iter().map(|key| explain(shard, key, now)).collect()
            });
            let _ = back.send(findings);
        }
        Request::Dump(under, rows) => {
            glommio::spawn_local(dump(Rc::clone(worker), under, rows)).detach();
        }
        Request::Trace(question, back) => {
            let _ = back.send(trace::trace(worker, &question));
        }
        Request::Decisions(wanted, back) => {
            glommio::spawn_local(trace::recall(Rc::clone(worker), wanted, back)).detach();
        }
        Request::Upstreams(back) => {
            let states = worker.upstreams().into_iter().map(told);
            let _ = back.send(states.collect());
        }
    }
}

/// A core that finds the exchange busy, because others take up the same, tries again.
async fn take_up(worker: Rc<Worker>, done: Sender<()>) {
    while !worker.take_up_policy() {
        Timer::new(EXCHANGE_PAUSE).await;
    }
    let _ = done.send(());
}

fn explain(shard: &Shard, mut key: Key, now: CacheTime) -> Finding {
    let view = key.view();
    let (outcome, it) = match shard.explain(&mut key, now) {
        Explanation::Fresh(it) => ("fresh", it),
        Explanation::Denied(it) => ("denied", it),
        Explanation::Stale(it) => ("stale", it),
        Explanation::Useless(it) => ("useless", it),
        Explanation::Absent => return Finding { view, outcome: "absent", row: None },
    };
    Finding { view, outcome, row: Some(row(&it, now)) }
}

fn row(it: &Inspection<'_>, now: CacheTime) -> Row {
    Row {
        name: it.key.name.to_string(),
        qtype: it.key.qtype,
        rcode: it.answer.shape.rcode,
        ttl: it.expiry.seconds_since(now),
        state: it.state,
        segment: it.segment,
        accesses: it.accesses,
        has_dnssec: it.key.wants_dnssec,
        bytes: it.bytes,
    }
}

async fn dump(worker: Rc<Worker>, under: Box<NameBuf>, rows: mpsc::Sender<Vec<Row>>) {
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let (mut part, next) =
            worker.change_shard(|shard, now| part(shard, at, under.as_name(), now));
        cursor = next;
        while !part.is_empty() || rows.is_closed() {
            match rows.try_send(part) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => part = back,
                Err(TrySendError::Closed(_)) => return,
            }
            Timer::new(READER_PAUSE).await;
        }
        Timer::new(PART_PAUSE).await;
    }
}

/// The entries of some parts from `at` on that lie in or below `under`, and the part behind them.
fn part(shard: &Shard, at: usize, under: Name<'_>, now: CacheTime) -> (Vec<Row>, Option<usize>) {
    let (mut rows, mut seen, mut next) = (Vec::new(), 0, Some(at));
    // One that is full costs as much as a sweep's step; those of a shard that is nearly empty cost nothing.
    let mut parts = 0..PARTS_MAX;
    while let (Some(at), Some(_), true) = (next, parts.next(), seen < SEEN_MIN) {
        next = shard.visit(at, now, |it| {
            seen += 1;
            if it.key.name.is_within(under) {
                rows.push(row(&it, now));
            }
        });
    }
    (rows, next)
}

fn told(state: State) -> UpstreamState {
    let word = |reason| match reason {
        Reason::Silence => "silence",
        Reason::Failures => "failures",
    };
    UpstreamState {
        rest: state.rest.map(|(reason, left)| (word(reason), left)),
        rtt_ms: state.rtt_us.map(|us| us / 1_000.0),
        upstream: state.upstream,
        protocol: state.protocol,
        in_flight: state.in_flight,
        is_in_clear: state.is_in_clear,
    }
}
