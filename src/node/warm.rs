//! The warm-up list: names that the operator wants in the cache before anybody asks, resolved in the background after
//! the start, at a bounded rate.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::timer::Timer;
use thiserror::Error;

use super::steering::Owners;
use super::worker::{Warming, Worker};
use crate::config::Cache;
use crate::time::Monotonic;
use crate::wire::{Class, Encoder, Flags, Header, NameBuf, Rtype};

/// Longest list that is read, in bytes: close to a million names.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Characters of a bad line that are told.
const TOLD_CHARS: usize = 80;

/// Bad lines that are named; more are only counted.
const COMPLAINTS_MAX: usize = 3;

/// Questions between two pauses of a turn, and how long those last.
const RUN: usize = 16;
const RUN_PAUSE: Duration = Duration::from_micros(20);

/// Types that are asked for when a line names none.
const TYPES: [Rtype; 2] = [Rtype::A, Rtype::AAAA];

/// Types that a line may name.
const TYPE_NAMES: [(&str, Rtype); 10] = [
    ("A", Rtype::A),
    ("AAAA", Rtype::AAAA),
    ("CNAME", Rtype::CNAME),
    ("HTTPS", Rtype(65)),
    ("MX", Rtype::MX),
    ("NS", Rtype::NS),
    ("PTR", Rtype(12)),
    ("SOA", Rtype::SOA),
    ("SRV", Rtype(33)),
    ("TXT", Rtype::TXT),
];

/// How long a core waits when too much is being resolved already.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// How often progress is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How long a core waits between two turns. In each it asks as many questions as its rate allows for that time.
const PAUSE: Duration = Duration::from_millis(50);

/// The list cannot be read.
#[derive(Debug, Error)]
#[error("cache.warm_up: {path}: {cause}")]
pub struct Unreadable {
    path: String,
    #[source]
    cause: std::io::Error,
}

/// What is to be asked. Clones share the text, and it is gone with the last of them.
#[derive(Clone, Debug, Default)]
pub struct WarmList {
    /// The lines that are sound, one below the other without comments and blanks. Names stay text, a tenth of what they
    /// would be when parsed, until they are asked for.
    lines: Arc<str>,
    /// How many questions they ask.
    count: usize,
    /// Questions per second of each core.
    rate: u32,
    /// Lines that say nothing, for the operator.
    pub complaints: Vec<String>,
}

impl WarmList {
    /// Reads the list that `section` names, for a node of `cores` cores.
    ///
    /// One name per line, with or without a type behind it; `#` begins a comment. Bad lines are passed over, and named.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(section: &Cache, cores: usize) -> Result<Self, Unreadable> {
        let Some(path) = &section.warm_up else { return Ok(Self::default()) };
        let text =
            read(path).map_err(|cause| Unreadable { path: path.display().to_string(), cause })?;
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let mut list = Self { rate: (section.warm_up_rate / cores).max(1), ..Self::default() };
        let mut lines = String::with_capacity(text.len() + 1);
        let mut bad = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match question(line) {
                Ok((_, rtype)) => {
                    list.count += types(rtype).count();
                    for word in line.split_whitespace() {
                        lines.push_str(word);
                        lines.push(' ');
                    }
                    lines.pop();
                    lines.push('\n');
                }
                Err(problem) => {
                    bad += 1;
                    if bad <= COMPLAINTS_MAX {
                        let path = path.display();
                        let line: String = line.chars().take(TOLD_CHARS).collect();
                        list.complaints.push(format!("{path}:{number}: {line:?}: {problem}"));
                    }
                }
            }
        }
        if bad > COMPLAINTS_MAX {
            list.complaints.push(format!("{} has {bad} bad lines in all", path.display()));
        }
        list.lines = lines.into();
        Ok(list)
    }

    /// Bytes that it keeps until all cores have asked everything.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// The questions in their order, each made when it is its turn.
    fn questions(&self) -> impl Iterator<Item = (NameBuf, Rtype)> {
        self.lines
            .lines()
            .filter_map(|line| question(line).ok())
            .flat_map(|(name, rtype)| types(rtype).map(move |rtype| (name.clone(), rtype)))
    }
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "node is the edge")]
    let file = std::fs::File::open(Path::new(path))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// What a line asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Problem {
    Name,
    Type,
    Words,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not a domain name"),
            Self::Type => {
                let names = TYPE_NAMES.map(|(name, _)| name).join(", ");
                write!(f, "the type must be one of {names}, or TYPE and a number")
            }
            Self::Words => f.write_str("more than a name and a type"),
        }
    }
}

