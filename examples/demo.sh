#!/bin/sh
# The demo: a real text, one sentence a prompt, through the command line
# program over verified HTTPS, to a mock server that throttles, fails, resets
# and cuts off some of the replies; first in parallel, then by batches. Nothing leaves this machine.
set -eu
cd "$(dirname "$0")/.."
B=${B:-build}
text=examples/data/news.txt

dir=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$B/mock_server" --tls --port 0 --ca-out "$dir/ca.pem" --reply ner \
    --latency 30:20 --seed 7 --api-key demo-key --fault 429:0.05 \
    --fault 500:0.03 --fault reset:0.02 --fault truncate:0.02 \
    --fault row-drop:0.03 --fault row-5xx:0.03 --batch-seconds 1 \
    >"$dir/ready" 2>"$dir/log" &
server=$!
tries=0
while [ ! -s "$dir/ready" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "demo: the mock server did not start:" >&2
        cat "$dir/log" >&2
        exit 1
    fi
    sleep 0.1
done
url=$(sed 's/^listening on //' "$dir/ready")

# The server's own certificate authority is the only one trusted here.
export OPENAI_API_KEY=demo-key SSL_CERT_FILE="$dir/ca.pem"
export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1

echo "Sending the $(wc -l <"$text" | tr -d ' ') sentences of $text to $url."
echo "The server refuses, breaks or cuts off about one reply in eight."
"$B/batch_processing_example" --mode parallel --base-url "$url" \
    --system "Mark every name of a person, organisation, place or date in the \
sentence: put @@ before it and ## after it. Change nothing else." \
    --input "$text" --output "$dir/answers.txt"

echo
echo "Some sentences and their answers:"
paste -d '\n' "$text" "$dir/answers.txt" |
    awk 'NR % 80 == 1 { print "  < " $0 } NR % 80 == 2 { print "  > " $0 }'
echo
echo "The same at half the price, by the Batch API: the sentences go up in batches,"
echo "and their answers come back in any order, some not at all; those are sent"
echo "once more."
"$B/batch_processing_example" --mode full --base-url "$url" \
    --system "Mark every name of a person, organisation, place or date in the \
sentence: put @@ before it and ## after it. Change nothing else." \
    --input "$text" --output "$dir/batch.txt" --max-requests 100 \
    --poll-interval 0.2 --retry-failed batch --delete-remote

echo
echo "What the server counted (/mock/stats), and its report on the client"
echo "(/mock/report):"
unset OPENAI_API_KEY # no business of these two addresses
export OPENAI_BASE_URL="${url%/v1}"
"$B/raw" /mock/stats
echo
"$B/raw" /mock/report
echo
if [ "$(wc -l <"$dir/answers.txt")" != "$(wc -l <"$text")" ]; then
    echo "demo: the number of answers is wrong" >&2
    exit 1
fi
if ! cmp -s "$dir/answers.txt" "$dir/batch.txt"; then
    echo "demo: the batches' answers differ" >&2
    exit 1
fi
echo "demo: every sentence has its answer, the same both ways"
