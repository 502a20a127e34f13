#!/usr/bin/env bash
# The checks of this repository by name, the same for a person and for CI.
#
#   ./ci.sh VERB...     each on its own, in this order
#   ./ci.sh all         what CI does: installs what is missing, then every verb, quick ones first
#
# Figures that a test needs (seeds, seconds) can be set from outside: SEEDS, FUZZ_SECONDS.
set -euo pipefail
cd "$(dirname "$0")"

SEEDS=${SEEDS:-3000}
FUZZ_SECONDS=${FUZZ_SECONDS:-10}
TARGET=${CARGO_TARGET_DIR:-$PWD/target}

# Workspaces of their own, which --workspace does not reach.
OUTSIDE=(core/freestanding fuzz)

say() { printf -- '--- %s\n' "$*"; }
fail() { echo "ci.sh: $*" >&2; exit 1; }

# Formatting, as rustfmt.toml has it.
verb_fmt() {
    cargo fmt --all --check
    for dir in "${OUTSIDE[@]}"; do
        (cd "$dir" && cargo fmt --check)
    done
}

# Lints, warnings as errors. With what only other systems compile, too.
verb_clippy() {
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --package wardline-core -- -D warnings
    (cd core/freestanding && cargo clippy --locked --release -- -D warnings)
    (cd fuzz && cargo clippy --locked --all-targets -- -D warnings)
    RUSTFLAGS='--cfg wardline_portable' cargo clippy --locked --workspace --all-targets \
        --target-dir "$TARGET/portable" -- -D warnings
}

# The documentation of every crate, warnings as errors.
verb_doc() {
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
}

# The README's test command.
verb_test() {
    cargo test --workspace --profile verify
}

# What other systems compile: the black-box suite without a line of Unix-only code, and the crates
# that Windows and macOS would be built from.
verb_portable() {
    local target crate
    mkdir -p "$TARGET"
    for target in x86_64-pc-windows-msvc aarch64-apple-darwin; do
        say "crates for $target"
        cargo tree --locked --target "$target" --edges normal,build --prefix none \
            --package wardline | cut -d' ' -f1 | sort -u > "$TARGET/crates-$target"
        for crate in io-uring linux-raw-sys tokio-uring inotify; do
            ! grep -qx "$crate" "$TARGET/crates-$target" || fail "$crate in $target"
        done
    done
    for crate in libc nix rustix signal-hook signal-hook-registry; do
        ! grep -qx "$crate" "$TARGET/crates-x86_64-pc-windows-msvc" || fail "$crate in Windows"
    done
    say "the black-box suite without Unix-only code"
    RUSTFLAGS='--cfg wardline_portable' cargo test --locked --profile verify \
        --target-dir "$TARGET/portable" --package wardline --test blackbox
}

# The core without an operating system: linked, run, measured, its symbols looked at.
verb_freestanding() {
    core/freestanding/check.sh
}

# The simulator: years of bad luck.
verb_sim() {
    cargo run --locked --profile verify --package wardline-sim --bin sim -- --seeds "$SEEDS"
}

# How shards fall asleep and wake each other, in every order that there is.
verb_loom() {
    RUSTFLAGS='--cfg wardline_loom' LOOM_MAX_PREEMPTIONS=3 \
        cargo test --locked --target-dir "$TARGET/loom" --package wardline-host --lib links::
}

# The native dialect by another hand: Python, written from PROTOCOL.md alone. Its own tests, the
# transcripts that core/tests replays, a client of the running relay.
verb_python() {
    cargo build --locked --profile verify --package wardline
    WARDLINE_TEST_BIN=$TARGET/verify/wardline tests/python/run.sh
}

# The client library against the relay itself.
verb_client() {
    cargo build --locked --profile verify --package wardline
    WARDLINE_RELAY=$TARGET/verify/wardline cargo test --locked --profile verify \
        --package wardline-client --test relay -- --include-ignored
}

# Planted bugs: the simulator has to find each of them.
verb_mutants() {
    core/sim/mutants.sh
}

