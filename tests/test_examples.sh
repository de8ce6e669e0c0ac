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

# ---- the Batch API, over HTTPS, with faults on every route ----

# card URL: the mock's report on us is clean.
card() {
    (unset OPENAI_API_KEY
        OPENAI_BASE_URL=${1%/v1} "$B/raw" /mock/report) >"$dir/card" 2>&1
    grep -q '"clean":true' "$dir/card" && return 0
    sed 's/^/  /' "$dir/card"
    return 1
}
# stat URL NAME: one number of the mock's counters
stat_of() {
    (unset OPENAI_API_KEY
        OPENAI_BASE_URL=${1%/v1} "$B/raw" /mock/stats) |
        tr ',{' '\n\n' | sed -n "s/^ *\"$2\": *\([0-9]*\).*/\1/p" | head -n 1
}
# batch STATUS OPTION...: the program at the batch server
batch() {
    want=$1
    shift
    run "$want" $cli --base-url "$batches" "$@"
}

# ---- estimate and auto ----

serve plan --reply echo --batch-seconds 0
plan=$url
awk 'BEGIN { for (i = 1; i <= 60; i++) print "sentence number " i " of " i }' \
    >"$dir/plan.txt"
echo '{"limits":[{"tier":"tiny","requests_per_minute":10}]}' >"$dir/limits.json"
estimate() {
    (
        unset OPENAI_API_KEY
        run 0 $cli --base-url "$plan" --mode estimate --tier 1 \
            --input "$dir/plan.txt" || return 1
    ) && says "^requests  *60" && says "500 requests a minute" &&
        says 'in parallel  *about \$0\.' && says 'by batch  *about \$0\.' &&
        says "advice .*in parallel: 60 requests" &&
        [ "$(stat_of "$plan" connections)" = 0 ]
}
check estimate_sends_nothing_and_needs_no_key estimate
estimate_json() {
    run 0 $cli --base-url "$plan" --mode estimate --input "$dir/plan.txt" \
        --tier tiny --limits-file "$dir/limits.json" --json --sample 10 &&
        [ ! -s "$dir/err" ] && says '"advice":"parallel"' &&
        says '"sampled":10' && says '"bound":"the requests a minute"' &&
        says '"seconds":360'
}
check estimate_prints_json_and_samples estimate_json
auto() {
    run 0 $cli --base-url "$plan" --mode auto --input "$dir/plan.txt" \
        --output "$dir/auto.txt" && says "in parallel: 60 requests" &&
        says 'cost \$0\.' && [ "$(wc -l <"$dir/auto.txt")" -eq 60 ] &&
        echo '{"limits":[{"requests_per_day":1}]}' >"$dir/slow.json" &&
        run 0 $cli --base-url "$plan" --mode auto --input "$dir/plan.txt" \
            --output "$dir/auto2.txt" --limits-file "$dir/slow.json" \
            --poll-interval 0.05 && says "by batch: in parallel it would take" &&
        cmp "$dir/auto.txt" "$dir/auto2.txt"
}
check auto_goes_either_way auto
check usage_resume_needs_an_output usage "needs --output" --input x --resume
check usage_max_cost_of_a_batch usage "max-cost is not for" --mode submit \
    --batch-file x --max-cost 1
check usage_sample_elsewhere usage "sample is not for" --input x --sample 3
check usage_workers usage "nor auto" --input x --max-workers many
check usage_tier_is_refused run 3 $cli --input x --tier 9
limits_are_checked() {
    echo '{"limits":[{"rpm":1}]}' >"$dir/limits.json"
    run 3 $cli --input x --limits-file "$dir/limits.json" &&
        says "limits.json: line 1"
}
check a_bad_limits_file_is_named limits_are_checked

serve batches --tls --ca-out "$dir/ca.pem" --reply echo --batch-seconds 2 \
    --fault lost@upload,times=1 --fault lost@create,times=1 \
    --fault 503@status@every=4 --fault reset@status@every=7 \
    --fault 500@list@every=3 --fault late-upload,first=1 \
    --fault late-files,first=1 --fault truncate@content@every=3 \
    --fault 429@create@every=4,retry-after=1 --fault 502@cancel,times=1
