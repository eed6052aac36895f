//! The way to standard error: lines and counter dumps go through one thread of their own, so that a reader who has gone,
//! a full disk or a pipe that nobody empties never stops a worker, the main thread or a signal.
//!
//! What does not fit into the queue is dropped and counted; what cannot be written is dropped. Nothing here panics, and
//! nobody but the writing thread waits for the descriptor.

mod form;
mod limit;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Event, Level as Importance, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::form::{Form, Record, time};
use self::limit::{Limiter, PERIOD};
use crate::config::{self, LogFormat, LogLevel};
use crate::upstream::MonotonicClock;

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

/// How lines look now, once something is logged.
static FORM: OnceLock<Shape> = OnceLock::new();

/// Whether lines are JSON; the rest of their form is that of the place they go to.
struct Shape {
    form: Form,
    is_json: AtomicBool,
}

/// What was told of late, by place.
static LIMITER: LazyLock<Mutex<Limiter>> = LazyLock::new(Mutex::default);

/// When lines of one place came.
static CLOCK: LazyLock<MonotonicClock> = LazyLock::new(MonotonicClock::start);

/// Sends what is logged as `section` says to standard error, coloured if `is_terminal`. Once per process.
pub fn begin(section: config::Log, is_terminal: bool) {
    let config::Log { level, format } = section;
    let form = Form { format, is_coloured: is_terminal, is_for_journal: is_journal() };
    FORM.get_or_init(|| Shape { form, is_json: AtomicBool::new(format == LogFormat::Json) });
    let (filter, handle) = reload::Layer::new(filter_of(level));
    // It fails only when nothing is logged any more.
    let change = Box::new(move |filter| drop(handle.reload(filter)));
    LEVEL.get_or_init(|| Level { now: AtomicUsize::new(place(level)), change });
    tracing_subscriber::registry().with(filter).with(Lines).init();
}

/// Whether standard error is the journal of systemd, which tells so by the number of the file (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(told) = std::env::var("JOURNAL_STREAM") else { return false };
    let meta = std::fs::metadata("/proc/self/fd/2");
    meta.is_ok_and(|meta| told == format!("{}:{}", meta.dev(), meta.ino()))
}

/// How lines look now; as text before anything is logged.
fn form() -> Form {
    let plain = Form { format: LogFormat::Text, is_coloured: false, is_for_journal: false };
    FORM.get().map_or(plain, |shape| {
        let is_json = shape.is_json.load(Ordering::Relaxed);
        let format = if is_json { LogFormat::Json } else { LogFormat::Text };
        Form { format, ..shape.form }
    })
}

/// Changes how lines look.
pub fn set_format(to: LogFormat) {
    if let Some(shape) = FORM.get() {
        shape.is_json.store(to == LogFormat::Json, Ordering::Relaxed);
    }
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
            let note = told(
                Importance::WARN,
                &format!("heimdall-uring: {dropped} log line(s) found no room and are lost\n"),
            );
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

    /// Waits for the next text; the one before it has then left. `None` when there has been none for a while, and lines are held
    /// back.
    fn next(&self) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(text) = waiting.texts.pop_front() {
                waiting.bytes -= text.len();
                waiting.is_writing = true;
                return Some(text);
            }
            if !limiter().is_holding() {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.changed.wait_timeout(waiting, PERIOD);
            let (guard, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
            if outcome.timed_out() {
                return None;
            }
            waiting = guard;
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
            if let Some(text) = queue.next() {
                write_through(&text);
            }
            let overdue = limiter().overdue(Some(CLOCK.monotonic()));
            for record in overdue {
                write_through(form().line(&record, &time()).as_bytes());
            }
        }
    };
    if QUEUE.get().is_none() {
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        QUEUE.get_or_init(Queue::default);
    }
    Ok(())
}

/// Sends `text` to standard error as it is; where lines are JSON, as one of `importance` for each of its lines but comments.
pub fn say(importance: Importance, text: &str) {
    send(&told(importance, text));
}

/// `text` as it is sent.
fn told(importance: Importance, text: &str) -> String {
    let form = form();
    if form.format == LogFormat::Text {
        return text.to_owned();
    }
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.map(|line| {
        let message = line.strip_prefix("heimdall-uring: ").unwrap_or(line);
        form.line(&Record::new(importance, module_path!(), message.to_owned()), &time())
    });
    lines.collect()
}

fn send(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.put(text.as_bytes()),
        None => write_through(text.as_bytes()),
    }
}

fn limiter() -> MutexGuard<'static, Limiter> {
    // Nothing that is done under the lock leaves it half done.
    LIMITER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives what waits a moment to be written, before the process ends.
pub fn flush() {
    let held_back = limiter().overdue(None);
    for record in held_back {
        send(&form().line(&record, &time()));
    }
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

/// What becomes of the events of `tracing`: lines, so many from each place.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = Record::of(event);
        let place = event.metadata().callsite();
        let mut limiter = limiter();
        let was_holding = limiter.is_holding();
        let (is_told, before) = limiter.admit(place, &record, CLOCK.monotonic());
        let begins_to_hold = limiter.is_holding() && !was_holding;
        drop(limiter);
        if let Some(before) = before {
            send(&form().line(&before, &time()));
        }
        if is_told {
            send(&form().line(&record, &time()));
        } else if let Some(queue) = QUEUE.get().filter(|_| begins_to_hold) {
            // The writing thread has to look after what is held back. It looks under this lock before it waits.
            drop(queue.lock());
            queue.changed.notify_all();
        }
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
        assert_eq!(queue.next().unwrap(), b"first");
        assert_eq!(queue.next().unwrap(), b"second");
        assert!(!queue.lock().is_idle(), "the second is still being written");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_before_the_next() {
        let queue = Queue::default();
        queue.put(&vec![b'x'; QUEUE_BYTES_MAX]);
        queue.put(b"lost");
        queue.put(b"lost, too");
        assert_eq!(queue.next().unwrap().len(), QUEUE_BYTES_MAX);
        queue.put(b"kept");
        let note = String::from_utf8(queue.next().unwrap()).unwrap();
        assert!(note.contains("2 log line(s)"), "{note}");
        assert_eq!(queue.next().unwrap(), b"kept");
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
