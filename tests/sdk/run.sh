#!/bin/sh
# The official OpenAI SDK against the mock: run.sh [build/mock_server]
# Installs the SDK here at the first run; skips where that cannot be done.
here=$(cd "$(dirname "$0")" && pwd)
mock=${1:-$here/../../build/mock_server}
[ -x "$mock" ] || {
    echo "sdk: $mock is not built" >&2
    exit 1
}
mock=$(cd "$(dirname "$mock")" && pwd)/$(basename "$mock")
cd "$here" || exit 1
command -v node >/dev/null 2>&1 || {
    echo "[  SKIPPED  ] sdk: no node"
    exit 0
}
if [ ! -d node_modules/openai ]; then
    command -v npm >/dev/null 2>&1 || {
        echo "[  SKIPPED  ] sdk: no npm to install the openai package"
        exit 0
    }
    timeout 180 npm install --silent >/dev/null 2>&1 || {
        rm -rf node_modules
        echo "[  SKIPPED  ] sdk: the registry gives no openai package"
        exit 0
    }
fi
exec node sdk.mjs "$mock"
