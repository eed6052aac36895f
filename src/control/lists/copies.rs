//! The last good copy of each list that was downloaded: in the operator's directory, where it survives a restart, or packed
//! in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use thiserror::Error;

use super::download::Validators;
use super::text::{self, Unreadable};
use crate::config::{List, ListSource};
use crate::control::files::{self, Distrust, Placed};

/// The first line of every copy.
pub(super) const MAGIC: &[u8] = b"heimdall-uring list copy 1\n";

/// Longest head of a copy.
const HEAD_BYTES_MAX: u64 = 4_096;

/// Most letters of a list's name that its file bears.
const NAME_CHARS_MAX: usize = 40;

/// Why a copy is of no use.
#[derive(Debug, Error)]
pub(super) enum Useless {
    /// Where it stands, and whose it is.
    #[error("{0}")]
    Distrust(#[from] Distrust),
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    /// Its head or its text is broken.
    #[error("it is torn")]
    Torn,
}

impl From<io::Error> for Useless {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// What is known of a copy without its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Copy {
    pub(super) validators: Validators,
    pub(super) bytes: usize,
    pub(super) checksum: u32,
    /// When the server has last said that this is the list.
    pub(super) confirmed: SystemTime,
}

/// All copies.
#[derive(Debug)]
pub(super) enum Copies {
    /// In files of this directory.
    Kept(PathBuf),
    /// In memory, packed, by the lists' URLs.
    Held(HashMap<String, (Copy, Vec<u8>)>),
}

impl Copies {
    /// What is known of the copy of `list`, which is at `url`; `None` when there is none.
    ///
    /// # Errors
    /// [`Useless`].
    pub(super) fn find(&self, list: &List, url: &str) -> Result<Option<Copy>, Useless> {
        match self {
            Self::Kept(directory) => Ok(open(&place(directory, list), url)?.map(|(copy, _)| copy)),
            Self::Held(copies) => Ok(copies.get(url).map(|(copy, _)| copy.clone())),
        }
    }

    /// The text of that copy, which has at most `bytes_max` bytes, and what is known of it.
    ///
    /// # Errors
    /// [`Useless`], also when it is not what was written.
    pub(super) fn text(
        &self,
        list: &List,
        url: &str,
        bytes_max: usize,
    ) -> Result<Option<(Copy, Vec<u8>)>, Useless> {
        let (copy, text) = match self {
            Self::Kept(directory) => {
                let Some((copy, reader)) = open(&place(directory, list), url)? else {
                    return Ok(None);
                };
                if copy.bytes > bytes_max {
                    return Err(Unreadable::TooLong(bytes_max).into());
                }
                let mut text = Vec::with_capacity(copy.bytes + 1);
                reader.take(copy.bytes as u64 + 1).read_to_end(&mut text)?;
                (copy, text)
            }
            Self::Held(copies) => {
                let Some((copy, packed)) = copies.get(url) else { return Ok(None) };
                (copy.clone(), text::read(packed.as_slice(), copy.bytes, bytes_max)?)
            }
        };
        if text.len() == copy.bytes && crc32fast::hash(&text) == copy.checksum {
            Ok(Some((copy, text)))
        } else {
            Err(Useless::Torn)
        }
    }

    /// Lets go of what is held in memory of other lists than `lists`. Files stay: a list may come back.
    pub(super) fn retain(&mut self, lists: &[List]) {
        if let Self::Held(copies) = self {
            copies.retain(|url, _| {
                lists
                    .iter()
                    .any(|list| matches!(&list.source, ListSource::Url(known) if known == url))
            });
        }
    }

    /// Puts `text` in the place of the copy of `list`.
    ///
    /// # Errors
    /// What the system says: the copy of before stays.
    pub(super) fn keep(
        &mut self,
        list: &List,
        url: &str,
        text: &[u8],
        validators: Validators,
        now: SystemTime,
    ) -> io::Result<(Copy, Option<io::Error>)> {
        let checksum = crc32fast::hash(text);
        let copy = Copy { validators, bytes: text.len(), checksum, confirmed: now };
        match self {
            Self::Kept(directory) => {
                let mut file = files::Unfinished::begin(&place(directory, list), MAGIC)?;
                file.append(&head(&copy, url))?;
                file.append(text)?;
                let Placed { doubt, .. } = file.place()?;
                Ok((copy, doubt))
            }
            Self::Held(copies) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text)?;
                let packed = encoder.finish()?;
                copies.insert(url.to_owned(), (copy.clone(), packed));
                Ok((copy, None))
            }
        }
    }

    /// Notes that the server has said `now` that the copy of `list` is the list.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn confirm(&mut self, list: &List, url: &str, now: SystemTime) -> io::Result<()> {
        match self {
            Self::Kept(directory) => std::fs::OpenOptions::new()
                .write(true)
                .open(place(directory, list))?
                .set_modified(now),
            Self::Held(copies) => {
                if let Some((copy, _)) = copies.get_mut(url) {
                    copy.confirmed = now;
                }
                Ok(())
            }
        }
    }

    /// Bytes of memory that the copies take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Kept(_) => 0,
            Self::Held(copies) => copies.values().map(|(_, packed)| packed.len()).sum(),
        }
    }
}

