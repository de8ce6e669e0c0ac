#!/bin/sh
# make bench: what the library costs, each figure beside that of a peer measured
# in the same run. Asserts nothing, prints a table. BENCH_QUICK=1: under a
# minute, rougher. BENCH_KEEP=1: keeps the directory with all that was measured
# (runs: a line a process). BENCH_HEADER_DIR: where gptner.h is, if not here.
# Server on the first core, client on the last; all servers on loopback, with a
# PKI made here. Run it on a quiet machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
header_dir=${BENCH_HEADER_DIR:-$root}
CC=${CC:-cc}
CFLAGS=${CFLAGS:--O2}
bin=${B:-$root/build}/bench
quick=${BENCH_QUICK:-0}
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 1; }

[ "$(uname)" = Linux ] || die "needs Linux (epoll, taskset, /proc)"

# ---- packages ----------------------------------------------------------------
missing=
need() { # PACKAGE COMMAND...: missing unless the command succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { printf '#include <%s>\n' "$1" | $CC -E -xc - ; }
need nginx-light command -v nginx
need openssl command -v openssl
need util-linux command -v taskset
need libmbedtls-dev has mbedtls/ssl.h
need libcurl4-openssl-dev has curl/curl.h
need libcjson-dev has cjson/cJSON.h
need libhttp-parser-dev has http_parser.h
if [ -n "$missing" ]; then
    say "bench: installing$missing"
    # RUNLEVEL=1: Debian does not start the installed nginx as a service.
    { RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends $missing ||
      { apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends $missing; }
    } >&2 || die "install these first:$missing"
fi
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY || :

# ---- programs ----------------------------------------------------------------
mkdir -p "$bin"
bin=$(cd "$bin" && pwd)
tls="-lmbedtls -lmbedx509 -lmbedcrypto"
build() { # PROGRAM SOURCES LIBRARIES
    $CC -std=c99 -Wall -Wextra $CFLAGS -I"$header_dir" -I"$here" \
        -o "$bin/$1" $(for f in $2; do echo "$here/$f"; done) $3
}
build measure measure.c ""
build count_malloc.so count_malloc.c "-shared -fPIC -ldl"
build delay_server "delay_server.c bench_util.c" "$tls"
build peer_curl "peer_curl.c bench_util.c" "-lcurl -lcjson"
build peer_bare "peer_bare.c bench_util.c" "$tls"
clients="curl bare"
if [ -f "$header_dir/gptner.h" ]; then
    build bench_run "bench_run.c bench_util.c" "$tls -lpthread"
    build limits limits.c "$tls -lpthread"
    build bench_parse bench_parse.c "$tls -lpthread -lcjson -lhttp_parser"
    clients="ours curl bare"
else
    say "bench: no $header_dir/gptner.h; the peers alone"
fi

# ---- servers -----------------------------------------------------------------
dir=$(mktemp -d)
pids=
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || :; done
    if [ -n "${BENCH_KEEP:-}" ]; then say "bench: kept $dir"
    else rm -rf "$dir"; fi
}
trap finish EXIT
trap 'exit 1' INT TERM

cores=$(nproc)
server_core=0
client_core=$((cores - 1))
[ "$cores" -gt 1 ] || say "bench: one core only; server and client share it"

pki() { # NAME ALGORITHM: a CA (once) and NAME.pem, NAME.key signed by it
    if [ ! -f ca.pem ]; then
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem \
            -days 30 -subj "/CN=gptner bench root" \
            -addext "keyUsage=critical,keyCertSign,cRLSign"
    fi
    openssl req -newkey $2 -nodes -keyout "$1.key" -out "$1.csr" \
        -subj "/CN=localhost"
    printf '%s\n' "subjectAltName=DNS:localhost,IP:127.0.0.1" \
        "basicConstraints=critical,CA:FALSE" \
        "keyUsage=critical,digitalSignature" "extendedKeyUsage=serverAuth" >ext
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial \
        -days 30 -extfile ext -out "$1.pem"
}

nginx_server() { # PORT PROTOCOLS CERTIFICATE
    cat <<END
    server {
        listen 127.0.0.1:$1 ssl backlog=1024;
        ssl_protocols $2;
        ssl_certificate $3.pem;
        ssl_certificate_key $3.key;
        location = /v1/chat/completions { return 200 '$reply'; }
    }
END
}

# The head of a reply is as long as a real one's.
nginx_config() {
    reply=$(sed 's/\\/\\\\/g' reply.json)
    cat <<END
daemon off;
master_process off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.log warn;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path $dir/tmp1;
    proxy_temp_path $dir/tmp2;
    fastcgi_temp_path $dir/tmp3;
    uwsgi_temp_path $dir/tmp4;
    scgi_temp_path $dir/tmp5;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    default_type application/json;
    add_header x-request-id req_8f2d1c0b9a7e4d5f6a3b2c1d0e9f8a7b;
    add_header openai-organization bench;
    add_header openai-processing-ms 312;
    add_header openai-version 2020-10-01;
    add_header x-ratelimit-limit-requests 10000;
    add_header x-ratelimit-limit-tokens 2000000;
    add_header x-ratelimit-remaining-requests 9999;
    add_header x-ratelimit-remaining-tokens 1999864;
    add_header x-ratelimit-reset-requests 6ms;
    add_header x-ratelimit-reset-tokens 4ms;
    ssl_session_cache shared:bench:10m;
    ssl_session_tickets on;
    ssl_prefer_server_ciphers on;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256;
END
    nginx_server "$port_rsa" TLSv1.2 rsa
    nginx_server "$port_ec" TLSv1.2 ec
    nginx_server "$port_13" "TLSv1.2 TLSv1.3" rsa
    echo "}"
}

