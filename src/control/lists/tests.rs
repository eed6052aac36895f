//! Keepers with files, copies and servers of their own, told what to look at; no test waits for time to pass.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::fixture::{Directory, Server, respond};
use super::*;
use crate::config::{Filter, List, ListKind, ListSource};
use crate::policy::filter::{Asker, Lists};
use crate::policy::{Acl, Identity, LocalData, Policy};
use crate::wire::{NameBuf, Rtype};

fn published() -> Arc<Published> {
    let acl = Acl::new(&config::Acl::default());
    let identity = Identity::new(&config::Identity::default());
    Arc::new(Published::new(Policy::new(acl, identity, LocalData::default())))
}

fn file(name: &str, path: PathBuf) -> List {
    List::new(name.into(), ListSource::File(path), "node.toml:1".into())
}

fn url(name: &str, url: String) -> List {
    List::new(name.into(), ListSource::Url(url), "node.toml:1".into())
}

/// A keeper whose copies lie in `directory`, if anywhere.
fn setup(directory: Option<&Directory>, lists: &[List]) -> Setup {
    let filter = Filter {
        directory: directory.map(|directory| directory.0.join("kept")),
        download_timeout: Duration::from_secs(20),
        ..Filter::default()
    };
    Setup {
        filter,
        lists: lists.to_vec(),
        groups: Box::new([Lists::ALL]),
        draw: || Ok([7; 16]),
        clock: CacheTime::default,
    }
}

fn keeper(directory: Option<&Directory>, lists: &[List]) -> Keeper {
    Keeper::begin(setup(directory, lists), published()).unwrap()
}

/// A keeper that leaves the directory to the next one, as after its end, but still has its image in force.
fn ended(directory: &Directory, lists: &[List]) -> Keeper {
    let mut keeper = keeper(Some(directory), lists);
    assert_eq!(keeper.directory, Some(directory.0.join("kept")));
    keeper._claim = None;
    keeper
}

/// Looks at all lists, as SIGHUP does.
fn refresh(keeper: &mut Keeper) {
    keeper.schedule.all(monotonic());
    keeper.look_at_due();
}

/// The number of the list that decides over `name`.
fn decides(keeper: &Keeper, name: &str) -> Option<u8> {
    let name = NameBuf::from_text(name).unwrap();
    let address = [192, 0, 2, 1].into();
    let asker = Asker { lists: &Lists::ALL, qtype: Rtype::A, address, name: None };
    let image = keeper.image.as_ref().expect("something is in force from the start");
    let decision = image.matcher().decide(name.as_name().as_bytes(), &asker);
    decision.map(|decision| decision.list)
}

/// Looks that were made at a list: changed, unchanged, failed.
fn looks(keeper: &Keeper, number: usize) -> [u64; 3] {
    let list = &keeper.list_counters[number];
    [&list.changed, &list.unchanged, &list.failed].map(|count| count.value())
}

fn built(keeper: &Keeper) -> u64 {
    keeper.counters.built.value()
}

#[test]
fn node_without_lists_has_no_keeper() {
    assert!(Keeper::begin(setup(None, &[]), published()).is_none());
}

#[test]
fn files_are_in_force_from_the_start_and_read_again_only_when_they_have_changed() {
    let directory = Directory::create("files");
    let ads =
        directory.write("ads", b"0.0.0.0 ads.example\nnonsense line here\n0.0.0.0 ads2.example\n");
    let ours = directory.write("ours", b"ads2.example\n");
    let allow = List { kind: ListKind::Allow, ..file("ours", ours) };
    let lists = [file("ads", ads), allow];
    let mut keeper = keeper(None, &lists);
    assert_eq!(keeper.published.epoch(), 1, "a policy that filters is published");
    assert_eq!(
        (decides(&keeper, "ads.example"), decides(&keeper, "ads2.example")),
        (Some(0), Some(1))
    );
    let counters = keeper.counters();
    assert_eq!((counters.lists()[0].rules.value(), counters.lists()[0].bad_lines.value()), (2, 1));
    assert_eq!((counters.names.value(), counters.lists()[1].bytes.value()), (2, 13));
    refresh(&mut keeper);
    assert_eq!((built(&keeper), looks(&keeper, 0)), (1, [0, 1, 0]));
    directory.write("ads", b"0.0.0.0 other.example\n");
    refresh(&mut keeper);
    assert_eq!((built(&keeper), looks(&keeper, 0), looks(&keeper, 1)), (2, [1, 1, 0], [0, 2, 0]));
    assert_eq!(
        (decides(&keeper, "ads.example"), decides(&keeper, "other.example")),
        (None, Some(0))
    );
    assert_eq!(keeper.published.epoch(), 2);
}

