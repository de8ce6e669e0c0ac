#!/bin/sh
# The command build/mock_server: options, the one line, signals, files; and the
# official SDK as its client. Prints cmocka's lines, so that tests/run.sh counts
# them.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
mock=$B/mock_server
dir=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
passed=0
failed=0

check() { # NAME COMMAND...
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "[       OK ] $name"
    else
        failed=$((failed + 1))
        echo "[  FAILED  ] $name"
        sed 's/^/  /' "$dir/out" "$dir/err"
    fi
}

# Each wrong command line: status 2, a message, nothing on stdout.
wrong_usage() {
    while read -r options; do
        # shellcheck disable=SC2086 # the words are options
        "$mock" $options >"$dir/out" 2>"$dir/err" </dev/null
        status=$?
        if [ "$status" != 2 ] || [ ! -s "$dir/err" ] || [ -s "$dir/out" ]; then
            echo "  $options: status $status"
            return 1
        fi
    done <<END
--nonsense
extra
--port
--port x
--port 65536
--latency -1
--latency 5:x
--fault
--fault nonsense:0.1
--reply $dir/none.jsonl
--cert $dir/a.pem
--tls --cert $dir/a.pem --key $dir/a.pem
--ca-out $dir/ca.pem
--log $dir/none/log
--data-dir $dir/none/deep
--batch-seconds
--batch-seconds soon
--batch-seconds -1
--enqueued-tokens x
--fault row-4xx:2
--slice x
--charge nothing
--price 1
--price 1:2:3:4
--price 1:x
--cached 2
--reset-form swiss
--fault 500@nowhere
--host nowhere
END
}

help_and_version() {
    "$mock" --help >"$dir/out" 2>"$dir/err" && grep -q -- '--fault SPEC' \
        "$dir/out" && "$mock" --version >"$dir/out" &&
        grep -q '^mock_server [0-9.]*$' "$dir/out"
}

# start OPTION...: waits for the line; the URL is in $url
start() {
    : >"$dir/out"
    "$mock" "$@" >"$dir/out" 2>"$dir/err" &
    pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ ! -s "$dir/out" ] || break
        sleep 0.25
    done
    url=$(sed -n 's/^listening on //p' "$dir/out")
    [ -n "$url" ]
}

# stop SIGNAL: it must end with 0, one line printed, nothing on stderr
stop() {
    kill "-$1" "$pid"
    wait "$pid"
    status=$?
    pid=
    [ "$status" = 0 ] && [ "$(wc -l <"$dir/out")" -eq 1 ] && [ ! -s "$dir/err" ]
}

plain_line() {
    start --port 0 && expr "$url" : 'http://127\.0\.0\.1:[0-9]*/v1$' \
        >/dev/null && stop TERM
}

tls_line_and_ca() {
    start --tls --ca-out "$dir/ca.pem" &&
        expr "$url" : 'https://127\.0\.0\.1:[0-9]*/v1$' >/dev/null &&
        grep -q 'BEGIN CERTIFICATE' "$dir/ca.pem" && stop INT
}

own_certificate() {
    command -v openssl >/dev/null 2>&1 || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -subj /CN=own -keyout "$dir/key.pem" -out "$dir/cert.pem" \
        >"$dir/out" 2>&1 || return 1
    start --cert "$dir/cert.pem" --key "$dir/key.pem" || return 1
    address=${url#https://}
    openssl s_client -connect "${address%/v1}" </dev/null 2>/dev/null |
        grep -q 'CN *= *own' && stop TERM
}

# Batches in a folder, over a server that is killed. Without curl: skipped.
killed_and_continued() {
    command -v curl >/dev/null 2>&1 || return 0
    start --data-dir "$dir/data" --batch-seconds 86400 || return 1
    printf '%s' '{"custom_id":"a","method":"POST","url":"/v1/embeddings",' \
        '"body":{"model":"text-embedding-3-small","input":"x"}}' \
        >"$dir/in.jsonl"
    file=$(curl -s "$url/files" -F purpose=batch -F "file=@$dir/in.jsonl" |
        sed 's/.*"id":"\([^"]*\)".*/\1/')
    batch=$(curl -s "$url/batches" -H 'content-type: application/json' -d \
        "{\"input_file_id\":\"$file\",\"endpoint\":\"/v1/embeddings\",
          \"completion_window\":\"24h\"}" |
        sed 's/.*"id":"\(batch_[^"]*\)".*/\1/')
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    pid=
    start --data-dir "$dir/data" || return 1
    curl -s "$url/batches/$batch" | grep -q '"status":"validating"' &&
        curl -s -d '{"advance_seconds":86400}' "${url%/v1}/mock/clock" \
            >/dev/null &&
        curl -s "$url/batches/$batch" | grep -q '"status":"completed"' &&
        curl -s "$url/files?purpose=batch_output" | grep -q '"id":"file-' &&
        stop TERM
}

# Limits, prices, their change and the counters. Without curl: skipped.
limits_and_cost() {
    command -v curl >/dev/null 2>&1 || return 0
    start --rpm 2 --tpm 100000 --rpd 1000 --tpd 1000000 --slice 60000 \
        --price 1:0.5:2 --charge usage --count-failed --cached 0.5 \
        --reset-form seconds || return 1
    ask='{"model":"gpt-4o-mini","messages":[{"role":"user","content":"abcd"}]}'
    for _ in 1 2 3; do
        curl -si "$url/chat/completions" -H 'content-type: application/json' \
            -d "$ask" >"$dir/reply" || return 1
    done
    grep -q '^HTTP/1.1 429' "$dir/reply" &&
        grep -q '^x-ratelimit-reset-requests: [0-9]*.$' "$dir/reply" &&
        curl -s -d '{"rpm":60}' "${url%/v1}/mock/limits" |
        grep -q '"rpm":60,"tpm":100000,"rpd":1000' &&
        curl -s -d '' "${url%/v1}/mock/mark" | grep -q marked &&
        curl -s "${url%/v1}/mock/stats" >"$dir/stats" &&
        grep -q '"throttled":{"requests":1,' "$dir/stats" &&
        grep -Eq '"cost":0\.0000[0-9]*,"cost_microusd":[1-9]' "$dir/stats" &&
        stop TERM
}

check wrong_usage_is_refused_with_status_2 wrong_usage
check help_and_version_go_to_stdout help_and_version
check one_line_when_ready_and_a_clean_end_by_sigterm plain_line
check https_with_its_ca_in_a_file_and_sigint tls_line_and_ca
check a_certificate_of_the_users_own own_certificate
check limits_prices_and_their_counters limits_and_cost
check batches_go_on_after_kill_9 killed_and_continued

sdk=0
sh tests/sdk/run.sh "$mock" || sdk=1
echo "[  PASSED  ] $passed test(s)."
if [ "$failed" -gt 0 ]; then
    echo "[  FAILED  ] $failed test(s)."
fi
[ "$failed" = 0 ] && [ "$sdk" = 0 ]
