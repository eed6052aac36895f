//! One way out for dnstap: a thread that carries frames to a file or to a receiver behind a socket, which may come and go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::frames;
use crate::config;

/// How long a receiver may take for a handshake, or to take anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to confirm the end, while the node ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Pauses before a receiver that could not be reached is tried again: the first one, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where frames go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    Socket(PathBuf),
    Tcp(std::net::SocketAddr),
    File(PathBuf),
}

impl Target {
    /// All that `section` names.
    pub(super) fn all(section: &config::Dnstap) -> Vec<Self> {
        let socket = section.socket.clone().map(Self::Socket);
        let tcp = section.tcp.map(Self::Tcp);
        let file = section.file.clone().map(Self::File);
        let ways = [socket, tcp, file].into_iter().flatten();
        if section.is_on() { ways.collect() } else { Vec::new() }
    }

    fn open(&self) -> io::Result<Sink> {
        match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Sink::greeted(Stream::Unix(stream))
            }
            Self::Tcp(address) => {
                #[expect(clippy::disallowed_types, reason = "a thread of its own, which may block")]
                let stream = std::net::TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Sink::greeted(Stream::Tcp(stream))
            }
            Self::File(path) => Sink::created(path),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// A receiver that listens.
#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    #[expect(clippy::disallowed_types, reason = "a thread of its own, which may block")]
    Tcp(std::net::TcpStream),
}

impl Stream {
    fn hurry(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(FAREWELL)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(FAREWELL)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where frames go now.
#[derive(Debug)]
enum Sink {
    Stream(Stream),
    File { file: File, path: PathBuf, inode: (u64, u64) },
}

impl Sink {
    fn greeted(mut stream: Stream) -> io::Result<Self> {
        frames::shake_hands(&mut stream)?;
        Ok(Self::Stream(stream))
    }

    /// A fresh file; what was there before stays, under a name with the time of the change.
    fn created(path: &Path) -> io::Result<Self> {
        let mut file = match create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                set_aside(path)?;
                create(path)?
            }
            outcome => outcome?,
        };
        let meta = file.metadata()?;
        frames::begin_file(&mut file)?;
        Ok(Self::File { file, path: path.to_owned(), inode: (meta.dev(), meta.ino()) })
    }

    /// Writes `batch`; into a fresh file when somebody has moved the one before away.
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => return stream.write_all(batch),
            Self::File { path, inode, .. } => {
                let there = fs::symlink_metadata(&*path).ok();
                if there.map(|meta| (meta.dev(), meta.ino())) != Some(*inode) {
                    let fresh = Self::created(path)?;
                    std::mem::replace(self, fresh).end()?;
                }
            }
        }
        let Self::File { file, .. } = self else { return Ok(()) };
        file.write_all(batch)
    }

    fn end(mut self) -> io::Result<()> {
        match &mut self {
            Self::Stream(stream) => {
                stream.hurry()?;
                frames::part(stream)
            }
            Self::File { file, .. } => frames::end_file(file),
        }
    }
}

/// Nobody but the owner learns what others asked.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn set_aside(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what stands there is no file"));
    }
    #[expect(clippy::disallowed_methods, reason = "control reads the clock for names of files")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for number in now.as_secs().. {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{number}"));
        // A link refuses to replace what is there, which a renaming would not.
        match fs::hard_link(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.and_then(|()| fs::remove_file(path)),
        }
    }
    Ok(())
}

/// Carries frames until there are no more.
#[derive(Debug)]
pub(super) struct Outlet {
    target: Target,
    /// Takes back what is written.
    back: SyncSender<Vec<u8>>,
    sink: Option<Sink>,
    pause: Duration,
    is_complaining: bool,
}

impl Outlet {
    pub(super) const fn new(target: Target, back: SyncSender<Vec<u8>>) -> Self {
        Self { target, back, sink: None, pause: PAUSE_MIN, is_complaining: false }
    }