#[test]
fn file_that_is_gone_has_no_rules_until_it_is_back() {
    let directory = Directory::create("gone");
    let path = directory.write("ads", b"ads.example\n");
    let mut keeper = keeper(None, &[file("ads", path.clone())]);
    std::fs::remove_file(&path).unwrap();
    for _ in 0..2 {
        refresh(&mut keeper);
        assert_eq!((decides(&keeper, "ads.example"), built(&keeper)), (None, 2));
    }
    assert_eq!(looks(&keeper, 0), [0, 0, 2]);
    directory.write("ads", b"ads.example\n");
    refresh(&mut keeper);
    assert_eq!((decides(&keeper, "ads.example"), built(&keeper)), (Some(0), 3));
}

#[test]
fn file_that_is_too_long_is_left_out_and_looked_at_no_more_than_others() {
    let directory = Directory::create("long");
    let path = directory.write("ads", &b"ads.example\n".repeat(100));
    let mut setup = setup(None, &[file("ads", path)]);
    setup.filter.list_bytes_max = 1_000;
    let mut keeper = Keeper::begin(setup, published()).unwrap();
    refresh(&mut keeper);
    assert_eq!((decides(&keeper, "ads.example"), built(&keeper)), (None, 1));
    directory.write("ads", b"ads.example\n");
    refresh(&mut keeper);
    assert_eq!((decides(&keeper, "ads.example"), built(&keeper)), (Some(0), 2));
}

#[test]
fn image_is_there_at_once_after_a_restart_if_it_still_fits() {
    let directory = Directory::create("restart");
    let path = directory.write("ads", b"ads.example\n!bad\n\nb!d\n");
    let lists = [file("ads", path)];
    let first = ended(&directory, &lists);
    let second = ended(&directory, &lists);
    assert_eq!((built(&first), built(&second), decides(&second, "ads.example")), (1, 0, Some(0)));
    let counts = |keeper: &Keeper| {
        let list = &keeper.list_counters[0];
        [&list.rules, &list.bad_lines, &list.skipped_lines, &list.bytes].map(|gauge| gauge.value())
    };
    assert_eq!(counts(&first), counts(&second));
    directory.write("ads", b"other.example\n");
    let third = ended(&directory, &lists);
    assert_eq!((built(&third), decides(&third, "ads.example")), (1, None));
    let renamed = [List { name: "else".into(), ..lists[0].clone() }];
    assert_eq!(
        built(&keeper(Some(&directory), &renamed)),
        1,
        "made anew when the config has changed"
    );
    // One in use is not touched by those that come after it.
    assert_eq!(decides(&first, "ads.example"), Some(0));
    std::fs::write(directory.0.join("kept/image"), "heimfltr, and then something else").unwrap();
    assert_eq!(decides(&keeper(Some(&directory), &lists), "other.example"), Some(0));
}

