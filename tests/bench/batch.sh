# Part of run.sh: batch files. The peer needs yyjson, which Debian has since 13.
batch_prompts=50000

middle() { # NAME FIGURE: the median of all runs
    sed -n "s/^$1 .*$2=\([0-9]*\).*/\1/p" batch_runs | sort -n |
        awk '{ x[NR] = $1 }
             END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

batch_run() { # NAME PROGRAM [ARGUMENT]
    rm -f "$2.jsonl"
    echo $1 $("$bin/measure" $client_core "$bin/$2" prompts.bin "$2.jsonl" \
        $batch_prompts ${3:-}) >>batch_runs
}

batch_write() {
    "$bin/batch_write" prompts.bin - $batch_prompts
    for rep in $reps $reps; do
        batch_run gptner batch_write
        batch_run yyjson batch_write_yyjson
        batch_run buffered batch_write_yyjson 65536
    done
    cmp batch_write.jsonl batch_write_yyjson.jsonl || die "the files differ"
    echo $(middle gptner cpu_us) $(middle yyjson cpu_us) \
        $(middle buffered cpu_us) $(middle gptner peak_kib) \
        $(stat -c %s prompts.bin) |
        awk -v n=$batch_prompts '{
            own = ($4 * 1024 - $5 - n * 8) / 1048576
            printf "\n%-38s %9s %9s  %s\n", "whole process, median",
                "gptner", "yyjson", "gptner/yyjson"
            printf "%-38s %9.1f %9.1f  %.2f (<=0.55)%s\n",
                n " prompts to JSONL, CPU ms", $1 / 1000, $2 / 1000, $1 / $2,
                ($1 / $2 > 0.55 ? " MISSED" : "")
            printf "%-38s %9s %9.1f  %.2f\n",
                "  peer with a 64 KiB stdio buffer", "", $3 / 1000, $1 / $3
            printf "%-38s %9.2f %9s  <=4%s\n", "  peak memory beside them, MiB",
                own, "", (own > 4 ? " MISSED" : "")
        }'
}

if [ ! -f "$header_dir/gptner.h" ]; then
    :
elif has yyjson.h >/dev/null 2>&1; then
    say "bench: batch files"
    build batch_write batch_write.c "$tls -lpthread"
    build batch_write_yyjson batch_write_yyjson.c -lyyjson
    batch_write
else
    say "bench: no yyjson.h (libyyjson-dev, Debian 13): batch files SKIPPED"
fi
