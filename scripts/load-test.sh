#!/usr/bin/env bash
# How does a node bear load? Starts one in front of NSD, asks it for a while, and prints what came of it: questions, answers per second,
# loss, percentiles of the latency, CPU time of the server per answer.
#
#   scripts/load-test.sh [--duration=10s] [--qps=100000] [--domains=mix|hot|unique|zipf|blocked] [--proto=udp|tcp|dot]
#                        [--clients=10000] [--cores=0] [--load-cpus=1] [--namespaces] [--server=ADDRESS:PORT] [--json]
#                        [--generator=heimdall|dnsperf] [-- NODE-FLAGS...]
#
# The node has CPUs --cores, heimdall-load and NSD have --load-cpus. heimdall-load asks (benchmarks/load): what is late counts from when it was due, so a
# server that stalls is asked no less. --qps=0 asks as fast as answers come, with 1 000 questions open. --qps=80% finds out first, for forty
# seconds, what the server can answer in that way, and asks for that part of it: `--duration=10m --qps=80%` is a soak. The server's resident
# memory is told at the start, after each tenth, and at the end.
#
# --namespaces puts the server behind a pair of virtual interfaces in a network namespace of its own (needs root); otherwise all is on the loopback
# interface. --server asks one that runs already: nothing is started then, and its CPU time is told if --pid=PID names it. What is asked for lies below
# test. (`heimdall-load --print 10 --domains mix` shows it). Over --proto=dot only such a server can be asked: the node does not serve TLS.
# --generator=dnsperf has dnsperf ask the same questions instead, from one address and with at most 1 000 open: another's word on rate and loss.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "load-test: $*; scripts/load-test.sh --help says more" >&2
    exit 2
}

duration=10s qps=100000 domains=mix proto=udp clients=10000 cores=0 load_cpus=1 server='' pid='' json=() spaces='' generator=heimdall
flags=()
while (($#)); do
    case $1 in
    --help | -h) break ;;
    --duration=*) duration=${1#*=} ;;
    --qps=*) qps=${1#*=} ;;
    --domains=*) domains=${1#*=} ;;
    --proto=*) proto=${1#*=} ;;
    --clients=*) clients=${1#*=} ;;
    --cores=*) cores=${1#*=} ;;
    --load-cpus=*) load_cpus=${1#*=} ;;
    --server=*) server=${1#*=} ;;
    --pid=*) pid=${1#*=} ;;
    --namespaces) spaces=1 ;;
    --json) json=(--json) ;;
    --generator=*) generator=${1#*=} ;;
    --)
        shift
        flags=("$@")
        break
        ;;
    *) usage "$1 is not known" ;;
    esac
    shift
done
[[ $domains =~ ^(mix|hot|unique|zipf|blocked)$ ]] || usage "--domains=$domains: expected mix, hot, unique, zipf or blocked"
[[ $proto =~ ^(udp|tcp|dot)$ ]] || usage "--proto=$proto: expected udp, tcp or dot"
[[ $duration =~ ^[1-9][0-9]{0,5}[smh]$ ]] || usage "--duration=$duration: expected such as 60s or 10m"
[[ $qps =~ ^[0-9]{1,9}$ || $qps =~ ^([1-9][0-9]?|100)%$ ]] || usage "--qps=$qps: expected a number, or a part of what the server can do, such as 80%"
[[ $clients =~ ^[1-9][0-9]{0,6}$ ]] || usage "--clients=$clients: expected 1 or more"
for option in cores load_cpus; do
    taskset -c "${!option}" true 2>/dev/null || usage "--${option//_/-}=${!option}: expected CPUs of this machine, such as 1 or 0-1"