#[test]
fn downloaded_list_survives_a_restart_with_the_network_down() {
    let directory = Directory::create("down");
    let is_down = Arc::new(AtomicBool::new(false));
    let network = Arc::clone(&is_down);
    let server = Server::start(move |_, out| {
        if !network.load(Ordering::Relaxed) {
            respond(out, "200 OK", "ETag: \"1\"\r\n", b"||ads.example^\n");
        }
    });
    let lists = [url("ads", server.url("/")), file("none", directory.0.join("none"))];
    for directory in [Some(&directory), None] {
        let mut keeper = keeper(directory, &lists);
        assert_eq!(decides(&keeper, "ads.example"), None, "nobody waits for the network");
        assert_eq!(keeper.schedule.due(monotonic()), [0]);
        refresh(&mut keeper);
        assert_eq!((decides(&keeper, "www.ads.example"), looks(&keeper, 0)), (Some(0), [1, 0, 0]));
    }
    is_down.store(true, Ordering::Relaxed);
    let again = keeper(Some(&directory), &lists);
    assert_eq!((built(&again), decides(&again, "ads.example")), (0, Some(0)));
    assert!(again.schedule.due(monotonic()).is_empty(), "a fresh copy is not asked for again");
    drop(again);
    // Without the image the copy does.
    std::fs::remove_file(directory.0.join("kept/image")).unwrap();
    let mut again = keeper(Some(&directory), &lists);
    refresh(&mut again);
    assert_eq!((built(&again), decides(&again, "ads.example")), (1, Some(0)));
    assert_eq!(looks(&again, 0), [0, 0, 1]);
}

#[test]
fn suspicious_download_keeps_the_copy_of_before() {
    let directory = Directory::create("suspicious");
    let answers: [(&str, &[u8]); 7] = [
        ("200 OK", b"ads.example\n"),
        ("500 Internal Server Error", b"other.example\n"),
        ("200 OK", b""),
        ("200 OK", b"<html>other.example\n</html>"),
        ("200 OK", b"# nothing\n"),
        ("304 Not Modified", b""),
        ("200 OK", b"other.example\n"),
    ];
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_, out| {
        let (status, body) = answers[asked.fetch_add(1, Ordering::Relaxed)];
        respond(out, status, "ETag: \"x\"\r\n", body);
    });
    let mut keeper = keeper(Some(&directory), &[url("ads", server.url("/"))]);
    refresh(&mut keeper);
    assert_eq!(decides(&keeper, "ads.example"), Some(0));
    for failures in 1..=4 {
        refresh(&mut keeper);
        assert_eq!(
            (decides(&keeper, "ads.example"), looks(&keeper, 0)),
            (Some(0), [1, 0, failures])
        );
        assert!(keeper.schedule.is_failing(0));
    }
    refresh(&mut keeper);
    assert_eq!((looks(&keeper, 0), built(&keeper)), ([1, 1, 4], 2));
    assert!(!keeper.schedule.is_failing(0));
    refresh(&mut keeper);
    assert_eq!(
        (decides(&keeper, "ads.example"), decides(&keeper, "other.example")),
        (None, Some(0))
    );
}

#[test]
fn torn_copy_is_fetched_as_a_whole() {
    let directory = Directory::create("copy");
    let server = Server::start(|head, out| {
        let is_asked_for_change = head.to_ascii_lowercase().contains("if-none-match");
        let status = if is_asked_for_change { "304 Not Modified" } else { "200 OK" };
        respond(
            out,
            status,
            "ETag: \"1\"\r\n",
            if is_asked_for_change { b"" } else { b"ads.example\n" },
        );
    });
    let lists = [url("ads", server.url("/"))];
    refresh(&mut keeper(Some(&directory), &lists));
    let copy = std::fs::read_dir(directory.0.join("kept"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "list"))
        .unwrap();
    let mut octets = std::fs::read(&copy).unwrap();
    *octets.last_mut().unwrap() = b'x';
    std::fs::write(&copy, octets).unwrap();
    std::fs::remove_file(directory.0.join("kept/image")).unwrap();
    let mut keeper = keeper(Some(&directory), &lists);
    assert_eq!(decides(&keeper, "ads.example"), None);
    refresh(&mut keeper);
    assert_eq!(decides(&keeper, "ads.example"), Some(0));
}

