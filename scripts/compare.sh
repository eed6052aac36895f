#!/usr/bin/env bash
# What do hits, misses and memory cost, here and in other servers? One core each, in turns, in front of the same NSD.
#
#   scripts/compare.sh [--peers=NAME,...] [--only=WHAT,...] [--rounds=N] [--seconds=N] [--names=N] [--zipf-names=N] [--out=FILE] [--limits]
#   scripts/compare.sh --table FILE [--limits]
#
# NAMEs are unbound, knot-resolver, pdns-recursor, dnsdist, bind, dnsmasq, all by default, with the configs of benchmarks/peers; one that is not
# installed (scripts/setup --benchmarks) or does not answer is left out with a line. In each of ROUNDS (5) every server starts anew
# on one CPU, with dnsperf and NSD on the other. WHAT is measured, of CPU the time of all threads of the server's process:
#   start   milliseconds from the start of the process to the first answer that NSD gave
#   hits    CPU per answer over SECONDS (6), 1 000 names that are cached
#   zipf    the same for names that are asked for as Zipf's law (1 / rank) says, ZIPF-NAMES (100000) of them
#   misses  CPU per answer for 2 x NAMES (200000) names that each are asked for once, so that each is forwarded
#   paced   CPU per answer when heimdall-load asks for the 1 000 names in even steps, 20 000 and 100 000 a second; only where it is asked for
#   memory  growth of the resident set over the second NAMES of them, per name; not of what was reserved before
# Prints each run and a table of medians, and writes both, with versions and machine, to FILE (benchmarks/results/DATE-MACHINE.json).
# --limits fails when a limit is broken, or when there are no figures to hold it against: hits at most 0.90 of Unbound's and 1.00 of dnsdist's cost, misses
# at most 1 / 2.5, and memory at most 0.25 of Unbound's. --table prints the table of such a file. NODE names another binary than a release build. Ends only what it started.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016
# What both of the below begin with: `of(SERVER; KEY)`, the median of its runs, null if it has none.
medians='
    def median: map(select(. != null)) | if length == 0 then null else sort | .[(length - 1) / 2 | floor] end;
    . as $all | def of($server; $key): [$all.servers[] | select(.name == $server) | .runs[][$key]] | median;
    def two_digits: (. * 100 | round) as $hundredths
        | "\($hundredths / 100 | floor).\($hundredths % 100 + 100 | tostring | .[1:])";'

# table FILE: its medians, each beside the node's, as Markdown.
table() {
    jq -r "$medians"'
        [["hit_ns", "hit, ns"], ["zipf_ns", "Zipf, ns"], ["miss_ns", "miss, ns"], ["paced_20k_ns", "20 000 q/s, ns"], ["paced_100k_ns", "100 000 q/s, ns"], ["entry_bytes", "memory, B/name"], ["start_ms", "start, ms"]]
        | map(select(.[0] as $key | any($all.servers[]; any(.runs[]; .[$key] != null)))) as $columns
        | "| server | " + ([$columns[][1]] | join(" | ")) + " |",
        "|---" * (($columns | length) + 1) + "|",
        ($all.servers[] | . as $server
            | "| \(.title) \(.version) | " + ([$columns[][0] as $key | of($server.name; $key) as $here | of("node"; $key) as $ours
                | if $here == null then "–"
                  elif $server.name == "node" or $ours == null or $ours <= 0 then "\($here)"
                  else "\($here) (\($here / $ours | two_digits) ×)" end] | join(" | ")) + " |")' "$1"
}

# limits FILE: one line for each; false when one is broken or cannot be looked at.
limits() {
    jq -r "$medians"'
        (["hit_ns", "unbound", 0.90], ["hit_ns", "dnsdist", 1.00], ["miss_ns", "unbound", 0.40], ["entry_bytes", "unbound", 0.25])
        | . as [$key, $peer, $most] | of("node"; $key) as $ours | of($peer; $key) as $theirs
        | "\($key): node / \($peer) "
            + if $ours == null or $theirs == null or $theirs <= 0 then "not measured: BROKEN"
              else "\($ours / $theirs | two_digits), at most \($most | two_digits)" + if $ours / $theirs > $most then ": BROKEN" else "" end
              end' "$1" | awk '{ print } /BROKEN/ { broken = 1 } END { exit broken || NR == 0 }'
}

if [[ ${1-} == --table ]]; then
    [[ -r ${2-} ]] || {
        echo "compare: --table: expected a file that this script wrote" >&2
        exit 2
    }
    table "$2"
    [[ ${3-} != --limits ]] || limits "$2"
    exit
fi

