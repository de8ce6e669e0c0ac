#!/bin/sh
# Code size of gptner.h at -Os for each set of options: what the functions and
# the constants take, mbedTLS excluded. For x86-64 or whatever the compiler
# makes, and for 32-bit ARM (Thumb) where a cross compiler is installed.
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

printf '#define GPTNER_IMPLEMENTATION\n#include "gptner.h"\n' >"$dir/unit.c"

# Sums the sections: .text*, and .rodata* (strings and tables).
measure() { # TITLE PREFIX CFLAGS...
    title=$1 size=$2size
    shift 2
    if ! "$@" -std=c99 -Os -fno-asynchronous-unwind-tables -I. -c \
        "$dir/unit.c" -o "$dir/unit.o"; then
        printf '%-42s does not compile\n' "$title"
        exit 1
    fi
    "$size" -A "$dir/unit.o" | awk -v title="$title" '
        $1 ~ /^\.text/ { code += $2 }
        $1 ~ /^\.rodata/ || $1 ~ /^\.data\.rel\.ro/ { constants += $2 }
        $1 ~ /^\.(data|bss)$/ { writable += $2 }
        END {
            printf "%-42s %7d %9d %9.1f %8d\n", title, code, constants,
                (code + constants) / 1024, writable
        }'
}

table() { # NAME PREFIX COMPILER...
    name=$1 prefix=$2
    shift 2
    for set in "" "NO_BATCH NO_NER" "NO_BATCH NO_NER NO_THREADS" NO_TLS \
        "NO_BATCH NO_NER NO_TLS NO_THREADS NO_STORE"; do
        options=
        for option in $set; do
            options="$options -DGPTNER_$option"
        done
        measure "$name ${set:-default}" "$prefix" "$@" $options
    done
}

printf '%-42s %7s %9s %9s %8s\n' "bytes at -Os" code constants "sum KiB" \
    writable
table "$(${CC:-cc} -dumpmachine)" "" ${CC:-cc}
arm=arm-linux-gnueabihf-
if command -v ${arm}gcc >/dev/null 2>&1; then
    # The headers of mbedTLS do not depend on the machine.
    for folder in ${MBEDTLS_INCLUDE:-/usr/include /usr/local/include}; do
        if [ -d "$folder/mbedtls" ]; then
            mkdir -p "$dir/include"
            for part in mbedtls psa tf-psa-crypto; do
                if [ -d "$folder/$part" ]; then
                    ln -sf "$folder/$part" "$dir/include/$part"
                fi
            done
        fi
    done
    table "ARM Thumb" $arm ${arm}gcc -mthumb "-I$dir/include"
else
    echo "(no ${arm}gcc here: Debian's package is gcc-arm-linux-gnueabihf)"
fi
