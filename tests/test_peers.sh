#!/bin/sh
# The command line program against servers that we did not write: nginx ends
# the TLS in front of the mock server, and, with PEERS_NPM=1, an
# OpenAI-compatible server from the npm registry answers alone. What is not
# there is skipped, and that is said. Prints cmocka's lines for tests/run.sh.
#   PEERS_PROMPTS   how many prompts (2000)
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
root=$(pwd)
dir=$(mktemp -d)
servers=
cleanup() {
    for pid in $servers; do kill "$pid" 2>/dev/null; done
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
PATH=$PATH:/usr/sbin:/sbin
export OPENAI_API_KEY=key no_proxy='*' NO_PROXY='*'
unset OPENAI_BASE_URL OPENAI_ORG_ID OPENAI_PROJECT_ID
prompts=${PEERS_PROMPTS:-2000}
passed=0
failed=0

report() { # NAME STATUS
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        echo "[       OK ] $1"
    else
        failed=$((failed + 1))
        echo "[  FAILED  ] $1"
        for file in "$dir"/err "$dir"/*.log; do
            [ ! -f "$file" ] || tail -n 20 "$file" | sed "s|^|  ${file##*/}: |"
        done
    fi
}

# Until COMMAND succeeds, for ten seconds at most.
await() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || return 1
        sleep 0.1
    done
}

# A port that is free now: the kernel's choice for a mock that stops again.
free_port() {
    rm -f "$dir/port"
    "$B/mock_server" --port 0 >"$dir/port" 2>/dev/null &
    pid=$!
    await test -s "$dir/port"
    kill $pid
    wait $pid 2>/dev/null
    sed -n 's|.*:\([0-9]*\)/v1|\1|p' "$dir/port"
}

ask() { # URL ARGUMENT...: all prompts, from file to file
    url=$1
    shift
    awk -v n="$prompts" 'BEGIN { for (i = 1; i <= n; i++)
        print "prompt number " i " of a long list" }' >"$dir/in.txt"
    "$B/batch_processing_example" --quiet --mode parallel --input \
        "$dir/in.txt" --output "$dir/out.txt" --base-url "$url" "$@" \
        >"$dir/err" 2>&1 </dev/null
}

make_pki() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -days 2 -subj "/CN=peers test CA" -keyout "$dir/ca.key" \
        -out "$dir/ca.pem" 2>"$dir/pki.log" &&
        openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" \
            -keyout "$dir/server.key" -out "$dir/server.csr" \
            2>>"$dir/pki.log" &&
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$dir/san" &&
        openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey \
            "$dir/ca.key" -CAcreateserial -days 2 -extfile "$dir/san" \
            -out "$dir/server.pem" 2>>"$dir/pki.log"
}

start_nginx() { # BACKEND_PORT FRONT_PORT
    cat >"$dir/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.log warn;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $dir/t1;
    proxy_temp_path $dir/t2;
    fastcgi_temp_path $dir/t3;
    uwsgi_temp_path $dir/t4;
    scgi_temp_path $dir/t5;
    upstream mock { server 127.0.0.1:$1; keepalive 32; }
    server {
        listen 127.0.0.1:$2 ssl;
        ssl_certificate $dir/server.pem;
        ssl_certificate_key $dir/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:s:1m;
        keepalive_requests 200;
        location / {
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$http_host;
        }
    }
}
END
    nginx -p "$dir" -c "$dir/nginx.conf" >"$dir/nginx.out" 2>&1 &
    servers="$servers $!"
}

nginx_case() {
    make_pki || return 1
    "$B/mock_server" --port 0 --reply echo --seed 5 --fault 429:0.05 \
        --fault 500:0.03 --fault reset:0.02 --fault truncate:0.02 \
        >"$dir/mock" 2>"$dir/mock.log" &
    servers="$servers $!"
    await test -s "$dir/mock" || return 1
    port=$(free_port)
    start_nginx "$(sed -n 's|.*:\([0-9]*\)/v1|\1|p' "$dir/mock")" "$port"
    await test -s "$dir/nginx.pid" || return 1
    ask "https://localhost:$port/v1" --ca-file "$dir/ca.pem" &&
        cmp "$dir/in.txt" "$dir/out.txt"
}

third_party_case() {
    mkdir "$dir/npm" && cd "$dir/npm" || return 1
    timeout 180 npm install --silent --no-fund --no-audit @dwmkerr/mock-llm \
        >"$dir/npm.log" 2>&1 || {
        cd "$root"
        echo "[  SKIPPED ] third party: the registry gives no package"
        return 2
    }
    cd "$root" || return 1
    port=$(free_port)
    PORT=$port node "$dir/npm/node_modules/@dwmkerr/mock-llm/dist/main.js" \
        >"$dir/third.log" 2>&1 &
    servers="$servers $!"
    await grep -q running "$dir/third.log" || return 1
    ask "http://127.0.0.1:$port/v1" && cmp "$dir/in.txt" "$dir/out.txt"
}

if command -v nginx >/dev/null && command -v openssl >/dev/null; then
    nginx_case
    report all_are_answered_in_order_through_nginx_with_faults $?
else
    echo "[  SKIPPED ] nginx: not installed"
fi
if [ "${PEERS_NPM:-}" = 1 ] && command -v npm >/dev/null; then
    third_party_case
    status=$?
    [ $status = 2 ] ||
        report all_are_answered_in_order_by_a_third_party_server $status
else
    echo "[  SKIPPED ] third party: PEERS_NPM=1 with npm asks for it"
fi
echo "[  PASSED  ] $passed test(s)."
[ $failed = 0 ] || {
    echo "[  FAILED  ] $failed test(s)."
    exit 1
}
