//! The image of all lists as a file, and what was read when it was made: there at once at a restart, if it still fits.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

use crate::control::files::{self, Distrust};
use crate::policy::filter::{Flaw, Image, MAGIC};
use crate::sys::frozen::Frozen;

/// The name of the image in the directory.
pub(super) const IMAGE: &str = "image";

/// Images up to this size, some ten million names, lie in memory of our own as a whole: in huge pages look-ups of listed names
/// take less time, with five million a fifth. Of larger ones only the front does, and the names stay in the file's own pages, which the kernel
/// may drop.
const HELD_BYTES_MAX: usize = 256 << 20;

/// The name of what was read when it was made.
const TALLY: &str = "image.lists";

/// The first line of that.
const TALLY_MAGIC: &[u8] = b"heimdall-uring list counts 2\n";

/// Longest such file.
const TALLY_BYTES_MAX: u64 = 64 << 10;

/// Why the image of a directory is of no use.
#[derive(Debug, Error)]
pub(super) enum Useless {
    /// Where it stands, and whose it is.
    #[error("{0}")]
    Distrust(#[from] Distrust),
    /// What stands in it.
    #[error("{0}")]
    Flaw(#[from] Flaw),
    /// It cannot be mapped.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What was counted of one list when it was read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tally {
    pub(super) rules: u64,
    pub(super) bad: u64,
    pub(super) skipped: u64,
    pub(super) left_out: u64,
    pub(super) bytes: u64,
}

/// The image in `directory`, ready for all cores; `None` when there is none.
///
/// # Errors
/// [`Useless`].
pub(super) fn find(directory: &Path) -> Result<Option<Image<Bytes>>, Useless> {
    let Some((file, meta)) = files::open(&directory.join(IMAGE))? else { return Ok(None) };
    let len = usize::try_from(meta.len()).map_err(io::Error::other)?;
    if len <= HELD_BYTES_MAX {
        return Ok(Some(mapped(&file, len, len)?));
    }
    // Where the part ends that is read all the time is known when it has been looked at.
    let hot_bytes = Image::open(Frozen::mapped(&file, len, 0)?)?.footprint().hot_bytes;
    Ok(Some(mapped(&file, len, hot_bytes)?))
}

fn mapped(file: &File, len: usize, held_bytes: usize) -> Result<Image<Bytes>, Useless> {
    Ok(Image::open(Bytes::from_owner(Frozen::mapped(file, len, held_bytes)?))?)
}

/// Puts `image` into `directory`, and gives it back from there.
///
/// # Errors
/// [`Useless`]: the image of before stays.
pub(super) fn keep(directory: &Path, image: &[u8]) -> Result<Image<Bytes>, Useless> {
    let hot_bytes = Image::open(image)?.footprint().hot_bytes;
    let path = directory.join(IMAGE);
    let mut file = files::Unfinished::begin(&path, &MAGIC)?;
    file.append(image)?;
    file.place()?;
    let (file, _) = files::open(&path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let is_small = image.len() <= HELD_BYTES_MAX;
    mapped(&file, image.len(), if is_small { image.len() } else { hot_bytes })
}

/// Puts `image` into memory that all cores share.
///
/// # Errors
/// [`Useless`], for want of memory.
pub(super) fn hold(image: &[u8]) -> Result<Image<Bytes>, Useless> {
    Ok(Image::open(Bytes::from_owner(Frozen::copied(image)?))?)
}

/// Writes down what was counted when the image with `stamp` was made.
///
/// # Errors
/// What the system says.
pub(super) fn note(directory: &Path, stamp: u64, tallies: &[Tally]) -> io::Result<()> {
    let mut file = files::Unfinished::begin(&directory.join(TALLY), TALLY_MAGIC)?;
    file.append(TALLY_MAGIC)?;
    let mut lines = format!("{stamp:016x}\n");
    for Tally { rules, bad, skipped, left_out, bytes } in tallies {
        lines += &format!("{rules} {bad} {skipped} {left_out} {bytes}\n");
    }
    file.append(lines.as_bytes())?;
    file.place().map(drop)
}

/// What was counted when the image with `stamp` was made; nothing if that is not known.
pub(super) fn noted(directory: &Path, stamp: u64) -> Vec<Tally> {
    let read = || {
        let (file, _) = files::open(&directory.join(TALLY)).ok()??;
        let mut text = Vec::new();
        file.take(TALLY_BYTES_MAX).read_to_end(&mut text).ok()?;
        let text = std::str::from_utf8(text.strip_prefix(TALLY_MAGIC)?).ok()?;
        let mut lines = text.lines();
        let is_of_it = u64::from_str_radix(lines.next()?, 16) == Ok(stamp);
        is_of_it.then(|| lines.map_while(tally).collect())
    };
    read().unwrap_or_default()
}

fn tally(line: &str) -> Option<Tally> {
    let mut numbers = line.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let [rules, bad, skipped] = [next()?, next()?, next()?];
    Some(Tally { rules, bad, skipped, left_out: next()?, bytes: next()? })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Directory;
    use super::*;
    use crate::policy::filter::Compiler;

    fn image(stamp: u64) -> Vec<u8> {
        Compiler::new(*b"sixteen letters!").finish(stamp).unwrap()
    }

    #[test]
    fn image_is_found_where_it_was_kept_and_one_in_use_does_not_change() {
        let directory = Directory::create("kept");
        assert!(find(&directory.0).unwrap().is_none());
        let first = keep(&directory.0, &image(1)).unwrap();
        assert_eq!(find(&directory.0).unwrap().unwrap().stamp(), 1);
        let second = keep(&directory.0, &image(2)).unwrap();
        assert_eq!((first.stamp(), second.stamp()), (1, 2));
        assert_eq!(first.bytes(), image(1));
        assert_eq!(find(&directory.0).unwrap().unwrap().stamp(), 2);
        assert_eq!(hold(&image(3)).unwrap().stamp(), 3);
    }

    #[test]
    fn broken_image_is_of_no_use_and_a_foreign_file_is_left_alone() {
        let directory = Directory::create("broken");
        let path = directory.0.join(IMAGE);
        let mut bytes = image(1);
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(find(&directory.0), Err(Useless::Flaw(Flaw::Checksum))));
        for torn in [&bytes[..bytes.len() - 1], &[]] {
            std::fs::write(&path, torn).unwrap();
            assert!(matches!(find(&directory.0), Err(Useless::Flaw(_))));
        }
        keep(&directory.0, &image(2)).unwrap();
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        assert!(find(&directory.0).is_err() && keep(&directory.0, &image(3)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"127.0.0.1 localhost\n");
    }

    #[test]
    fn counts_belong_to_one_image() {
        let directory = Directory::create("counts");
        let tallies =
            [Tally { rules: 1, bad: 2, skipped: 3, left_out: 4, bytes: 5 }, Tally::default()];
        note(&directory.0, 7, &tallies).unwrap();
        assert_eq!(noted(&directory.0, 7), tallies);
        assert_eq!(noted(&directory.0, 8), []);
        std::fs::write(directory.0.join(TALLY), "nonsense").unwrap();
        assert_eq!(noted(&directory.0, 7), []);
    }
}