/// The file of the copy of `list`: its name as far as that does for a file, and what makes it unmistakable.
fn place(directory: &Path, list: &List) -> PathBuf {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = list.name.chars().take(NAME_CHARS_MAX).map(plain).collect();
    directory.join(format!("{name}-{:08x}.list", crc32fast::hash(list.name.as_bytes())))
}

/// The lines before the text. The URL stands there as a fingerprint: it may hold a password.
fn head(copy: &Copy, url: &str) -> Vec<u8> {
    let Copy { validators: Validators { etag, modified }, bytes, checksum, .. } = copy;
    let mut head = MAGIC.to_vec();
    let [etag, modified] = [etag, modified].map(|text| text.as_deref().unwrap_or_default());
    let lines = format!(
        "url {:016x}\netag {etag}\nmodified {modified}\nbytes {bytes}\nchecksum {checksum:08x}\n\n",
        super::fingerprint(url.as_bytes())
    );
    head.extend(lines.as_bytes());
    head
}

/// Opens a copy of what is at `url`, and reads its head. A copy of what is elsewhere is none.
fn open(path: &Path, url: &str) -> Result<Option<(Copy, BufReader<File>)>, Useless> {
    let Some((file, meta)) = files::open(path)? else { return Ok(None) };
    let mut reader = BufReader::new(file);
    let mut head = Vec::new();
    let mut lines = reader.by_ref().take(HEAD_BYTES_MAX);
    while !head.ends_with(b"\n\n") {
        if lines.read_until(b'\n', &mut head)? == 0 {
            return Err(Useless::Torn);
        }
    }
    let head = head.strip_prefix(MAGIC).and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = head.ok_or(Useless::Torn)?.lines();
    let mut next = |key: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(key));
        line.and_then(|line| line.strip_prefix(' ')).ok_or(Useless::Torn)
    };
    let origin = u64::from_str_radix(next("url")?, 16).map_err(|_| Useless::Torn)?;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let validators = Validators { etag: text(next("etag")?), modified: text(next("modified")?) };
    let bytes = next("bytes")?.parse().map_err(|_| Useless::Torn)?;
    let checksum = u32::from_str_radix(next("checksum")?, 16).map_err(|_| Useless::Torn)?;
    if origin != super::fingerprint(url.as_bytes()) {
        return Ok(None);
    }
    let copy = Copy { validators, bytes, checksum, confirmed: meta.modified()? };
    Ok(Some((copy, reader)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::Directory;
    use super::*;
    use crate::config::ListSource;

    const URL: &str = "https://me:secret@lists.example/";

    fn list(name: &str) -> List {
        List::new(name.into(), ListSource::Url(URL.into()), String::new())
    }

    fn validators() -> Validators {
        Validators { etag: Some("\"a\"".into()), modified: None }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn copy_is_found_with_its_validators_and_confirmed_later() {
        let directory = Directory::create("found");
        for mut copies in [Copies::Kept(directory.0.clone()), Copies::Held(HashMap::new())] {
            let list = list("ads & more/../x");
            assert_eq!(copies.find(&list, URL).unwrap(), None);
            copies.keep(&list, URL, b"ads.example\n", validators(), at(1_000)).unwrap();
            copies.confirm(&list, URL, at(2_000)).unwrap();
            let (copy, text) = copies.text(&list, URL, 12).unwrap().unwrap();
            assert_eq!(
                (copy.validators, copy.bytes, text.as_slice()),
                (validators(), 12, &b"ads.example\n"[..])
            );
            assert!(copy.confirmed == at(2_000) || directory.0.join("none").exists());
            assert!(copies.text(&list, URL, 11).is_err(), "longer than allowed by now");
            assert_eq!(copies.find(&list, "https://elsewhere.example/").unwrap(), None);
            copies.keep(&list, URL, b"b.example\n", Validators::default(), at(3_000)).unwrap();
            assert_eq!(copies.text(&list, URL, 12).unwrap().unwrap().1, b"b.example\n");
        }
        let [entry] = &std::fs::read_dir(&directory.0).unwrap().collect::<Vec<_>>()[..] else {
            panic!("one file")
        };
        let path = entry.as_ref().unwrap().path();
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("ads---more-"), "{path:?}");
        assert!(!String::from_utf8(std::fs::read(path).unwrap()).unwrap().contains("secret"));
    }

    #[test]
    fn torn_or_foreign_copy_is_told_apart() {
        let directory = Directory::create("torn");
        let mut copies = Copies::Kept(directory.0.clone());
        let list = list("a");
        copies.keep(&list, URL, b"ads.example\n", validators(), at(1)).unwrap();
        let path = place(&directory.0, &list);
        let whole = std::fs::read(&path).unwrap();
        for torn in [&whole[..whole.len() - 1], &whole[..40], b"", &[&whole[..], b"x"].concat()] {
            std::fs::write(&path, torn).unwrap();
            assert!(matches!(copies.text(&list, URL, 100), Err(Useless::Torn)));
        }
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        assert!(copies.keep(&list, URL, b"b.example\n", validators(), at(1)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"127.0.0.1 localhost\n");
    }
}
