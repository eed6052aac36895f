//! The way to standard error: lines and counter dumps go through one thread of their own, so that a reader who has gone,
//! a full disk or a pipe that nobody empties never stops a worker, the main thread or a signal.
//!
//! What does not fit into the queue is dropped and counted; what cannot be written is dropped. Nothing here panics, nobody
//! but the writing thread waits for the descriptor, and a core does not even wait for the queue.

mod form;
mod limit;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::{Event, Level as Importance, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::form::{Form, Record, time};
use self::limit::{Limiter, PERIOD};
use crate::config::{self, LogFormat, LogLevel};
use crate::time::Monotonic;
use crate::upstream::MonotonicClock;

/// Most bytes that wait to be written: room for the counters of a few hundred cores.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_millis(200);

/// How long the writing thread waits when a descriptor that does not block is full.
const RETRY: Duration = Duration::from_millis(10);

/// How often a core tries to have the queue, which others have for a moment only, unless they are stopped just then: a few
/// microseconds in all.
const TRIES_MAX: u32 = 100;

/// The target of what a start or a reload reports: one place tells all of it, and its lines are all told.
pub const REPORT: &str = "heimdall_uring::report";

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

/// Texts and lines on their way to the writing thread.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing does any more.
    changed: Condvar,
    /// Lines of cores that somebody else had the queue for too long for.
    missed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    /// Items that found no room since the last one that did.
    dropped: u64,
    is_writing: bool,
    /// The writing thread holds lines back.
    is_holding: bool,
    /// The process is about to end: what is held back is to be told now.
    is_ending: bool,
}

/// Something to be written.
#[derive(Debug)]
enum Item {
    Text(Text),
    Line(Box<Line>),
}

/// A text as it is; where lines are JSON, one of `importance` for each of its lines but comments.
#[derive(Debug)]
struct Text {
    importance: Importance,
    text: String,
    form: Form,
    time: String,
}

/// What one place of the program tells.
#[derive(Debug)]
struct Line {
    place: Identifier,
    record: Record,
    form: Form,
    time: String,
    at: Monotonic,
    /// Whether it counts among so many a second.
    is_limited: bool,
}

impl Item {
    /// What it takes in memory, nearly.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.text.len(),
            Self::Line(line) => {
                size_of::<Line>() + line.record.message.len() + line.record.fields.len() * 64
            }
        }
    }
}

impl Text {
    fn new(importance: Importance, text: String) -> Self {
        Self { importance, text, form: form(), time: time() }
    }

    fn write(&self) {
        let Self { importance, text, form, time } = self;
        if form.format == LogFormat::Text {
            return write_through(text.as_bytes());
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let message = line.strip_prefix("heimdall-uring: ").unwrap_or(line).to_owned();
            let record = Record::new(*importance, module_path!(), message);
            write_through(form.line(&record, time).as_bytes());
        }
    }
}

impl Line {
    fn write(&self, record: &Record) {
        write_through(self.form.line(record, &self.time).as_bytes());
    }
}

