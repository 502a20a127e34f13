#!/usr/bin/env bash
# Builds the freestanding program, runs it, and looks at what was linked: how much memory it has,
# that nothing of an operating system's libraries and no allocator is in it, and that nothing but
# the core's one `invariant_failed` can panic. Needs what linking needs: binutils.
set -euo pipefail
cd "$(dirname "$0")"

RAM_BYTES_MAX=$((64 * 1024))
PROGRAM_BYTES_MAX=$((208 * 1024))

root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}/freestanding
fail() { echo "freestanding: $*" >&2; exit 1; }

# Alone, in its own workspace: built with others, features would unify.
cargo build --quiet --locked --release --target-dir "$target"
cargo build --quiet --locked --profile symbols --target-dir "$target"
program=$target/release/wardline-freestanding
symbols=$target/symbols/wardline-freestanding

"$program" || fail "it ended with status $?"

# Memory: everything that is mapped writable, the stack that the program brings along included.
ram=0
while read -r bytes; do
    ram=$((ram + bytes))
done < <(readelf -lW "$program" | awk '$1 == "LOAD" && / RW[ E] /{ print $6 }')
size=$(stat -c %s "$program")
echo "memory: $ram of $RAM_BYTES_MAX bytes; program: $size of $PROGRAM_BYTES_MAX bytes"
[ "$ram" -gt 0 ] && [ "$ram" -le "$RAM_BYTES_MAX" ] || fail "too much memory"
[ "$size" -le "$PROGRAM_BYTES_MAX" ] || fail "too large a program"
# The relay's pool and tables alone are most of that; less means that the look went wrong.
[ "$ram" -ge $((32 * 1024)) ] || fail "the memory cannot be that little"

if readelf -lW "$program" | grep -E 'INTERP|DYNAMIC' >&2; then
    fail "it is not static"
fi
if nm -C "$symbols" | grep -E ' [Uu] ' >&2; then
    fail "it wants symbols of others"
fi
if nm -C "$symbols" | grep -E '__rust_alloc|__rg_alloc|\balloc::|\bstd::|\bmalloc\b' >&2; then
    fail "there is an allocator in it"
fi

# Panics: exactly the listed symbols, of all those that have the words of an end in their names.
words='panic|fail|unwind|unwrap|expect|abort|overflow|assert|bounds|mismatch|not_allowed|_error'
found=$(nm -C "$symbols" | awk '$2 ~ /[tTwWvV]/' | cut -d' ' -f3- | grep -iE "$words" | sort -u)
listed=$(grep -v '^#' symbols.txt | cut -f1 | sort -u)
if ! diff <(echo "$listed") <(echo "$found") >&2; then
    fail "symbols that panic: '<' is listed and not there, '>' is there and not listed"
fi
# Whatever its name, all that panics goes through panic_fmt, which one function may call.
callers=$(objdump -d -C --no-show-raw-insn "$symbols" | awk '
    /^[0-9a-f]+ <.*>:$/ { name = $0; sub(/^[0-9a-f]+ </, "", name); sub(/>:$/, "", name) }
    /\t(call|jmp|j[a-z]+) .*<core::panicking::/ { print name }
' | sort -u)
[ "$callers" = "wardline_core::fault::invariant_failed" ] || fail "who panics: $callers"
echo "$callers is the only one that panics"
