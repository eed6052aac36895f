//! Two configs side by side: which sections differ, and which keys cannot change while a node runs.

use std::fmt::{Debug, Display};
use std::path::PathBuf;

use super::report::Later;
use crate::cache::{Flush, Scope};
use crate::config::{ApiListen, Config, CoreSelection, ForwardZone, IoBackend, Token};
use crate::wire::NameBuf;

/// Zones whose answers are flushed one by one; with more, everything is.
const ZONES_FLUSHED_MAX: usize = 32;

/// A section that can change while a node runs.
struct Section {
    name: &'static str,
    is_same: fn(&Config, &Config) -> bool,
}

macro_rules! sections {
    ($($name:literal: $($field:ident),+;)+) => {
        const SECTIONS: &[Section] = &[$(Section {
            name: $name,
            is_same: |old, new| $(old.$field == new.$field)&&+,
        },)+];
    };
}

sections! {
    "node": node;
    "udp": udp;
    "tcp": tcp;
    "cache": cache, snapshot;
    "acl": acl;
    "rate": rate;
    "forward": forward;
    "identity": identity;
    "local": local;
    "hosts": hosts;
    "rewrite": rewrites;
    "special": special;
    "rebinding": rebinding;
    "filter": filter;
    "list": lists;
    "group": groups;
    "optimizations": optimizations;
    "log": log;
}

/// A key that takes effect at the next start.
struct Fixed {
    key: &'static str,
    is_same: fn(&Config, &Config) -> bool,
    /// The value for people; no secret.
    show: fn(&Config) -> String,
    /// Carries its value from the config in force to the next one.
    keep: fn(&Config, &mut Config),
}

macro_rules! fixed {
    ($($key:literal: $($field:ident).+, $show:expr;)+) => {
        const FIXED: &[Fixed] = &[$(Fixed {
            key: $key,
            is_same: |old, new| old.$($field).+ == new.$($field).+,
            show: |config| $show(&config.$($field).+),
            keep: |old, new| new.$($field).+ = old.$($field).+.clone(),
        },)+];
    };
}

fixed! {
    "node.cores": node.cores, cores;
    "node.listen": node.listen, |all: &Vec<_>| listed(all);
    "node.io": node.io, |io: &IoBackend| quoted(match io { IoBackend::Uring => "uring", IoBackend::Mmsg => "mmsg" });
    "node.spin": node.spin_before_sleep, shown;
    "node.drain": node.drain, shown;
    "node.memory": node.memory, bytes_or_auto;
    "udp.receive_buffers": udp.receive_buffers, shown;
    "udp.send_buffers": udp.send_buffers, shown;
    "udp.socket_buffer": udp.socket_buffer_bytes, bytes;
    "tcp.connections_max": tcp.connections_max, shown;
    "tcp.connections_per_client_max": tcp.connections_per_client_max, shown;
    "cache.size": cache.bytes, bytes_or_auto;
    "cache.probation": cache.probation_percent, shown;
    "cache.hot": cache.hot_percent, shown;
    "cache.hot_after": cache.hot_after, shown;
    "cache.warm_up": cache.warm_up, |path: &Option<PathBuf>| path_or(path.as_ref(), "none");
    "cache.warm_up_rate": cache.warm_up_rate, shown;
    "cache.snapshot": snapshot.path, |path: &Option<PathBuf>| path_or(path.as_ref(), "off");
    "cache.snapshot_interval": snapshot.interval, shown;
    "forward.sockets": forward.sockets, shown;
    "forward.inflight_max": forward.inflight_max, shown;
    "forward.waiters_max": forward.waiters_max, shown;
    "filter.directory": filter.directory, |path: &Option<PathBuf>| path_or(path.as_ref(), "off");
    "query_log.path": query_log.path, |path: &Option<PathBuf>| path_or(path.as_ref(), "off");
    "query_log.retention": query_log.retention, shown;
    "query_log.size_max": query_log.bytes_max, bytes;
    "query_log.anonymize": query_log.anonymize, shown;
    "query_log.sample": query_log.sample, shown;
    "query_log.top": query_log.top, shown;
    "query_log.queue": query_log.queue_bytes, bytes;
    "dnstap.socket": dnstap.socket, |path: &Option<PathBuf>| path_or(path.as_ref(), "off");
    "dnstap.tcp": dnstap.tcp, shown;
    "dnstap.file": dnstap.file, |path: &Option<PathBuf>| path_or(path.as_ref(), "off");
    "dnstap.identity": dnstap.identity, shown;
    "dnstap.queries": dnstap.queries, shown;
    "dnstap.responses": dnstap.responses, shown;
    "dnstap.anonymize": dnstap.anonymize, shown;
    "explain.decisions": explain.decisions, shown;
    "api.listen": api.listen, |place: &ApiListen| quoted(&place.to_string());
    "api.token": api.token, |token: &Option<Token>| if token.is_some() { "a secret" } else { "none" }.to_owned();
    "api.token_file": api.token_file, |path: &Option<PathBuf>| path_or(path.as_ref(), "none");
    "api.certificate": api.certificate, |path: &Option<PathBuf>| path_or(path.as_ref(), "none");
    "api.key": api.key, |path: &Option<PathBuf>| path_or(path.as_ref(), "none");
    "api.page": api.page, shown;
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn bytes(value: &usize) -> String {
    format!("{value} bytes")
}

fn bytes_or_auto(value: &Option<usize>) -> String {
    value.as_ref().map_or_else(|| quoted("auto"), bytes)
}

fn path_or(path: Option<&PathBuf>, without: &str) -> String {
    path.map_or_else(|| quoted(without), |path| quoted(&path.display().to_string()))
}

fn listed<T: Display>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", all.join(", "))
}

