#!/bin/sh
# run.sh TEST...: runs test programs and test scripts, as many at a time as
# there are processors, each under a time limit. Shows the closing lines of
# each, all of what failed, and at the end one line: "N passed, N failed".
#   B             folder of the programs and the logs (build)
#   JOBS          how many at a time
#   TEST_LIMIT    seconds a test may take (600)
#   TEST_WRAPPER  put before each program, e.g. "valgrind -q"
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
export B

# One test, started by the loop below. Its log's last line is the exit status.
if [ "${1-}" = --one ]; then
    log=$B/logs/$(basename "$2").log
    limit=
    if command -v timeout >/dev/null 2>&1; then
        limit="timeout ${TEST_LIMIT:-600}"
    fi
    case $2 in
    *.sh) $limit sh "$2" >"$log" 2>&1 </dev/null ;;
    *) $limit ${TEST_WRAPPER:-} "$2" >"$log" 2>&1 </dev/null ;;
    esac
    echo "exit status $?" >>"$log"
    exit 0
fi

jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
rm -rf "$B/logs"
mkdir -p "$B/logs"
printf '%s\n' "$@" | xargs -n 1 -P "$jobs" sh tests/run.sh --one

# cmocka's own counts, and the same lines from our scripts.
count() { # WORD LOG
    sed -n "s/^\[  $1  \] \([0-9]*\) test.*/\1/p" "$2" | awk '{ n += $1 }
        END { print n + 0 }'
}

passed=0
failed=0
for test; do
    name=$(basename "$test")
    log=$B/logs/$name.log
    n=$(count PASSED "$log")
    bad=$(count FAILED "$log")
    passed=$((passed + n))
    if [ "$(tail -n 1 "$log")" = "exit status 0" ]; then
        echo "$name"
        grep -E '^\[  (PASSED|SKIPPED)  \]|^skip' "$log" | sed 's/^/  /'
        # A program that ends well without a count has been cut short.
        if [ "$n" = 0 ] && ! grep -q '^\[  SKIPPED' "$log"; then
            echo "  no test was run"
            bad=1
        fi
    else
        echo "$name FAILED"
        sed 's/^/  /' "$log"
        [ "$bad" -gt 0 ] || bad=1
    fi
    failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
