//! The text of a list: read to its end and no further than allowed, unpacked, and looked at before it is believed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::config::ListSyntax;
use crate::policy::filter::Rule;
use crate::policy::filter::syntax::{self, Syntax};
use crate::sys::file;

/// The first octets of what gzip has packed (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

/// How often a text may be packed: as a file, and once more on its way.
const LAYERS_MAX: usize = 2;

/// Octets at the beginning in which a web page shows.
const HEAD_BYTES: usize = 1_024;

/// Why a text cannot be read.
#[derive(Debug, Error)]
pub(super) enum Unreadable {
    /// The system, the network or the packing.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a device, a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// It is longer than allowed.
    #[error("it is longer than {0} bytes, unpacked (filter.list_bytes_max)")]
    TooLong(usize),
}

/// Why a text that was sent is not believed to be a list.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum Suspicion {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A page of a portal, or of an error.
    #[error("it is a web page")]
    WebPage,
    /// Not a single rule is in it.
    #[error("no rule could be read in it")]
    NoRules,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Signature {
    pub(super) bytes: u64,
    pub(super) modified_ns: i128,
    pub(super) inode: u64,
}

impl Signature {
    fn of(meta: &std::fs::Metadata) -> Self {
        let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Self { bytes: meta.len(), modified_ns, inode: meta.ino() }
    }
}

/// Opens the operator's list at `path`.
pub(super) fn open(path: &Path) -> Result<(File, Signature), Unreadable> {
    let file = file::open_without_waiting(path)?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, Signature::of(&meta))) } else { Err(Unreadable::NotAFile) }
}

/// Reads all of `source`, unpacked, if that is at most `bytes_max` bytes. It is probably `bytes_likely` long.
pub(super) fn read(
    source: impl Read,
    bytes_likely: usize,
    bytes_max: usize,
) -> Result<Vec<u8>, Unreadable> {
    let mut source: Box<dyn Read + '_> = Box::new(source);
    for _ in 0..LAYERS_MAX {
        let mut head = [0; GZIP_MAGIC.len()];
        let len = fill(&mut source, &mut head)?;
        let whole = io::Cursor::new(head).take(len as u64).chain(source);
        if head != GZIP_MAGIC {
            source = Box::new(whole);
            break;
        }
        source = Box::new(MultiGzDecoder::new(BufReader::new(whole)));
    }
    // One more, in which the reader finds that nothing follows.
    let mut text = Vec::with_capacity(bytes_likely.min(bytes_max).saturating_add(1));
    source.take(bytes_max as u64 + 1).read_to_end(&mut text)?;
    if text.len() > bytes_max { Err(Unreadable::TooLong(bytes_max)) } else { Ok(text) }
}

/// Reads until `buffer` is full or nothing more comes, and says how much that was.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match source.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// How `text` is written, if the config does not say.
pub(super) fn syntax_of(text: &[u8], configured: Option<ListSyntax>) -> Syntax {
    match configured {
        None => syntax::detect(text),
        Some(ListSyntax::Hosts) => Syntax::Hosts,
        Some(ListSyntax::Domains) => Syntax::Domains,
        Some(ListSyntax::Adblock) => Syntax::Adblock,
        Some(ListSyntax::Dnsmasq) => Syntax::Dnsmasq,
        Some(ListSyntax::Rpz) => Syntax::Rpz,
    }
}

/// Whether what a server has sent can be a list.
pub(super) fn judge(text: &[u8], configured: Option<ListSyntax>) -> Result<(), Suspicion> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    if text.is_empty() {
        return Err(Suspicion::Empty);
    }
    let head = text[..text.len().min(HEAD_BYTES)].to_ascii_lowercase();
    let marks: [&[u8]; 5] = [b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"];
    if marks.iter().any(|mark| head.starts_with(mark)) {
        return Err(Suspicion::WebPage);
    }
    let report = syntax::read(text, syntax_of(text, configured), &mut |_: &Rule<'_>| true);
    if report.rules == 0 { Err(Suspicion::NoRules) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn text_is_unpacked_as_often_as_it_may_be_packed() {
        let text = b"ads.example\n".repeat(100);
        let once = packed(&text);
        for source in [text.clone(), once.clone(), packed(&once)] {
            assert_eq!(read(source.as_slice(), 0, text.len()).unwrap(), text);
        }
        assert_ne!(read(packed(&packed(&once)).as_slice(), 0, 1 << 20).unwrap(), text);
        // Two packed parts, one behind the other, are one text.
        assert_eq!(
            read([once.clone(), once].concat().as_slice(), 0, 1 << 20).unwrap().len(),
            2_400
        );
        for short in [&b""[..], b"a", b"\x1F"] {
            assert_eq!(read(short, 0, 10).unwrap(), short);
        }
    }

    #[test]
    fn no_more_is_unpacked_than_allowed() {
        let bomb = packed(&vec![b'a'; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(read(bomb.as_slice(), 0, 1 << 20), Err(Unreadable::TooLong(_))));
        assert!(matches!(read(io::repeat(b'a'), 0, 1 << 20), Err(Unreadable::TooLong(_))));
        assert_eq!(read(&b"12345"[..], 0, 5).unwrap(), b"12345");
    }

    #[test]
    fn torn_packing_is_an_error() {
        let whole = packed(&b"ads.example\n".repeat(1_000));
        assert!(matches!(read(&whole[..whole.len() - 9], 0, 1 << 20), Err(Unreadable::Io(_))));
    }

    #[test]
    fn what_is_no_list_is_not_believed() {
        for (text, suspicion) in [
            ("", Suspicion::Empty),
            ("\u{FEFF} \n\t", Suspicion::Empty),
            ("<!DOCTYPE html><html>ads.example\n</html>", Suspicion::WebPage),
            ("\n <HTML><body>\nads.example\n", Suspicion::WebPage),
            ("# a comment\n\n", Suspicion::NoRules),
            ("404: Not Found", Suspicion::NoRules),
        ] {
            assert_eq!(judge(text.as_bytes(), None), Err(suspicion), "{text}");
        }
        assert_eq!(judge(b"# a comment\nads.example\n", None), Ok(()));
        assert_eq!(
            judge(b"0.0.0.0 ads.example\n", Some(ListSyntax::Dnsmasq)),
            Err(Suspicion::NoRules)
        );
    }

    #[test]
    fn operators_list_may_be_a_link_but_nothing_that_is_no_file() {
        let path = std::env::temp_dir().join(format!("heimdall-text-{}", std::process::id()));
        std::fs::write(&path, "ads.example\n").unwrap();
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (direct, linked) = (open(&path).unwrap().1, open(&link).unwrap().1);
        std::fs::write(&path, "ads.example\nmore.example\n").unwrap();
        let changed = open(&path).unwrap().1;
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(direct, linked);
        assert_ne!(direct, changed);
        assert!(open(&path).is_err());
        assert!(matches!(open(Path::new("/dev/zero")), Err(Unreadable::NotAFile)));
    }
}
