#!/bin/sh
# The counts in tests/data/tokens.tsv held against the o200k vocabulary of an
# npm package: run.sh [--write]. Needs npm once; no test of make test does.
cd "$(dirname "$0")" || exit 1
if [ ! -d node_modules/gpt-tokenizer ]; then
    timeout 180 npm install --silent >/dev/null 2>&1 || {
        rm -rf node_modules
        echo "[  SKIPPED  ] tokens: no npm, or no gpt-tokenizer from it"
        exit 0
    }
fi
[ "${1:-}" = --write ] && exec node reference.mjs
exec node reference.mjs --check
