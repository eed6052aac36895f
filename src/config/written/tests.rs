//! Every key and every form of a table, written and read again.

use super::super::{File, KEYS};
use super::*;

/// Another value than the default for every key of the table, and all forms of the array tables.
const ALL: &str = r#"
[node]
cores = "0,2,4-6"
listen = ["127.0.0.1:53", "[fe80::1%2]:53"]
io = "mmsg"
steering = "qname"
spread_above = 0
spin = "50us"
drain = "0s"
memory = "3GiB"
[udp]
reply_bytes_max = 1400
receive_buffers = 64
send_buffers = 64
socket_buffer = "65537B"
[tcp]
connections_max = 7
connections_per_client_max = 6
pipeline_max = 5
idle_timeout = "1500ms"
write_timeout = "1m"
output_max = "64KiB"
[cache]
size = "2GiB"
ttl_min = 1
ttl_max = 2
negative_ttl_max = 3
failure_ttl_max = "90s"
nxdomain_cut = false
stale_max = "0s"
stale_after = "0s"
prefetch = false
probation = 21
hot = 11
hot_after = 4
warm_up = "/var/lib/x/warm"
warm_up_rate = 5
snapshot = "/var/lib/x/cache"
snapshot_interval = "0s"
[acl]
allow = []
[rate]
queries_per_second = 5
burst = 6
slip = 7
ipv4_prefix = 24
ipv6_prefix = 56
allow = ["192.0.2.0/24"]
clients_max = 64
[[forward]]
upstreams = ["192.0.2.1", "tcp://[2001:db8::1]:5300", "tls://192.0.2.2?pin=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=#dns.example", "tls://192.0.2.3?opportunistic"]
policy = "ordered"
attempt_timeout = "10ms"
deadline = "4s"
hedge = 0
probe = false
case_randomization = false
cookies = false
tls_roots = "/etc/corp.pem"
sockets = 1
inflight_max = 2
upstream_inflight_max = 3
waiters_max = 4
[[forward]]
zone = ["corp.example", "10.0.0.0/9"]
upstreams = ["10.0.0.53"]
policy = "round-robin"
attempt_timeout = "20ms"
[identity]
version = "a \"quoted\" \\ text\u202E\u001B[2J"
id = "näher"
[special]
localhost = false
invalid = false
test = false
onion = false
alt = false
home_arpa = false
resolver_arpa = false
reverse = false
[hosts]
files = ["/etc/hosts"]
ttl = 5
ptr = false
[rebinding]
protect = true
allow = ["plex.direct", "a\\032b.example"]
[filter]
directory = "/var/lib/x/lists"
refresh = "0s"
list_bytes_max = "64KiB"
download_timeout = "1s"
memory = "16MiB"
[query_log]
path = "/var/lib/x/q"
retention = "1m"
size_max = "1MiB"
anonymize = true
sample = 2
top = 3
queue = "64KiB"
[dnstap]
socket = "/run/d"
tcp = "192.0.2.1:6000"
file = "/run/f"
identity = "here"
queries = false
responses = false
anonymize = true
[explain]
decisions = 0
[optimizations]
zero_copy_parsing = false
simd = false
hot_cache = false
filter_pre_filter = false
[api]
listen = "[::1]:8053"
token_file = "/etc/token"
certificate = "/etc/cert"
key = "/etc/key"
page = false
[log]
level = "debug"
format = "json"
[[rewrite]]
name = "*.apps.example"
to = ["192.0.2.7", "2001:db8::7"]
ttl = 0
[[rewrite]]
name = "nas.example"
to = "other.example"
[[local]]
zone = "corp.example."
records = """
www A 192.0.2.1
"quoted"	TXT "a \\" b"
"""
[[local]]
zone = "empty.example."
[[list]]
name = "ads \"of\" all"
url = "https://lists.example/a.txt"
kind = "allow"
syntax = "rpz"
answer = "ip:192.0.2.1,2001:db8::1"
ttl = 0
reason = "filtered"
refresh = "6h"
[[list]]
name = "b"
file = "/etc/b"
answer = "cname:blocked.example"
[[group]]
name = "kids"
clients = ["192.0.2.0/24", "2001:db8::1"]
listeners = ["127.0.0.1:53"]
lists = ["b"]
upstreams = ["192.0.2.53"]
policy = "ordered"
attempt_timeout = "30ms"
log = false
[[group.schedule]]
lists = ["b"]
days = ["mon-wed", "sun"]
hours = "08:00-24:00"
[[group.schedule]]
lists = ["b"]
days = "all"
[[group]]
name = "default"
lists = []
"#;

fn load(text: &str) -> Config {
    let file = Some(File { name: "node.toml", text });
    let mut config = Config::load(file, [], &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    // Where something stands is no part of what it says.
    config.local.iter_mut().for_each(|one| one.place.clear());
    config.lists.iter_mut().for_each(|one| one.place.clear());
    config.groups.iter_mut().for_each(|one| one.place.clear());
    config.rewrites.iter_mut().for_each(|one| one.place.clear());
    config
}

#[test]
fn what_is_written_is_read_to_the_same_again() {
    for text in ["", ALL, "[[forward]]\nzone = 'a.test'\nupstreams = ['192.0.2.1']\n"] {
        let config = load(text);
        let written = config.to_toml();
        assert_eq!(load(&written), config, "{written}");
    }
    assert!(!load(ALL).to_toml().contains(['\u{202E}', '\u{1B}']));
}

#[test]
fn every_key_is_written() {
    let (plain, config) = (Config::default(), load(ALL));
    for key in KEYS.iter().filter(|key| (key.table, key.name) != super::super::keys::SECRET) {
        // Taken over from the default, it is no more what it was: the text above says something else for every key.
        let written = config.to_toml();
        let value = written
            .split_once(&format!("[{}]", key.table))
            .and_then(|(_, rest)| {
                rest.lines().find_map(|line| {
                    line.split_once(" = ")
                        .filter(|(name, _)| *name == key.name)
                        .map(|(_, value)| value)
                })
            })
            .unwrap_or_else(|| panic!("{key:?} is not written:\n{written}"));
        assert_ne!(value, key.default, "{key:?}: the text above has its default");
    }
    assert_ne!(plain, config);
}

#[test]
fn secrets_are_left_out_and_said_to_be() {
    let text = "[api]\ntoken = '0123456789abcdef'\n\
        [[list]]\nname = 'ads'\nurl = 'https://me:pass@lists.example/a?key=word'\n";
    let written = load(text).to_toml();
    for secret in ["0123456789abcdef", "pass", "word"] {
        assert!(!written.contains(secret), "{written}");
    }
    assert!(written.contains("# token is set, and secret: put it back here\n"), "{written}");
    assert!(written.contains("# url is https://…@lists.example/a?…, and the rest"), "{written}");
}

#[test]
fn zone_from_a_file_is_written_as_that() {
    let mut config = load("[[local]]\nzone = 'a.test.'\nfile = '/etc/a.zone'\n");
    let files = config.local_files.clone();
    config.local.extend(files.into_iter().map(|file| file.with_records("@ A 192.0.2.1\n".into())));
    let written = config.to_toml();
    assert!(
        written.ends_with("[[local]]\nzone = \"a.test.\"\nfile = \"/etc/a.zone\"\n"),
        "{written}"
    );
    assert!(!written.contains("192.0.2.1\n"), "{written}");
}
