//! The one table of everything that can be set: by file, by environment, by flag; docs/CONFIGURATION.md is held against it.

use super::value::{self, Value};
use super::{ApiListen, Config, CoreSelection, LogFormat, Token, Upstream, forward};

/// One thing that can be set.
#[derive(Clone, Copy)]
pub struct Key {
    /// The table it stands in.
    pub table: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// What it takes, for error messages.
    pub expected: &'static str,
    /// Its default, as it would be written in the file.
    pub default: &'static str,
    /// Sets it; `None` when the value is not what it takes.
    pub(super) set: fn(&mut Config, &Value) -> Option<()>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.table, self.name)
    }
}

impl Key {
    /// The environment variable that sets it: `HEIMDALL_CACHE_SIZE` for `cache.size`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("HEIMDALL_{}_{}", self.table, self.name).to_uppercase()
    }
}

/// Keys that take a list, of which a mistake names the one item.
pub(super) const LISTS: [(&str, &str); 6] = [
    ("node", "listen"),
    ("acl", "allow"),
    ("rate", "allow"),
    ("forward", "upstreams"),
    ("rebinding", "allow"),
    ("hosts", "files"),
];

/// A key whose value is never shown.
pub(super) const SECRET: (&str, &str) = ("api", "token");

/// Receive buffers of a core. The ring needs two completions for each, and the kernel gives no ring more than 65 536.
const RECEIVE_BUFFERS_MAX: u64 = 16_384;

/// Assigns when the value could be read.
fn assign<T>(target: &mut T, value: Option<T>) -> Option<()> {
    *target = value?;
    Some(())
}

macro_rules! keys {
    ($($table:ident.$name:ident = $default:literal, $expected:literal, $set:expr;)+) => {
        /// All keys but those of `[[local]]`, of `[[rewrite]]`, of `[[list]]`, of `[[group]]` and of zones in `[[forward]]`, table by
        /// table.
        pub const KEYS: &[Key] = &[$(Key {
            table: stringify!($table),
            name: stringify!($name),
            expected: $expected,
            default: $default,
            set: $set,
        },)+];
    };
}

