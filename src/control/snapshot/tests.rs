//! Real files in a directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::cache::snapshot::Step;
use crate::cache::{Key, Lookup};
use crate::config;
use crate::time::Now;
use crate::wire::answer::AnswerBuilder;
use crate::wire::response::Section;
use crate::wire::{Class, NameBuf, Rcode, Rtype};

struct Directory(PathBuf);

impl Directory {
    fn create(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("heimdall-snapshot-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("cache")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What stays behind lies in the system's temporary directory and harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: u64) -> Now {
    Now { cache: CacheTime::from_millis(seconds * 1000), ..Now::default() }
}

fn key(name: &str) -> Key {
    Key::plain(NameBuf::from_text(name).unwrap().as_name(), Rtype::A)
}

fn shard(names: &[&str]) -> Shard {
    let hasher = ahash::RandomState::new();
    let mut shard = Shard::new(&config::Cache::default(), 1 << 20, hasher);
    for text in names {
        let name = NameBuf::from_text(text).unwrap();
        let name = name.as_name();
        let mut builder = AnswerBuilder::new(name, Rtype::A, Class::IN, Rcode::NOERROR).unwrap();
        builder.write(Section::Answer, name, Rtype::A, Class::IN, 300, &[192, 0, 2, 1]).unwrap();
        shard.insert(&mut key(text), &builder.finish(), at(0).cache, at(0));
    }
    shard
}

/// All pieces of one core, in order.
fn pieces(round: u64, core: u32, shard: &Shard) -> Vec<Piece> {
    let begun = at(1).cache;
    let piece = |content| Piece { round, core, begun, content };
    let (mut walk, mut block, mut pieces) = (shard.walk(begun), Block::default(), Vec::new());
    loop {
        match shard.walk_on(&mut walk, &mut block) {
            Step::More => {}
            Step::Full => pieces.push(piece(Content::Block(std::mem::take(&mut block)))),
            Step::Done => break,
            Step::Flushed => panic!("nothing is flushed"),
        }
    }
    pieces.push(piece(Content::End));
    pieces
}

/// Lets a writer for `cores` take `pieces`; gives the counters (written, failed, abandoned) and the last settled round.
fn written(path: &Path, cores: u32, pieces: impl IntoIterator<Item = Piece>) -> ([u64; 3], u64) {
    let (counters, settled) = (Arc::<SnapshotCounters>::default(), Arc::<AtomicU64>::default());
    let writer = Writer::new(
        path.into(),
        cores,
        Arc::default(),
        Arc::clone(&counters),
        Arc::clone(&settled),
    );
    let (sender, received) = sync_channel(1_000);
    pieces.into_iter().for_each(|piece| sender.send(piece).unwrap());
    drop(sender);
    writer.run(&received);
    let SnapshotCounters { written, failed, abandoned } = &*counters;
    ([written, failed, abandoned].map(|count| count.value()), settled.load(Ordering::Relaxed))
}

fn found_at(path: &Path) -> Result<Option<Found>, Unusable> {
    Found::open(path, &config::Cache::default(), &Origins::default())
}

/// What a single core finds.
fn holds(path: &Path, names: &[&str]) -> bool {
    let mut shard = shard(&[]);
    let found = found_at(path).unwrap().expect("there is a snapshot");
    found.restore(0, 1, &mut shard, at(2).cache).unwrap();
    let mut is_held = |name| matches!(shard.lookup(&mut key(name), at(2)), Lookup::Fresh { .. });
    names.iter().all(|name| is_held(name)) && shard.len() == names.len()
}

#[test]
fn cores_join_to_one_file_that_only_its_owner_may_read() {
    let directory = Directory::create("join");
    let path = directory.file();
    let [first, second] = [pieces(1, 0, &shard(&["a."])), pieces(1, 1, &shard(&["b.", "c."]))];
    // Side by side.
    let mixed = second.into_iter().zip(first).flat_map(|(one, other)| [one, other]);
    assert_eq!(written(&path, 2, mixed), ([1, 0, 0], 1));
    assert!(holds(&path, &["a.", "b.", "c."]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(directory.names(), ["cache"]);
}

#[test]
fn later_round_supersedes_and_late_pieces_are_dropped() {
    let directory = Directory::create("rounds");
    let path = directory.file();
    let mut unfinished = pieces(1, 0, &shard(&["old."]));
    let late = unfinished.split_off(1);
    let last = pieces(LAST_ROUND, 0, &shard(&["last."]));
    let all = unfinished.into_iter().chain(last).chain(late);
    assert_eq!(written(&path, 1, all), ([1, 0, 1], LAST_ROUND));
    assert!(holds(&path, &["last."]));
}

#[test]
fn what_is_never_finished_leaves_the_one_before() {
    let directory = Directory::create("torn");
    let path = directory.file();
    written(&path, 1, pieces(1, 0, &shard(&["before."])));
    let mut torn = pieces(2, 0, &shard(&["after."]));
    torn.pop();
    assert_eq!(written(&path, 1, torn), ([0, 0, 0], 0));
    let in_vain = Piece { round: 3, core: 0, begun: at(1).cache, content: Content::InVain };
    assert_eq!(written(&path, 1, [in_vain]), ([0, 0, 1], 3));
    assert!(holds(&path, &["before."]));
    // What a killed node leaves is no obstacle.
    fs::write(files::beside(&path, "tmp"), "torn").unwrap();
    written(&path, 1, pieces(1, 0, &shard(&["after."])));
    assert!(holds(&path, &["after."]));
    assert_eq!(directory.names(), ["cache"]);
}

#[test]
fn directory_that_is_gone_is_a_failure_that_is_counted_and_a_probe_tells_before() {
    let directory = Directory::create("gone");
    let path = directory.0.join("nowhere/cache");
    assert!(probe(&path).is_err() && probe(&directory.0).is_err());
    let round = pieces(1, 0, &shard(&["a."]));
    assert_eq!(written(&path, 1, round), ([0, 1, 0], 1), "once, and the round is over");
    probe(&directory.file()).unwrap();
    assert_eq!(directory.names(), [""; 0], "a probe leaves nothing behind");
}

#[test]
fn place_of_something_else_is_left_alone() {
    let directory = Directory::create("else");
    let path = directory.file();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert!(probe(&path).is_err());
    assert_eq!(written(&path, 1, pieces(1, 0, &shard(&["a."]))), ([0, 1, 0], 1));
    assert_eq!(directory.names(), ["cache"]);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn file_that_was_named_by_mistake_is_not_replaced() {
    let directory = Directory::create("mistake");
    let path = directory.file();
    fs::write(&path, "127.0.0.1 localhost\n").unwrap();
    assert!(probe(&path).unwrap_err().to_string().contains("has not written: move it"));
    assert_eq!(written(&path, 1, pieces(1, 0, &shard(&["a."]))), ([0, 1, 0], 1));
    assert_eq!(fs::read(&path).unwrap(), b"127.0.0.1 localhost\n");
    for torn in ["", "heim"] {
        fs::write(&path, torn).unwrap();
        assert!(probe(&path).is_ok(), "{torn}");
    }
}

#[test]
fn what_is_no_snapshot_is_told_apart() {
    let directory = Directory::create("foreign");
    let path = directory.file();
    assert!(found_at(&path).unwrap().is_none());
    written(&path, 1, pieces(1, 0, &shard(&["a."])));
    let good = fs::read(&path).unwrap();
    let problem = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        found_at(&path).unwrap_err().to_string()
    };
    assert!(problem(b"").contains("no snapshot"));
    assert!(problem(&[b'x'; 4_000]).contains("no snapshot"));
    assert!(problem(&good[..good.len() - 1]).contains("torn"));
    assert!(found_at(&directory.0).unwrap_err().to_string().contains("no regular file"));
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(found_at(&path).unwrap_err().to_string().contains("mode 666"));
}

#[test]
fn file_that_another_user_may_have_written_is_not_believed() {
    let directory = Directory::create("owner");
    let path = directory.file();
    written(&path, 1, pieces(1, 0, &shard(&["a."])));
    assert!(holds(&path, &["a."]));
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        let problem = found_at(&path).unwrap_err().to_string();
        assert_eq!(problem, "it belongs to another user (uid 12345)");
    }
}

#[test]
fn link_is_not_followed_and_a_pipe_is_not_waited_for() {
    let directory = Directory::create("link");
    let (path, elsewhere) = (directory.file(), directory.0.join("elsewhere"));
    written(&elsewhere, 1, pieces(1, 0, &shard(&["a."])));
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(matches!(found_at(&path), Err(Unusable::Distrust(Distrust::NotAFile))));
    let pipe = directory.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    assert!(matches!(found_at(&pipe), Err(Unusable::Distrust(Distrust::NotAFile))));
}
