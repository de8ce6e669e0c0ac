#!/bin/sh
# run.sh [SECONDS_EACH [TARGET...]]: each fuzz target for so long (60), with
# libFuzzer and the sanitizers of clang, as many at a time as there are
# processors. Prints a line for each: executions, edges (cov), features (ft).
# What is found lies in $B/fuzz/TARGET-crash-*; then the exit status is 1. Put
# such a file into tests/data/fuzz/TARGET once it is mended.
#   B              folder of programs, corpora and logs (build)
#   SEED           of the random choices; default: the time, and printed
#   GPTNER_CORPUS  folder of more seeds (../shared/corpus)
#   JOBS           how many at a time
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
corpus=${GPTNER_CORPUS:-../shared/corpus}

# One target, started by the line at the end.
if [ "${1-}" = --one ]; then
    seconds=$2
    seed=$3
    t=$4
    dir=$B/fuzz
    log=$dir/$t.log
    mkdir -p "$dir/$t"
    if ! clang -std=c99 -g -O1 -I. -DFUZZ_ENGINE -fsanitize=fuzzer,address \
        -fsanitize=undefined -fno-sanitize-recover=undefined \
        -Wno-unused-function "tests/fuzz/fuzz_$t.c" -o "$dir/fuzz_$t" \
        -lpthread >"$log" 2>&1; then
        echo "$t: does not compile"
        cat "$log"
        exit 1
    fi
    set -- "$dir/$t" "tests/data/fuzz/$t"
    for more in "$corpus/$t" "$corpus/$t/doc"; do
        [ ! -d "$more" ] || set -- "$@" "$more"
    done
    TMPDIR=$dir "$dir/fuzz_$t" -seed="$seed" -max_total_time="$seconds" \
        -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$dir/$t-" "$@" >"$log" 2>&1
    status=$?
    n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    seen=$(grep -a -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
    if [ "$status" = 0 ]; then
        echo "$t: ${n:-0} executions, $seen"
    else
        echo "$t: FOUND (status $status) after ${n:-?} executions, $seen"
        grep -a -E 'does not hold|ERROR|runtime error|Test unit' "$log" |
            sed 's/^/  /'
        grep -a -A 40 -e '^--- first' "$log" | sed 's/^/  /' | cut -c 1-200
    fi
    exit "$status"
fi

seconds=${1:-60}
[ $# = 0 ] || shift
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n);
int LLVMFuzzerTestOneInput(const char *d, unsigned long n) {
    return d == 0 && n > 0; }' |
    clang -x c - -fsanitize=fuzzer -o /dev/null 2>/dev/null; then
    echo "skip: no clang with libFuzzer (Debian: clang, libclang-rt-dev)"
    exit 0
fi
if [ $# = 0 ]; then
    for file in tests/fuzz/fuzz_*.c; do
        t=${file##*/fuzz_}
        set -- "$@" "${t%.c}"
    done
fi
seed=${SEED:-$(date +%s)}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
mkdir -p "$B/fuzz"
echo "fuzz: $# targets, $seconds s each, SEED=$seed"
printf '%s\n' "$@" |
    xargs -n 1 -P "$jobs" sh tests/fuzz/run.sh --one "$seconds" "$seed" ||
    exit 1
