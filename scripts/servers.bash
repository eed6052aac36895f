# Sourced by scripts that measure a node beside other servers: --help, processes that end with the script, NSD and Unbound as they
# are set up for that, costs. Its user sets `name` (of the script) and `needs` (tools) before, and may define `clean_up`
# for what is to go after all processes have ended.
# shellcheck shell=bash disable=SC2015,SC2016,SC2034,SC2120,SC2154

PATH=$PATH:/usr/sbin:/sbin
# What the script's head says, before anything is built or started.
for word in "$@"; do
    if [[ $word == --help || $word == -h ]]; then
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit
    fi
done
work=$(mktemp -d)
# The names that are asked for are below test., which the node would not forward (docs/CONFIGURATION.md, [special]).
export HEIMDALL_SPECIAL_TEST=false
# Several nodes may run on this machine, and only one of them could have the default address of the API.
export HEIMDALL_API_LISTEN=off
# An address of the loopback network for this run alone: two runs at a time do not ask each other's servers.
home=127.$((64 + ($$ >> 16) % 64)).$(($$ >> 8 & 255)).$(($$ & 255))
declare -A pids=()

# Ends what `start` began.
end() {
    local process pid
    for process in "$@"; do
        pid=${pids[$process]-}
        [[ -n $pid ]] || continue
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        unset "pids[$process]"
    done
}

stop() {
    end "${!pids[@]}"
    if declare -F clean_up >/dev/null; then clean_up; fi
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$name: $*" >&2
    exit 1
}

for tool in "${needs[@]}"; do
    command -v "$tool" >/dev/null || fail "$tool is missing: scripts/setup --benchmarks"
done

# number NAME VALUE LEAST MOST: refuses what is none.
number() {
    [[ $2 =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) || fail "$1 = $2: expected $3 to $4"
}

# start PROCESS COMMAND...: in the background, as pids[PROCESS]; what it says goes to $work/PROCESS.log.
start() {
    local process=$1
    shift
    "$@" >"$work/$process.log" 2>&1 &
    pids[$process]=$!
}

# finish PROCESS COMMAND...: starts it and waits for its end; a signal to the script is heard meanwhile.
finish() {
    local process=$1
    start "$@"
    wait "${pids[$process]}" || fail "$process failed: $(tail -n 3 "$work/$process.log")"
    unset "pids[$process]"
}

# last_words PROCESS: where it says what is wrong, or the end of its log.
last_words() {
    grep -m 1 -A 3 -i '^error' "$work/$1.log" || tail -n 3 "$work/$1.log"
}

# alive PROCESS...: fails when one has ended.
alive() {
    local process
    for process in "$@"; do
        kill -0 "${pids[$process]}" 2>/dev/null || fail "$process does not run: $(last_words "$process")"
    done
}

# await PROCESS QNAME DIG-ARGUMENTS...: until it answers NOERROR, ten seconds at most.
await() {
    local process=$1 qname=$2 turn
    shift 2
    for ((turn = 0; turn < 50; turn++)); do
        alive "$process"
        if "$@" +tries=1 +time=1 "$qname" A 2>/dev/null | grep -q 'status: NOERROR'; then return; fi
        sleep 0.1
    done
    fail "$process does not answer: $(last_words "$process")"
}

# CPU time of all threads of a process so far, in nanoseconds: the scheduler's own account.
cpu_ns() {
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

resident_kib() {
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

# busy_warning: says so when this machine has other work, which costs are not to be measured beside.
busy_warning() {
    awk '$1 > 1 { print "This machine is busy (load average " $1 "): costs are higher than on a quiet one, and vary." }' /proc/loadavg >&2
}

median() {
    tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# names COUNT [PREFIX]: as many different names for dnsperf, all of them in the zone below.
names() {
    awk -v count="$1" -v prefix="${2-h}" 'BEGIN { for (i = 0; i < count; i++) printf "%s%08d.site%03d.test A\n", prefix, i, i % 1000 }'
}

# zipf COUNT NAMES: so many questions for the names of `names NAMES z`, the one of rank r as often as 1 / r says.
zipf() {
    awk -v count="$1" -v names="$2" 'BEGIN {
        srand(11)
        for (i = 0; i < names; i++) sums[i] = (sum += 1 / (i + 1))
        for (n = 0; n < count; n++) {
            wanted = rand() * sum; low = 0; high = names - 1
            while (low < high) { middle = int((low + high) / 2); if (sums[middle] < wanted) low = middle + 1; else high = middle }
            # Ranks are spread over the sites, or the popular names would all lie in the first ones.
            i = low * 7919 % names
            printf "z%08d.site%03d.test A\n", i, i % 1000
        }
    }'
}

# nsd_conf ADDRESS@PORT: writes a config and the zone test., in which every name below a site has the same address.
nsd_conf() {
    local site
    {
        echo '$TTL 86400'
        echo '@ SOA ns host 1 3600 600 86400 300'
        echo '@ NS ns'
        echo 'ns A 127.0.0.1'
        for ((site = 0; site < 1000; site++)); do printf '*.site%03d A 192.0.2.1\n' "$site"; done
    } >"$work/test.zone"
    cat >"$work/nsd.conf" <<CONF
server:
  ip-address: $1
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "$work"
  pidfile: "$work/nsd.pid"
  zonelistfile: "$work/zone.list"
  xfrdfile: "$work/xfrd.state"
  database: ""
  rrl-ratelimit: 0
  tcp-count: 1000
  tcp-query-count: 0
  minimal-responses: yes
remote-control:
  control-enable: no
zone:
  name: test
  zonefile: test.zone
CONF
}

# unbound_conf FILE LINES: a config of one thread that looks nothing up but by `forward-addr` or its own data; LINES is
# added to the server's part and may begin others.
unbound_conf() {
    cat >"$work/$1" <<CONF
server:
  num-threads: 1
  username: ""
  chroot: ""
  directory: "$work"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 0
  do-not-query-localhost: no
  module-config: "iterator"
  msg-cache-size: 512m
  rrset-cache-size: 512m
  so-rcvbuf: 4m
  outgoing-range: 4096
  num-queries-per-thread: 2048
  minimal-responses: yes
  prefetch: no
  local-zone: "test." nodefault
$2
remote-control:
  control-enable: no
CONF
}

# node_binary: builds the node, and the examples given, unless NODE names one.
node_binary() {
    if [[ -z ${NODE-} ]]; then
        cargo build --locked --release --quiet --bin heimdall-uring "$@"
        NODE=target/release/heimdall-uring
    elif (($#)); then
        cargo build --locked --release --quiet "$@"
    fi
}

# load_binary: builds heimdall-load, unless LOAD names one.
load_binary() {
    if [[ -z ${LOAD-} ]]; then
        cargo build --locked --release --quiet --package heimdall-load
        LOAD=target/release/heimdall-load
    fi
}