cd "$dir"
pki rsa rsa:2048 >pki.log 2>&1 || die "openssl failed: $(cat pki.log)"
pki ec "ec -pkeyopt ec_paramgen_curve:P-256" >pki.log 2>&1 ||
    die "openssl failed: $(cat pki.log)"
cat ca.pem /etc/ssl/certs/ca-certificates.crt >bundle.pem 2>/dev/null || :
tr -d '\n' <"$here/reply.json" >reply.json
port_rsa=$("$bin/measure" port)
port_ec=$("$bin/measure" port)
port_13=$("$bin/measure" port)
nginx_config >nginx.conf
taskset -c $server_core nginx -e "$dir/nginx.log" -p "$dir" -c nginx.conf &
pids="$pids $!"
for ms in 20 200; do
    taskset -c $server_core "$bin/delay_server" rsa.pem rsa.key reply.json $ms \
        >port_$ms &
    pids="$pids $!"
done
tries=0
until "$bin/peer_curl" -p "$port_rsa" -w 1 -n 1 -a ca.pem >/dev/null 2>&1 &&
    [ -s port_20 ] && [ -s port_200 ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || die "server did not start: $(cat nginx.log)"
    sleep 0.1
done

# ---- runs --------------------------------------------------------------------
program() {
    case $1 in
    ours) echo "$bin/bench_run" ;;
    curl) echo "$bin/peer_curl" ;;
    bare) echo "$bin/peer_bare" ;;
    esac
}
rep=1
requests= # -r FILE once ours has written it
# CASE CLIENT PORT WORKERS REQUESTS [CA]: one line into runs, all its figures.
run() {
    more=
    [ "$2" != bare ] || more=$requests
    figures=$("$bin/measure" $client_core ${preload:+env "$preload"} \
        "$(program "$2")" -p "$3" -w "$4" -n "$5" -a "${6:-ca.pem}" $more) ||
        { say "bench: $1 $2 failed"; return 0; }
    echo "$1 $2 $rep requests=$5" $figures >>runs
}
# The same for each client in turn, so that a slow moment hits all.
each() {
    for client in $clients; do run "$1" "$client" "$2" "$3" "$4" "${5:-}"; done
}
preload=
if [ -x "$bin/bench_run" ] && [ "$clients" != "curl bare" ]; then
    "$bin/bench_run" -p "$port_rsa" -n 1 -r request.bin >/dev/null &&
        requests="-r request.bin"
fi

if [ "$quick" = 0 ]; then reps="1 2 3 4 5" long=20000 seconds=4
else reps="1 2 3" long=5000 seconds=2; fi
short=500

say "bench: connections open, start, memory"
for rep in $reps; do
    for w in 10 20 100; do
        each cpu_${w}_short "$port_rsa" $w $short
        each cpu_${w}_long "$port_rsa" $w $((short + long))
    done
    each start_rsa "$port_rsa" 100 100
    each start_ec "$port_ec" 100 100
    [ -z "$requests" ] || clients="ours curl"
    each tls13_short "$port_13" 10 $short
    each tls13_long "$port_13" 10 $((short + long))
    each start_tls13 "$port_13" 100 100
    [ -z "$requests" ] || clients="ours curl bare"
done
rep=1
for w in 10 100; do each bundle_$w "$port_rsa" $w 1000 bundle.pem; done
preload="LD_PRELOAD=$bin/count_malloc.so"
each alloc_short "$port_rsa" 10 $short
each alloc_long "$port_rsa" 10 $((short + 2000))
preload=

say "bench: latency"
latency() { # MS WORKERS; at least 20 rounds, so that the start weighs little
    rounds=$((seconds * 1000 / $1))
    [ $rounds -ge 20 ] || rounds=20
    each "latency_$1_$2" "$(cat "port_$1")" "$2" $((rounds * $2))
}
if [ "$quick" = 0 ]; then
    for rep in 1 2 3; do
        for w in 1 5 10 20 100; do latency 20 $w; done
        for w in 1 20 100; do latency 200 $w; done
    done
else
    rep=1
    clients=$(echo $clients | sed 's/curl//')
    for w in 1 20 100; do latency 20 $w; done
    for w in 20 100; do latency 200 $w; done
fi

# ---- table -------------------------------------------------------------------
awk -f "$here/report.awk" runs
[ ! -x "$bin/bench_parse" ] || [ ! -f "$header_dir/gptner.h" ] ||
    taskset -c $client_core "$bin/bench_parse" "$quick"
. "$here/batch.sh"
. "$here/batch_read.sh"
if [ -x "$bin/limits" ] && [ -f "$header_dir/gptner.h" ]; then
    say "bench: limits of an account, in virtual time"
    printf '\nshare of the account used, and replies that were 429\n'
    "$bin/limits"
fi
if [ -x "$bin/../test_auto" ] && [ -f "$header_dir/gptner.h" ]; then
    printf '\nrequests at a time with GPTNER_WORKERS_AUTO, in virtual time\n'
    "$bin/../test_auto" table
fi
