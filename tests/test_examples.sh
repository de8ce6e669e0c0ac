#!/bin/sh
# The examples and the command line program as a user runs them, against the
# mock server. Prints cmocka's lines, so that tests/run.sh counts them.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
dir=$(mktemp -d)
servers=
trap 'for pid in $servers; do kill "$pid" 2>/dev/null; done; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
export OPENAI_API_KEY=key no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
unset OPENAI_BASE_URL OPENAI_ORG_ID OPENAI_PROJECT_ID SSL_CERT_DIR
export SSL_CERT_FILE="$dir/ca.pem"
cli="${TEST_WRAPPER:-} $B/batch_processing_example"

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
        for file in "$dir/out" "$dir/err"; do
            sed "s|^|  ${file##*/}: |" "$file"
        done
    fi
}

# serve NAME OPTION...: starts a mock server; its base URL is in $url.
serve() {
    ready=$dir/$1.ready
    shift
    "$B/mock_server" --port 0 --seed 1 "$@" >"$ready" 2>"$ready.err" &
    servers="$servers $!"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ ! -s "$ready" ] || break
        sleep 0.25
    done
    url=$(sed -n 's/^listening on //p' "$ready")
    if [ -z "$url" ]; then
        echo "the mock server does not start:"
        cat "$ready.err"
        echo "[  FAILED  ] 1 test(s)."
        exit 1
    fi
}

# run STATUS COMMAND...: its output is in $dir/out and $dir/err.
run() {
    want=$1
    shift
    "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    [ "$got" = "$want" ] && return 0
    echo "  exit status $got instead of $want: $*"
    return 1
}
says() { # PATTERN, on stderr or stdout
    grep -q -- "$1" "$dir/out" "$dir/err" && return 0
    echo "  does not say: $1"
    return 1
}

serve tls --tls --ca-out "$dir/ca.pem" --reply echo
tls=$url
export OPENAI_BASE_URL="$tls"

hello() { run 0 ${TEST_WRAPPER:-} "$B/hello" && says "hello in Welsh"; }
check hello_prints_the_answer hello
parallel() {
    run 0 ${TEST_WRAPPER:-} "$B/parallel" one two three &&
        says "^1:.*one" && says "^3:.*three" && says "3 of 3 answered"
}
check parallel_prints_answers_in_order parallel
stream() { run 0 ${TEST_WRAPPER:-} "$B/stream" "drop by drop" && says "drop by drop"; }
check stream_prints_the_pieces stream
conversation() {
    printf 'first\nsecond\n' | ${TEST_WRAPPER:-} "$B/conversation" \
        >"$dir/out" 2>"$dir/err" && says first && says second
}
check conversation_answers_each_turn conversation
raw() { run 0 ${TEST_WRAPPER:-} "$B/raw" /models && says '"object"'; }
check raw_prints_the_body raw

for word in one 'two words' 'a \ backslash' 'Zoë' ''; do
    printf '%s\n' "$word"
done >"$dir/in.txt"
in_order() {
    run 0 $cli --input "$dir/in.txt" --output "$dir/o.txt" --quiet || return 1
    [ ! -s "$dir/err" ] || return 1
    sed 's/\\\\/\\/g' "$dir/o.txt" | head -n 4 | paste -d '|' - "$dir/in.txt" |
        head -n 4 | awk -F '|' 'index($1, $2) == 0 { exit 1 }'
}
check cli_answers_line_by_line in_order
from_stdin() {
    printf 'alpha\nbeta\n' | $cli --input=- --output=- --quiet \
        >"$dir/out" 2>"$dir/err" && says alpha && says beta &&
        [ "$(wc -l <"$dir/out")" -eq 2 ]
}
check cli_reads_stdin_and_writes_stdout from_stdin
jsonl() {
    printf '%s\n' '{"prompt":"p","custom_id":"a-1"}' \
        '{"messages":[{"role":"user","content":"q"}],"custom_id":"a-2"}' \
        '{"prompt":"r","system":"be brief"}' >"$dir/in.jsonl"
    run 0 $cli --input "$dir/in.jsonl" --output "$dir/o.jsonl" --quiet &&
        [ "$(wc -l <"$dir/o.jsonl")" -eq 3 ] &&
        sed -n 1p "$dir/o.jsonl" | grep -q '"a-1"' &&
        sed -n 2p "$dir/o.jsonl" | grep -q '"a-2"'
}
check cli_takes_jsonl_with_ids jsonl
summary() {
    run 0 $cli --input "$dir/in.txt" --output "$dir/o.txt" &&
        says "0 failed" && says "tokens in"
}
check cli_sums_up summary
verbose() { run 0 $cli --input "$dir/in.txt" --output "$dir/o.txt" --verbose; }
check cli_verbose_does_not_hurt verbose
no_key_in_log() {
    OPENAI_API_KEY=sk-very-secret run 0 $cli --input "$dir/in.txt" \
        --output "$dir/o.txt" --verbose --verbose || return 1
    ! grep -q very-secret "$dir/err" "$dir/out" "$dir/o.txt"
}
check key_is_in_no_log no_key_in_log
help() { run 0 $cli --help && says --max-workers && says "Exit status"; }
check cli_help help
version() { run 0 $cli --version && says "[0-9]\.[0-9]"; }
check cli_version version

