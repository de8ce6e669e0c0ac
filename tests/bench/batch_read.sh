# Part of run.sh: results of a batch.
# "tuned" is yyjson with pool memory and larger reads than its manual shows. Peers
# whose library is not here are left out: libsimdjson-dev is in Debian 12,
# libyyjson-dev from Debian 13 on.
[ -f "$header_dir/gptner.h" ] || return 0
build batch_read batch_read.c "$tls -lpthread"
CXX=${CXX:-c++}
peers=
hasxx() { printf '#include <%s>\n' "$1" | $CXX -std=c++17 -E -xc++ - ; }
if has yyjson.h >/dev/null 2>&1; then
    build batch_read_yyjson batch_read_yyjson.c -lyyjson
    build batch_read_tuned batch_read_yyjson.c "-DTUNED -lyyjson"
    peers="$peers yyjson tuned"
else
    say "bench: no yyjson.h (libyyjson-dev); that peer is skipped"
fi
if hasxx simdjson.h >/dev/null 2>&1; then
    $CXX -std=c++17 $CFLAGS -o "$bin/batch_read_simdjson" \
        "$here/batch_read_simdjson.cpp" -lsimdjson
    peers="$peers simdjson"
else
    say "bench: no simdjson.h (libsimdjson-dev); that peer is skipped"
fi
[ "$quick" = 0 ] && rows=50000 || rows=20000
say "bench: $rows result lines of a batch"
"$bin/batch_read" -g "$dir" $rows
for rep in $reps; do
    for client in "" $peers; do
        figures=$("$bin/measure" $client_core \
            "$bin/batch_read${client:+_$client}" "$dir" $rows) ||
            { say "bench: batch_read $client failed"; continue; }
        echo "${client:-ours} $rep $figures" >>batch_read_runs
    done
done
awk '
{
    for (i = 3; i <= NF; i++) {
        split($i, pair, "=")
        value[$1, $2, pair[1]] = pair[2]
    }
    reps = $2 > reps ? $2 : reps
    if (!($1 in seen)) {
        seen[$1] = 1
        name[++n] = $1
    }
}
function median(list, n,    i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
            t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
        }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}
END {
    print "\nbatch results to ordered texts, whole process, medians"
    printf "%-10s %9s %9s  %s\n", "", "CPU ms", "peak MiB", "ours/peer, CPU"
    for (k = 1; k <= n; k++) {
        for (r = 1; r <= reps; r++) {
            cpu[r] = value[name[k], r, "cpu_us"]
            kib[r] = value[name[k], r, "maxrss_kib"]
            ratio[r] = value["ours", r, "cpu_us"] / cpu[r]
            if (value[name[k], r, "sum"] != value["ours", r, "sum"])
                wrong[name[k]] = "  OTHER TEXTS"
        }
        printf "%-10s %9.1f %9.1f  %.2f%s\n", name[k], \
            median(cpu, reps) / 1000, median(kib, reps) / 1024, \
            median(ratio, reps), wrong[name[k]]
    }
}' batch_read_runs