    /// Carries what comes through `batches` to the target, until nobody can send any more, or nobody is there to take it and
    /// the node `is_ending`.
    ///
    /// While there is no receiver, what comes waits in the channel; what finds no room there is lost, and counted by whoever
    /// sends it. What a receiver that goes away may not have read is sent to the next one again.
    pub(super) fn run(mut self, batches: &Receiver<Vec<u8>>, is_ending: &AtomicBool) {
        // Without anything to tell, too, so that what is wrong with the target is known soon.
        self.reach();
        for mut batch in batches {
            while !self.carry(&batch) {
                if is_ending.load(Ordering::Relaxed) {
                    return;
                }
                self.rest(is_ending);
                self.reach();
            }
            // Only its room is wanted, and only if there is little of it.
            batch.clear();
            let _ = self.back.try_send(batch);
        }
        if let Some(sink) = self.sink.take() {
            let ended = sink.end();
            self.note(&ended);
        }
    }

    /// Writes `batch`, if there is somebody who takes it.
    fn carry(&mut self, batch: &[u8]) -> bool {
        let Some(sink) = &mut self.sink else { return false };
        let outcome = sink.write(batch);
        if outcome.is_err() {
            self.sink = None;
        }
        self.note(&outcome);
        outcome.is_ok()
    }

    fn reach(&mut self) {
        match self.target.open() {
            Ok(sink) => {
                if self.is_complaining {
                    tracing::info!("dnstap: {}: there again", self.target);
                }
                self.is_complaining = false;
                self.pause = PAUSE_MIN;
                self.sink = Some(sink);
            }
            refused @ Err(_) => self.note(&refused.map(drop)),
        }
    }

    /// Waits before the next attempt, and longer each time.
    fn rest(&mut self, is_ending: &AtomicBool) {
        let mut left = self.pause;
        while !left.is_zero() && !is_ending.load(Ordering::Relaxed) {
            let step = left.min(PAUSE_MIN);
            std::thread::sleep(step);
            left -= step;
        }
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }

    /// Tells of an error, once until it is over.
    fn note(&mut self, outcome: &io::Result<()>) {
        if let Err(error) = outcome
            && !std::mem::replace(&mut self.is_complaining, true)
        {
            tracing::warn!("dnstap: {}: {error}; it is tried again", self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let own = format!("heimdall-outlet-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(own);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn whole(payload: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        frames::begin_file(&mut file).unwrap();
        file.extend_from_slice(payload);
        frames::end_file(&mut file).unwrap();
        file
    }

    #[test]
    fn files_that_are_there_or_moved_away_are_kept() {
        let directory = directory("kept");
        let path = directory.join("q");
        fs::write(&path, "before").unwrap();
        let (sender, batches) = sync_channel::<Vec<u8>>(1);
        let (back, spare) = sync_channel(1);
        let thread = std::thread::spawn({
            let target = Target::File(path.clone());
            move || Outlet::new(target, back).run(&batches, &AtomicBool::new(false))
        });
        sender.send(b"one".to_vec()).unwrap();
        // The second is taken out of the channel once the first is written.
        sender.send(Vec::new()).unwrap();
        sender.send(Vec::new()).unwrap();
        fs::rename(&path, directory.join("moved")).unwrap();
        sender.send(b"two".to_vec()).unwrap();
        drop(sender);
        thread.join().unwrap();
        assert_eq!(spare.try_iter().collect::<Vec<_>>(), [Vec::<u8>::new()], "room for more");
        assert_eq!(fs::read(directory.join("moved")).unwrap(), whole(b"one"));
        assert_eq!(fs::read(&path).unwrap(), whole(b"two"));
        let texts = fs::read_dir(&directory).unwrap();
        let texts: Vec<Vec<u8>> =
            texts.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(texts.len() == 3 && texts.contains(&b"before".to_vec()));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_file_is_left_alone_and_the_end_does_not_wait_for_nobody() {
        let directory = directory("none");
        for target in [Target::File(directory.clone()), Target::Socket(directory.join("none"))] {
            let (sender, batches) = sync_channel(1);
            sender.send(vec![1]).unwrap();
            let (back, _spare) = sync_channel(1);
            Outlet::new(target, back).run(&batches, &AtomicBool::new(true));
        }
        fs::remove_dir(directory).unwrap();
    }
}