#[test]
fn rules_beyond_the_memory_are_left_out_and_allowances_come_first() {
    let directory = Directory::create("memory");
    let many: String = (0..10_000).map(|number| format!("name{number}.ads.example\n")).collect();
    let block = directory.write("block", many.as_bytes());
    let allow = directory.write("allow", b"ours.example\n");
    let lists = [file("block", block), List { kind: ListKind::Allow, ..file("allow", allow) }];
    let mut setup = setup(None, &lists);
    setup.filter.bytes = 1 << 20;
    let mut keeper = Keeper::begin(setup, published()).unwrap();
    let counters = keeper.counters();
    let counts = || {
        let list = &counters.lists()[0];
        [&list.rules, &list.left_out_lines, &list.bad_lines].map(|gauge| gauge.value())
    };
    let [rules, left_out, bad] = counts();
    assert!(rules > 1_000 && left_out > 1_000 && rules + left_out == 10_000, "{rules}");
    assert_eq!((decides(&keeper, "ours.example"), bad), (Some(1), 0));
    let (last, first_out) =
        (format!("name{}.ads.example", rules - 1), format!("name{rules}.ads.example"));
    assert_eq!((decides(&keeper, &last), decides(&keeper, &first_out)), (Some(0), None));
    // The next image is as large, and one that is cut may take the place of one that is.
    directory.write("allow", b"theirs.example\n");
    refresh(&mut keeper);
    assert!(counts()[0].abs_diff(rules) <= 1, "{rules} before, {} now", counts()[0]);
    assert_eq!((decides(&keeper, "theirs.example"), built(&keeper)), (Some(1), 2));
}

#[test]
fn refresh_keeps_all_rules_and_a_whole_image_is_not_replaced_by_one_that_is_cut() {
    let directory = Directory::create("whole");
    let text = |count: usize| -> String {
        (0..count).map(|number| format!("name{number}.ads.example\n")).collect()
    };
    // As many as there is room for, when nothing is in force.

    for kept in [None, Some(&directory)] {
        let path = directory.write("block", text(10_000).as_bytes());
        let mut setup = setup(kept, &[file("block", path)]);
        setup.filter.bytes = 1 << 20;
        let again = Setup {
            filter: setup.filter.clone(),
            lists: setup.lists.clone(),
            groups: setup.groups.clone(),
            ..setup
        };
        let cut = Keeper::begin(again, published()).unwrap();
        let most = usize::try_from(cut.list_counters[0].rules.value()).unwrap();
        drop(cut);

        directory.write("block", text(most - 100).as_bytes());
        let mut keeper = Keeper::begin(setup, published()).unwrap();
        for more in 1..=3 {
            directory.write("block", text(most - 100 + more).as_bytes());
            refresh(&mut keeper);
            assert_eq!(built(&keeper), more as u64 + 1);
            assert_eq!(keeper.counters.names.value(), (most - 100 + more) as u64);
        }
        directory.write("block", text(10_000).as_bytes());
        refresh(&mut keeper);
        assert_eq!((built(&keeper), keeper.counters.failed.value()), (4, 1));
        assert_eq!(keeper.counters.names.value(), (most - 97) as u64);
        assert_eq!(keeper.list_counters[0].left_out_lines.value(), 0);
        directory.write("block", b"ads.example\n");
        refresh(&mut keeper);
        assert_eq!((built(&keeper), keeper.counters.names.value()), (5, 1));
    }
}

#[test]
fn directory_that_cannot_be_written_is_done_without_and_told_by_a_check() {
    let directory = Directory::create("unwritable");
    let path = directory.write("ads", b"ads.example\n");
    let lists = [file("ads", path)];
    let mut setup = setup(Some(&directory), &lists);
    setup.filter.directory = Some(directory.0.join("ads"));
    let told = warning(&setup.filter, &lists).unwrap();
    assert!(told.starts_with("filter.directory: ") && told.contains("lists cannot"), "{told}");
    let told = warning(&setup.filter, &[]).unwrap();
    assert!(told.contains("what is switched by hand"), "{told}");
    let keeper = Keeper::begin(setup, published()).unwrap();
    assert_eq!((decides(&keeper, "ads.example"), &keeper.directory), (Some(0), &None));
    let filter = Filter { directory: Some(directory.0.join("fresh")), ..Filter::default() };
    assert_eq!(warning(&filter, &lists), None);
    assert!(!directory.0.join("fresh").exists(), "a check leaves nothing behind");
}

