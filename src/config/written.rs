//! The config as a file that is read to the same again: all that holds, defaults included. Secrets are left out; a remark
//! stands in their place.

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::group::DAY_NAMES;
use super::list::without_secrets;
use super::{
    Acl, Api, Cache, Config, CoreSelection, Dnstap, Explain, Filter, Forward, ForwardZone, Group,
    Hosts, Identity, IoBackend, List, ListAnswer, ListKind, ListReason, ListSource, ListSyntax,
    LocalFile, LocalZone, Log, Node, Optimizations, Period, QueryLog, Rate, Rebinding, Rewrite,
    RewriteTarget, Selection, Snapshot, Special, Tcp, Udp, Upstream,
};

impl Config {
    /// The file. Where something is left out because it is secret, it is not read again until that is put back, or without it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Self { node, udp, tcp, cache, snapshot, acl, rate, forward, identity, .. } = self;
        let Self { local, local_files, hosts, rewrites, special, rebinding, filter, .. } = self;
        let Self { lists, groups, query_log, dnstap, explain, optimizations, api, log, .. } = self;
        let mut sheet = Sheet::default();
        sheet.node(node);
        sheet.udp(udp);
        sheet.tcp(tcp);
        sheet.cache(cache, snapshot);
        sheet.clients(acl, rate);
        sheet.forward(forward);
        sheet.names(identity, *special, hosts, rebinding);
        sheet.filter(filter);
        sheet.query_log(query_log, dnstap);
        sheet.rest(explain, *optimizations, *log);
        sheet.api(api);
        rewrites.iter().for_each(|rewrite| sheet.rewrite(rewrite));
        local.iter().for_each(|zone| sheet.local(zone, local_files));
        lists.iter().for_each(|list| sheet.list(list));
        groups.iter().for_each(|group| sheet.group(group));
        sheet.0
    }
}

/// What is written so far.
#[derive(Debug, Default)]
struct Sheet(String);

impl Sheet {
    fn node(&mut self, section: &Node) {
        let Node { cores, listen, io, steering, spread_above_percent, .. } = section;
        let Node { spin_before_sleep, drain, memory, .. } = section;
        let cores = match cores {
            CoreSelection::Auto => "auto".to_owned(),
            CoreSelection::Numa(node) => format!("numa:{node}"),
            CoreSelection::Cpus(cpus) => joined(cpus),
        };
        let io = match io {
            IoBackend::Uring => "uring",
            IoBackend::Mmsg => "mmsg",
        };
        self.table("node").text("cores", cores).items("listen", listen).text("io", io);
        self.text("steering", steering.as_text()).plain("spread_above", spread_above_percent);
        self.time("spin", *spin_before_sleep).time("drain", *drain).size_or_auto("memory", *memory);
    }

    fn udp(&mut self, section: &Udp) {
        let Udp { reply_bytes_max, receive_buffers, send_buffers, socket_buffer_bytes } = section;
        self.table("udp").plain("reply_bytes_max", reply_bytes_max);
        self.plain("receive_buffers", receive_buffers).plain("send_buffers", send_buffers);
        self.size("socket_buffer", *socket_buffer_bytes);
    }

    fn tcp(&mut self, section: &Tcp) {
        let Tcp { connections_max, connections_per_client_max, pipeline_max, .. } = section;
        let Tcp { idle_timeout, write_timeout, answer_timeout: _, output_bytes_max, .. } = section;
        self.table("tcp").plain("connections_max", connections_max);
        self.plain("connections_per_client_max", connections_per_client_max);
        self.plain("pipeline_max", pipeline_max).time("idle_timeout", *idle_timeout);
        self.time("write_timeout", *write_timeout).size("output_max", *output_bytes_max);
    }

    fn cache(&mut self, section: &Cache, snapshot: &Snapshot) {
        let Cache { bytes, ttl_min, ttl_max, negative_ttl_max, failure_ttl_max, .. } = section;
        let Cache { nxdomain_cut, stale_max, stale_after, prefetch, probation_percent, .. } =
            section;
        let Cache { hot_percent, hot_after, warm_up, warm_up_rate, .. } = section;
        let Snapshot { path, interval } = snapshot;
        self.table("cache").size_or_auto("size", *bytes).plain("ttl_min", ttl_min);
        self.plain("ttl_max", ttl_max).plain("negative_ttl_max", negative_ttl_max);
        self.time("failure_ttl_max", *failure_ttl_max).plain("nxdomain_cut", nxdomain_cut);
        self.time("stale_max", *stale_max).time("stale_after", *stale_after);
        self.plain("prefetch", prefetch).plain("probation", probation_percent);
        self.plain("hot", hot_percent).plain("hot_after", hot_after);
        self.path("warm_up", warm_up.as_deref()).plain("warm_up_rate", warm_up_rate);
        self.path_or("snapshot", path.as_deref(), "off").time("snapshot_interval", *interval);
    }