keys! {
    node.cores = "\"auto\"", "\"auto\", \"numa:0\" or CPUs such as \"0-15\" or \"0,2,4-7\"",
        |c, v| assign::<CoreSelection>(&mut c.node.cores, value::cores(v.text()?));
    node.listen = "[\"127.0.0.1:5353\"]",
        "addresses with ports, each once, such as [\"127.0.0.1:53\", \"[::1]:53\"]",
        |c, v| assign(&mut c.node.listen, v.list(value::listener));
    node.io = "\"uring\"", "\"uring\" or \"mmsg\"",
        |c, v| assign(&mut c.node.io, value::io_backend(v.text()?));
    node.steering = "\"auto\"", "\"auto\", \"cpu\", \"flow\" or \"qname\"",
        |c, v| assign(&mut c.node.steering, value::steering(v.text()?));
    node.spread_above = "125", "a number of percent from 105 to 1000, or 0 for never",
        |c, v| assign(&mut c.node.spread_above_percent, v.count(0..=0).or_else(|| v.count(105..=1_000)));
    node.spin = "\"0us\"", "a duration up to 10ms such as \"50us\"",
        |c, v| assign(&mut c.node.spin_before_sleep, v.duration(0..=10));
    node.drain = "\"2s\"", "a duration up to 60s such as \"2s\"",
        |c, v| assign(&mut c.node.drain, v.duration(0..=60_000));
    node.memory = "\"auto\"", "\"auto\" or a size from 32MiB to 16TiB such as \"2GiB\"",
        |c, v| assign(&mut c.node.memory, v.size_or_auto(32 << 20..=16 << 40));

    udp.reply_bytes_max = "1232", "a number of bytes from 512 to 1400",
        |c, v| assign(&mut c.udp.reply_bytes_max, v.count(512..=1_400));
    udp.receive_buffers = "1024", "a power of two from 64 to 16384",
        |c, v| assign(&mut c.udp.receive_buffers, v.power_of_two(64..=RECEIVE_BUFFERS_MAX));
    udp.send_buffers = "1024", "a power of two from 64 to 32768",
        |c, v| assign(&mut c.udp.send_buffers, v.power_of_two(64..=32_768));
    udp.socket_buffer = "\"4MiB\"", "a size from 64KiB to 1GiB such as \"4MiB\"",
        |c, v| assign(&mut c.udp.socket_buffer_bytes, v.size(64 << 10..=1 << 30));

    tcp.connections_max = "1024", "a number from 1 to 1000000",
        |c, v| assign(&mut c.tcp.connections_max, v.count(1..=1_000_000));
    tcp.connections_per_client_max = "128", "a number from 1 to 1000000",
        |c, v| assign(&mut c.tcp.connections_per_client_max, v.count(1..=1_000_000));
    tcp.pipeline_max = "64", "a number from 1 to 10000",
        |c, v| assign(&mut c.tcp.pipeline_max, v.count(1..=10_000));
    tcp.idle_timeout = "\"10s\"", "a duration from 100ms to 1h such as \"10s\"",
        |c, v| assign(&mut c.tcp.idle_timeout, v.duration(100..=3_600_000));
    tcp.write_timeout = "\"5s\"", "a duration from 100ms to 1h such as \"5s\"",
        |c, v| assign(&mut c.tcp.write_timeout, v.duration(100..=3_600_000));
    tcp.output_max = "\"128KiB\"", "a size from 64KiB to 64MiB such as \"128KiB\"",
        |c, v| assign(&mut c.tcp.output_bytes_max, v.size(64 << 10..=64 << 20));

    cache.size = "\"auto\"", "\"auto\" or a size from 2MiB to 1TiB such as \"2GiB\"",
        |c, v| assign(&mut c.cache.bytes, v.size_or_auto(2 << 20..=1 << 40));
    cache.ttl_min = "0", "a number of seconds from 0 to 3600",
        |c, v| assign(&mut c.cache.ttl_min, v.count(0..=3_600));
    cache.ttl_max = "86400", "a number of seconds from 1 to 604800",
        |c, v| assign(&mut c.cache.ttl_max, v.count(1..=604_800));
    cache.negative_ttl_max = "3600", "a number of seconds from 1 to 86400",
        |c, v| assign(&mut c.cache.negative_ttl_max, v.count(1..=86_400));
    cache.failure_ttl_max = "\"30s\"", "a duration from 1s to 5m such as \"30s\"",
        |c, v| assign(&mut c.cache.failure_ttl_max, v.duration(1_000..=300_000));
    cache.nxdomain_cut = "true", "true or false",
        |c, v| assign(&mut c.cache.nxdomain_cut, v.switch());
    cache.stale_max = "\"24h\"", "a duration up to 168h such as \"24h\"",
        |c, v| assign(&mut c.cache.stale_max, v.duration(0..=604_800_000));
    cache.stale_after = "\"1800ms\"", "a duration from 0s to 60s such as \"1800ms\"",
        |c, v| assign(&mut c.cache.stale_after, v.duration(0..=60_000));
    cache.prefetch = "true", "true or false",
        |c, v| assign(&mut c.cache.prefetch, v.switch());
    cache.probation = "20", "a number of percent from 2 to 90",
        |c, v| assign(&mut c.cache.probation_percent, v.count(2..=90));
    cache.hot = "10", "a number of percent from 1 to 50",
        |c, v| assign(&mut c.cache.hot_percent, v.count(1..=50));
    cache.hot_after = "3", "a number from 2 to 7",
        |c, v| assign(&mut c.cache.hot_after, v.count(2..=7));
    cache.warm_up = "none", "the absolute path of a file",
        |c, v| assign(&mut c.cache.warm_up, v.path().map(Some));
    cache.warm_up_rate = "100", "a number of questions per second from 1 to 100000",
        |c, v| assign(&mut c.cache.warm_up_rate, v.count(1..=100_000));
    cache.snapshot = "\"off\"",
        "\"off\" or the absolute path of a file such as \"/var/lib/heimdall-uring/cache\"",
        |c, v| assign(&mut c.snapshot.path, value::file_or(v.text()?, "off"));
    cache.snapshot_interval = "\"10m\"", "a duration from 1s to 24h such as \"10m\", or \"0s\"",
        |c, v| assign(&mut c.snapshot.interval, v.duration(0..=0).or_else(|| v.duration(1_000..=86_400_000)));

    acl.allow = "loopback, private, shared and link-local ranges",
        "prefixes such as [\"192.0.2.0/24\", \"::1\"], each once, without bits behind the prefix",
        |c, v| assign(&mut c.acl.allow, v.list_or_none(value::prefix));

    rate.queries_per_second = "0", "a number from 1 to 1000000, or 0 for no limit",
        |c, v| assign(&mut c.rate.queries_per_second, v.count(0..=1_000_000));
    rate.burst = "\"auto\"", "\"auto\" or a number from 1 to 1000000",
        |c, v| assign(&mut c.rate.burst, v.count_or_auto(1..=1_000_000));
    rate.slip = "2", "a number from 0 to 100",
        |c, v| assign(&mut c.rate.slip, v.count(0..=100));
    rate.ipv4_prefix = "32", "a number of bits from 8 to 32",
        |c, v| assign(&mut c.rate.ipv4_prefix, v.count(8..=32));
    rate.ipv6_prefix = "64", "a number of bits from 16 to 128",
        |c, v| assign(&mut c.rate.ipv6_prefix, v.count(16..=128));
    rate.allow = "[\"127.0.0.0/8\", \"::1/128\"]",
        "prefixes such as [\"192.0.2.0/24\", \"::1\"], each once, without bits behind the prefix",
        |c, v| assign(&mut c.rate.allow, v.list_or_none(value::prefix));
    rate.clients_max = "16384", "a number from 64 to 16777216",
        |c, v| assign(&mut c.rate.clients_max, v.count(64..=1 << 24));

    forward.upstreams = "the servers of /etc/resolv.conf",
        "addresses, each once, such as [\"192.0.2.1\", \"tcp://[2001:db8::1]:5300\", \"tls://192.0.2.2#dns.example\"]",
        |c, v| assign(&mut c.forward.root.upstreams, v.list(Upstream::parse));
    forward.policy = "\"fastest\"", "\"fastest\", \"ordered\" or \"round-robin\"",
        |c, v| assign(&mut c.forward.root.selection, forward::selection(v.text()?));
    forward.attempt_timeout = "\"800ms\"", "a duration from 10ms to 60s such as \"800ms\"",
        |c, v| assign(&mut c.forward.root.attempt_timeout, v.duration(10..=60_000));
    forward.deadline = "\"5s\"", "a duration from 10ms to 60s such as \"5s\"",
        |c, v| assign(&mut c.forward.deadline, v.duration(10..=60_000));
    forward.hedge = "5", "a number of percent from 0 to 50",
        |c, v| assign(&mut c.forward.hedge_percent, v.count(0..=50));
    forward.probe = "true", "true or false",
        |c, v| assign(&mut c.forward.probe, v.switch());
    forward.case_randomization = "true", "true or false",
        |c, v| assign(&mut c.forward.case_randomization, v.switch());
    forward.cookies = "true", "true or false",
        |c, v| assign(&mut c.forward.cookies, v.switch());
    forward.tls_roots = "\"system\"",
        "\"system\" or the absolute path of a PEM file such as \"/etc/ssl/corp.pem\"",
        |c, v| assign(&mut c.forward.tls_roots, value::file_or(v.text()?, "system"));
    forward.sockets = "128", "a number from 1 to 4096",
        |c, v| assign(&mut c.forward.sockets, v.count(1..=4_096));
    forward.inflight_max = "4096", "a number from 1 to 1000000",
        |c, v| assign(&mut c.forward.inflight_max, v.count(1..=1_000_000));
    forward.upstream_inflight_max = "4096", "a number from 1 to 1000000",
        |c, v| assign(&mut c.forward.upstream_inflight_max, v.count(1..=1_000_000));
    forward.waiters_max = "4096", "a number from 1 to 1000000",
        |c, v| assign(&mut c.forward.waiters_max, v.count(1..=1_000_000));

    identity.version = "refused", "a text",
        |c, v| assign(&mut c.identity.version, Some(Some(v.text()?.to_owned())));
    identity.id = "refused", "a text",
        |c, v| assign(&mut c.identity.id, Some(Some(v.text()?.to_owned())));

    special.localhost = "true", "true or false",
        |c, v| assign(&mut c.special.localhost, v.switch());
    special.invalid = "true", "true or false",
        |c, v| assign(&mut c.special.invalid, v.switch());
    special.test = "true", "true or false",
        |c, v| assign(&mut c.special.test, v.switch());
    special.onion = "true", "true or false",
        |c, v| assign(&mut c.special.onion, v.switch());
    special.alt = "true", "true or false",
        |c, v| assign(&mut c.special.alt, v.switch());
    special.home_arpa = "true", "true or false",
        |c, v| assign(&mut c.special.home_arpa, v.switch());
    special.resolver_arpa = "true", "true or false",
        |c, v| assign(&mut c.special.resolver_arpa, v.switch());
    special.reverse = "true", "true or false",
        |c, v| assign(&mut c.special.reverse, v.switch());

    hosts.files = "[]",
        "absolute paths of files, each once, such as [\"/etc/hosts\"]",
        |c, v| assign(&mut c.hosts.files, v.list_or_none(|path| value::file_or(path, "")?));
    hosts.ttl = "60", "a number of seconds from 0 to 86400",
        |c, v| assign(&mut c.hosts.ttl, v.count(0..=86_400));
    hosts.ptr = "true", "true or false",
        |c, v| assign(&mut c.hosts.ptr, v.switch());

    rebinding.protect = "false", "true or false",
        |c, v| assign(&mut c.rebinding.protect, v.switch());
    rebinding.allow = "[]", "domain names below the root, each once, such as [\"plex.direct\", \"corp.example\"]",
        |c, v| assign(&mut c.rebinding.allow, v.list_or_none(forward::apexes).map(|lists| lists.concat()));

    filter.directory = "\"off\"",
        "\"off\" or the absolute path of a directory such as \"/var/lib/heimdall-uring/lists\"",
        |c, v| assign(&mut c.filter.directory, value::file_or(v.text()?, "off"));
    filter.refresh = "\"24h\"", "a duration from 1m to 8760h such as \"24h\", or \"0s\"",
        |c, v| assign(&mut c.filter.refresh, v.refresh());
    filter.list_bytes_max = "\"64MiB\"", "a size from 64KiB to 4GiB such as \"64MiB\"",
        |c, v| assign(&mut c.filter.list_bytes_max, v.size(64 << 10..=4 << 30));
    filter.download_timeout = "\"60s\"", "a duration from 1s to 1h such as \"60s\"",
        |c, v| assign(&mut c.filter.download_timeout, v.duration(1_000..=3_600_000));
    filter.memory = "\"512MiB\"", "a size from 16MiB to 256GiB such as \"512MiB\"",
        |c, v| assign(&mut c.filter.bytes, v.size(16 << 20..=256 << 30));

    query_log.path = "\"off\"",
        "\"off\" or the absolute path of a file such as \"/var/lib/heimdall-uring/queries.sqlite\"",
        |c, v| assign(&mut c.query_log.path, value::file_or(v.text()?, "off"));
    query_log.retention = "\"168h\"", "a duration from 1m to 87600h such as \"168h\"",
        |c, v| assign(&mut c.query_log.retention, v.duration(60_000..=87_600 * 3_600_000));
    query_log.size_max = "\"1GiB\"", "a size from 1MiB to 1TiB such as \"1GiB\"",
        |c, v| assign(&mut c.query_log.bytes_max, v.size(1 << 20..=1 << 40));
    query_log.anonymize = "false", "true or false",
        |c, v| assign(&mut c.query_log.anonymize, v.switch());
    query_log.sample = "1", "a number from 1 to 1000000",
        |c, v| assign(&mut c.query_log.sample, v.count(1..=1_000_000));
    query_log.top = "0", "a number from 0 to 100000",
        |c, v| assign(&mut c.query_log.top, v.count(0..=100_000));
    query_log.queue = "\"4MiB\"", "a size from 64KiB to 1GiB such as \"4MiB\"",
        |c, v| assign(&mut c.query_log.queue_bytes, v.size(64 << 10..=1 << 30));

    dnstap.socket = "\"off\"",
        "\"off\" or the absolute path of a Unix socket such as \"/run/dnstap.sock\"",
        |c, v| assign(&mut c.dnstap.socket, value::file_or(v.text()?, "off"));
    dnstap.tcp = "\"off\"", "\"off\" or an address with a port such as \"192.0.2.1:6000\"",
        |c, v| assign(&mut c.dnstap.tcp, value::address_or_off(v.text()?));
    dnstap.file = "\"off\"",
        "\"off\" or the absolute path of a file such as \"/var/log/heimdall-uring/queries.dnstap\"",
        |c, v| assign(&mut c.dnstap.file, value::file_or(v.text()?, "off"));
    dnstap.identity = "\"auto\"", "\"auto\" or a text",
        |c, v| assign(&mut c.dnstap.identity, Some(Some(v.text()?.to_owned()).filter(|text| text != "auto")));
    dnstap.queries = "true", "true or false",
        |c, v| assign(&mut c.dnstap.queries, v.switch());
    dnstap.responses = "true", "true or false",
        |c, v| assign(&mut c.dnstap.responses, v.switch());
    dnstap.anonymize = "false", "true or false",
        |c, v| assign(&mut c.dnstap.anonymize, v.switch());

    explain.decisions = "1024", "a number from 0 to 65536",
        |c, v| assign(&mut c.explain.decisions, v.count(0..=65_536));

    optimizations.zero_copy_parsing = "true", "true or false",
        |c, v| assign(&mut c.optimizations.zero_copy_parsing, v.switch());
    optimizations.simd = "true", "true or false",
        |c, v| assign(&mut c.optimizations.simd, v.switch());
    optimizations.hot_cache = "true", "true or false",
        |c, v| assign(&mut c.optimizations.hot_cache, v.switch());
    optimizations.filter_pre_filter = "true", "true or false",
        |c, v| assign(&mut c.optimizations.filter_pre_filter, v.switch());

    api.listen = "\"127.0.0.1:8053\"",
        "\"off\", an address with its port such as \"[::1]:8053\", or a Unix socket such as \"unix:/run/heimdall-uring/api.sock\"",
        |c, v| assign(&mut c.api.listen, ApiListen::from_text(v.text()?));
    api.token = "none", "16 to 256 visible ASCII characters",
        |c, v| assign(&mut c.api.token, Token::from_text(v.text()?).map(Some));
    api.token_file = "none", "the absolute path of a file",
        |c, v| assign(&mut c.api.token_file, v.path().map(Some));
    api.certificate = "none", "the absolute path of a PEM file",
        |c, v| assign(&mut c.api.certificate, v.path().map(Some));
    api.key = "none", "the absolute path of a PEM file",
        |c, v| assign(&mut c.api.key, v.path().map(Some));
    api.page = "true", "true or false",
        |c, v| assign(&mut c.api.page, v.switch());

    log.level = "\"info\"", "\"error\", \"warn\", \"info\" or \"debug\"",
        |c, v| assign(&mut c.log.level, value::log_level(v.text()?));
    log.format = "\"text\"", "\"text\" or \"json\"",
        |c, v| assign(&mut c.log.format, LogFormat::from_text(v.text()?));
}