name=compare
needs=(awk dig dnsperf jq nsd taskset timeout)
# shellcheck source=scripts/servers.bash
. scripts/servers.bash
# shellcheck source=scripts/peers.bash
. scripts/peers.bash

all_peers=unbound,knot-resolver,pdns-recursor,dnsdist,bind,dnsmasq
all_kinds=start,hits,zipf,misses,memory
known_kinds=$all_kinds,paced
peers=$all_peers
only=$all_kinds
rounds=5
seconds=6
count=200000
zipf_names=100000
out=
is_limited=
for option in "$@"; do
    case $option in
    --peers=*) peers=${option#*=} ;;
    --only=*) only=${option#*=} ;;
    --rounds=*) rounds=${option#*=} ;;
    --seconds=*) seconds=${option#*=} ;;
    --names=*) count=${option#*=} ;;
    --zipf-names=*) zipf_names=${option#*=} ;;
    --out=*) out=${option#*=} ;;
    --limits) is_limited=yes ;;
    *) fail "$option: expected the options in $0" ;;
    esac
done
number --rounds "$rounds" 1 100
number --seconds "$seconds" 1 600
number --names "$count" 1000 2000000
number --zipf-names "$zipf_names" 1000 1000000

# among LIST WORD
among() { [[ ,$1, == *,$2,* ]]; }
for word in ${peers//,/ }; do among "$all_peers" "$word" || fail "--peers: $word: expected some of $all_peers"; done
for word in ${only//,/ }; do among "$known_kinds" "$word" || fail "--only: $word: expected some of $known_kinds"; done

server_cpu=0
load_cpu=1
upstream_port=5390
# On all addresses but BIND's, this run has them for itself.
port=$((20000 + $$ % 10000))
# Room for all names in Unbound, which takes most: 512 MiB for 200 000.
cache_mib=$((112 + count / 500))
entries=$((4 * count + 2 * zipf_names))
outstanding=200
start_ms_max=20000
busy_warning
node_binary
if among "$only" paced; then load_binary; fi

servers=(node)
for peer in ${peers//,/ }; do
    if command -v "${programs[$peer]}" >/dev/null; then servers+=("$peer"); else echo "$peer is not installed: left out"; fi
done

nsd_conf "$home@$upstream_port"
names 1000 >"$work/hits"
names 2000 w >"$work/warm"
names "$count" a >"$work/first"
names "$count" b >"$work/second"
if among "$only" zipf; then zipf $((4 * zipf_names)) "$zipf_names" >"$work/zipf"; fi
start nsd taskset -c "$load_cpu" nsd -d -c "$work/nsd.conf"
await nsd ns.test dig -p "$upstream_port" @"$home"

# first_answer SERVER: milliseconds from now until it answers NOERROR, by bash alone: starting dig takes longer than some servers do.
first_answer() {
    local begun now reply sock
    begun=$(date +%s%N)
    while kill -0 "${pids[$1]}" 2>/dev/null; do
        if { exec {sock}<>"/dev/udp/$address/$port"; } 2>/dev/null; then
            # A for ns.test., with RD.
            { printf '\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ns\x04test\x00\x00\x01\x00\x01' >&"$sock"; } 2>/dev/null || true
            reply=$(timeout 0.2 dd bs=1500 count=1 2>/dev/null <&"$sock" | od -An -v -tx1 -N4 || true)
            exec {sock}>&-
        fi
        now=$(date +%s%N)
        if [[ ${reply-} =~ ^\ 12\ 34\ [89].\ .0 ]]; then
            start_ms=$(((now - begun) / 1000000))
            return
        fi
        ((now - begun < start_ms_max * 1000000)) || return 1
        sleep 0.002
    done
    return 1
}

# ask SERVER FILE DNSPERF-ARGUMENTS...: sets `spent` (CPU), `answered`, `rate`; false when one in a hundred is not answered NOERROR.
ask() {
    local server=$1 file=$2 before after sent good
    shift 2
    before=$(cpu_ns "${pids[$server]}")
    finish load taskset -c "$load_cpu" timeout 1800 dnsperf -s "$address" -p "$port" -d "$work/$file" -c 16 -T 1 -q "$outstanding" "$@"
    kill -0 "${pids[$server]}" 2>/dev/null || return 1
    after=$(cpu_ns "${pids[$server]}")
    read -r sent answered good rate < <(awk '
        /Queries sent:/ { sent = $3 }
        /Queries completed:/ { done = $3 }
        /Response codes:/ { for (i = 3; i < NF; i++) if ($i == "NOERROR") good = $(i + 1) }
        /Queries per second:/ { rate = $4 }
        END { printf "%d %d %d %d\n", sent, done, good, rate }' "$work/load.log")
    spent=$((after - before))
    ((answered > 0 && good * 100 >= sent * 99))
}

# paced SERVER QUERIES_PER_SECOND: sets `spent` per answer; false when one in a hundred is not answered.
paced() {
    finish load "$LOAD" --server "$address:$port" --qps "$2" --duration "${seconds}s" --domains hot --cpus "$load_cpu" --server-pid "${pids[$1]}" --json --quiet
    spent=$(jq 'if .answered * 100 >= .asked * 99 then .server_cpu_ns_per_answer | round else 0 end' "$work/load.log")
    ((spent > 0))
}

# measure SERVER ROUND: one line of figures in `runs`; false when the server does not do what it should.
measure() {
    local server=$1 figures="\"server\": \"$1\", \"round\": $2" before kib
    launch "$server"
    first_answer "$server" || return 1
    if among "$only" start; then figures+=", \"start_ms\": $start_ms"; fi
    if among "$only" hits; then
        ask "$server" hits -n 3 || return 1
        ask "$server" hits -l "$seconds" || return 1
        figures+=", \"hit_ns\": $((spent / answered)), \"hit_qps\": $rate"
    fi
    if among "$only" zipf; then
        ask "$server" zipf -n 1 || return 1
        ask "$server" zipf -l "$seconds" || return 1
        figures+=", \"zipf_ns\": $((spent / answered)), \"zipf_qps\": $rate"
    fi
    if among "$only" paced; then
        paced "$server" 20000 || return 1
        figures+=", \"paced_20k_ns\": $spent"
        paced "$server" 100000 || return 1
        figures+=", \"paced_100k_ns\": $spent"
    fi
    if among "$only" misses || among "$only" memory; then
        # Opens sockets and learns what the upstream takes.
        ask "$server" warm -n 1 || return 1
        ask "$server" first -n 1 || return 1
        before=$spent
        kib=$(resident_kib "${pids[$server]}")
        ask "$server" second -n 1 || return 1
        kib=$(($(resident_kib "${pids[$server]}") - kib))
        if among "$only" misses; then figures+=", \"miss_ns\": $(((before + spent) / (2 * count))), \"miss_qps\": $rate"; fi
        # What is reserved at the start does not grow, and says nothing of an entry.
        if among "$only" memory && ((kib * 1024 >= count)); then figures+=", \"entry_bytes\": $((kib * 1024 / count))"; fi
    fi
    end "$server"
    echo "{$figures}" | tee -a "$work/runs"
}

for ((round = 1; round <= rounds; round++)); do
    for server in "${servers[@]}"; do
        [[ ! -e $work/broken-$server ]] || continue
        if ! measure "$server" "$round"; then
            echo "$server does not answer as it should: left out ($(tail -n 1 "$work/$server.log"); $(grep -E 'Response codes|Queries lost' "$work/load.log" 2>/dev/null | tr -s ' \n' ' '))"
            end "$server"
            [[ $server != node ]] || fail 'without figures of the node there is nothing to compare with'
            touch "$work/broken-$server"
        fi
    done
done

for server in "${servers[@]}"; do
    printf '{"name": "%s", "title": "%s", "version": "%s"}\n' "$server" "${titles[$server]}" "$(version "$server")"
done >"$work/servers"
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
day=$(date -u +%F)
if [[ -z $out ]]; then
    slug=$(tr -cs 'A-Za-z0-9\n' - <<<"${cpu:-$(uname -m)}-$(nproc)-cpus" | tr '[:upper:]' '[:lower:]' | sed 's/-r-\|-tm-/-/g; s/-$//')
    mkdir -p benchmarks/results
    out=benchmarks/results/$day-$slug.json
fi
# No name of the machine: only what its figures depend on.
jq -n --arg day "$day" --arg cpu "$cpu" --argjson cpus "$(nproc)" --arg kernel "$(uname -r)" --arg load "$(cut -d ' ' -f 1-3 /proc/loadavg)" \
    --argjson memory_kib "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)" \
    --argjson settings "{\"rounds\": $rounds, \"seconds\": $seconds, \"names\": $count, \"zipf_names\": $zipf_names, \"outstanding\": $outstanding, \"cache_mib\": $cache_mib, \"cache_entries\": $entries}" \
    --slurpfile runs "$work/runs" --slurpfile servers "$work/servers" '
    { date: $day, machine: { cpu: $cpu, cpus: $cpus, memory_kib: $memory_kib, kernel: $kernel, load_at_end: $load }, settings: $settings,
      servers: [$servers[] | . as $server | . + { runs: [$runs[] | select(.server == $server.name) | del(.server)] } | select(.runs != [])] }' >"$out"
echo
echo "Written to $out."
echo
table "$out"
echo
if [[ -n $is_limited ]]; then limits "$out"; fi