/// The name on a line, and the type if it has one.
fn question(line: &str) -> Result<(NameBuf, Option<Rtype>), Problem> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let name = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
    let name = NameBuf::from_text(&name).map_err(|_| Problem::Name)?;
    let Some(word) = words.next() else { return Ok((name, None)) };
    if words.next().is_some() {
        return Err(Problem::Words);
    }
    let word = word.to_ascii_uppercase();
    let known = TYPE_NAMES.iter().find(|(text, _)| *text == word).map(|&(_, rtype)| rtype);
    let number = || word.strip_prefix("TYPE")?.parse().ok().map(Rtype);
    Ok((name, Some(known.or_else(number).ok_or(Problem::Type)?)))
}

/// The types that a line with `rtype` asks for.
fn types(rtype: Option<Rtype>) -> impl Iterator<Item = Rtype> {
    let usual = if rtype.is_none() { TYPES.as_slice() } else { &[] };
    rtype.into_iter().chain(usual.iter().copied())
}

/// Asks for everything on the list, on the core of `worker`.
///
/// Where names have owners, that is what it owns.
pub(super) async fn up(worker: Rc<Worker>, core: usize, owners: &Owners, list: WarmList) {
    let now = || worker.monotonic();
    let ask = |name: &NameBuf, message: &[u8]| {
        owners.owns(core, name.as_name()).then(|| worker.warm(message))
    };
    ask_all(&list, core, now, ask).await;
}

/// Asks for everything on the list by `ask`, a turn at a time, and lets others have the core in between.
async fn ask_all(
    list: &WarmList,
    core: usize,
    now: impl Fn() -> Monotonic,
    ask: impl Fn(&NameBuf, &[u8]) -> Option<Warming>,
) {
    if list.count == 0 {
        return;
    }
    let begin = now();
    let mut told = begin;
    let (mut asked, mut known) = (0_u64, 0_u64);
    let per_turn = usize::try_from(u128::from(list.rate) * PAUSE.as_millis() / 1000).unwrap_or(1);
    // Below one question per turn the pause grows instead.
    let pause = if per_turn == 0 { Duration::from_secs(1) / list.rate } else { PAUSE };
    for (number, (name, rtype)) in (1_usize..).zip(list.questions()) {
        let message = message(&name, rtype);
        loop {
            match ask(&name, &message) {
                None => {}
                Some(Warming::Asked) => asked += 1,
                Some(Warming::Known) => known += 1,
                Some(Warming::Busy) => {
                    Timer::new(BUSY_PAUSE).await;
                    continue;
                }
            }
            break;
        }
        // A turn at the highest rate takes longer than clients may wait.
        if number.is_multiple_of(RUN) {
            Timer::new(RUN_PAUSE).await;
        }
        if number % per_turn.max(1) > 0 {
            continue;
        }
        Timer::new(pause).await;
        if now().since(told) >= PROGRESS_INTERVAL {
            told = now();
            tracing::info!("core {core}: warm-up: {number} of {} questions", list.count);
        }
    }
    let seconds = now().since(begin).as_secs_f64();
    tracing::info!(
        "core {core}: warm-up is over: {asked} questions asked, {known} known before, in {seconds:.1} s"
    );
}

