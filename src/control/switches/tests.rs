//! What is switched by hand: put in force, over in time, kept.

use std::path::PathBuf;

use super::file::parse;
use super::*;
use crate::config::{self, Config};
use crate::policy::{Acl, Identity, LocalData, Policy};

const BLOCK: Override = Override { action: Action::Block, is_subtree: false };
const ALLOW_BELOW: Override = Override { action: Action::Allow, is_subtree: true };

struct Directory(PathBuf);

impl Directory {
    fn create(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("heimdall-switches-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn published() -> Arc<Published> {
    let config = Config::default();
    let identity = Identity::new(&config::Identity::default());
    Arc::new(Published::new(Policy::new(Acl::new(&config.acl), identity, LocalData::default())))
}

fn at(seconds: u64) -> CacheTime {
    CacheTime::from_millis(1_000 * seconds)
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).unwrap()
}

fn for_seconds(now: u64, seconds: u64) -> Until {
    Until::after(at(now), Some(Duration::from_secs(seconds)))
}

/// What is said of a name in the policy in force.
fn said(published: &Published, text: &str) -> Option<Action> {
    let (_, policy) = published.current();
    let overrides = policy.switches().overrides.clone()?;
    overrides.find(name(text).as_name().as_bytes()).map(|held| held.action)
}

#[test]
fn override_is_in_force_until_its_time_or_its_removal() {
    let published = published();
    let board = Switchboard::begin(None, Arc::clone(&published), at(100));
    assert!(published.current().1.switches().overrides.is_none());
    board
        .override_name(name("ADS.example").as_name(), BLOCK, for_seconds(100, 10), at(100))
        .unwrap();
    board.override_name(name("good.example").as_name(), ALLOW_BELOW, Until::Told, at(100)).unwrap();
    assert_eq!(said(&published, "ads.example"), Some(Action::Block));
    assert_eq!(said(&published, "www.good.example"), Some(Action::Allow));
    board.tick(CacheTime::from_millis(109_999));
    assert_eq!(said(&published, "ads.example"), Some(Action::Block));
    board.tick(at(110));
    assert_eq!(said(&published, "ads.example"), None);
    assert!(board.remove_override(name("Good.Example").as_name()));
    assert!(!board.remove_override(name("good.example").as_name()));
    assert!(published.current().1.switches().overrides.is_none());
}

#[test]
fn nothing_is_published_while_nothing_is_over() {
    let published = published();
    let board = Switchboard::begin(None, Arc::clone(&published), at(100));
    board.pause(for_seconds(100, 60), at(100));
    let epoch = published.epoch();
    board.tick(at(130));
    // A clock that is set back ends nothing, and begins nothing anew.
    board.tick(at(50));
    assert_eq!(published.epoch(), epoch);
    assert!(published.current().1.switches().is_paused);
    board.tick(at(160));
    assert!(!published.current().1.switches().is_paused);
    assert!(!board.resume());
}

#[test]
fn there_is_room_for_so_many_names_and_a_known_one_may_change() {
    let published = published();
    let board = Switchboard::begin(None, Arc::clone(&published), at(1));
    {
        let mut state = board.locked();
        for number in 0..OVERRIDES_MAX {
            let name = name(&format!("n{number}.example"));
            let entry = Entry { held: BLOCK, until: Until::Told };
            state.overrides.insert(name.as_name().as_bytes().into(), entry);
        }
    }
    let add =
        |text: &str, held| board.override_name(name(text).as_name(), held, Until::Told, at(1));
    assert_eq!(add("other.example", BLOCK), Err(Full::Overrides));
    assert_eq!(add("n7.example", ALLOW_BELOW), Ok(()));
    assert_eq!(said(&published, "x.n7.example"), Some(Action::Allow));
    assert_eq!(said(&published, "n9999.example"), Some(Action::Block));
}

#[test]
fn what_is_kept_is_taken_up_but_for_what_is_over() {
    let directory = Directory::create("kept");
    let before = {
        let board = Switchboard::begin(Some(&directory.0), published(), at(100));
        let escaped = name("a\\.b\\200.example");
        board.override_name(escaped.as_name(), BLOCK, Until::Told, at(100)).unwrap();
        board
            .override_name(name("gone.example").as_name(), BLOCK, for_seconds(100, 5), at(100))
            .unwrap();
        board.disable("ads \"x\"", for_seconds(100, 500), at(100)).unwrap();
        board.disable("other", for_seconds(100, 5), at(100)).unwrap();
        board.pause(Until::Told, at(100));
        assert!(board.keep().unwrap());
        // Nobody else may write there meanwhile.
        let second = Switchboard::begin(Some(&directory.0), published(), at(100));
        assert!(!second.is_kept() && !second.keep().unwrap());
        board.state()
    };
    let published = published();
    let board = Switchboard::begin(Some(&directory.0), Arc::clone(&published), at(105));
    let mut expected = before;
    assert_eq!(expected.expire(at(105)).len(), 2);
    assert_eq!(board.state(), expected);
    let (_, policy) = published.current();
    assert!(policy.switches().is_paused && policy.switches().disabled.contains("ads \"x\""));
}

#[test]
fn file_that_is_of_no_use_is_moved_out_of_the_way() {
    let directory = Directory::create("bad");
    let board = Switchboard::begin(Some(&directory.0), published(), at(1));
    board.pause(Until::Told, at(1));
    assert!(board.keep().unwrap());
    drop(board);
    let good = std::fs::read(directory.file()).unwrap();
    assert!(parse(&good).is_ok());
    for at in 0..good.len() {
        let mut broken = good.clone();
        broken[at] ^= 1;
        assert!(parse(&broken).is_err(), "octet {at}");
        assert!(parse(&good[..at]).is_err(), "cut at {at}");
    }
    std::fs::write(directory.file(), &good[..good.len() - 3]).unwrap();
    let published = published();
    let board = Switchboard::begin(Some(&directory.0), Arc::clone(&published), at(2));
    assert_eq!(board.state(), State::default());
    assert!(!published.current().1.switches().is_paused);
    assert!(!directory.file().exists());
    assert_eq!(std::fs::read(directory.0.join("switches.bad")).unwrap(), good[..good.len() - 3]);
    board.pause(Until::Told, at(2));
    assert!(board.keep().unwrap());
    assert!(parse(&std::fs::read(directory.file()).unwrap()).unwrap().pause().is_some());
}

#[test]
fn well_summed_file_with_other_content_is_refused() {
    for body in [
        "{}",
        "[]",
        r#"{"paused":1,"disabled":[],"overrides":[]}"#,
        r#"{"paused":{},"disabled":[],"overrides":[]}"#,
        r#"{"paused":null,"disabled":[{}],"overrides":[]}"#,
        r#"{"paused":null,"disabled":[],"overrides":[{"name":"a..b","action":"block","subtree":false,"until_ms":null}]}"#,
        r#"{"paused":null,"disabled":[],"overrides":[{"name":"a","action":"drop","subtree":false,"until_ms":null}]}"#,
        r#"{"paused":null,"disabled":[],"overrides":[{"name":"a","action":"block","subtree":false,"until_ms":-1}]}"#,
    ] {
        let sum = crc32fast::hash(body.as_bytes());
        let text = format!("heimdall-uring switches 1\ncrc32 {sum:08x}\n{body}\n");
        assert!(parse(text.as_bytes()).is_err(), "{body}");
    }
}
