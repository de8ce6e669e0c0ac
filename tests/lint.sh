#!/bin/sh
# Rules of the house that no compiler knows: names, layers, globals, lengths,
# and that the manual's contents are the sections. Prints a line for each
# breach, or one line when there is none.
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
cc=${CC:-cc}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
: >"$dir/found"

# What the linker sees of the header and of the mock server. Position-dependent
# code keeps tables of pointers, which a loader would have to fill in, read-only.
symbols() { # HEADER MACRO PREFIX ALLOWED
    printf '#define %s\n#include "%s"\n' "$2" "$1" >"$dir/unit.c"
    if ! $cc -std=c99 -O1 -fno-pic -I. -c "$dir/unit.c" -o "$dir/unit.o"; then
        echo "$1: does not compile"
        return
    fi
    nm -g --defined-only "$dir/unit.o" | awk -v file="$1" -v prefix="^$3" '
        $3 !~ prefix { print file ": exports " $3 }'
    nm "$dir/unit.o" | awk -v file="$1" -v allowed="^($4)$" '
        $2 ~ /^[bBdDC]$/ && $3 !~ allowed {
            print file ": writable data " $3
        }'
    nm -u "$dir/unit.o" | awk -v file="$1" '
        $2 ~ /^(printf|puts|putchar|exit|_exit|abort|setlocale|signal|atexit)$/ \
            { print file ": calls " $2 }'
}
# The one lock of mbedTLS, and what makes it once; see >>stream.
symbols gptner.h GPTNER_IMPLEMENTATION gptner_ "gpn_[a-z_]*(once|lock)" \
    >>"$dir/found"
if [ -f mock_server/mock_openai.h ]; then
    symbols mock_server/mock_openai.h MOCK_OPENAI_IMPLEMENTATION \
        "(mock_|gptner_)" "(gpn|mki)_[a-z_]*(once|lock)" >>"$dir/found"
fi

# What stands in which section of the header.
awk '
function breach(text) { print FILENAME ":" FNR ": " text }
/GPTNER_IMPLEMENTATION$/ && /^#ifdef/ { section = "prologue" }
/^ \* >>[a-z]+ +layer [0-9]+/ {
    section = substr($2, 3)
    sub(/^ \* /, "")
    gsub(/ +/, " ")
    banners = banners $0 "\n"
}
# The manual: contents, in the words of the banners.
FNR == 1 { in_manual = 1 }
in_manual && /^ *>>[a-z]+ +layer [0-9]+/ {
    sub(/^ */, "")
    gsub(/ +/, " ")
    contents = contents $0 "\n"
}
in_manual && /\*\// { in_manual = 0; if (FNR > 301) breach("manual too long") }

# Tests of the preprocessor, continuation lines included.
/^ *# *(if|ifdef|ifndef|elif)/ || continued {
    if (section != "" && section != "platform" && section != "prologue" &&
        /_WIN32|__linux|__APPLE__|__[A-Za-z]*BSD|__unix|__CYGWIN|__ANDROID/)
        breach("operating system told apart outside >>platform")
    if (section != "stream" && /MBEDTLS_VERSION/)
        breach("version of mbedTLS told apart outside >>stream")
    if (section != "" && section != "prologue" && /__cplusplus/)
        breach("C++ told apart outside the prologue")
    continued = /\\$/
}
/^ *# *include/ && section == "" && !in_manual &&
    !/<(stdbool|stddef|stdint)\.h>/ { breach("include in the interface") }

# Functions: declared ahead in another section?
section != "" && /^(static|GPN_PRINTF)/ && !/=/ { head = ""; collecting = 1 }
collecting {
    head = head " " $0
    if (/;$/ && head ~ /\(/) {
        name = head
        sub(/\(.*/, "", name)
        sub(/.*[ *]/, "", name)
        declared[name] = section
        line[name] = FNR
    }
    if (/[;{]$/ || /=/) collecting = 0
}
/^\{$/ && head != "" {
    name = head
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    if (name in declared && declared[name] != section)
        print FILENAME ":" line[name] ": " name " is declared in >>" \
            declared[name] ", and defined in >>" section
    delete declared[name]
    head = ""
}
END {
    if (banners != contents)
        print FILENAME ": contents of the manual and banners differ:\n" \
            contents "--\n" banners
}' gptner.h >>"$dir/found"

# Lengths.
sources=$(ls gptner.h examples/*.c mock_server/*.[ch] tests/*.[ch] \
    tests/*/*.[ch] 2>/dev/null)
awk '
{ line = $0; gsub(/[\200-\277]/, "", line) }
length(line) > 80 { print FILENAME ":" FNR ": longer than 80 columns" }
/^\{$/ { start = FNR }
/^\}/ && start {
    if (FNR - start > 100) print FILENAME ":" start ": function of " \
        FNR - start " lines"
    start = 0
}' $sources Makefile >>"$dir/found"
longest() { # LINES FILE...
    most=$1
    shift
    for file; do
        if [ -f "$file" ] && [ "$(wc -l <"$file")" -gt "$most" ]; then
            echo "$file: more than $most lines"
        fi
    done
}
{
    longest 100 Makefile $(ls examples/*.c | grep -v batch_processing)
    longest 200 README.md
} >>"$dir/found"

if [ -s "$dir/found" ]; then
    cat "$dir/found"
    exit 1
fi
echo "lint: nothing found"