batches=$url
for word in one 'two words' 'Zoë' 'back \ slash' '@@'; do
    printf '%s\n' "$word"
done >"$dir/p.txt"

without_key() {
    (
        unset OPENAI_API_KEY
        run 0 $cli --mode create --input "$dir/p.txt" \
            --batch-file "$dir/b.jsonl" &&
            [ "$(cat "$dir/out")" = "$dir/b.jsonl" ] &&
            [ "$(wc -l <"$dir/b.jsonl")" -eq 5 ] &&
            run 0 $cli --mode validate --batch-file "$dir/b.jsonl" &&
            says "5 requests" && [ ! -s "$dir/out" ] &&
            run 3 $cli --mode submit --batch-file "$dir/b.jsonl" &&
            says OPENAI_API_KEY
    )
}
check create_and_validate_need_no_key without_key
create_splits() {
    run 0 $cli --mode create --input "$dir/p.txt" --max-requests 2 --quiet \
        --batch-file "$dir/s.jsonl" &&
        [ "$(wc -l <"$dir/out")" -eq 3 ] && [ ! -s "$dir/err" ] &&
        [ "$(cat "$dir/s.jsonl" "$dir/s-2.jsonl" "$dir/s-3.jsonl" |
            wc -l)" -eq 5 ]
}
check create_splits_and_names_its_files create_splits
findings() {
    { cat "$dir/b.jsonl" && echo nonsense && head -n 1 "$dir/b.jsonl"; } \
        >"$dir/bad.jsonl"
    run 3 $cli --mode validate --batch-file "$dir/bad.jsonl" &&
        says "line 6: invalid_json_line" &&
        says "line 7: duplicate_custom_id" &&
        batch 3 --mode submit --batch-file "$dir/bad.jsonl" &&
        says "line 6" && [ ! -s "$dir/out" ]
}
check a_bad_file_is_not_submitted findings
submit() {
    batch 0 --mode submit --batch-file "$dir/b.jsonl" --job one || return 1
    id=$(cat "$dir/out")
    case $id in
    batch_*[!0-9a-f]*) return 1 ;;
    batch_*) ;;
    *) return 1 ;;
    esac
    batch 0 --mode submit --batch-file "$dir/b.jsonl" --job one --quiet &&
        [ "$(cat "$dir/out")" = "$id" ] && [ ! -s "$dir/err" ] &&
        [ "$(stat_of "$batches" batches_created)" = 1 ] &&
        [ "$(stat_of "$batches" files_stored)" = 1 ]
}
id=none
check submit_prints_the_id_alone_and_once submit
early() {
    batch 3 --mode retrieve --batch-id "$id" --output "$dir/early.txt" &&
        says GPTNER_ERR_NOT_FINISHED && [ ! -e "$dir/early.txt" ]
}
check retrieve_before_the_end_says_so early
status() {
    batch 0 --mode status --batch-id "$id" &&
        grep -q "^id  *$id\$" "$dir/out" && grep -q '^status  ' "$dir/out" &&
        grep -q '^metadata .*gptner_job: one' "$dir/out" &&
        batch 0 --mode status --batch-id "$id" --json &&
        grep -q "^{\"id\":\"$id\".*}\$" "$dir/out" &&
        batch 3 --mode status --batch-id batch_none &&
        says GPTNER_ERR_NOT_FOUND && [ ! -s "$dir/out" ]
}
check status_as_text_and_as_json status
waiting() {
    batch 3 --mode wait --batch-id "$id" --max-wait 0.05 \
        --poll-interval 0.01 && says GPTNER_ERR_TIMEOUT &&
        batch 0 --mode wait --batch-id "$id" --poll-interval 0.2 &&
        grep -q '^status  *completed' "$dir/out" && says "5 of 5"
}
check wait_until_it_has_ended waiting
retrieve() {
    batch 0 --mode retrieve --batch-id "$id" --output "$dir/r.txt" \
        --raw-output "$dir/raw.jsonl" --batch-file "$dir/b.jsonl" || return 1
    sed 's/\\\\/\\/g' "$dir/r.txt" | cmp - "$dir/p.txt" &&
        says "5 answered, 0 failed" && [ ! -s "$dir/out" ] &&
        [ "$(grep -c '"custom_id"' "$dir/raw.jsonl")" -eq 5 ]
}
check retrieve_into_text_and_raw retrieve
retrieve_json() {
    batch 0 --mode submit --batch-file "$dir/b.jsonl" --quiet || return 1
    other=$(cat "$dir/out")
    batch 0 --mode wait --batch-id "$other" --poll-interval 0.2 --quiet &&
        batch 0 --mode retrieve --batch-id "$other" --quiet \
            --output "$dir/r.jsonl" && [ ! -s "$dir/err" ] &&
        [ "$(wc -l <"$dir/r.jsonl")" -eq 5 ] &&
        sed -n 3p "$dir/r.jsonl" | grep -q '"request-2".*Zoë' &&
        [ -z "$(find "$dir" -name '*.gptner*')" ]
}
check retrieve_into_jsonl_without_the_requests retrieve_json
cancel() {
    batch 0 --mode submit --batch-file "$dir/b.jsonl" --job c || return 1
    other=$(cat "$dir/out")
    batch 0 --mode cancel --batch-id "$other" &&
        grep -q '^status  *cancel' "$dir/out" &&
        batch 1 --mode wait --batch-id "$other" --poll-interval 0.2 &&
        grep -q '^status  *cancelled' "$dir/out" &&
        batch 0 --mode cancel --batch-id "$id" &&
        grep -q '^status  *completed' "$dir/out" &&
        batch 1 --mode retrieve --batch-id "$other" --output "$dir/c.txt" &&
        says "[1-5] cancelled" && [ "$(wc -l <"$dir/c.txt")" -eq 5 ]
}
check cancel_and_what_is_left_of_it cancel
list() {
    batch 0 --mode list && [ "$(wc -l <"$dir/out")" -eq 3 ] &&
        sed -n 3p "$dir/out" | grep -q "^$id.completed.5/5\$" &&
        batch 0 --mode list --limit 1 && [ "$(wc -l <"$dir/out")" -eq 1 ] &&
        batch 0 --mode list --json && [ "$(grep -c '^{"id"' "$dir/out")" -eq 3 ]
}
check list_is_newest_first list