fn message(name: &NameBuf, rtype: Rtype) -> Vec<u8> {
    let header = Header { id: 0, flags: Flags(Flags::RD), counts: [1, 0, 0, 0] };
    let mut encoder = Encoder::new(header, 512);
    let question = encoder.question(name.as_name(), rtype, Class::IN);
    question.expect("the longest question is far shorter than 512 bytes");
    encoder.into_message()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    fn list(text: &[u8], rate: u32, cores: usize) -> WarmList {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heimdall-warm-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let section =
            Cache { warm_up: Some(path.clone()), warm_up_rate: rate, ..Default::default() };
        let list = WarmList::read(&section, cores).unwrap();
        std::fs::remove_file(path).unwrap();
        list
    }

    #[test]
    fn lines_are_names_with_or_without_a_type() {
        let text = b"# comment\n\nwww.example\nexample.org. MX # mail\n\tb.example  type65\n";
        let list = list(text, 100, 4);
        let asked: Vec<String> = list
            .questions()
            .map(|(name, rtype)| format!("{} {}", name.as_name(), rtype.0))
            .collect();
        assert_eq!(
            asked,
            ["www.example. 1", "www.example. 28", "example.org. 15", "b.example. 65"]
        );
        assert_eq!((list.rate, list.count, list.complaints.len()), (25, asked.len(), 0));
    }

    #[test]
    fn list_takes_no_more_than_its_file_and_goes_with_the_last_core() {
        let comment = "# one that is long and says nothing\n".repeat(100);
        let text = format!("{comment}\n  \t\n{}b..\n", "a\n".repeat(1_000));
        let list = list(text.as_bytes(), 100, 2);
        assert_eq!((list.bytes(), list.count, list.questions().count()), (2_000, 2_000, 2_000));
        let (text, other) = (Arc::downgrade(&list.lines), list.clone());
        drop(list);
        assert!(text.upgrade().is_some_and(|text| text.len() == other.bytes()));
        drop(other);
        assert!(text.upgrade().is_none());
    }

    #[test]
    fn list_that_is_too_long_is_refused_and_a_long_line_is_told_in_part() {
        let bound = usize::try_from(FILE_BYTES_MAX).unwrap();
        let list = list(&vec![b'a'; bound], 1, 1);
        assert_eq!(list.count, 0);
        assert!(list.complaints[0].len() < 300, "{}", list.complaints[0].len());
        let path = std::env::temp_dir().join(format!("heimdall-warm-{}-long", std::process::id()));
        std::fs::write(&path, vec![b'\n'; bound + 1]).unwrap();
        let section = Cache { warm_up: Some(path.clone()), ..Default::default() };
        let error = WarmList::read(&section, 1).unwrap_err().to_string();
        std::fs::remove_file(path).unwrap();
        assert!(error.ends_with("longer than 16777216 bytes"), "{error}");
    }

    #[test]
    fn bad_lines_are_named_and_passed_over() {
        let text = "a..b\nok.example A\nx A B\ny NONSENSE\nz..\n".to_owned() + &"q..\n".repeat(10);
        let list = list(text.as_bytes(), 1, 1);
        assert_eq!(list.count, 1);
        assert_eq!(list.complaints.len(), 4);
        assert!(list.complaints[1].contains(":3: \"x A B\": more than a name and a type"));
        assert!(
            list.complaints[2].contains(":4: \"y NONSENSE\": the type must be one of A, AAAA,")
        );
        assert!(list.complaints[3].ends_with("has 14 bad lines in all"), "{:?}", list.complaints);
    }

    #[test]
    fn others_get_the_core_within_a_turn() {
        // Two questions for each line, all in one turn.
        let list = list(&b"a\n".repeat(10), 1_000, 1);
        let builder = LocalExecutorBuilder::new(Placement::Unbound);
        let executor = builder.make().unwrap();
        let rounds = Rc::new(Cell::new(0));
        let seen = RefCell::new(Vec::new());
        executor.run(async {
            let counted = Rc::clone(&rounds);
            let other = glommio::spawn_local(async move {
                loop {
                    counted.set(counted.get() + 1);
                    glommio::executor().yield_task_queue_now().await;
                }
            });
            let ask = |_: &NameBuf, _: &[u8]| {
                seen.borrow_mut().push(rounds.get());
                Some(Warming::Asked)
            };
            ask_all(&list, 0, Monotonic::default, ask).await;
            other.cancel().await;
        });
        let seen = seen.into_inner();
        assert_eq!(seen.len(), 20);
        assert!(seen[0] < seen[19], "{seen:?}");
    }

    #[test]
    fn missing_list_is_an_error_that_names_it() {
        let path = Some(PathBuf::from("/nonexistent/list"));
        let section = Cache { warm_up: path, ..Default::default() };
        let error = WarmList::read(&section, 1).unwrap_err().to_string();
        assert!(error.starts_with("cache.warm_up: /nonexistent/list: "), "{error}");
    }
}