# Each fuzz target for some seconds. What it finds on its way is thrown away, but for a crash.
verb_fuzz() {
    # The scanners are unsafe code, and watched; the rest is not, and three times as fast unwatched.
    fuzz line_splitting address
    fuzz relay none
    fuzz native_handshake none
    fuzz native_records none
    fuzz native_client none
    fuzz native_relay none
    fuzz proxy_header none
}
fuzz() {
    local name=$1 sanitizer=$2 corpus
    say "fuzz $name"
    corpus=$(mktemp -d)
    cargo +nightly fuzz run --fuzz-dir fuzz --target-dir "$TARGET/fuzz-$sanitizer" \
        --sanitizer "$sanitizer" "$name" "$corpus" "fuzz/corpus/$name" \
        -- -max_total_time="$FUZZ_SECONDS" -print_final_stats=1
    rm -r "$corpus"
}

# What the io_uring engines' unsafe code does with memory, watched: their own tests, and the
# black-box suite on all engines. Figures of memory mean nothing then. (ThreadSanitizer would need a
# standard library that is built with it.)
verb_asan() {
    local host binary
    host=$(rustc +nightly -vV | sed -n 's/^host: //p')
    binary=$TARGET/asan/$host/verify/wardline
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test --locked --profile verify --target "$host" \
        --target-dir "$TARGET/asan" --package wardline-uring --lib --tests
    RUSTFLAGS=-Zsanitizer=address cargo +nightly build --locked --profile verify --target "$host" \
        --target-dir "$TARGET/asan" --package wardline
    nm "$binary" | grep __asan_report_load > /dev/null || fail "$binary is not watched"
    WARDLINE_TEST_BIN=$binary WARDLINE_TEST_SANITIZED=1 cargo test --locked --profile verify \
        --package wardline --test blackbox -- --skip memory::
}

# Speed, at twice the budgets: this machine has other things to do.
verb_bench_smoke() {
    local load=$TARGET/release/load engine
    cargo build --locked --release --package wardline --package wardline-bench
    cargo bench --locked --package wardline-bench --bench core --bench engines --bench native \
        --bench handshakes -- --test
    thrice "$load" run --readers 100 --rounds 3 --budget 2.5
    thrice "$load" run --readers 10 --rounds 3 --budget 3.0
    thrice "$load" run --readers 1 --rounds 3 --budget 3.2
    "$load" compare --targets blind,ring,tokio,native-ring,direct-ring,direct-tokio --rounds 1 \
        --workloads 1to1-f1,1to1-x50-w1,rtt,rtt-request,daemons-20-at100 --seconds 0.2
    "$load" back --engine ring --agents 1000 --rounds 1
    # Time at twice the budget; memory and size do not depend on who else is running.
    for engine in ring tokio-uring tokio; do
        thrice "$load" start --engine "$engine" --budget-ms 20 --budget-rss 8MB --budget-program 6MB
    done
    "$load" idle --engine ring --connections 10000 --budget 1KiB
    "$load" idle --engine tokio-uring --connections 10000 --budget 2KiB
    "$load" idle --engine tokio --connections 10000 --budget 2KiB
}

# COMMAND: what is slow is slow three times; what was disturbed is not.
thrice() {
    "$@" || "$@" || "$@"
}

# Instructions of the hot paths, against what bench/counts.txt says: no neighbour disturbs them.
verb_counts() {
    cargo bench --locked --package wardline-bench --bench counts
}

# The service, the static build, the example settings, the kernel's.
verb_deploy() {
    deploy/check.sh
}

# Licences, sources and doubles of the crates that we are made of. Advisories are not checked here:
# their database is fetched from elsewhere than a registry. `cargo deny check advisories` does it.
verb_deny() {
    local dir
    for dir in . "${OUTSIDE[@]}"; do
        cargo deny --locked --workspace --config deny.toml --manifest-path "$dir/Cargo.toml" \
            check bans licenses sources
    done
}

verb_all() {
    exec .ci/run
}

[ $# -gt 0 ] || { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"; declare -F | sed -n 's/.* verb_/  /p' | tr _ -; exit 2; }
for verb in "$@"; do
    declare -F "verb_${verb//-/_}" > /dev/null || fail "no such verb: $verb"
done
for verb in "$@"; do
    "verb_${verb//-/_}"
done
