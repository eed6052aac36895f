//! Files, variables and flags as operators write them, right and wrong.

use proptest::prelude::{any, proptest};

use super::*;
use crate::config::{CoreSelection, IoBackend, Selection};

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::load(Some(File { name: "node.toml", text }), [], &[])
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

fn variable(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn empty_file_gives_the_defaults() {
    assert_eq!(load("").unwrap(), Config::default());
}

#[test]
fn stated_defaults_are_the_real_ones() {
    let is_value = |default: &str| {
        default == "true" || default.starts_with(['"', '[', '0', '1', '2', '3', '4', '5', '6', '8'])
    };
    for key in KEYS.iter().filter(|key| is_value(key.default)) {
        let text = format!("[{}]\n{} = {}\n", key.table, key.name, key.default);
        assert_eq!(load(&text).unwrap(), Config::default(), "{key:?}");
    }
}

#[test]
fn every_key_refuses_a_value_of_another_kind_with_place_and_expectation() {
    for key in KEYS {
        let text = format!("# a comment\n[{}]\n\n{} = 2026-11-21\n", key.table, key.name);
        let error = error(&text);
        let start = format!("node.toml:4: {}.{} = 2026-11-21: expected ", key.table, key.name);
        assert!(error.starts_with(&start), "{error}");
        assert!(error.ends_with(key.expected), "{error}");
    }
}

#[test]
fn message_is_one_an_operator_can_act_on() {
    assert_eq!(
        error("[cache]\nsize = \"2 gigs\""),
        "node.toml:2: cache.size = \"2 gigs\": expected \"auto\" or a size \
         from 2MiB to 1TiB such as \"2GiB\""
    );
    assert!(
        error("[cache]\n\nttl_mix = 1").starts_with(
            "node.toml:3: unknown key \"cache.ttl_mix\" (did you mean \"ttl_min\"?); allowed: size, ttl_min, "
        )
    );
    assert_eq!(
        error("[optimizations]\nprefetch = false"),
        "node.toml:2: optimizations.prefetch is called cache.prefetch"
    );
    assert!(
        error("\n[cahce]\n")
            .starts_with("node.toml:2: unknown table \"cahce\" (did you mean \"cache\"?)")
    );
    assert!(error("lissen = []").starts_with("node.toml:1: unknown table \"lissen\""));
    assert!(
        error("[node]\nio = \"uring\"\nio = \"mmsg\"").starts_with("node.toml:3: not valid TOML")
    );
    assert!(error("[node\n").starts_with("node.toml:1: not valid TOML"));
}

#[test]
fn local_zones_know_where_their_records_begin() {
    let text = "[[local]]\nzone = \"a.\"\nrecords = \"\"\"\nwww A 192.0.2.1\n\"\"\"\n[[local]]\nzone = \"b.\"\n";
    let config = load(text).unwrap();
    let [first, second] = &config.local[..] else { panic!("{:?}", config.local) };
    assert_eq!((first.zone.as_str(), first.place.as_str()), ("a.", "node.toml:4"));
    assert_eq!((second.records.as_str(), second.place.as_str()), ("", "node.toml:6"));
    assert!(
        error("[[local]]\nrecords = \"\"").contains("local.zone = \"\": expected a domain name")
    );
    assert!(error("[[local]]\nzone = \"a.\"\nttl = 3").contains("unknown key \"local.ttl\""));
    assert!(error("[[local]]\nzone = 5").starts_with("node.toml:2: local.zone = 5: expected"));
    assert!(error("local = 5").contains("[[local]]"));
}

#[test]
fn local_zone_may_stand_in_a_file_of_its_own() {
    let config = load("[[local]]\nzone = 'a.'\nfile = '/etc/a.zone'\n").unwrap();
    let [file] = &config.local_files[..] else { panic!("{config:?}") };
    assert_eq!((file.place.as_str(), config.local.len()), ("node.toml:1", 0));
    let zone = file.clone().with_records("www A 192.0.2.1\nx".into());
    assert_eq!((zone.zone.as_str(), zone.place_of(2).as_str()), ("a.", "/etc/a.zone:2"));
    for (keys, expected) in [
        (
            "zone = 'a.'\nfile = 'a.zone'",
            "node.toml:3: local.file = \"a.zone\": expected the absolute",
        ),
        ("zone = 'a.'\nfile = 7", "node.toml:3: local.file = 7: expected the absolute path"),
        ("zone = 'a.'\nrecords = ''\nfile = '/a'", "either records or a file, not both"),
        ("file = '/a'", "local.zone = \"\": expected a domain name"),
        ("zone = 'a.'\nfil = '/a'", "did you mean \"file\"?"),
    ] {
        let error = error(&format!("[[local]]\n{keys}\n"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn lines_of_records_are_lines_of_the_file() {
    let place_of = |records: &str, line| {
        let text = format!("# zones\n[[local]]\nrecords = {records}\nzone = \"a.\"\n");
        load(&text).unwrap().local[0].place_of(line)
    };
    let block = "\"\"\"\n\nwww A 192.0.2.1\n\"\"\"";
    assert_eq!(place_of(block, 2), "node.toml:5");
    assert_eq!(place_of(&block.replace('\n', "\r\n"), 2), "node.toml:5");
    assert_eq!(place_of("'''www A 192.0.2.1\nb A 192.0.2.2'''", 2), "node.toml:4");
    assert_eq!(place_of("\"www A 192.0.2.1\"", 1), "node.toml:3");
    // Escapes make lines that the file does not have, or join those that it has.
    assert_eq!(place_of("\"a A 192.0.2.1\\nb A 192.0.2.2\"", 2), "node.toml:3: records, line 2");
    assert_eq!(place_of("\"\"\"\na A \\\n 192.0.2.1\n\"\"\"", 1), "node.toml:3: records, line 1");
}

#[test]
fn flag_beats_variable_beats_file() {
    let file =
        File { name: "node.toml", text: "[node]\nio = \"uring\"\ncores = \"0\"\ndrain = \"1s\"" };
    let variables = [
        variable("HEIMDALL_NODE_CORES", "1"),
        variable("HEIMDALL_NODE_IO", "mmsg"),
        variable("PATH", "/bin"),
    ];
    let value = Value::Text("2".into());
    let flag = Flag { flag: "--cores", table: "node", name: "cores", value };
    let config = Config::load(Some(file), variables, &[flag]).unwrap();
    assert_eq!(config.node.cores, CoreSelection::Cpus(vec![2]));
    assert_eq!(config.node.io, IoBackend::Mmsg);
    assert_eq!(config.node.drain.as_secs(), 1);
}

#[test]
fn variables_are_named_in_their_errors() {
    let failed =
        |name, text| Config::load(None, [variable(name, text)], &[]).unwrap_err().to_string();
    let error = failed("HEIMDALL_CACHE_SIZE", "lots");
    assert!(
        error.starts_with("environment: HEIMDALL_CACHE_SIZE: cache.size = \"lots\": expected"),
        "{error}"
    );
    let value = Value::Text("x".into());
    let flag = Flag { flag: "--cores", table: "node", name: "cores", value };
    let error = Config::load(None, [], &[flag]).unwrap_err().to_string();
    assert!(error.starts_with("--cores: node.cores = \"x\": expected"), "{error}");
}

#[test]
fn variable_of_no_key_changes_nothing() {
    let strays = [("HEIMDALL_URING_SERVICE_HOST", "10.96.0.10"), ("HEIMDALL_CACHE_SIZ", "1GiB")];
    let strays = strays.map(|(name, text)| variable(name, text));
    assert_eq!(Config::load(None, strays, &[]).unwrap(), Config::default());
}

#[test]
fn more_receive_buffers_than_a_ring_can_serve_are_refused() {
    let expected = "expected a power of two from 64 to 16384";
    assert!(error("[udp]\nreceive_buffers = 32768").ends_with(expected));
    assert_eq!(load("[udp]\nreceive_buffers = 16384").unwrap().udp.receive_buffers, 16_384);
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    assert!(error("[cache]\nttl_min = 100\nttl_max = 50").contains("cache.ttl_min = 100"));
    assert!(error("[forward]\nattempt_timeout = \"6s\"").contains("forward.deadline"));
    let slow = load("[forward]\ndeadline = \"20s\"").unwrap();
    assert!(slow.tcp.answer_timeout > slow.forward.deadline);
}

#[test]
fn overlong_file_is_refused_unread() {
    assert!(error(&"#".repeat(FILE_BYTES_MAX + 1)).contains("longer than"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = load(&text);
        let _ = load(&format!("[node]\ncores = {text}\nlisten = [{text:?}]\n"));
        let _ = Config::load(None, [variable("HEIMDALL_NODE_LISTEN", &text)], &[]);
    }
}

#[test]
fn mistake_in_a_long_list_names_the_one_item() {
    let mut prefixes: Vec<String> = (0..120).map(|net| format!("\"10.{net}.0.0/16\"")).collect();
    prefixes[90] = "\"10.90.0.1/16\"".to_owned();
    let message = error(&format!("[acl]\nallow = [{}]", prefixes.join(", ")));
    assert!(
        message
            .starts_with("node.toml:2: acl.allow = \"10.90.0.1/16\" (entry 91): expected prefixes"),
        "{message}"
    );
    prefixes[90] = prefixes[7].clone();
    let message = error(&format!("[acl]\nallow = [{}]", prefixes.join(", ")));
    assert!(message.contains("\"10.7.0.0/16\" (entry 91: it stands twice)"), "{message}");
    let message = error("[node]\nlisten = [\"127.0.0.1:53\", \"224.0.0.1:53\"]");
    assert!(message.contains("\"224.0.0.1:53\" (entry 2: a multicast address)"), "{message}");
    let message = error("[forward]\nupstreams = [\"::ffff:192.0.2.1\"]");
    assert!(message.contains("(entry 1: an IPv4-mapped address: write it as IPv4)"), "{message}");
    let message = error(&format!("[cache]\nsize = \"{}\"", "9".repeat(3_000)));
    assert!(message.len() < 300, "{message}");
}

#[test]
fn probation_and_hot_leave_room_for_the_rest() {
    let message = error("[cache]\nprobation = 60\nhot = 31");
    assert!(message.contains("cache.probation = 60 and cache.hot = 31"), "{message}");
    assert!(load("[cache]\nprobation = 60\nhot = 30").is_ok());
}

#[test]
fn zones_have_upstreams_of_their_own_beside_one_table_without() {
    let text = "[[forward]]\nupstreams = [\"192.0.2.1\"]\nhedge = 0\n\
        [[forward]]\nzone = [\"Corp.Example\", \"10.0.0.0/8\"]\npolicy = \"ordered\"\n\
        upstreams = [\"tls://192.0.2.2#dns.example\", \"tcp://192.0.2.3\"]\n\
        [[forward]]\nzone = \"lab.corp.example.\"\nupstreams = [\"192.0.2.4\"]";
    let forward = load(text).unwrap().forward;
    assert_eq!((forward.root.upstreams.len(), forward.hedge_percent), (1, 0));
    let [corp, lab] = &forward.zones[..] else { panic!("{:?}", forward.zones) };
    let apexes: Vec<String> = corp.apexes.iter().map(|apex| format!("{apex:?}")).collect();
    assert_eq!(apexes, ["corp.example.", "10.in-addr.arpa."]);
    assert_eq!((corp.selection, corp.upstreams.len()), (Selection::Ordered, 2));
    assert_eq!(lab.selection, Selection::Fastest);
    assert_eq!(forward.all_upstreams().count(), 4);
}

#[test]
fn mistakes_in_zones_name_the_place() {
    for (text, said) in [
        ("[[forward]]\nzone = \"corp.example\"", "needs upstreams"),
        ("[[forward]]\nzone = \".\"\nupstreams = [\"192.0.2.1\"]", "node.toml:2: forward.zone"),
        ("[[forward]]\nzone = \"a\"\nhedge = 0", "unknown key of a zone \"forward.hedge\""),
        ("[[forward]]\nzone = \"a\"\nupstreams = [\"x\"]", "forward.upstreams = \"x\" (entry 1)"),
        ("[[forward]]\nhedge = 1\n[[forward]]\nhedge = 2", "without a zone"),
        ("forward = [\"192.0.2.1\"]", "[[forward]] tables"),
        ("[forward]\nhedge = 1\n[[forward]]\nzone = \"a\"", "is written as [[forward]] without"),
        (
            "[[forward]]\nzone = \"a\"\nupstreams = [\"192.0.2.1\"]\n\
             [[forward]]\nzone = \"A.\"\nupstreams = [\"192.0.2.1\"]",
            "a. stands twice",
        ),
        (
            "[[forward]]\nzone = \"a\"\nupstreams = [\"192.0.2.1\"]\nattempt_timeout = \"6s\"",
            "above forward.deadline",
        ),
    ] {
        let message = error(text);
        assert!(message.contains(said), "{message}");
    }
}

/// Every mistake names where it stands, and the key, however late it shows.
#[test]
fn every_mistake_names_its_place_and_its_key() {
    let upstream = "[[forward]]\nzone = 'a'\nupstreams = ['192.0.2.1']\n";
    for (text, place, key) in [
        ("\n[cache]\nprobation = 60\nhot = 31", 3, "cache.probation"),
        ("[cache]\n\nhot = 50\nprobation = 60", 4, "cache.probation"),
        ("[cache]\nttl_max = 5\nttl_min = 9", 3, "cache.ttl_min"),
        ("[forward]\nattempt_timeout = '6s'", 2, "forward.attempt_timeout"),
        ("[forward]\n\ndeadline = '10ms'", 3, "forward.deadline"),
        (&format!("\n{upstream}attempt_timeout = '6s'"), 2, "forward.attempt_timeout"),
        ("[api]\nlisten = '192.0.2.1:8053'", 2, "api.listen"),
        ("[api]\n\ncertificate = '/c'", 3, "api.certificate"),
        ("[api]\n\nkey = '/c'", 3, "api.key"),
        ("[api]\ntoken = '0123456789abcdef'\ntoken_file = '/t'", 3, "api.token_file"),
        ("[api]\nlisten = 'unix:/run/x'\nkey = '/k'\ncertificate = '/c'", 4, "api.certificate"),
        ("[filter]\nmemory = '16MiB'\n[[list]]\nname='a'\nfile='/a'", 2, "filter.memory"),
        ("\n[[cache]]\nsize = 'auto'", 2, "cache is written as a [cache] table"),
        ("cache = 5", 1, "cache is written as a [cache] table"),
        (
            "\nlisten = ['127.0.0.1:53']",
            2,
            "listen stands in no table; it belongs to [node] or [api]",
        ),
        ("[[listen]]\n", 1, "unknown table \"listen\""),
        ("\n[list]\nname = 'a'", 2, "[[list]]"),
        ("[cache]\nsize = 2GiB", 2, "(at size)"),
        ("[cache]\nsize = ", 2, "(at size)"),
        ("[cache]\nprefetch = yes\n", 2, "(at prefetch)"),
        ("[api]\ntoken = 0123456789abcdef", 2, "(at token)"),
        ("[node]\nlisten = ['127.0.0.1:53'", 2, "(at listen)"),
        ("[node\n", 1, "not valid TOML"),
        ("[[local]]\nzone = 'a'\nrecords = ''\nfile = '/a'", 1, "local.records"),
        ("\n[[group]]\nlog = true", 2, "group.name"),
        ("[[group]]\nname = 'kids'", 1, "group \"kids\" needs clients or listeners"),
        ("\n[[rewrite]]\nto = '192.0.2.1'", 2, "rewrite.name"),
        ("[[list]]\nname = 'a'", 1, "list \"a\" needs a file or a url"),
    ] {
        let message = error(text);
        let place = format!("node.toml:{place}: ");
        assert!(message.starts_with(&place) && message.contains(key), "{text}\n{message}");
        assert!(!message.contains("0123456789abcdef"), "{message}");
    }
    let both = |file: &str, name, text| {
        let file = File { name: "node.toml", text: file };
        Config::load(Some(file), [variable(name, text)], &[]).unwrap_err().to_string()
    };
    let message = both("[cache]\nttl_min = 5", "HEIMDALL_CACHE_TTL_MIN", "100000");
    assert!(message.starts_with("environment: HEIMDALL_CACHE_TTL_MIN: cache.ttl_min"), "{message}");
    let message = both("[cache]\nttl_min = 100", "HEIMDALL_CACHE_TTL_MAX", "50");
    assert!(message.starts_with("node.toml:2: cache.ttl_min = 100 is above"), "{message}");
}

#[test]
fn every_key_set_to_nonsense_is_named_with_its_place() {
    for key in KEYS {
        // A text, a number, a list and a table are each something that most keys do not take.
        for value in ["'\u{fc} nonsense'", "-7", "['\u{fc}', '']", "[7]", "{ a = 1 }", "1.5"] {
            let text = format!("\n[{}]\n{} = {value}\n", key.table, key.name);
            let Err(error) = load(&text) else { continue };
            let error = error.to_string();
            let start = format!("node.toml:3: {}.{} = ", key.table, key.name);
            assert!(error.starts_with(&start) && error.ends_with(key.expected), "{error}");
        }
    }
}