    fn clients(&mut self, Acl { allow }: &Acl, rate: &Rate) {
        self.table("acl").items("allow", allow);
        let Rate { queries_per_second, burst, slip, ipv4_prefix, ipv6_prefix, .. } = rate;
        let Rate { allow, clients_max, .. } = rate;
        self.table("rate").plain("queries_per_second", queries_per_second);
        match burst {
            Some(burst) => self.plain("burst", burst),
            None => self.text("burst", "auto"),
        };
        self.plain("slip", slip)
            .plain("ipv4_prefix", ipv4_prefix)
            .plain("ipv6_prefix", ipv6_prefix);
        self.items("allow", allow).plain("clients_max", clients_max);
    }

    fn forward(&mut self, section: &Forward) {
        let Forward { root, zones, views: _, deadline, hedge_percent, probe, .. } = section;
        let Forward { case_randomization, cookies, tls_roots, sockets, inflight_max, .. } = section;
        let Forward { upstream_inflight_max, waiters_max, .. } = section;
        // Beside zones, TOML takes the table only in the same form as theirs.
        let _ = if zones.is_empty() { self.table("forward") } else { self.tables("forward") };
        self.zone(root).time("deadline", *deadline).plain("hedge", hedge_percent);
        self.plain("probe", probe).plain("case_randomization", case_randomization);
        self.plain("cookies", cookies).path_or("tls_roots", tls_roots.as_deref(), "system");
        self.plain("sockets", sockets).plain("inflight_max", inflight_max);
        self.plain("upstream_inflight_max", upstream_inflight_max)
            .plain("waiters_max", waiters_max);
        for zone in zones {
            self.tables("forward").zone(zone);
        }
    }

    fn zone(&mut self, zone: &ForwardZone) -> &mut Self {
        let ForwardZone { apexes, upstreams, selection, attempt_timeout } = zone;
        if !apexes.is_empty() {
            self.items("zone", apexes.iter().map(|apex| apex.as_name().to_string()));
        }
        if !upstreams.is_empty() {
            self.items("upstreams", upstreams.iter().map(Upstream::to_text));
        }
        let policy = match selection {
            Selection::Fastest => "fastest",
            Selection::Ordered => "ordered",
            Selection::RoundRobin => "round-robin",
        };
        self.text("policy", policy).time("attempt_timeout", *attempt_timeout)
    }

    fn names(
        &mut self,
        identity: &Identity,
        special: Special,
        hosts: &Hosts,
        rebinding: &Rebinding,
    ) {
        let Identity { version, id } = identity;
        self.table("identity");
        for (key, said) in [("version", version), ("id", id)] {
            if let Some(said) = said {
                self.text(key, said);
            }
        }
        let Special { localhost, invalid, test, onion, alt, home_arpa, resolver_arpa, reverse } =
            special;
        self.table("special").plain("localhost", localhost).plain("invalid", invalid);
        self.plain("test", test).plain("onion", onion).plain("alt", alt);
        self.plain("home_arpa", home_arpa).plain("resolver_arpa", resolver_arpa);
        self.plain("reverse", reverse);
        let Hosts { files, ttl, ptr } = hosts;
        self.table("hosts").items("files", files.iter().map(|path| path.display()));
        self.plain("ttl", ttl).plain("ptr", ptr);
        let Rebinding { protect, allow } = rebinding;
        self.table("rebinding").plain("protect", protect);
        self.items("allow", allow.iter().map(|apex| apex.as_name().to_string()));
    }

    fn filter(&mut self, section: &Filter) {
        let Filter { directory, refresh, list_bytes_max, download_timeout, bytes } = section;
        self.table("filter").path_or("directory", directory.as_deref(), "off");
        self.time("refresh", *refresh).size("list_bytes_max", *list_bytes_max);
        self.time("download_timeout", *download_timeout).size("memory", *bytes);
    }