fn cores(selection: &CoreSelection) -> String {
    match selection {
        CoreSelection::Auto => quoted("auto"),
        CoreSelection::Numa(node) => quoted(&format!("numa:{node}")),
        CoreSelection::Cpus(cpus) => {
            let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
            quoted(&cpus.join(","))
        }
    }
}

/// The keys that take effect at the next start, as `table.key`.
pub fn fixed_keys() -> impl Iterator<Item = &'static str> {
    FIXED.iter().map(|fixed| fixed.key)
}

/// Gives `new` the values of `old` where they cannot change, and says which those are.
pub(super) fn keep_fixed(old: &Config, new: &mut Config) -> Vec<Later> {
    let mut later = Vec::new();
    for Fixed { key, is_same, show, keep } in FIXED {
        if !is_same(old, new) {
            later.push(Later { key, in_force: show(old), wanted: show(new) });
            keep(old, new);
        }
    }
    later
}

/// The names of the sections that differ, and of those that do not. Where in its file something stands is no difference.
pub(super) fn compare(old: &Config, new: &Config) -> (Vec<&'static str>, Vec<&'static str>) {
    let (old, new) = (placeless(old), placeless(new));
    let (same, different): (Vec<&Section>, Vec<&Section>) =
        SECTIONS.iter().partition(|section| (section.is_same)(&old, &new));
    let names = |sections: Vec<&Section>| sections.iter().map(|section| section.name).collect();
    (names(different), names(same))
}

/// The config without the lines of its file. Views belong to groups, and are told there.
fn placeless(config: &Config) -> Config {
    let mut config = config.clone();
    config.local.iter_mut().for_each(|zone| zone.place.clear());
    config.rewrites.iter_mut().for_each(|rewrite| rewrite.place.clear());
    config.lists.iter_mut().for_each(|list| list.place.clear());
    config.groups.iter_mut().for_each(|group| group.place.clear());
    config.forward.views.clear();
    // It follows `forward.deadline`.
    config.tcp.answer_timeout = std::time::Duration::ZERO;
    config
}