full_stopped() {
    awk 'BEGIN { for (i = 1; i <= 40; i++) print "prompt number " i "." }' \
        >"$dir/job.txt"
    $cli --base-url "$batches" --mode full --input "$dir/job.txt" --output \
        "$dir/job.out" --max-requests 15 --poll-interval 0.2 \
        >"$dir/out" 2>"$dir/err" </dev/null &
    pid=$!
    for _ in $(seq 200); do
        grep -q submitted "$dir/err" && break
        sleep 0.1
    done
    # the same job again, while it runs
    batch 3 --mode full --input "$dir/job.txt" --output "$dir/job.out" \
        --max-requests 15 && says GPTNER_ERR_BUSY
    busy=$?
    kill -9 "$pid" || busy=1
    wait "$pid" 2>/dev/null
    [ "$busy" = 0 ] && [ ! -e "$dir/job.out" ] && [ -s "$dir/job.out.job" ]
}
check full_refuses_a_second_process_and_dies full_stopped
full_changed() {
    sed 's/7/seven/' "$dir/job.txt" >"$dir/changed.txt"
    cp "$dir/job.txt" "$dir/kept.txt"
    cp "$dir/changed.txt" "$dir/job.txt"
    batch 3 --mode full --input "$dir/job.txt" --output "$dir/job.out" \
        --max-requests 15 --poll-interval 0.2 && says GPTNER_ERR_CHANGED
    changed=$?
    cp "$dir/kept.txt" "$dir/job.txt"
    [ $changed = 0 ] &&
        batch 3 --mode full --input "$dir/job.txt" --output "$dir/job.out" \
            --max-requests 15 --temperature 1 && says GPTNER_ERR_CHANGED
}
check full_refuses_changed_input full_changed
full_resumed() {
    batch 0 --mode full --input "$dir/job.txt" --output "$dir/job.out" \
        --max-requests 15 --poll-interval 0.2 || return 1
    says resumed && says "40 answered, 0 failed" && [ ! -s "$dir/out" ] &&
        cmp "$dir/job.txt" "$dir/job.out" &&
        [ "$(find "$dir" -name 'job.out*' | wc -l)" -eq 2 ] &&
        [ "$(stat_of "$batches" batches_created)" = 6 ]
}
check full_killed_and_resumed_answers_all full_resumed
full_again() {
    batch 0 --mode full --input "$dir/job.txt" --output "$dir/job.out" \
        --max-requests 15 && says "done before" &&
        [ "$(stat_of "$batches" batches_created)" = 6 ]
}
check full_that_is_done_does_nothing full_again
check the_report_card_of_batches_is_clean card "$batches"

