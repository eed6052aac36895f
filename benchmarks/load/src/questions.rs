//! What is asked: messages made ahead of time, and the order in which they are sent.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fastrand::Rng;
use heimdall_uring::wire::{NameBuf, Rtype};

/// A set of names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Domains {
    /// Few names, each as often as the others: every answer lies in the cache
    Hot,
    /// Many names, the popular ones far more often than the others, as people ask
    Zipf,
    /// A name that nobody has asked for, each time: no answer lies in the cache
    Unique,
    /// Names on a block list
    Blocked,
    /// Of twenty questions sixteen as in zipf, two of them for AAAA, one as in unique and three as in blocked
    Mix,
}

/// Which questions are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) domains: Domains,
    pub(crate) count: u32,
    pub(crate) exponent: f64,
    /// Instead of all of that.
    pub(crate) file: Option<PathBuf>,
    pub(crate) blocked: Option<PathBuf>,
    pub(crate) edns: u16,
}

/// Stands in the order of questions for a name that nobody has asked for.
const FRESH: u32 = u32::MAX;

/// Picks that are drawn ahead of time; then they begin anew.
const ORDER_MAX: usize = 1 << 20;

/// Bytes of a header.
const HEADER_BYTES: usize = 12;

/// A question takes this many bytes at most: a header, a name, type and class, OPT.
pub(crate) const QUESTION_BYTES_MAX: usize = HEADER_BYTES + 255 + 4 + 11;

/// Bytes of a file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Messages of all threads, and the order of one pass through them.
#[derive(Debug)]
pub(crate) struct Questions {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<u32>,
    order: Vec<u32>,
    edns: u16,
    /// Part of each fresh name: of this run alone.
    salt: u64,
}

impl Questions {
    /// Makes the messages.
    ///
    /// # Errors
    /// What is wrong with a file, in words.
    pub(crate) fn new(wanted: &Wanted, seed: u64, salt: u64) -> Result<Self, String> {
        let (bytes, ends, order) = (Vec::new(), Vec::new(), Vec::new());
        let mut questions = Self { bytes, ends, order, edns: wanted.edns, salt };
        let mut rng = Rng::with_seed(seed);
        if let Some(file) = &wanted.file {
            questions.read_lines(file)?;
            return Ok(questions);
        }
        match wanted.domains {
            Domains::Hot => {
                questions.add_sites(wanted.count, Rtype::A)?;
                let popular = Popular::new(wanted.count, 0.0);
                questions.draw(|| popular.pick(&mut rng));
            }
            Domains::Zipf => {
                questions.add_sites(wanted.count, Rtype::A)?;
                let popular = Popular::new(wanted.count, wanted.exponent);
                questions.draw(|| popular.pick(&mut rng));
            }
            Domains::Unique => questions.order.push(FRESH),
            Domains::Blocked => {
                let blocked = questions.add_blocked(wanted)?;
                questions.draw(|| rng.u32(0..blocked));
            }
            Domains::Mix => questions.mix(wanted, &mut rng)?,
        }
        Ok(questions)
    }

    fn mix(&mut self, wanted: &Wanted, rng: &mut Rng) -> Result<(), String> {
        self.add_sites(wanted.count, Rtype::A)?;
        self.add_sites(wanted.count, Rtype::AAAA)?;
        let blocked = self.add_blocked(wanted)?;
        let popular = Popular::new(wanted.count, wanted.exponent);
        self.draw(|| match rng.u32(0..20) {
            0..14 => popular.pick(rng),
            14..16 => wanted.count + popular.pick(rng),
            16 => FRESH,
            _ => 2 * wanted.count + rng.u32(0..blocked),
        });
        Ok(())
    }

    fn draw(&mut self, pick: impl FnMut() -> u32) {
        self.order = std::iter::repeat_with(pick).take(ORDER_MAX).collect();
    }

    /// `h00000000.site000.test` and so on, a thousand sites, for `qtype`.
    fn add_sites(&mut self, count: u32, qtype: Rtype) -> Result<(), String> {
        (0..count).try_for_each(|n| self.add(&format!("h{n:08}.site{:03}.test", n % 1_000), qtype))
    }

    /// The names of `--blocked`, or as many as wanted of a row; how many they are.
    fn add_blocked(&mut self, wanted: &Wanted) -> Result<u32, String> {
        let Some(file) = &wanted.blocked else {
            let count = wanted.count.min(1_000_000);
            (0..count).try_for_each(|n| self.add(&format!("ad{n:08}.blocked.test"), Rtype::A))?;
            return Ok(count);
        };
        let mut count = 0;
        for (place, line) in lines(&read(file)?) {
            self.add(line, Rtype::A).map_err(|cause| told(file, place, &cause))?;
            count += 1;
        }
        if count == 0 { Err(format!("{}: no name in it", file.display())) } else { Ok(count) }
    }