impl Waiting {
    fn put(&mut self, item: Item) {
        let bytes = item.bytes();
        if self.bytes + bytes > QUEUE_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let note = Item::Text(Text::new(
                Importance::WARN,
                format!("heimdall-uring: {dropped} log line(s) found no room and are lost\n"),
            ));
            self.bytes += note.bytes();
            self.items.push_back(note);
        }
        self.bytes += bytes;
        self.items.push_back(item);
    }

    fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.is_writing && !self.is_holding
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done under the lock leaves it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if it is free soon.
    fn lock_soon(&self) -> Option<MutexGuard<'_, Waiting>> {
        for _ in 0..TRIES_MAX {
            match self.waiting.try_lock() {
                Ok(waiting) => return Some(waiting),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    fn put(&self, item: Item) {
        self.put_into(self.lock(), item);
    }

    /// As [`Queue::put`], unless somebody else has the queue: then `item` is lost, and counted.
    fn put_soon(&self, item: Item) {
        match self.lock_soon() {
            Some(waiting) => self.put_into(waiting, item),
            None => drop(self.missed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn put_into(&self, mut waiting: MutexGuard<'_, Waiting>, item: Item) {
        waiting.dropped += self.missed.swap(0, Ordering::Relaxed);
        waiting.put(item);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits for the next item; the one before it has then left. `None` when lines are held back, and there has been none for a
    /// while, or the process is about to end: see [`Queue::is_ending`].
    fn next(&self, is_holding: bool) -> Option<Item> {
        let mut waiting = self.lock();
        (waiting.is_writing, waiting.is_holding) = (false, is_holding);
        self.changed.notify_all();
        loop {
            if let Some(item) = waiting.items.pop_front() {
                waiting.bytes -= item.bytes();
                waiting.is_writing = true;
                return Some(item);
            }
            if !is_holding {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if waiting.is_ending {
                return None;
            }
            let waited = self.changed.wait_timeout(waiting, PERIOD);
            let (guard, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
            if outcome.timed_out() {
                return None;
            }
            waiting = guard;
        }
    }

    fn is_ending(&self) -> bool {
        self.lock().is_ending
    }

    /// Waits until all has been written, but not for ever.
    fn flush(&self) {
        let mut waiting = self.lock();
        waiting.is_ending = true;
        self.changed.notify_all();
        let busy = |waiting: &mut Waiting| !waiting.is_idle();
        // Whether it was in time makes no difference: the process ends.
        drop(self.changed.wait_timeout_while(waiting, FLUSH, busy));
    }
}

/// Starts the writing thread, once per process. Until then, texts are written where they arise.
///
/// # Errors
/// The kernel's, if it grants no thread.
pub fn start() -> io::Result<()> {
    if QUEUE.get().is_none() {
        let write = || write_all(QUEUE.get_or_init(Queue::default));
        std::thread::Builder::new().name("log".into()).spawn(write)?;
        QUEUE.get_or_init(Queue::default);
    }
    Ok(())
}

/// The life of the writing thread.
fn write_all(queue: &Queue) -> ! {
    let mut limiter = Limiter::default();
    loop {
        match queue.next(limiter.is_holding()) {
            Some(Item::Text(text)) => text.write(),
            Some(Item::Line(line)) => write_line(&line, &mut limiter),
            None => {
                let now = (!queue.is_ending()).then(|| CLOCK.monotonic());
                for record in limiter.overdue(now) {
                    write_through(form().line(&record, &time()).as_bytes());
                }
            }
        }
    }
}

/// Writes `line`, if its place may tell it, and what other lines have been held back for long enough when it arose.
fn write_line(line: &Line, limiter: &mut Limiter) {
    let (is_told, before) = match line.is_limited {
        true => limiter.admit(line.place.clone(), &line.record, line.at),
        false => (true, None),
    };
    if let Some(before) = before {
        line.write(&before);
    }
    if is_told {
        line.write(&line.record);
    }
    limiter.overdue(Some(line.at)).iter().for_each(|record| line.write(record));
}

thread_local! {
    /// Whether the thread waits for nobody.
    static IS_HURRIED: Cell<bool> = const { Cell::new(false) };
}

/// From now on what the calling thread logs is lost rather than that it waits for somebody.
pub fn never_wait() {
    IS_HURRIED.set(true);
}

/// Sends `text` to standard error as it is; where lines are JSON, as one of `importance` for each of its lines but comments.
pub fn say(importance: Importance, text: &str) {
    let text = Text::new(importance, text.to_owned());
    match QUEUE.get() {
        Some(queue) => queue.put(Item::Text(text)),
        None => text.write(),
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

/// What becomes of the events of `tracing`: lines, so many from each place.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let line = Line {
            place: meta.callsite(),
            record: Record::of(event),
            form: form(),
            time: time(),
            at: CLOCK.monotonic(),
            is_limited: meta.target() != REPORT,
        };
        match QUEUE.get() {
            Some(queue) if IS_HURRIED.get() => queue.put_soon(Item::Line(Box::new(line))),
            Some(queue) => queue.put(Item::Line(Box::new(line))),
            None => line.write(&line.record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Item {
        Item::Text(Text::new(Importance::INFO, text.to_owned()))
    }

    /// The text that comes next, which has to be one.
    fn next(queue: &Queue) -> String {
        match queue.next(false) {
            Some(Item::Text(text)) => text.text,
            other => panic!("no text: {other:?}"),
        }
    }

    #[test]
    fn texts_come_out_in_order() {
        let queue = Queue::default();
        queue.put(text("first"));
        queue.put(text("second"));
        assert_eq!(next(&queue), "first");
        assert_eq!(next(&queue), "second");
        assert!(!queue.lock().is_idle(), "the second is still being written");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_before_the_next() {
        let queue = Queue::default();
        queue.put(text(&"x".repeat(QUEUE_BYTES_MAX)));
        queue.put(text("lost"));
        queue.put(text("lost, too"));
        assert_eq!(next(&queue).len(), QUEUE_BYTES_MAX);
        queue.put(text("kept"));
        let note = next(&queue);
        assert!(note.contains("2 log line(s)"), "{note}");
        assert_eq!(next(&queue), "kept");
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn core_does_not_wait_for_whoever_has_the_queue_and_its_line_is_counted() {
        let queue = Queue::default();
        let others = queue.lock();
        queue.put_soon(text("lost"));
        drop(others);
        queue.put_soon(text("kept"));
        let note = next(&queue);
        assert!(note.contains("1 log line(s)"), "{note}");
        assert_eq!(next(&queue), "kept");
    }

    #[test]
    fn text_takes_as_much_room_whatever_lines_look_like() {
        let counters = "dns_queries_total{core=\"0\"} 1\n".repeat(1_000);
        let form = Form { format: LogFormat::Json, is_coloured: false, is_for_journal: false };
        let as_json = Text { form, ..Text::new(Importance::INFO, counters.clone()) };
        assert_eq!(Item::Text(as_json).bytes(), counters.len());
    }

    #[test]
    fn what_is_held_back_is_told_before_the_end() {
        let queue = Queue::default();
        queue.put(text("text"));
        assert_eq!(next(&queue), "text");
        queue.lock().is_ending = true;
        assert!(queue.next(true).is_none());
        assert!(!queue.lock().is_idle(), "it is yet to be told");
    }

    #[test]
    fn flush_ends_with_the_last_text_or_with_its_patience() {
        let queue = Queue::default();
        queue.flush();
        queue.put(text("text"));
        queue.flush();
        assert!(!queue.lock().is_idle(), "nobody writes it, and still it returns");
    }
}