/// What the cache may hold by `old` that is wrong by `new`.
///
/// Upstreams of the root count as one, as they do for a snapshot ([`crate::cache::Origins`]).
pub(super) fn flushes(old: &Config, new: &Config) -> Vec<Flush> {
    if old.forward.views != new.forward.views || old.rebinding != new.rebinding {
        return vec![Flush::All];
    }
    let upstreams_of = |zones: &[ForwardZone], apex| {
        let zone = zones.iter().find(|zone| zone.apexes.contains(apex))?;
        let mut upstreams: Vec<String> = zone.upstreams.iter().map(ToString::to_string).collect();
        upstreams.sort_unstable();
        Some(upstreams)
    };
    let (before, after) = (&old.forward.zones, &new.forward.zones);
    let mut apexes: Vec<_> = before.iter().chain(after).flat_map(|zone| &zone.apexes).collect();
    apexes.sort_unstable();
    apexes.dedup();
    apexes.retain(|apex| upstreams_of(before, apex) != upstreams_of(after, apex));
    if apexes.len() > ZONES_FLUSHED_MAX {
        return vec![Flush::All];
    }
    let flush = |apex: &crate::config::Apex| Flush::Names {
        name: NameBuf::new(apex.as_name()),
        scope: Scope::Subtree,
        rtype: None,
    };
    apexes.into_iter().map(flush).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, KEYS};

    fn config(text: &str) -> Config {
        Config::load(Some(File { name: "node.toml", text }), [], &[]).unwrap()
    }

    /// Another value than the default for each key that takes effect at the next start, as it would be written.
    const OTHERS: [(&str, &str); 44] = [
        ("node.cores", "'0'"),
        ("node.listen", "['127.0.0.1:5399']"),
        ("node.io", "'mmsg'"),
        ("node.spin", "'50us'"),
        ("node.drain", "'3s'"),
        ("node.memory", "'2GiB'"),
        ("udp.receive_buffers", "2048"),
        ("udp.send_buffers", "2048"),
        ("udp.socket_buffer", "'1MiB'"),
        ("tcp.connections_max", "7"),
        ("tcp.connections_per_client_max", "7"),
        ("cache.size", "'64MiB'"),
        ("cache.probation", "21"),
        ("cache.hot", "11"),
        ("cache.hot_after", "4"),
        ("cache.warm_up", "'/names'"),
        ("cache.warm_up_rate", "7"),
        ("cache.snapshot", "'/snapshot'"),
        ("cache.snapshot_interval", "'7m'"),
        ("forward.sockets", "7"),
        ("forward.inflight_max", "7"),
        ("forward.waiters_max", "7"),
        ("filter.directory", "'/lists'"),
        ("query_log.path", "'/queries'"),
        ("query_log.retention", "'7h'"),
        ("query_log.size_max", "'7MiB'"),
        ("query_log.anonymize", "true"),
        ("query_log.sample", "7"),
        ("query_log.top", "7"),
        ("query_log.queue", "'1MiB'"),
        ("dnstap.socket", "'/socket'"),
        ("dnstap.tcp", "'192.0.2.1:6000'"),
        ("dnstap.file", "'/frames'"),
        ("dnstap.identity", "'here'"),
        ("dnstap.queries", "false"),
        ("dnstap.responses", "false"),
        ("dnstap.anonymize", "true"),
        ("explain.decisions", "7"),
        ("api.listen", "'off'"),
        ("api.token", "'0123456789abcdef'"),
        ("api.token_file", "'/token'"),
        ("api.certificate", "'/other'"),
        ("api.key", "'/other'"),
        ("api.page", "false"),
    ];

    #[test]
    fn each_key_that_needs_a_restart_is_named_with_both_values_and_stays() {
        assert!(OTHERS.iter().map(|(key, _)| *key).eq(FIXED.iter().map(|fixed| fixed.key)));
        for (key, value) in OTHERS {
            let (table, name) = key.split_once('.').unwrap();
            assert!(KEYS.iter().any(|known| known.table == table && known.name == name), "{key}");
            // These two are never alone.
            let (both, other) = match key {
                "api.certificate" => ("certificate = '/c'\nkey = '/k'", "key = '/k'"),
                "api.key" => ("certificate = '/c'\nkey = '/k'", "certificate = '/c'"),
                _ => ("", ""),
            };
            let old = config(&format!("[{table}]\n{both}\n"));
            let mut new = config(&format!("[{table}]\n{name} = {value}\n{other}\n"));
            let wanted = new.clone();
            let later = keep_fixed(&old, &mut new);
            assert_eq!(later.len(), 1, "{key}: {later:?}");
            assert_eq!(later[0].key, key);
            assert_ne!(later[0].in_force, later[0].wanted, "{key}");
            assert_eq!(new, old, "{key}: nothing else is in this config");
            assert_ne!(wanted, old, "{key}");
        }
    }

    #[test]
    fn another_secret_is_found_and_not_told() {
        let [old, mut new] = ["0123456789abcdef", "fedcba9876543210"]
            .map(|token| config(&format!("[api]\ntoken = '{token}'\n")));
        let later = keep_fixed(&old, &mut new);
        let [later] = &later[..] else { panic!("{later:?}") };
        let told = later.to_string();
        assert!(told.starts_with("api.token = a secret takes effect"), "{told}");
        assert_eq!(new, old);
    }

    #[test]
    fn every_other_key_is_of_a_section_that_is_compared() {
        let old = Config::default();
        for (text, section) in [
            ("[node]\nsteering = 'qname'", "node"),
            ("[node]\nspread_above = 0", "node"),
            ("[udp]\nreply_bytes_max = 1400", "udp"),
            ("[tcp]\nidle_timeout = '3s'", "tcp"),
            ("[cache]\nttl_max = 60", "cache"),
            ("[acl]\nallow = []", "acl"),
            ("[rate]\nqueries_per_second = 7", "rate"),
            ("[forward]\ndeadline = '3s'", "forward"),
            ("[[forward]]\nzone = 'a.example'\nupstreams = '192.0.2.1'", "forward"),
            ("[identity]\nid = 'here'", "identity"),
            ("[[local]]\nzone = 'a.example.'", "local"),
            ("[hosts]\nttl = 7", "hosts"),
            ("[[rewrite]]\nname = 'a.example'\nto = '192.0.2.1'", "rewrite"),
            ("[special]\ntest = false", "special"),
            ("[rebinding]\nprotect = true", "rebinding"),
            ("[filter]\nrefresh = '1h'", "filter"),
            ("[[list]]\nname = 'a'\nfile = '/a'", "list"),
            ("[[group]]\nname = 'a'\nclients = '192.0.2.0/24'\nupstreams = '192.0.2.1'", "group"),
            ("[optimizations]\nsimd = false", "optimizations"),
            ("[log]\nlevel = 'warn'", "log"),
        ] {
            let mut new = config(text);
            assert_eq!(keep_fixed(&old, &mut new).len(), 0, "{text}");
            let (different, same) = compare(&old, &new);
            assert_eq!(different, [section], "{text}");
            assert_eq!(same.len(), SECTIONS.len() - 1);
        }
        let tables: std::collections::BTreeSet<&str> = KEYS.iter().map(|key| key.table).collect();
        for table in tables {
            let is_compared = SECTIONS.iter().any(|section| section.name == table);
            assert!(
                is_compared || ["api", "dnstap", "explain", "query_log"].contains(&table),
                "[{table}]"
            );
        }
    }

    #[test]
    fn other_lines_are_no_difference() {
        let text = "[[local]]\nzone = 'a.example.'\n[[list]]\nname = 'a'\nfile = '/a'\n";
        let (different, _) = compare(&config(text), &config(&format!("# a comment\n\n{text}")));
        assert_eq!(different, [""; 0]);
    }

    #[test]
    fn zones_whose_upstreams_differ_are_flushed_and_views_empty_the_cache() {
        let zone = |name: &str, upstreams: &str| {
            format!("[[forward]]\nzone = '{name}'\nupstreams = [{upstreams}]\n")
        };
        let old = config(
            &(zone("a.example", "'192.0.2.1', '192.0.2.2'") + &zone("b.example", "'192.0.2.3'")),
        );
        let new = config(
            &(zone("a.example", "'192.0.2.2', '192.0.2.1'") + &zone("c.example", "'192.0.2.3'")),
        );
        let names: Vec<String> = flushes(&old, &new)
            .iter()
            .map(|flush| match flush {
                Flush::Names { name, scope: Scope::Subtree, rtype: None } => {
                    name.as_name().to_string()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["b.example.", "c.example."]);
        let root = config("[forward]\nupstreams = ['192.0.2.9']");
        assert_eq!(flushes(&Config::default(), &root).len(), 0);
        for text in [
            "[[group]]\nname = 'a'\nclients = '192.0.2.0/24'\nupstreams = '192.0.2.1'",
            "[rebinding]\nprotect = true",
        ] {
            assert!(
                matches!(flushes(&Config::default(), &config(text))[..], [Flush::All]),
                "{text}"
            );
        }
        let many: String = (0..=ZONES_FLUSHED_MAX)
            .map(|n| zone(&format!("z{n}.example"), "'192.0.2.1'"))
            .collect();
        assert!(matches!(flushes(&Config::default(), &config(&many))[..], [Flush::All]));
    }
}
