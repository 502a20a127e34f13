#!/bin/sh
# Builds the simulator with each planted bug in turn, and fails if one is not found.
#
#   core/sim/mutants.sh [SEEDS [NAME...]]
#
# Only the workspace's own crates are built anew for a bug: the compiler is wrapped (this script
# is the wrapper, too), so that the dependencies keep their flags and their artifacts.
set -eu

case ${1:-} in
*rustc) exec "$@" --cfg "wardline_mutant=\"$WARDLINE_PLANT\"" ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.."
seeds=${1:-9000}
[ $# -eq 0 ] || shift

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/mutants"
# Quick to build, quick enough to run, and with every assertion.
build() {
    cargo build --quiet --profile mutants -p wardline-sim --bin sim \
        --config 'profile.mutants.inherits="dev"' --config 'profile.mutants.debug=false' \
        --config 'profile.mutants.opt-level=1'
}

build
sim="$CARGO_TARGET_DIR/mutants/sim"
find core/src -name '*.rs' -exec "$sim" --check-mutants {} +
names=${*:-$("$sim" --list-mutants)}

survived=''
for name in $names; do
    touch core/src/lib.rs
    RUSTC_WORKSPACE_WRAPPER="$here/mutants.sh" WARDLINE_PLANT="$name" build
    began=$(date +%s)
    if said=$(timeout 600 "$sim" --seeds "$seeds" --no-places --quiet 2>&1); then
        echo "SURVIVED  $name"
        survived="$survived $name"
    elif ! printf '%s\n' "$said" | grep -q '^seed [0-9]* failed'; then
        # A run that was cut off has found nothing.
        echo "NO VERDICT  $name  ($(($(date +%s) - began)) s)"
        survived="$survived $name"
    else
        why=$(printf '%s\n' "$said" | sed -n '2p' | cut -c 1-90)
        echo "found     $name  (seed $(printf '%s\n' "$said" | sed -n 's/^seed \([0-9]*\) failed.*/\1/p'), $(($(date +%s) - began)) s: $why)"
    fi
done
touch core/src/lib.rs
[ -z "$survived" ] || { echo "not found:$survived" >&2; exit 1; }
