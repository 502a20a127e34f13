#!/bin/sh
# Builds a `wardline` that needs no other file: static, for the machine that builds it. Prints where
# it is. The container file and the checks both call this.
set -eu
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-$PWD/target}
# With --target the flags are the program's alone: macros are libraries that the compiler loads, and
# cannot be static. Random bytes are had by a system call: the function of libc is looked up at run
# time where it is not told otherwise, which a static program cannot, and /dev/urandom is a file.
RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' \
    cargo build --locked --release --package wardline --bin wardline \
    --target "$host" --target-dir "$target" >&2
echo "$target/$host/release/wardline"
