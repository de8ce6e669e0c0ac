#!/bin/sh
# Compiles header, examples and mock server without one warning: gcc and clang,
# C99, C11, C++11 and C++17, each option alone, two files sharing the header.
# Compilers that are not there are left out, and that is said.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# What users are told, what we ask of ourselves, and what only C or clang has.
users="-Wall -Wextra -Wpedantic -Wshadow -Wconversion"
ours="-Werror -Wundef -Wcast-qual -Wwrite-strings -Wformat=2 -Wvla"
c_only="-Wstrict-prototypes -Wmissing-prototypes"
clang_only="-Wreserved-identifier"
libs="-lmbedtls -lmbedx509 -lmbedcrypto -lpthread"

cat >"$dir/unit.c" <<'END'
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
#include "gptner.h"
END
# The interface first, by way of some other header; the implementation later.
cat >"$dir/late.c" <<'END'
#include "gptner.h"
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
END
cat >"$dir/user.c" <<'END'
#include "gptner.h"
int main(void)
{
    gptner_client *client = 0;
    gptner_config config = {0};
    config.api_key = "key";
    if (gptner_client_new(&config, &client, 0) != GPTNER_OK) {
        return 1;
    }
    gptner_client_free(client);
    return 0;
}
END
cat >"$dir/hooks.c" <<'END'
#define GPTNER_MALLOC(size) malloc(size)
#define GPTNER_REALLOC(ptr, size) realloc(ptr, size)
#define GPTNER_FREE(ptr) free(ptr)
#define GPTNER_ASSERT(condition) ((condition) ? (void)0 : abort())
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
END
cat >"$dir/faults.c" <<'END'
#define GPTNER_FAULT_INJECTION
#define GPTNER_IMPLEMENTATION
#include "gptner.h"
int gptner_fault(int kind)
{
    return kind == 0;
}
END

# Collects the commands, one a line; they run below, some at a time.
later() {
    printf '%s\n' "$*" >>"$dir/commands"
}

for compiler in gcc clang; do
    case $compiler in
    # gcc finds some of its warnings while it optimises, clang none.
    gcc) cxx=g++ more='' some=-O1 full=-O2 ;;
    clang) cxx=clang++ more=$clang_only some=-O0 full=-O1 ;;
    esac
    if command -v $compiler >/dev/null 2>&1; then
        for std in c99 c11; do
            cc="$compiler -std=$std $users $c_only $ours $more -I."
            later "$cc $full -c $dir/unit.c -o $dir/$compiler.$std.o"
            full=-O0
            for file in examples/*.c mock_server/*.c; do
                later "$cc -fsyntax-only $file"
            done
        done
        cc="$compiler -std=c99 $users $c_only $ours $more -I. $some"
        later "$compiler -std=gnu99 $users $ours -I. -c $dir/late.c -o" \
            "$dir/$compiler.late.o"
        later "$cc -c $dir/hooks.c -o $dir/$compiler.hooks.o"
        later "$cc -c $dir/faults.c -o $dir/$compiler.faults.o"
        for option in NO_TLS NO_THREADS NO_BATCH NO_NER NO_STORE STATIC; do
            these=$libs
            [ $option != NO_TLS ] || these=-lpthread
            later "$cc -DGPTNER_$option examples/hello.c $these -o" \
                "$dir/$compiler.$option"
        done
        later "$cc $dir/unit.c $dir/user.c $libs -o $dir/$compiler.two &&" \
            "$dir/$compiler.two"
    else
        echo "compile: no $compiler here"
    fi
    if command -v $cxx >/dev/null 2>&1; then
        for std in c++11 c++17; do
            cc="$cxx -x c++ -std=$std $users $ours $more -I."
            later "$cc $some -c $dir/unit.c -o $dir/$cxx.$std.o"
            some=-O0
            for file in examples/*.c mock_server/*.c; do
                later "$cc -fsyntax-only $file"
            done
        done
        for option in NO_TLS NO_THREADS NO_BATCH NO_NER NO_STORE STATIC; do
            later "$cxx -x c++ -std=c++11 $users $ours $more -I." \
                "-DGPTNER_$option -fsyntax-only examples/hello.c"
        done
    else
        echo "compile: no $cxx here"
    fi
done

jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
export dir
tr '\n' '\0' <"$dir/commands" | xargs -0 -n 1 -P "$jobs" sh -c '
    if ! sh -c "$0" >"$dir/out.$$" 2>&1; then
        { echo "compile: $0"; cat "$dir/out.$$"; } >>"$dir/failed"
        exit 255
    fi' || true
if [ -s "$dir/failed" ]; then
    cat "$dir/failed"
    exit 1
fi
echo "compile: $(wc -l <"$dir/commands" | tr -d ' ') compilations, no warning"
