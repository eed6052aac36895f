//! The clocks of a worker: monotonic, and the cache clock, which is the wall clock plus an offset that tests may set.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{CacheTime, Monotonic, Now};
use crate::upstream::MonotonicClock;

/// Names a file with the offset of the cache clock: decimal seconds, may be negative.
const OFFSET_VARIABLE: &str = "DNS_TEST_CLOCK";

/// Longest offset file that is read, in bytes.
const OFFSET_BYTES_MAX: u64 = 64;

/// A warning when the variable names a file that cannot be read: the cache clock then is the wall clock.
pub(super) fn warning() -> Option<String> {
    let path = PathBuf::from(std::env::var_os(OFFSET_VARIABLE)?);
    missing(&path)
}

fn missing(path: &Path) -> Option<String> {
    let cause = fs::metadata(path).err()?;
    Some(format!("{OFFSET_VARIABLE}: {}: {cause}; the cache clock is not moved", path.display()))
}

/// Reads both clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    monotonic: MonotonicClock,
    offset: Option<OffsetFile>,
}

impl Clocks {
    /// Clocks that follow the file named by `DNS_TEST_CLOCK`, if the variable is set.
    pub(super) fn new(monotonic: MonotonicClock) -> Self {
        let path = std::env::var_os(OFFSET_VARIABLE).map(PathBuf::from);
        Self { monotonic, offset: path.map(OffsetFile::new) }
    }

    /// The monotonic clock alone.
    pub(super) fn monotonic(&self) -> Monotonic {
        self.monotonic.monotonic()
    }

    /// The present. Looks at the offset file only when there is one, and reads it only when it has changed.
    pub(super) fn read(&mut self) -> Now {
        #[expect(clippy::disallowed_methods, reason = "node reads the clocks for the core")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        let offset = self.offset.as_mut().map_or(0, OffsetFile::millis);
        let millis = u64::try_from(wall.saturating_add(offset)).unwrap_or(0);
        Now { monotonic: self.monotonic.monotonic(), cache: CacheTime::from_millis(millis) }
    }
}

#[derive(Debug)]
struct OffsetFile {
    path: PathBuf,
    /// Modification time in seconds and nanoseconds, size, inode: what was read last.
    seen: Option<(i64, i64, u64, u64)>,
    millis: i64,
}

impl OffsetFile {
    const fn new(path: PathBuf) -> Self {
        Self { path, seen: None, millis: 0 }
    }

    fn millis(&mut self) -> i64 {
        let Ok(meta) = fs::metadata(&self.path) else { return self.millis };
        let stamp = Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()));
        if stamp != self.seen {
            self.seen = stamp;
            let text =
                if meta.size() > OFFSET_BYTES_MAX { None } else { fs::read(&self.path).ok() };
            match text.and_then(|text| parse(&text)) {
                Some(millis) => self.millis = millis,
                None => tracing::warn!(
                    "{OFFSET_VARIABLE}: {} does not hold decimal seconds; the offset stays {} ms",
                    self.path.display(),
                    self.millis
                ),
            }
        }
        self.millis
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked to lie far within an i64")]
fn parse(text: &[u8]) -> Option<i64> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    let millis = seconds * 1000.0;
    (millis.abs() < 1e15).then_some(millis as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_follows_the_file_and_survives_garbage() {
        let path = std::env::temp_dir().join(format!("heimdall-clock-{}", std::process::id()));
        let mut file = OffsetFile::new(path.clone());
        assert_eq!(file.millis(), 0, "a missing file is no offset");
        assert!(missing(&path).unwrap().starts_with("DNS_TEST_CLOCK: "));
        for (text, millis) in
            [("3600", 3_600_000), ("-1.5\n", -1_500), ("garbage", -1_500), ("0.25", 250)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(file.millis(), millis, "{text}");
        }
        assert_eq!(missing(&path), None);
        fs::write(&path, "1".repeat(100)).unwrap();
        assert_eq!(file.millis(), 250, "an overlong file is garbage");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.millis(), 250);
    }

    #[test]
    fn absurd_offsets_are_garbage() {
        for text in ["inf", "nan", "1e300", "-1e13"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn without_a_file_the_cache_clock_is_the_wall_clock() {
        let mut clocks = Clocks { monotonic: MonotonicClock::start(), offset: None };
        let (first, second) = (clocks.read(), clocks.read());
        assert!(second.monotonic >= first.monotonic);
        // 2020-01-01; a machine whose clock is older cannot validate anything either.
        assert!(first.cache > CacheTime::from_millis(1_577_836_800_000));
    }
}