    fn query_log(&mut self, section: &QueryLog, dnstap: &Dnstap) {
        let QueryLog { path, retention, bytes_max, anonymize, sample, top, queue_bytes } = section;
        self.table("query_log").path_or("path", path.as_deref(), "off");
        self.time("retention", *retention).size("size_max", *bytes_max);
        self.plain("anonymize", anonymize).plain("sample", sample).plain("top", top);
        self.size("queue", *queue_bytes);
        let Dnstap { socket, tcp, file, identity, queries, responses, anonymize } = dnstap;
        self.table("dnstap").path_or("socket", socket.as_deref(), "off");
        self.text("tcp", tcp.map_or_else(|| "off".to_owned(), |address| address.to_string()));
        self.path_or("file", file.as_deref(), "off");
        self.text("identity", identity.as_deref().unwrap_or("auto"));
        self.plain("queries", queries).plain("responses", responses).plain("anonymize", anonymize);
    }

    fn rest(&mut self, explain: &Explain, optimizations: Optimizations, log: Log) {
        let Explain { decisions } = explain;
        self.table("explain").plain("decisions", decisions);
        let Optimizations { zero_copy_parsing, simd, hot_cache, filter_pre_filter } = optimizations;
        self.table("optimizations").plain("zero_copy_parsing", zero_copy_parsing);
        self.plain("simd", simd).plain("hot_cache", hot_cache);
        self.plain("filter_pre_filter", filter_pre_filter);
        let Log { format, level } = log;
        self.table("log").text("level", level.as_text()).text("format", format.as_text());
    }

    fn api(&mut self, section: &Api) {
        let Api { listen, token, token_file, certificate, key, page } = section;
        self.table("api").text("listen", listen);
        if token.is_some() {
            self.remark("token is set, and secret: put it back here");
        }
        self.path("token_file", token_file.as_deref());
        self.path("certificate", certificate.as_deref()).path("key", key.as_deref());
        self.plain("page", page);
    }

    fn rewrite(&mut self, Rewrite { name, to, ttl, place: _ }: &Rewrite) {
        self.tables("rewrite").text("name", name);
        match to {
            RewriteTarget::Addresses(addresses) => self.items("to", addresses),
            RewriteTarget::Name(name) => self.text("to", name.as_name()),
        };
        self.plain("ttl", ttl);
    }

    fn local(&mut self, zone: &LocalZone, files: &[LocalFile]) {
        let LocalZone { zone: apex, records, place } = zone;
        self.tables("local").text("zone", apex);
        // What comes from a file stands at its first line.
        let is_it = |file: &&LocalFile| file.zone == *apex && *place == file.first_line();
        match files.iter().find(is_it) {
            Some(file) => self.path("file", Some(&file.path)),
            None => self.text("records", records),
        };
    }

    fn list(&mut self, list: &List) {
        let List { name, source, kind, syntax, answer, ttl, reason, refresh, place: _ } = list;
        self.tables("list").text("name", name);
        match source {
            ListSource::File(path) => self.path("file", Some(path)),
            ListSource::Url(url) if without_secrets(url) == *url => self.text("url", url),
            ListSource::Url(_) => self.remark(&format!(
                "url is {}, and the rest of it may be secret: put it back here",
                escaped(&source.to_string())
            )),
        };
        let kind = match kind {
            ListKind::Block => "block",
            ListKind::Allow => "allow",
        };
        let syntax = match syntax {
            None => "auto",
            Some(ListSyntax::Hosts) => "hosts",
            Some(ListSyntax::Domains) => "domains",
            Some(ListSyntax::Adblock) => "adblock",
            Some(ListSyntax::Dnsmasq) => "dnsmasq",
            Some(ListSyntax::Rpz) => "rpz",
        };
        let answer = match answer {
            ListAnswer::Nxdomain => "nxdomain".to_owned(),
            ListAnswer::Nodata => "nodata".to_owned(),
            ListAnswer::ZeroIp => "zero_ip".to_owned(),
            ListAnswer::Refused => "refused".to_owned(),
            ListAnswer::Addresses(addresses) => format!("ip:{}", joined(addresses)),
            ListAnswer::Alias(alias) => format!("cname:{}", alias.as_name()),
        };
        let reason = match reason {
            ListReason::Blocked => "blocked",
            ListReason::Filtered => "filtered",
        };
        self.text("kind", kind).text("syntax", syntax).text("answer", answer);
        self.plain("ttl", ttl).text("reason", reason);
        if let Some(refresh) = refresh {
            self.time("refresh", *refresh);
        }
    }