#[test]
fn directory_belongs_to_one_node_at_a_time_and_a_check_beside_it_passes() {
    let directory = Directory::create("claimed");
    let path = directory.write("ads", b"ads.example\n");
    let lists = [file("ads", path)];
    let first = keeper(Some(&directory), &lists);
    let image = directory.0.join("kept/image");
    let written = std::fs::metadata(&image).unwrap().modified().unwrap();
    directory.write("ads", b"other.example\n");
    let second = keeper(Some(&directory), &lists);
    assert_eq!((&second.directory, decides(&second, "other.example")), (&None, Some(0)));
    assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), written);
    assert_eq!(warning(&setup(Some(&directory), &lists).filter, &lists), None);
    drop((first, second));
    assert!(keeper(Some(&directory), &lists).directory.is_some());
}

#[test]
fn thread_looks_when_told_and_ends_when_nobody_could_tell_any_more() {
    let directory = Directory::create("thread");
    let path = directory.write("ads", b"ads.example\n");
    let published = published();
    let setup = setup(None, &[file("ads", path)]);
    let keeper = Keeper::begin(setup, Arc::clone(&published)).unwrap();
    let counters = keeper.counters();
    let (orders, received) = channel();
    let thread = std::thread::spawn(move || keeper.run(&received));
    // Somebody follows the schedules: what he says stays with the next image.
    let nobody: Box<[Lists]> = Box::new([Lists::default()]);
    published.replace(|policy| {
        let filtering = policy.filtering().unwrap();
        policy.clone().filtered(Some(Arc::new(filtering.regrouped(nobody.clone()))))
    });
    directory.write("ads", b"other.example\nthird.example\n");
    orders.send(Order::Refresh).unwrap();
    drop(orders);
    thread.join().unwrap();
    assert_eq!((counters.names.value(), counters.asked.value(), published.epoch()), (2, 1, 3));
    assert_eq!(published.current().1.filtering().unwrap().groups(), &*nobody);
}

#[test]
fn other_lists_are_in_force_at_once_with_their_own_numbers_and_counts() {
    let directory = Directory::create("others");
    let path = |name: &str| directory.write(name, format!("{name}.example\n").as_bytes());
    let [ads, games, news] = ["ads", "games", "news"].map(|name| file(name, path(name)));
    let mut keeper = keeper(Some(&directory), &[ads.clone(), games.clone()]);
    let published = Arc::clone(&keeper.published);
    let filter = keeper.filter.clone();
    keeper.keep_others(filter.clone(), vec![news, ads.clone()]);
    let numbers = |keeper: &Keeper| {
        ["ads", "games", "news"].map(|name| decides(keeper, &format!("{name}.example")))
    };
    assert_eq!((numbers(&keeper), built(&keeper)), ([Some(1), None, Some(0)], 2));
    let (_, policy) = published.current();
    let filtering = policy.filtering().unwrap();
    assert_eq!(filtering.list_names(), ["news", "ads"]);
    assert!(filtering.groups()[0].contains(1), "all lists count for who has no group");
    let names: Vec<u64> = keeper.counters.lists().iter().map(|list| list.rules.value()).collect();
    assert_eq!(names, [1, 1]);
    assert_eq!(looks(&keeper, 1), [0, 0, 0]);
    refresh(&mut keeper);
    assert_eq!((looks(&keeper, 1), built(&keeper)), ([0, 1, 0], 2), "nothing has changed since");
    // Another answer is no other rule.
    let answer = config::ListAnswer::Refused;
    let refusing = List { answer, ..ads };
    keeper.keep_others(filter.clone(), vec![refusing]);
    assert_eq!(built(&keeper), 3);
    let answer = config::ListAnswer::Nxdomain;
    let denying = List { answer, ..keeper.lists[0].clone() };
    keeper.keep_others(filter.clone(), vec![denying]);
    assert_eq!(built(&keeper), 3);
    keeper.keep_others(filter, Vec::new());
    assert!(published.current().1.filtering().is_none() && keeper.counters.lists().is_empty());
}

