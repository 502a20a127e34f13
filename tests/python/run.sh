#!/usr/bin/env bash
# The native dialect once more, in Python, written from PROTOCOL.md alone: its own tests, the
# transcripts that it makes against those that are stored, and a running relay.
#
#   tests/python/run.sh           all of it; WARDLINE_TEST_BIN names the relay, else none is run
#   tests/python/run.sh --store   stores the transcripts anew
set -euo pipefail
cd "$(dirname "$0")"
TARGET=${CARGO_TARGET_DIR:-$PWD/../../target}
VENV=$TARGET/python
STORED=../../core/tests/data/transcripts.jsonl
export PYTHONDONTWRITEBYTECODE=1

mkdir -p "$TARGET"
if ! cmp -s requirements.txt "$VENV/installed"; then
    python3 -m venv --clear "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$VENV/installed"
fi

if [ "${1:-}" = --store ]; then
    exec "$VENV/bin/python" transcripts.py "$STORED"
fi
"$VENV/bin/python" -m unittest
"$VENV/bin/python" transcripts.py "$TARGET/transcripts.jsonl"
cmp "$TARGET/transcripts.jsonl" "$STORED" || {
    echo "run.sh: these are not the stored transcripts; look at what changed, then --store" >&2
    exit 1
}