# The Python tool's documented command lines, but for the program's name.
serve seed --tls --ca-out "$dir/ca.pem" --reply echo --batch-seconds 0
seed() {
    cp "$dir/p.txt" "$dir/prompts.txt"
    OPENAI_BASE_URL=$url
    run 0 $cli --mode create --input "$dir/prompts.txt" \
        --batch-file "$dir/batch.jsonl" --engine gpt-4o-mini &&
        run 0 $cli --mode submit --batch-file "$dir/batch.jsonl" \
            --description "My batch job" && id=$(cat "$dir/out") &&
        run 0 $cli --mode status --batch-id "$id" &&
        grep -q "description: My batch job" "$dir/out" &&
        run 0 $cli --mode retrieve --batch-id "$id" \
            --output "$dir/results.txt" &&
        run 0 $cli --mode full --input "$dir/prompts.txt" \
            --output "$dir/full.txt" --engine gpt-4o-mini --temperature 0.7 \
            --max-tokens 256 --description "Complete batch processing" &&
        cmp "$dir/results.txt" "$dir/full.txt" &&
        sed 's/\\\\/\\/g' "$dir/full.txt" | cmp - "$dir/prompts.txt" &&
        card "$url"
}
check documented_command_lines_of_the_seed_work seed

serve partly --tls --ca-out "$dir/ca.pem" --reply echo --batch-seconds 0 \
    --fault row-4xx:0.2 --fault row-drop:0.1 --expect-clean-files \
    --expect-repeats -1
partly() {
    OPENAI_BASE_URL=$url
    run 1 $cli --mode full --input "$dir/many.txt" --output "$dir/part.jsonl" \
        --delete-remote && says "GPTNER_ERR_MISSING" &&
        [ "$(wc -l <"$dir/part.jsonl")" -eq 1000 ] &&
        ! grep -q '"status":"OK","text":null' "$dir/part.jsonl" && card "$url"
}
check some_failed_is_exit_status_1 partly
OPENAI_BASE_URL=$tls

check usage_full_needs_output usage "needs --output" --mode full --input x
check usage_status_needs_id usage "needs --batch-id" --mode status
check usage_retry_failed usage "neither batch nor parallel" --mode full \
    --input x --output y --retry-failed never
check usage_max_requests usage "not a whole number" --mode create --input x \
    --batch-file y --max-requests 50001
check usage_poll_interval usage "not a number" --mode wait --batch-id x \
    --poll-interval 0
bad_id() {
    batch 3 --mode status --batch-id "a
b" && says GPTNER_ERR_INVALID_ARGUMENT
}
check ids_with_line_breaks_are_refused bad_id

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