#[test]
fn other_lists_count_by_the_clock_that_is_handed_in() {
    const NOON: u64 = 12 * 3_600_000;
    let directory = Directory::create("clock");
    let games = file("games", directory.write("games", b"games.example\n"));
    let ads = file("ads", directory.write("ads", b"ads.example\n"));
    // Half of the day, whatever the time zone.
    let period = config::Period {
        lists: vec!["games".into()],
        days: config::Days(0x7F),
        from_minute: 0,
        to_minute: 720,
    };
    let groups = [config::Group {
        name: config::DEFAULT_GROUP.into(),
        periods: vec![period],
        ..config::Group::default()
    }];
    let counts: [bool; 2] =
        [CacheTime::default, || CacheTime::from_millis(NOON)].map(|clock: fn() -> CacheTime| {
            let published = published();
            let grouped = crate::policy::Groups::new(&groups, &[]);
            published.replace(|policy| policy.clone().grouped(grouped.clone()));
            let setup = Setup { clock, ..setup(None, std::slice::from_ref(&ads)) };
            let mut keeper = Keeper::begin(setup, Arc::clone(&published)).unwrap();
            keeper.keep_others(keeper.filter.clone(), vec![ads.clone(), games.clone()]);
            let (_, policy) = published.current();
            policy.filtering().unwrap().groups()[0].contains(1)
        });
    assert_ne!(counts[0], counts[1], "twelve hours lie between them");
}

#[test]
fn long_work_gives_way_once_the_node_serves_and_the_thread_itself_never() {
    /// Field 19 of proc_pid_stat(5), of the thread; the second one, in brackets, may hold blanks.
    fn niceness(_: &mut Keeper) -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').nth(16).unwrap().parse().unwrap()
    }
    let directory = Directory::create("patient");
    let ads = file("ads", directory.write("ads", b"ads.example\n"));
    let mut keeper = keeper(None, &[ads]);
    let own = niceness(&mut keeper);
    assert_eq!(keeper.behind(niceness), own);
    keeper.is_patient = true;
    assert_eq!(keeper.behind(niceness), 19);
    assert_eq!(niceness(&mut keeper), own);
}

#[test]
fn other_lists_that_outgrow_the_memory_are_in_force_and_the_same_are_refused() {
    let directory = Directory::create("other-cut");
    let text = |count: usize| -> String {
        (0..count).map(|number| format!("name{number}.ads.example\n")).collect()
    };
    let few = file("few", directory.write("few", text(10).as_bytes()));
    let path = directory.write("many", text(10).as_bytes());
    let many = file("many", path);
    let mut setup = setup(None, &[few]);
    setup.filter.bytes = 1 << 20;
    let filter = setup.filter.clone();
    let mut keeper = Keeper::begin(setup, published()).unwrap();
    directory.write("many", text(10_000).as_bytes());
    let failed = |keeper: &Keeper| keeper.counters.failed.value();
    keeper.keep_others(filter.clone(), vec![many.clone()]);
    assert_eq!((built(&keeper), failed(&keeper)), (2, 0));
    assert!(keeper.list_counters[0].left_out_lines.value() > 0);
    // Whole again; then too many for the same lists, which answer otherwise from now on.
    directory.write("many", text(20).as_bytes());
    refresh(&mut keeper);
    assert_eq!((built(&keeper), keeper.counters.names.value()), (3, 20));
    directory.write("many", text(10_000).as_bytes());
    let refusing = List { answer: config::ListAnswer::Refused, ..many };
    keeper.keep_others(filter, vec![refusing.clone()]);
    assert_eq!((built(&keeper), failed(&keeper), keeper.counters.names.value()), (3, 1, 20));
    let (_, policy) = keeper.published.current();
    assert_eq!(policy.filtering().unwrap().lists(), [refusing]);
}
