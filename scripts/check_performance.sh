#!/usr/bin/env bash
# Do the steps of a hit and of a miss take more instructions than they did? Counted under callgrind, where a busy machine counts
# as a quiet one does, and compared with benchmarks/baseline.json.
#
#   scripts/check_performance.sh [--strict | --accept | --prove] [--baseline FILE] [--times]
#
# Fails (1) when a step takes over 2 % more than in the baseline; one that takes over 2 % less asks for a new one, which --accept
# writes. Counts of another compiler, C library or kind of processor are shown and not compared; with --strict that fails, too.
# --prove checks, and shows that the check can be relied on: two runs agree to within 0.5 %, and 5 % more work (--slow-down 5) fails in
# every step. --times shows beside it what the bench on the clock says, which nothing is decided by. What cannot be measured ends with 2.
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
times=
for argument in "$@"; do
    if [[ $argument == --times ]]; then times=yes; else arguments+=("$argument"); fi
done
command -v valgrind >/dev/null || scripts/setup --tests

# The core alone; nothing of the node is compiled. As for the product, but in one unit: which functions are inlined must not depend on
# how a change happens to divide the crate.
CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 cargo build --locked --release --quiet --package heimdall-instructions \
    --target-dir "${CARGO_TARGET_DIR:-target}/instructions"
outcome=0
"${CARGO_TARGET_DIR:-target}/instructions/release/heimdall-instructions" "${arguments[@]}" || outcome=$?
if [[ -n $times ]]; then
    cargo bench --locked --quiet --bench dns_performance -- --output-format bencher
fi
exit "$outcome"