    fn group(&mut self, group: &Group) {
        let Group { name, clients, listeners, lists, periods, forward, log, place: _ } = group;
        self.tables("group").text("name", name);
        if !clients.is_empty() {
            self.items("clients", clients);
        }
        if !listeners.is_empty() {
            self.items("listeners", listeners);
        }
        if let Some(lists) = lists {
            self.items("lists", lists);
        }
        if let Some(zone) = forward {
            self.zone(zone);
        }
        self.plain("log", log);
        for Period { lists, days, from_minute, to_minute } in periods {
            self.tables("group.schedule").items("lists", lists);
            let is_in = |day: &usize| days.0 >> day & 1 != 0;
            self.items("days", (0..DAY_NAMES.len()).filter(is_in).map(|day| DAY_NAMES[day]));
            if from_minute != to_minute {
                let clock = |minute: &u16| format!("{:02}:{:02}", minute / 60, minute % 60);
                self.text("hours", format!("{}-{}", clock(from_minute), clock(to_minute)));
            }
        }
    }

    fn table(&mut self, name: &str) -> &mut Self {
        self.head(&format!("[{name}]"))
    }

    fn tables(&mut self, name: &str) -> &mut Self {
        self.head(&format!("[[{name}]]"))
    }

    fn head(&mut self, head: &str) -> &mut Self {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{gap}{head}");
        self
    }

    fn remark(&mut self, text: &str) -> &mut Self {
        let _ = writeln!(self.0, "# {text}");
        self
    }

    /// A number or a switch.
    fn plain(&mut self, key: &str, value: impl Display) -> &mut Self {
        let _ = writeln!(self.0, "{key} = {value}");
        self
    }

    fn text(&mut self, key: &str, value: impl Display) -> &mut Self {
        let value = quoted(&value.to_string());
        self.plain(key, value)
    }

    fn items(&mut self, key: &str, items: impl IntoIterator<Item = impl Display>) -> &mut Self {
        let items = items.into_iter().map(|item| quoted(&item.to_string()));
        let items: Vec<String> = items.collect();
        self.plain(key, format!("[{}]", items.join(", ")))
    }

    /// A path, if there is one.
    fn path(&mut self, key: &str, path: Option<&Path>) -> &mut Self {
        match path {
            Some(path) => self.text(key, path.display()),
            None => self,
        }
    }

    fn path_or(&mut self, key: &str, path: Option<&Path>, none: &str) -> &mut Self {
        self.text(key, path.map_or_else(|| PathBuf::from(none), Path::to_owned).display())
    }

    fn size_or_auto(&mut self, key: &str, bytes: Option<usize>) -> &mut Self {
        match bytes {
            Some(bytes) => self.size(key, bytes),
            None => self.text(key, "auto"),
        }
    }

    fn size(&mut self, key: &str, bytes: usize) -> &mut Self {
        let units = [("TiB", 1usize << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)) {
            Some((unit, size)) => self.text(key, format!("{}{unit}", bytes / size)),
            None => self.plain(key, bytes),
        }
    }

    fn time(&mut self, key: &str, time: Duration) -> &mut Self {
        let micros = time.as_micros();
        let units = [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
        let unit =
            units.into_iter().find(|(_, size)| micros >= *size && micros.is_multiple_of(*size));
        let (unit, size) = unit.unwrap_or(("us", 1));
        self.text(key, format!("{}{unit}", micros / size))
    }
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A basic string; one of several lines if the text has several (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    if text.contains('\n') {
        format!("\"\"\"\n{}\"\"\"", text.split('\n').map(escaped).collect::<Vec<_>>().join("\n"))
    } else {
        format!("\"{}\"", escaped(text))
    }
}

/// What stands between the quotes: nothing that ends them, ends a line, or commands a terminal.
fn escaped(text: &str) -> String {
    let is_wild = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\t' => out.push_str("\\t"),
            letter if is_wild(letter) => {
                let _ = write!(out, "\\u{:04X}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests;