done
[[ -z $server || $server =~ ^[0-9a-fA-F.:]+$ || $server =~ ^\[[0-9a-fA-F:.]+\](:[0-9]+)?$ ]] || usage "--server=$server: expected ADDRESS:PORT"
[[ -z $pid || -e /proc/$pid/task ]] || usage "--pid=$pid: there is no such process"
[[ $generator =~ ^(heimdall|dnsperf)$ ]] || usage "--generator=$generator: expected heimdall or dnsperf"
[[ $generator != dnsperf || ${#json[@]} -eq 0 ]] || usage "--json: dnsperf has no such output"
[[ $proto != dot || -n $server ]] || usage "--proto=dot: the node does not serve TLS; --server names one that does"
[[ -z $spaces || -z $server ]] || usage "--namespaces has a server of its own, so --server has no place"

name='load-test'
needs=(dig)
[[ -n $server ]] || needs+=(nsd taskset)
[[ $qps != *% ]] || needs+=(jq)
[[ $generator != dnsperf ]] || needs+=(dnsperf taskset)
# shellcheck source=scripts/servers.bash
. scripts/servers.bash

load_binary
[[ -n $server ]] || node_binary

inside=()
from=127.64.0.0/10
if [[ -n $spaces ]]; then
    ((EUID == 0)) || fail "--namespaces needs root"
    space=heimdall-load-$$ near=hl$$a
    clean_up() { ip netns delete "$space" 2>/dev/null || true; }
    ip netns add "$space"
    ip link add "$near" type veth peer name eth0 netns "$space"
    # Addresses for the clients on this side, all of them ours; for the server on the other.
    ip address add 198.18.0.1/16 dev "$near"
    ip link set "$near" up
    ip route add local 198.18.0.0/16 dev "$near" table local 2>/dev/null || true
    ip -netns "$space" link set lo up
    ip -netns "$space" address add 198.19.0.1/16 dev eth0
    ip -netns "$space" link set eth0 up
    ip -netns "$space" route add 198.18.0.0/16 via 198.19.0.2 onlink dev eth0
    ip address add 198.19.0.2/16 dev "$near"
    inside=(ip netns exec "$space")
    home=198.19.0.1
    from=198.18.0.0/16
fi

if [[ -z $server ]]; then
    server=$home:5393
    nsd_conf "$home@5390"
    # Blocked names have answers, so that a list which is not in force would show.
    sed -i '$ a *.blocked A 192.0.2.2' "$work/test.zone"
    awk 'BEGIN { for (i = 0; i < 100000; i++) printf "ad%08d.blocked.test\n", i }' >"$work/blocked"
    cat >"$work/node.toml" <<CONF
[acl]
allow = ["127.0.0.0/8", "198.18.0.0/15"]
[[list]]
name = "ads"
file = "$work/blocked"
syntax = "domains"
CONF
    start nsd "${inside[@]}" taskset -c "$load_cpus" nsd -d -c "$work/nsd.conf"
    await nsd ns.test "${inside[@]}" dig -p 5390 @"$home"
    start node "${inside[@]}" taskset -c "$cores" "$NODE" --config "$work/node.toml" --cores "$cores" --upstream "$home:5390" \
        --listen "$server" "${flags[@]}"
    await node ns.test "${inside[@]}" dig -p 5393 @"$home"
    pid=$(pgrep --parent "${pids[node]}" heimdall-uring || echo "${pids[node]}")
fi

load=("$LOAD" --server "$server" --proto "$proto" --domains "$domains" --cpus "$load_cpus")
if [[ $server == 127.* || -n $spaces ]]; then load+=(--from "$from" --clients "$clients"); fi
if [[ -n $pid ]]; then load+=(--server-pid "$pid"); fi

if [[ $qps == *% ]]; then
    workers=$(sort -u "/proc/${pid:-self}/task"/*/comm | grep -c '^core-') || true
    finish capacity "${load[@]}" --qps 0 --warm-up 20s --duration 20s --json --quiet
    capacity=$(jq '.answers_per_second | floor' "$work/capacity.log")
    qps=$((capacity * ${qps%\%} / 100))
    busy=$(jq '.server_cpus // 0 | . * 100 | round' "$work/capacity.log")
    echo "$capacity questions per second were answered, with $busy % of a CPU in the server; it is asked $qps." >&2
    ((busy == 0 || busy >= 95 * workers)) ||
        echo "That is what the generator can do, not the server: it had CPU time left." >&2
fi

# watch_memory: notes the server's resident set each second.
watch_memory() {
    while resident_kib "$pid" 2>/dev/null; do sleep 1; done >"$work/resident"
}
if [[ -n $pid ]]; then
    watch_memory &
    pids[memory]=$!
fi
command=("${load[@]}" --qps "$qps" --duration "$duration" "${json[@]}")
if [[ $generator == dnsperf ]]; then
    declare -A units=([s]=1 [m]=60 [h]=3600)
    seconds=$((${duration%?} * units[${duration: -1}]))
    count=$((qps * seconds))
    if ((qps == 0 || count > 5000000)); then
        count=5000000
        [[ $domains != unique ]] || echo "dnsperf is given 5 000 000 names and begins anew after them." >&2
    fi
    "$LOAD" --domains "$domains" --print "$count" >"$work/questions"
    command=(taskset -c "$load_cpus" dnsperf -m "$proto" -s "${server%:*}" -p "${server##*:}" -d "$work/questions" -l "$seconds" -c 16 -T 1 -q 1000 -e -t 2)
    ((qps == 0)) || command+=(-Q "$qps")
    before=$([[ -z $pid ]] || cpu_ns "$pid")
fi
# What it says comes as it says it: on stdout what was found, on stderr how it goes.
"${command[@]}" > >(tee "$work/load.log") &
pids[load]=$!
wait "${pids[load]}" || fail "$generator failed, or nothing was answered"
unset 'pids[load]'
if [[ $generator == dnsperf && -n $pid ]]; then
    answered=$(awk '/Queries completed:/ { print $3 }' "$work/load.log")
    ((answered == 0)) || echo "Server's CPU per answer  $((($(cpu_ns "$pid") - before) / answered)) ns"
fi
if [[ -n $pid ]]; then
    end memory
    awk '{ kib[NR] = $1 }
        END { for (part = 0; part <= 10; part++) line = line sprintf(" %.1f", kib[1 + int((NR - 1) * part / 10)] / 1024)
              print "Server'"'"'s memory, MiB    " line }' "$work/resident" >&2
fi