usage() { # WANTED-TEXT OPTION...
    text=$1
    shift
    run 2 $cli "$@" && says "$text"
}
check usage_without_input usage "needs --input"
check usage_unknown_option usage "unknown option" --input x --frob
check usage_short_option usage "unknown option" -i
check usage_value_missing usage "needs a value" --input
check usage_bad_number usage "not a whole number" --input x --max-workers 1.5
check usage_number_out_of_range usage "not a number" --input x --temperature 3
check usage_number_with_rest usage "not a number" --input x --timeout 5x
check usage_mode usage "no such mode" --input x --mode magic
check usage_mode_needs usage "needs --batch-file" --mode submit
check usage_flag_with_value usage "unknown option" --input x --quiet=yes

missing_input() {
    rm -f "$dir/none.txt"
    run 3 $cli --input "$dir/absent" --output "$dir/none.txt" &&
        says GPTNER_ERR_FILE && [ ! -e "$dir/none.txt" ]
}
check missing_input_fails_the_run_and_leaves_no_file missing_input
no_dir() { run 3 $cli --input "$dir/in.txt" --output "$dir/no/such/o.txt"; }
check output_that_cannot_be_written_fails_the_run no_dir
untrusted() {
    SSL_CERT_FILE=$dir/other.pem
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key" -subj /CN=x \
        -out "$dir/other.pem" >/dev/null 2>&1
    run 1 $cli --input "$dir/in.txt" --output "$dir/o.txt" \
        --ca-file "$dir/other.pem" || run 3 $cli --input "$dir/in.txt" \
        --output "$dir/o.txt" --ca-file "$dir/other.pem"
    result=$?
    SSL_CERT_FILE=$dir/ca.pem
    [ $result = 0 ] && says GPTNER_ERR_CERTIFICATE
}
check unknown_authority_is_refused untrusted

serve key --reply echo --api-key right
bad_key() {
    OPENAI_API_KEY=wrong run 3 $cli --base-url "$url" --input "$dir/in.txt" \
        --output "$dir/o.txt" && says GPTNER_ERR_AUTH && ! grep wrong "$dir/err"
}
check bad_key_ends_the_run bad_key

serve broken --reply echo --fault 400:1
some_failed() {
    run 1 $cli --base-url "$url" --input "$dir/in.jsonl" \
        --output "$dir/f.jsonl" --quiet &&
        says "prompt 1 (custom_id a-1): GPTNER_ERR_" &&
        [ "$(wc -l <"$dir/f.jsonl")" -eq 3 ] &&
        [ "$(grep -c '"status":"BAD_REQUEST"' "$dir/f.jsonl")" -eq 3 ]
}
check failed_prompts_are_named some_failed

serve slow --reply echo --latency 5000
interrupted() { # SIGNAL
    # A shell starts background jobs with SIGINT ignored; a program of the
    # handler's own kind (ours) sets it all the same.
    $cli --base-url "$url" --input "$dir/in.txt" --output "$dir/int.jsonl" \
        >"$dir/out" 2>"$dir/err" </dev/null &
    pid=$!
    sleep "${1#*:}"
    kill -s "${1%:*}" "$pid"
    wait "$pid"
    got=$?
    [ $got = 130 ] || {
        echo "  exit status $got"
        return 1
    }
    says interrupted && [ "$(wc -l <"$dir/int.jsonl")" -eq 4 ]
}
wait_s=1
[ -z "${GPTNER_SLOW:-}" ] || wait_s=4
check interrupt_ends_in_good_order interrupted INT:$wait_s
rm -f "$dir/int.jsonl"
check terminate_ends_in_good_order interrupted TERM:$wait_s

serve faults --tls --ca-out "$dir/ca.pem" --reply echo --fault 429:0.05 \
    --fault 500:0.03 --fault reset:0.02 --fault truncate:0.02
awk 'BEGIN { for (i = 1; i <= 1000; i++) print "prompt number " i "." }' \
    >"$dir/many.txt"
through_faults() {
    run 0 $cli --base-url "$url" --input "$dir/many.txt" \
        --output "$dir/many.out" || return 1
    paste -d '|' "$dir/many.out" "$dir/many.txt" |
        awk -F '|' 'index($1, $2) == 0 { bad = 1 } END { exit bad || NR != 1000 }'
}
check thousand_prompts_through_faults_in_order through_faults

installed() {
    make -s install PREFIX=/opt/x DESTDIR="$dir/root" >"$dir/out" 2>"$dir/err" &&
        cmp gptner.h "$dir/root/opt/x/include/gptner.h" &&
        grep -q '^Version: [0-9]' "$dir/root/opt/x/share/pkgconfig/gptner.pc" &&
        make -s uninstall PREFIX=/opt/x DESTDIR="$dir/root" &&
        [ -z "$(find "$dir/root" -type f)" ]
}
check install_and_uninstall installed

echo "[==========] $((passed + failed)) test(s) run."
echo "[  PASSED  ] $passed test(s)."
[ "$failed" = 0 ] || echo "[  FAILED  ] $failed test(s)."
[ "$failed" = 0 ]
