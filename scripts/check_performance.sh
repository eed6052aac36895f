#!/usr/bin/env bash
# Do the steps of a hit and of a miss take more instructions than they did? Counted under callgrind, where a busy machine counts
# as a quiet one does, and compared with benchmarks/baseline.json.
#
#   scripts/check_performance.sh [--accept | --prove] [--baseline FILE] [--slow-down PERCENT] [--times]
#
# Fails (1) when a step takes over 2 % more than in the baseline; one that takes over 2 % less asks for a new one, which --accept
# writes. Where the compiler, the C library or the kind of processor is another than the baseline's, the commit that the baseline is of is built and
# counted here, and compared with; without a history to find it in, that ends with 3. --prove checks, and shows that the check can be relied on: two
# runs agree to within 0.5 %, and 5 % more work (--slow-down 5) fails in every step. --times shows beside it what the bench on the clock says,
# which nothing is decided by; that takes minutes. What cannot be measured ends with 2.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
times=
for argument in "$@"; do
    case $argument in
    --help | -h)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        exit
        ;;
    --times) times=yes ;;
    *) arguments+=("$argument") ;;
    esac
done
command -v valgrind >/dev/null || scripts/setup --tests

room=${CARGO_TARGET_DIR:-target}
[[ $room == /* ]] || room=$PWD/$room
# count TREE ROOM ARGUMENTS...: of what lies in TREE. The core alone; nothing of the node is compiled. As for the product, but in one unit: which
# functions are inlined must not depend on how a change happens to divide the crate.
count() {
    local tree=$1 room=$2
    shift 2
    (cd "$tree" && CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 cargo build --locked --release --quiet --package heimdall-instructions --target-dir "$room")
    "$room/release/heimdall-instructions" "$@"
}

outcome=0
count . "$room/instructions" "${arguments[@]}" || outcome=$?
if ((outcome == 3)) && [[ ${arguments[*]} != *--baseline* ]] &&
    commit=$(git log -1 --format=%H -- benchmarks/baseline.json 2>/dev/null) && [[ -n $commit ]]; then
    echo "Counting $commit, which the baseline is of, here."
    work=$(mktemp -d)
    trap 'git worktree remove --force "$work/tree" 2>/dev/null || true; rm -rf "$work"' EXIT
    git worktree add --quiet --detach "$work/tree" "$commit"
    outcome=0
    count "$work/tree" "$room/instructions-before" --accept --baseline "$work/baseline.json" >/dev/null
    count . "$room/instructions" "${arguments[@]}" --baseline "$work/baseline.json" || outcome=$?
fi
if [[ -n $times ]]; then
    cargo bench --locked --quiet --bench dns_performance -- --output-format bencher
fi
exit "$outcome"
