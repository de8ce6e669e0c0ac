#!/bin/sh
# build/probe against the shared corpus: corpus.sh [CORPUS]. Skips, and says
# so, where there is no corpus or no python3.
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
corpus=${1:-${GPTNER_CORPUS:-../shared/corpus}}
if [ ! -d "$corpus" ]; then
    echo "skip: no corpus at $corpus"
elif ! command -v python3 >/dev/null 2>&1; then
    echo "skip: no python3 to read the expectations"
else
    make -s probe && exec python3 tests/corpus.py "$B/probe" "$corpus"
fi
