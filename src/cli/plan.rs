//! What would run, in words for the operator: the config in force, section by section.

mod groups;

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{
    self, Config, IoBackend, ListAnswer, ListKind, ListReason, RewriteTarget, Selection,
};
use crate::control;
use crate::node::{self, memory::Plan};

/// What is done against forged answers: told in the second line about asking.
const DEFENCE: &str = "defence";

/// The config in force; `upstream_source` says where its upstreams come from.
pub(super) fn describe(config: &Config, upstream_source: &str, memory: &Plan) -> String {
    let lines = lines(config, upstream_source, memory).into_iter();
    let lines = lines.map(|(what, text)| {
        // What has no head belongs to the line above.
        let head = if what == DEFENCE { String::new() } else { format!("{what}:") };
        format!("{head:<11}{text}\n")
    });
    lines.collect()
}

/// The same as what stands at the head of each line, and what behind it.
pub(super) fn lines(
    config: &Config,
    upstream_source: &str,
    memory: &Plan,
) -> Vec<(&'static str, String)> {
    let Config {
        node,
        udp,
        tcp,
        cache,
        snapshot,
        acl,
        rate,
        forward,
        identity,
        local,
        local_files: _,
        hosts,
        rewrites,
        special,
        rebinding,
        filter,
        lists,
        groups: _,
        query_log,
        dnstap,
        explain,
        optimizations: _,
        api,
        log,
    } = config;
    let locals: Vec<&str> = local.iter().map(|local| local.zone.as_str()).collect();
    let locals = if locals.is_empty() { "none".to_owned() } else { locals.join(", ") };
    let [upstreams, asking, defence] = asked(forward, upstream_source);
    vec![
        ("listen", format!("{} (UDP and TCP)", list(&node.listen))),
        ("upstreams", upstreams),
        ("asking", asking),
        (DEFENCE, defence),
        ("zones", zones(forward)),
        ("backend", backend(node)),
        ("steering", steered(node)),
        ("UDP", datagrams(udp)),
        ("TCP", streams(tcp)),
        ("memory", memory.to_string()),
        ("cache", kept(cache)),
        ("late", late(cache)),
        ("snapshot", survives(snapshot)),
        ("allowed", format!("{} prefix(es)", acl.allow.len())),
        ("rate", limited(rate)),
        ("groups", groups::told(config).join(&format!("\n{:11}", ""))),
        ("times", format!("those of {}", control::schedule::zone_name())),
        ("local", locals),
        ("hosts", named_by_files(hosts)),
        ("rewritten", rewritten(rewrites)),
        ("special", held_back(*special)),
        ("rebinding", guarded(rebinding)),
        ("filter", filtered(filter, lists)),
        ("lists", listed(lists)),
        ("queries", written_down(query_log)),
        ("dnstap", told_of(dnstap)),
        ("explain", format!("the last {} decisions of each core", explain.decisions)),
        ("switches", node::switches::told(config)),
        ("identity", format!("id {}, version {}", told(&identity.id), told(&identity.version))),
        ("drain", format!("{:?}", node.drain)),
        ("API", commanded(api)),
        ("log", format!("{}, as {}", log.level.as_text(), log.format.as_text())),
    ]
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn asked(forward: &config::Forward, source: &str) -> [String; 3] {
    [
        format!("{} (from {source}), {:?} in all", zone(&forward.root), forward.deadline),
        format!(
            "{} questions at a time per core, {} per upstream, {} clients each, from {} ports per address family",
            forward.inflight_max,
            forward.upstream_inflight_max,
            forward.waiters_max,
            forward.sockets
        ),
        format!(
            "hedged {} in 100, probes {}, random casing {}, cookies {}, TLS roots {}",
            forward.hedge_percent,
            switch(forward.probe),
            switch(forward.case_randomization),
            switch(forward.cookies),
            forward
                .tls_roots
                .as_ref()
                .map_or_else(|| "of the system".into(), |path| path.display().to_string())
        ),
    ]
}

/// Whom a forward zone asks, and how.
fn zone(zone: &config::ForwardZone) -> String {
    let upstreams: Vec<String> = zone.upstreams.iter().map(ToString::to_string).collect();
    let policy = match zone.selection {
        Selection::Fastest => "fastest",
        Selection::Ordered => "ordered",
        Selection::RoundRobin => "round-robin",
    };
    format!("{}; {policy}, {:?} per attempt", upstreams.join(", "), zone.attempt_timeout)
}

/// The zones that have upstreams of their own.
fn zones(forward: &config::Forward) -> String {
    let told = forward.zones.iter().map(|own| {
        let apexes: Vec<String> =
            own.apexes.iter().map(|apex| apex.as_name().to_string()).collect();
        format!("{} to {}", apexes.join(", "), zone(own))
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "none".to_owned() } else { told.join(&format!("\n{:11}", "")) }
}

fn backend(node: &config::Node) -> String {
    let io = match node.io {
        IoBackend::Uring => "uring",
        IoBackend::Mmsg => "mmsg",
    };
    format!("{io}, polling {:?} before it sleeps", node.spin_before_sleep)
}

/// How datagrams find their cores.
fn steered(node: &config::Node) -> String {
    let hot = match (node.steering, node.spread_above_percent) {
        (config::Steering::Qname, 0) => "; no name is spread".to_owned(),
        (config::Steering::Qname, percent) => {
            format!("; the hottest names are spread when a core gets {percent} % of the mean")
        }
        _ => String::new(),
    };
    format!("{}{hot}", node.steering.as_text())
}

fn datagrams(udp: &config::Udp) -> String {
    format!(
        "replies up to {} bytes, {} receive and {} send buffers per core, {} KiB per socket",
        udp.reply_bytes_max,
        udp.receive_buffers,
        udp.send_buffers,
        udp.socket_buffer_bytes >> 10
    )
}

fn streams(tcp: &config::Tcp) -> String {
    format!(
        "{} connections per listener and core, {} per client, {} queries each, {} KiB of replies, \
         idle {:?}, writing {:?}",
        tcp.connections_max,
        tcp.connections_per_client_max,
        tcp.pipeline_max,
        tcp.output_bytes_max >> 10,
        tcp.idle_timeout,
        tcp.write_timeout
    )
}

fn kept(cache: &config::Cache) -> String {
    format!(
        "TTLs {} to {} s, negative ones up to {} s",
        cache.ttl_min, cache.ttl_max, cache.negative_ttl_max
    )
}

/// What happens to answers at their end, and after it.
fn late(cache: &config::Cache) -> String {
    format!(
        "stale answers for {:?}, after {:?}; failures up to {:?}; refresh ahead {}, NXDOMAIN cut {}",
        cache.stale_max,
        cache.stale_after,
        cache.failure_ttl_max,
        switch(cache.prefetch),
        switch(cache.nxdomain_cut)
    )
}

/// How the cache survives a restart.
fn survives(snapshot: &config::Snapshot) -> String {
    let Some(path) = &snapshot.path else { return "off".to_owned() };
    let path = path.display();
    if snapshot.interval.is_zero() {
        format!("{path}, written at the end and on SIGUSR2")
    } else {
        format!("{path}, written every {:?}, at the end and on SIGUSR2", snapshot.interval)
    }
}

/// How much a client may ask.
fn limited(rate: &config::Rate) -> String {
    if !rate.is_on() {
        return "not limited".to_owned();
    }
    let over = match rate.slip {
        0 => "dropped".to_owned(),
        1 => "all answered by TC".to_owned(),
        slip => format!("dropped but for one in {slip}, which gets TC"),
    };
    format!(
        "{} queries per second, transport and client (IPv4 /{}, IPv6 /{}), {} at once; over it UDP is {over}, \
         TCP refused; {} clients per core; {} prefix(es) not limited",
        rate.queries_per_second,
        rate.ipv4_prefix,
        rate.ipv6_prefix,
        rate.burst(),
        rate.clients_max,
        rate.allow.len()
    )
}

/// Where names with addresses come from.
fn named_by_files(hosts: &config::Hosts) -> String {
    let files: Vec<String> = hosts.files.iter().map(|path| path.display().to_string()).collect();
    if files.is_empty() {
        return "none".to_owned();
    }
    format!("{}; TTL {} s, addresses lead back {}", files.join(", "), hosts.ttl, switch(hosts.ptr))
}

/// Which single names mean something else.
fn rewritten(rewrites: &[config::Rewrite]) -> String {
    let told = rewrites.iter().map(|rewrite| {
        let to = match &rewrite.to {
            RewriteTarget::Addresses(addresses) => {
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            }
            RewriteTarget::Name(name) => name.as_name().to_string(),
        };
        format!("{} to {to}", rewrite.name)
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

/// Which special names are answered here.
fn held_back(special: config::Special) -> String {
    let groups = [
        ("localhost", special.localhost),
        ("invalid", special.invalid),
        ("test", special.test),
        ("onion", special.onion),
        ("alt", special.alt),
        ("home.arpa", special.home_arpa),
        ("resolver.arpa", special.resolver_arpa),
        ("reverse zones of private addresses", special.reverse),
    ];
    let held = groups.iter().filter(|(_, is_held)| *is_held).map(|(name, _)| *name);
    let held: Vec<&str> = held.collect();
    if held.is_empty() { "none".to_owned() } else { held.join(", ") }
}

/// What becomes of private addresses for public names.
fn guarded(rebinding: &config::Rebinding) -> String {
    if !rebinding.protect {
        return "not prevented".to_owned();
    }
    let allowed: Vec<String> =
        rebinding.allow.iter().map(|apex| apex.as_name().to_string()).collect();
    let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    format!("prevented; private addresses are allowed for {allowed}")
}

/// What lists have in common.
fn filtered(filter: &config::Filter, lists: &[config::List]) -> String {
    if lists.is_empty() {
        return "off".to_owned();
    }
    let kept = filter.directory.as_ref().map_or_else(
        || "nothing kept over a restart".to_owned(),
        |path| format!("kept in {}", path.display()),
    );
    format!(
        "{kept}; {}, {} MiB for all, lists up to {} KiB, downloads up to {:?}",
        looked_at(filter.refresh),
        filter.bytes >> 20,
        filter.list_bytes_max >> 10,
        filter.download_timeout
    )
}

/// The lists, a line each.
fn listed(lists: &[config::List]) -> String {
    let told = lists.iter().map(|list| {
        let config::List { name, source, kind, syntax, answer, ttl, reason, refresh, place: _ } =
            list;
        let syntax = syntax
            .map_or_else(|| "any syntax".to_owned(), |syntax| format!("{syntax:?}").to_lowercase());
        let often = refresh.map_or_else(String::new, |refresh| format!(", {}", looked_at(refresh)));
        let what = match kind {
            ListKind::Allow => "allowed".to_owned(),
            ListKind::Block => {
                let why = match reason {
                    ListReason::Blocked => "blocked",
                    ListReason::Filtered => "filtered",
                };
                format!("{why} by {} for {ttl} s", answered(answer))
            }
        };
        format!("{name:?} from {source} ({syntax}): {what}{often}")
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "none".to_owned() } else { told.join(&format!("\n{:11}", "")) }
}

fn looked_at(refresh: Duration) -> String {
    if refresh.is_zero() {
        "looked at on SIGHUP".to_owned()
    } else {
        format!("looked at every {refresh:?}")
    }
}

fn answered(answer: &ListAnswer) -> String {
    match answer {
        ListAnswer::Nxdomain => "NXDOMAIN".to_owned(),
        ListAnswer::Nodata => "NODATA".to_owned(),
        ListAnswer::ZeroIp => "0.0.0.0 and ::".to_owned(),
        ListAnswer::Refused => "REFUSED".to_owned(),
        ListAnswer::Addresses(addresses) => {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        ListAnswer::Alias(alias) => alias.as_name().to_string(),
    }
}

/// Where the node is asked and commanded, and by whom.
fn commanded(api: &config::Api) -> String {
    let tls = if api.certificate.is_some() { " over TLS" } else { "" };
    let whom = match (&api.listen, api.has_token()) {
        (config::ApiListen::Off, _) => return "off".to_owned(),
        (_, true) => "who has the token may do everything",
        (config::ApiListen::Unix(_), false) => "who may write to the socket may do everything",
        (config::ApiListen::Tcp(_), false) => "without a token: figures only, no commands",
    };
    let page = if api.page { "" } else { "; no dashboard" };
    format!("{}{tls}, {whom}{page}", api.listen)
}

/// What is stored of queries.
fn written_down(log: &config::QueryLog) -> String {
    let stored = log.path.as_ref().map_or_else(
        || "not stored".to_owned(),
        |path| {
            let (path, age) = (path.display(), log.retention);
            format!("stored in {path} for {age:?} and up to {} MiB", log.bytes_max >> 20)
        },
    );
    let counted = match log.top {
        0 => "not counted by name and client".to_owned(),
        top => format!("{top} names, clients and blocked names counted per core"),
    };
    let clients = if log.anonymize { "by their network" } else { "by their address" };
    format!(
        "{stored}; {counted}; clients {clients}, one in {}, {} KiB of them waiting per core",
        log.sample,
        log.queue_bytes >> 10
    )
}

/// Who is told of queries.
fn told_of(dnstap: &config::Dnstap) -> String {
    if !dnstap.is_on() {
        return "off".to_owned();
    }
    let paths = [("socket", &dnstap.socket), ("file", &dnstap.file)];
    let ways = paths.iter().filter_map(|(what, path)| Some((*what, path.as_ref()?)));
    let mut ways: Vec<String> =
        ways.map(|(what, path)| format!("{what} {}", path.display())).collect();
    ways.extend(dnstap.tcp.map(|address| format!("TCP {address}")));
    let clients = if dnstap.anonymize { "by their network" } else { "by their address" };
    format!(
        "{}; queries {}, responses {}, clients {clients}",
        ways.join(", "),
        switch(dnstap.queries),
        switch(dnstap.responses)
    )
}

const fn switch(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn told(text: &Option<String>) -> String {
    text.as_ref().map_or_else(|| "refused".to_owned(), |text| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, Upstream};

    #[test]
    fn description_names_what_every_section_makes_of_it() {
        let mut config = Config::default();
        config.node.listen = vec!["127.0.0.1:53".parse().unwrap()];
        config.forward.root.upstreams = vec![Upstream::udp("192.0.2.1:53".parse().unwrap())];
        config.identity.id = Some("here".into());
        config.special.test = false;
        config.snapshot.path = Some("/var/cache/x".into());
        let text = describe(&config, "config", &Plan::new(&config, 1, 0).unwrap());
        for part in [
            "127.0.0.1:53 (UDP and TCP)",
            "192.0.2.1:53; fastest, 800ms per attempt (from config), 5s in all",
            " at most: cache 256 MiB",
            "TTLs 0 to 86400 s, negative ones up to 3600 s",
            "stale answers for 86400s, after 1.8s; failures up to 30s; refresh ahead on",
            "snapshot:  /var/cache/x, written every 600s, at the end and on SIGUSR2",
            "replies up to 1232 bytes, 1024 receive and 1024 send buffers per core",
            "1024 connections per listener and core, 128 per client, 64 queries each",
            "9 prefix(es)",
            "rate:      not limited\n",
            "special:   localhost, invalid, onion, alt, home.arpa, resolver.arpa, reverse zones of",
            "id \"here\", version refused",
            "groups:    default: all others; all lists\n",
            "queries:   not stored; not counted by name and client; clients by their address, one in 1, 4096 KiB of",
            "dnstap:    off\n",
            "drain:     2s",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }

    #[test]
    fn rate_says_whom_it_limits_to_what_and_how() {
        let mut config = Config::default();
        config.rate.queries_per_second = 50;
        let text = describe(&config, "config", &Plan::new(&config, 1, 0).unwrap());
        let line = "rate:      50 queries per second, transport and client (IPv4 /32, IPv6 /64), 50 at once; over it \
            UDP is dropped but for one in 2, which gets TC, TCP refused; 16384 clients per core; 2 prefix(es) not limited\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn single_names_are_told_with_what_they_mean() {
        let text = "[hosts]\nfiles = ['/etc/hosts']\nttl = 5\nptr = false\n\
                    [[rewrite]]\nname = 'nas.example'\nto = ['192.0.2.7', '2001:db8::7']\n\
                    [[rewrite]]\nname = '*.apps.example'\nto = 'other.example'\n";
        assert_told(
            text,
            &[
                "\nhosts:     /etc/hosts; TTL 5 s, addresses lead back off\n",
                "\nrewritten: nas.example to 192.0.2.7 and 2001:db8::7, *.apps.example to other.example.\n",
            ],
        );
    }

    #[test]
    fn lists_have_a_line_each_without_their_passwords() {
        let text = "[filter]\ndirectory = '/var/x'\n\
            [[list]]\nname = 'ads'\nurl = 'https://me:secret@lists.example/a.txt'\nrefresh = '6h'\n\
            [[list]]\nname = 'ours'\nfile = '/etc/ours'\nkind = 'allow'\nsyntax = 'hosts'\n";
        assert_told(
            text,
            &[
                "\nfilter:    kept in /var/x; looked at every 86400s, 512 MiB for all, lists up to 65536 KiB, \
                 downloads up to 60s\n",
                "\nlists:     \"ads\" from https://…@lists.example/a.txt (any syntax): blocked by 0.0.0.0 and :: \
                 for 10 s, looked at every 21600s\n           \"ours\" from /etc/ours (hosts): allowed\n",
            ],
        );
    }

    /// Asserts that a config of `text` is described by these parts, among others.
    fn assert_told(text: &str, parts: &[&str]) {
        let file = Some(File { name: "node.toml", text });
        let config = Config::load(file, Vec::new(), &[]).unwrap();
        let text = describe(&config, "config", &Plan::new(&config, 1, 0).unwrap());
        for part in parts {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }

    #[test]
    fn zones_have_a_line_each_and_upstreams_say_how_they_are_spoken_to() {
        let pin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let text = format!(
            "[[forward]]\nupstreams = ['tls://192.0.2.1#dns.example', 'tls://192.0.2.2?opportunistic', \
             'tls://192.0.2.3?pin={pin}']\ntls_roots = '/etc/corp.pem'\n\
             [[forward]]\nzone = ['corp.example', '10.0.0.0/8']\nupstreams = ['10.0.0.53', 'tcp://10.0.0.54']\n\
             [[forward]]\nzone = 'lab.test'\nupstreams = ['10.0.0.55']\npolicy = 'ordered'\n"
        );
        let file = Some(File { name: "node.toml", text: &text });
        let config = Config::load(file, Vec::new(), &[]).unwrap();
        let text = describe(&config, "config", &Plan::new(&config, 1, 0).unwrap());
        for part in [
            "\nupstreams: tls://192.0.2.1:853#dns.example, tls://192.0.2.2:853?opportunistic, \
             tls://192.0.2.3:853?pin=00000000...; fastest, 800ms per attempt (from config), 5s in all\n",
            "TLS roots /etc/corp.pem\n",
            "\nzones:     corp.example., 10.in-addr.arpa. to 10.0.0.53:53, tcp://10.0.0.54:53; \
             fastest, 800ms per attempt\n           lab.test. to 10.0.0.55:53; ordered, 800ms per attempt\n",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }
}
