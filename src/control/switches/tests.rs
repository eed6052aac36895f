//! What is switched by hand: put in force, over in time, kept.

use std::path::PathBuf;

use super::file::parse;
use super::shelf::FILE;
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

fn begin(directory: Option<&Path>, published: Arc<Published>, now: CacheTime) -> Arc<Switchboard> {
    Arc::new(Switchboard::begin(directory, published, now))
}

/// Ticks until `board` keeps what is switched, or for some seconds.
fn tick_until_kept(board: &Arc<Switchboard>, now: CacheTime) {
    for _ in 0..1_000 {
        (0..LOOKS_PER_TRIAL).for_each(|_| board.tick(now));
        if board.is_kept() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it is not kept");
}

fn kept_in(directory: &Directory) -> State {
    parse(&std::fs::read(directory.file()).unwrap()).unwrap()
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
    let board = begin(None, Arc::clone(&published), at(100));
    assert!(published.current().1.switches().overrides.is_none());
    board.override_names(&[name("ADS.example")], BLOCK, for_seconds(100, 10), at(100)).unwrap();
    board.override_names(&[name("good.example")], ALLOW_BELOW, Until::Told, at(100)).unwrap();
    assert_eq!(said(&published, "ads.example"), Some(Action::Block));
    assert_eq!(said(&published, "www.good.example"), Some(Action::Allow));
    board.tick(CacheTime::from_millis(109_999));
    assert_eq!(said(&published, "ads.example"), Some(Action::Block));
    board.tick(at(110));
    assert_eq!(said(&published, "ads.example"), None);
    assert!(board.remove_overrides(&[name("Good.Example")]).is_empty());
    assert_eq!(board.remove_overrides(&[name("good.example")]).len(), 1);
    assert!(published.current().1.switches().overrides.is_none());
}

#[test]
fn nothing_is_published_while_nothing_is_over() {
    let published = published();
    let board = begin(None, Arc::clone(&published), at(100));
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
    let board = begin(None, Arc::clone(&published), at(1));
    {
        let mut state = board.locked();
        for number in 0..OVERRIDES_MAX {
            let name = name(&format!("n{number}.example"));
            let entry = Entry { held: BLOCK, until: Until::Told };
            state.overrides.insert(name.as_name().as_bytes().into(), entry);
        }
    }
    let add = |text: &str, held| board.override_names(&[name(text)], held, Until::Told, at(1));
    assert_eq!(add("other.example", BLOCK), Err(Full::Overrides));
    assert_eq!(add("n7.example", ALLOW_BELOW), Ok(()));
    assert_eq!(said(&published, "x.n7.example"), Some(Action::Allow));
    assert_eq!(said(&published, "n9999.example"), Some(Action::Block));
}

#[test]
fn what_is_kept_is_taken_up_but_for_what_is_over() {
    let directory = Directory::create("kept");
    let before = {
        let board = begin(Some(&directory.0), published(), at(100));
        let escaped = name("a\\.b\\200.example");
        board.override_names(&[escaped], BLOCK, Until::Told, at(100)).unwrap();
        board.override_names(&[name("gone.example")], BLOCK, for_seconds(100, 5), at(100)).unwrap();
        board.disable("ads \"x\"", for_seconds(100, 500), at(100)).unwrap();
        board.disable("other", for_seconds(100, 5), at(100)).unwrap();
        board.pause(Until::Told, at(100));
        assert!(board.keep(at(1)).unwrap());
        // Nobody else may write there meanwhile.
        let second = begin(Some(&directory.0), published(), at(100));
        assert!(!second.is_kept() && second.keep(at(1)).is_err());
        // But it goes by it: the first may be on its way out.
        assert_eq!(second.state(), board.state());
        board.state()
    };
    let published = published();
    let board = begin(Some(&directory.0), Arc::clone(&published), at(105));
    let mut expected = before;
    assert_eq!(expected.expire(at(105)).len(), 2);
    assert_eq!(board.state(), expected);
    let (_, policy) = published.current();
    assert!(policy.switches().is_paused && policy.switches().disabled.contains("ads \"x\""));
}

#[test]
fn file_that_is_of_no_use_is_moved_out_of_the_way() {
    let directory = Directory::create("bad");
    let board = begin(Some(&directory.0), published(), at(1));
    board.pause(Until::Told, at(1));
    assert!(board.keep(at(1)).unwrap());
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
    let board = begin(Some(&directory.0), Arc::clone(&published), at(2));
    assert_eq!(board.state(), State::default());
    assert!(!published.current().1.switches().is_paused);
    assert!(!directory.file().exists());
    assert_eq!(std::fs::read(directory.0.join("switches.bad")).unwrap(), good[..good.len() - 3]);
    board.pause(Until::Told, at(2));
    assert!(board.keep(at(1)).unwrap());
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

#[test]
fn file_that_cannot_be_read_now_stays_and_counts_once_it_can() {
    let directory = Directory::create("unread");
    let board = begin(Some(&directory.0), published(), at(1));
    board.override_names(&[name("a.example")], BLOCK, Until::Told, at(1)).unwrap();
    board.override_names(&[name("b.example")], BLOCK, Until::Told, at(1)).unwrap();
    assert!(board.keep(at(1)).unwrap());
    drop(board);
    let good = std::fs::read(directory.file()).unwrap();
    // Others could have written it.
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(directory.file(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o664);
    let published = published();
    let board = begin(Some(&directory.0), Arc::clone(&published), at(2));
    assert_eq!((board.state(), board.is_kept()), (State::default(), false));
    board.override_names(&[name("b.example")], ALLOW_BELOW, Until::Told, at(2)).unwrap();
    let refusal = board.keep(at(2)).unwrap_err().to_string();
    assert!(refusal.contains("neither taken up nor written over: others than"), "{refusal}");
    assert_eq!(std::fs::read(directory.file()).unwrap(), good, "it is not written over");
    mode(0o600);
    tick_until_kept(&board, at(2));
    assert_eq!(said(&published, "a.example"), Some(Action::Block));
    assert_eq!(said(&published, "b.example"), Some(Action::Allow), "the later word counts");
    assert_eq!(kept_in(&directory), board.state());
}

#[test]
fn place_that_another_node_leaves_is_taken_over() {
    let directory = Directory::create("left");
    let first = begin(Some(&directory.0), published(), at(1));
    first.override_names(&[name("a.example")], BLOCK, Until::Told, at(1)).unwrap();
    assert!(first.keep(at(1)).unwrap());
    let published = published();
    let second = begin(Some(&directory.0), Arc::clone(&published), at(2));
    assert_eq!(said(&published, "a.example"), Some(Action::Block));
    // The first is asked something at the last moment.
    first.pause(Until::Told, at(2));
    assert!(first.keep(at(2)).unwrap());
    drop(first);
    tick_until_kept(&second, at(3));
    assert!(published.current().1.switches().is_paused);
    assert!(second.remove_overrides(&[name("a.example")]).is_empty());
    assert!(second.keep(at(3)).unwrap());
    assert_eq!(kept_in(&directory).override_count(), 0);
}

#[test]
fn what_was_taken_back_before_the_place_was_free_stays_so() {
    let directory = Directory::create("taken-back");
    let first = begin(Some(&directory.0), published(), at(1));
    first.override_names(&[name("a.example")], BLOCK, Until::Told, at(1)).unwrap();
    assert!(first.keep(at(1)).unwrap());
    let second = begin(Some(&directory.0), published(), at(2));
    assert!(second.remove_overrides(&[name("a.example")]).is_empty());
    assert!(second.keep(at(2)).is_err());
    drop(first);
    tick_until_kept(&second, at(3));
    assert_eq!((kept_in(&directory), second.state()), (State::default(), State::default()));
}

#[test]
fn failure_to_write_is_remembered_and_mended() {
    let directory = Directory::create("failure");
    let board = begin(Some(&directory.0), published(), at(1));
    assert!(board.is_kept());
    // Nothing can be put in the place of that.
    std::fs::create_dir(directory.file()).unwrap();
    board.pause(Until::Told, at(1));
    assert!(board.keep(at(1)).is_err() && !board.is_kept());
    let mut gauges = Exposition::default();
    board.expose(&mut gauges);
    let gauges = gauges.finish(crate::observe::Format::Classic);
    assert!(gauges.contains("\ndns_switches_kept 0\n"), "{gauges}");
    std::fs::remove_dir(directory.file()).unwrap();
    tick_until_kept(&board, at(1));
    assert!(kept_in(&directory).pause().is_some());
}

#[test]
fn several_names_are_taken_together_or_not_at_all() {
    let board = begin(None, published(), at(1));
    let names: Vec<NameBuf> =
        (0..OVERRIDES_MAX).map(|number| name(&format!("n{number}.example"))).collect();
    board.override_names(&names[1..], BLOCK, Until::Told, at(1)).unwrap();
    let two = [name("x.example"), name("y.example")];
    assert_eq!(board.override_names(&two, BLOCK, Until::Told, at(1)), Err(Full::Overrides));
    assert_eq!(board.look(State::override_count), OVERRIDES_MAX - 1);
    // The same name in another case is one name, and a known one takes no more room.
    let one = [name("X.example"), name("x.example"), name("n7.example")];
    assert_eq!(board.override_names(&one, ALLOW_BELOW, Until::Told, at(1)), Ok(()));
    let missing = board.remove_overrides(&two);
    let missing: Vec<String> = missing.iter().map(|name| name.as_name().to_string()).collect();
    assert_eq!(missing, ["y.example."]);
}

#[test]
fn word_for_a_name_above_is_told_if_it_reaches_down() {
    let board = begin(None, published(), at(0));
    let block_below = Override { is_subtree: true, ..BLOCK };
    for (text, held) in
        [("Ads.example", block_below), ("b.ads.example", BLOCK), ("good.ads.example", ALLOW_BELOW)]
    {
        board.override_names(&[name(text)], held, Until::Told, at(0)).unwrap();
    }
    let above = |text: &str| {
        let told = |(name, action): (Name<'_>, Action)| (name.to_string(), action);
        board.look(|state| state.above(&name(text)).map(told))
    };
    let by = |text: &str, action| Some((text.to_owned(), action));
    assert_eq!(above("b.ADS.example"), by("ads.example.", Action::Block));
    assert_eq!(above("a.b.ads.example"), by("ads.example.", Action::Block));
    assert_eq!(above("x.good.ads.example"), by("good.ads.example.", Action::Allow));
    for none in ["ads.example", "xads.example", "example", "."] {
        assert_eq!(above(none), None, "{none}");
    }
    board.override_names(&[name(".")], block_below, Until::Told, at(0)).unwrap();
    assert_eq!((above("a.test"), above(".")), (by(".", Action::Block), None));
}

#[test]
fn log_has_the_first_names_of_many_and_their_number() {
    let names: Vec<NameBuf> =
        (0..25).map(|number| NameBuf::from_text(&format!("N{number}.example")).unwrap()).collect();
    assert_eq!(told(&names[..1]), "n0.example.");
    assert_eq!(told(&names[..2]), "2 names (n0.example., n1.example.)");
    let many = told(&names);
    assert!(
        many.starts_with("25 names (n0.example., ") && many.ends_with("n19.example. and 5 more)"),
        "{many}"
    );
}