    /// A name and a type in each line.
    fn read_lines(&mut self, file: &Path) -> Result<(), String> {
        for (place, line) in lines(&read(file)?) {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            let qtype = words.next().unwrap_or("A");
            let known = Rtype::from_text(qtype)
                .ok_or_else(|| told(file, place, &format!("{qtype} is no record type")))?;
            self.add(name, known).map_err(|cause| told(file, place, &cause))?;
        }
        self.order = (0..u32::try_from(self.ends.len()).unwrap_or(FRESH)).collect();
        if self.order.is_empty() {
            Err(format!("{}: no question in it", file.display()))
        } else {
            Ok(())
        }
    }

    fn add(&mut self, name: &str, qtype: Rtype) -> Result<(), String> {
        let name = NameBuf::from_text(name).map_err(|_| format!("{name} is no domain name"))?;
        let mut message = [0; QUESTION_BYTES_MAX];
        let len = write(&mut message, name.as_name().as_bytes(), qtype, self.edns);
        self.bytes.extend_from_slice(&message[..len]);
        let end = u32::try_from(self.bytes.len()).map_err(|_| "too many names".to_owned())?;
        self.ends.push(end);
        Ok(())
    }

    /// The message with this number, without its ID.
    fn message(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[number] as usize]
    }
}

/// One thread's way through the questions.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    questions: &'a Questions,
    at: usize,
    /// The number of the next fresh name; threads share none.
    fresh: u32,
    step: u32,
    scratch: [u8; QUESTION_BYTES_MAX],
}

impl<'a> Walk<'a> {
    /// That of thread `thread` of `threads`.
    pub(crate) fn new(questions: &'a Questions, thread: u32, threads: u32) -> Self {
        let at = questions.order.len() / threads.max(1) as usize * thread as usize;
        Self { questions, at, fresh: thread, step: threads, scratch: [0; QUESTION_BYTES_MAX] }
    }

    /// Writes the next question with `id` to the start of `out`; its length, and what [`Self::is_of`] knows it by.
    pub(crate) fn next(&mut self, id: u16, out: &mut [u8]) -> (usize, u32) {
        let pick = self.questions.order[self.at];
        self.at = (self.at + 1) % self.questions.order.len();
        let (len, number) = if pick == FRESH {
            let fresh = self.fresh;
            // Half of the numbers are those of messages; a run has no 2^31 fresh names.
            self.fresh = self.fresh.wrapping_add(self.step) & !FRESH_BIT;
            (self.write_fresh(fresh, out), fresh | FRESH_BIT)
        } else {
            let message = self.questions.message(pick);
            out[..message.len()].copy_from_slice(message);
            (message.len(), pick)
        };
        out[..2].copy_from_slice(&id.to_be_bytes());
        (len, number)
    }

    /// Whether `response` is one to the question that has this number.
    pub(crate) fn is_of(&mut self, number: u32, response: &[u8]) -> bool {
        let asked = if number & FRESH_BIT == 0 {
            self.questions.message(number)
        } else {
            let mut scratch = std::mem::replace(&mut self.scratch, [0; QUESTION_BYTES_MAX]);
            let len = self.write_fresh(number & !FRESH_BIT, &mut scratch);
            self.scratch = scratch;
            &self.scratch[..len]
        };
        let opt = if self.questions.edns == 0 { 0 } else { OPT_BYTES };
        let question = &asked[HEADER_BYTES..asked.len() - opt];
        response.len() >= HEADER_BYTES
            && response[2] & 0x80 != 0
            && response[HEADER_BYTES..].starts_with(question)
    }

    fn write_fresh(&self, number: u32, out: &mut [u8]) -> usize {
        let mut name = *b"\x18u00000000-00000000000000\x07site000\x04test\0";
        hex(&mut name[2..10], u64::from(number));
        hex(&mut name[11..25], self.questions.salt);
        let site = number % 1_000;
        for (digit, divisor) in name[30..33].iter_mut().zip([100, 10, 1]) {
            *digit = b'0' + u8::try_from(site / divisor % 10).unwrap_or_default();
        }
        write(out, &name, Rtype::A, self.questions.edns)
    }
}

const FRESH_BIT: u32 = 1 << 31;

const OPT_BYTES: usize = 11;

/// Writes a query of ID 0; its length.
fn write(out: &mut [u8], name: &[u8], qtype: Rtype, edns: u16) -> usize {
    let has_opt = u8::from(edns > 0);
    let header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, has_opt];
    let [class_high, class_low] = edns.to_be_bytes();
    let opt = [0, 0, 41, class_high, class_low, 0, 0, 0, 0, 0, 0];
    let opt = if edns > 0 { &opt[..] } else { &[] };
    let mut at = 0;
    for part in [&header[..], name, &qtype.0.to_be_bytes(), &[0, 1], opt] {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    at
}

fn hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::from(number.to_le_bytes()[0] & 15)];
        number >>= 4;
    }
}

/// How often each of some names is asked for.
struct Popular {
    /// Of each name and all before it.
    sums: Vec<f64>,
}

