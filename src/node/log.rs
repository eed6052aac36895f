//! The way to standard error: lines and counter dumps go through one thread of their own, so that a reader who has gone,
//! a full disk or a pipe that nobody empties never stops a worker, the main thread or a signal.
//!
//! What does not fit into the queue is dropped and counted; what cannot be written is dropped. Nothing here panics, and
//! nobody but the writing thread waits for the descriptor.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Most bytes that wait to be written: room for the counters of a few hundred cores.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_millis(200);

/// How long the writing thread waits when a descriptor that does not block is full.
const RETRY: Duration = Duration::from_millis(10);

/// How much is logged now, and how that is changed.
static LEVEL: OnceLock<Level> = OnceLock::new();

struct Level {
    now: AtomicUsize,
    change: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

/// Sends what is logged from `level` on to standard error, coloured if `is_coloured`. Once per process.
pub fn begin(level: LogLevel, is_coloured: bool) {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines)
        // It would tell standard error, and panic when that fails.
        .log_internal_errors(false)
        .with_ansi(is_coloured)
        .with_target(false);
    // It fails only when nothing is logged any more.
    let change = Box::new(move |filter| drop(handle.reload(filter)));
    LEVEL.get_or_init(|| Level { now: AtomicUsize::new(place(level)), change });
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// How much is logged.
pub fn level() -> LogLevel {
    let place = LEVEL.get().map(|level| level.now.load(Ordering::Relaxed));
    place.and_then(|place| LogLevel::ALL.get(place)).copied().unwrap_or(LogLevel::Info)
}

/// Changes how much is logged.
pub fn set_level(to: LogLevel) {
    if let Some(level) = LEVEL.get() {
        level.now.store(place(to), Ordering::Relaxed);
        (level.change)(filter_of(to));
    }
}

fn place(level: LogLevel) -> usize {
    LogLevel::ALL.iter().position(|&known| known == level).unwrap_or_default()
}

const fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// The queue of this process, once its thread runs.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Texts on their way to the writing thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing does any more.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Texts that found no room since the last one that did.
    dropped: u64,
    is_writing: bool,
}

impl Waiting {
    fn put(&mut self, text: &[u8]) {
        if self.bytes + text.len() > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let note =
                format!("heimdall-uring: {dropped} log line(s) found no room and are lost\n");
            self.bytes += note.len();
            self.texts.push_back(note.into_bytes());
        }
        self.bytes += text.len();
        self.texts.push_back(text.to_vec());
    }

    fn is_idle(&self) -> bool {
        self.texts.is_empty() && !self.is_writing
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done under the lock leaves it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, text: &[u8]) {
        self.lock().put(text);
        self.changed.notify_all();
    }

    /// Waits for the next text; the one before it has then left.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(text) = waiting.texts.pop_front() {
                waiting.bytes -= text.len();
                waiting.is_writing = true;
                return text;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all has been written, but not for ever.
    fn flush(&self) {
        let busy = |waiting: &mut Waiting| !waiting.is_idle();
        // Whether it was in time makes no difference: the process ends.
        drop(self.changed.wait_timeout_while(self.lock(), FLUSH, busy));
    }
}

/// Starts the writing thread, once per process. Until then, texts are written where they arise.
///
/// # Errors
/// The kernel's, if it grants no thread.
pub fn start() -> io::Result<()> {
    let write = || {
        let queue = QUEUE.get_or_init(Queue::default);
        loop {
            write_through(&queue.next());
        }
    };
    if QUEUE.get().is_none() {
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        QUEUE.get_or_init(Queue::default);
    }
    Ok(())
}

/// Sends `text` to standard error.
pub fn say(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.put(text.as_bytes()),
        None => write_through(text.as_bytes()),
    }
}

/// Gives what waits a moment to be written, before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

/// Writes to standard error what can be written.
fn write_through(mut text: &[u8]) {
    let mut stderr = io::stderr();
    while !text.is_empty() {
        match stderr.write(text) {
            Ok(0) => return,
            Ok(written) => text = text.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            // A reader that has gone or a full disk cannot be told anything.
            Err(_) => return,
        }
    }
}

/// Where `tracing` writes its lines; it never fails.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.put(line),
            None => write_through(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_in_order() {
        let queue = Queue::default();
        queue.put(b"first");
        queue.put(b"second");
        assert_eq!(queue.next(), b"first");
        assert_eq!(queue.next(), b"second");
        assert!(!queue.lock().is_idle(), "the second is still being written");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_before_the_next() {
        let queue = Queue::default();
        queue.put(&vec![b'x'; QUEUE_BYTES_MAX]);
        queue.put(b"lost");
        queue.put(b"lost, too");
        assert_eq!(queue.next().len(), QUEUE_BYTES_MAX);
        queue.put(b"kept");
        let note = String::from_utf8(queue.next()).unwrap();
        assert!(note.contains("2 log line(s)"), "{note}");
        assert_eq!(queue.next(), b"kept");
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn flush_ends_with_the_last_text_or_with_its_patience() {
        let queue = Queue::default();
        queue.flush();
        queue.put(b"text");
        queue.flush();
        assert!(!queue.lock().is_idle(), "nobody writes it, and still it returns");
    }
}