impl Popular {
    /// The name with number `n` has the weight `1 / (n + 1) ^ exponent`.
    fn new(count: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weight = |n: u32| (f64::from(n) + 1.0).powf(-exponent);
        let sums = (0..count).map(|n| {
            sum += weight(n);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn pick(&self, rng: &mut Rng) -> u32 {
        let aim = rng.f64() * self.sums.last().copied().unwrap_or_default();
        let place = self.sums.partition_point(|&sum| sum <= aim).min(self.sums.len() - 1);
        u32::try_from(place).unwrap_or_default()
    }
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |cause: std::io::Error| format!("{}: {cause}", file.display());
    if fs::metadata(file).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(format!("{}: more than 1 GiB", file.display()));
    }
    fs::read_to_string(file).map_err(cannot)
}

/// The lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let told = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    (1..).zip(text.lines().map(str::trim)).filter(move |(_, line)| told(line))
}

fn told(file: &Path, place: usize, cause: &str) -> String {
    format!("{}:{place}: {cause}", file.display())
}

#[cfg(test)]
mod tests {
    use heimdall_uring::wire::Query;

    use super::*;

    fn wanted(domains: Domains) -> Wanted {
        Wanted { domains, count: 100, exponent: 1.0, file: None, blocked: None, edns: 1232 }
    }

    /// The names of the first questions of a walk.
    fn names(questions: &Questions, count: usize) -> Vec<String> {
        let mut walk = Walk::new(questions, 0, 1);
        let mut out = [0; QUESTION_BYTES_MAX];
        let mut names = Vec::new();
        for id in 0..u16::try_from(count).unwrap() {
            let (len, number) = walk.next(id, &mut out);
            let query = Query::parse(&out[..len]).unwrap();
            assert_eq!(u16::from_be_bytes([out[0], out[1]]), id);
            names.push(query.qname.to_string());
            out[2] |= 0x80;
            assert!(walk.is_of(number, &out[..len]));
            out[15] ^= 1;
            assert!(!walk.is_of(number, &out[..len]));
        }
        names
    }

    #[test]
    fn every_set_makes_queries_that_a_server_reads() {
        for domains in Domains::value_variants() {
            for edns in [0, 1232] {
                let wanted = Wanted { edns, ..wanted(*domains) };
                let questions = Questions::new(&wanted, 1, 7).unwrap();
                assert_eq!(names(&questions, 500).len(), 500);
            }
        }
    }

    #[test]
    fn unique_names_are_unique_over_threads_and_runs() {
        let mut seen = std::collections::HashSet::new();
        for salt in [1, 2] {
            let questions = Questions::new(&wanted(Domains::Unique), 1, salt).unwrap();
            for thread in 0..2 {
                let mut walk = Walk::new(&questions, thread, 2);
                let mut out = [0; QUESTION_BYTES_MAX];
                for id in 0..1_000 {
                    let (len, _) = walk.next(id, &mut out);
                    assert!(seen.insert(out[2..len].to_vec()));
                }
            }
        }
    }

    #[test]
    fn popular_names_are_asked_for_as_often_as_zipf_has_it() {
        let questions = Questions::new(&wanted(Domains::Zipf), 1, 0).unwrap();
        let mut counts = [0u32; 100];
        questions.order.iter().for_each(|&pick| counts[pick as usize] += 1);
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((9.0..11.0).contains(&ratio), "{ratio}");
        let even = Questions::new(&wanted(Domains::Hot), 1, 0).unwrap();
        counts = [0; 100];
        even.order.iter().for_each(|&pick| counts[pick as usize] += 1);
        assert!(counts.iter().all(|&count| (9_900..11_100).contains(&count)), "{counts:?}");
    }

    #[test]
    fn mix_has_its_parts() {
        let questions = Questions::new(&wanted(Domains::Mix), 1, 0).unwrap();
        let part = |is: fn(u32) -> bool| {
            let count = questions.order.iter().filter(|&&pick| is(pick)).count();
            count * 100 / ORDER_MAX
        };
        assert!((69..=70).contains(&part(|pick| pick < 100)));
        assert!((9..=10).contains(&part(|pick| (100..200).contains(&pick))));
        assert!((4..=5).contains(&part(|pick| pick == FRESH)));
        assert!((14..=15).contains(&part(|pick| (200..FRESH).contains(&pick))));
    }

    #[test]
    fn file_is_asked_line_by_line_and_its_mistakes_are_named() {
        let path = std::env::temp_dir().join(format!("heimdall-load-{}", std::process::id()));
        let wanted = Wanted { file: Some(path.clone()), ..wanted(Domains::Hot) };
        fs::write(&path, "# names\nexample.org A\n\nexample.net TXT\n").unwrap();
        let questions = Questions::new(&wanted, 1, 0).unwrap();
        assert_eq!(names(&questions, 3), ["example.org.", "example.net.", "example.org."]);
        fs::write(&path, "example.org NONSENSE\n").unwrap();
        let mistake = Questions::new(&wanted, 1, 0).unwrap_err();
        assert!(mistake.ends_with(":1: NONSENSE is no record type"), "{mistake}");
        fs::write(&path, "").unwrap();
        assert!(Questions::new(&wanted, 1, 0).unwrap_err().ends_with("no question in it"));
        fs::remove_file(&path).unwrap();
        assert!(Questions::new(&wanted, 1, 0).is_err());
    }
}
