#!/usr/bin/env bash
# Tries what is in this directory, as far as a machine without systemd and containers allows: the
# static program alone in an empty root, the example settings, the service's sandbox against what the
# program really asks of the kernel, the kernel's settings in a network namespace. Needs root,
# strace, systemd's tools, and sysctl.
set -euo pipefail
cd "$(dirname "$0")"

# Of systemd's scale from 0 (no exposure) to 10, times ten.
EXPOSURE_MAX=15
LISTEN=line://127.0.0.1:0/main

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2> /dev/null || true; rm -rf "$work"' EXIT
say() { printf -- '--- %s\n' "$*"; }
fail() { echo "deploy: $*" >&2; exit 1; }

# FILE: waits for the file with the port of the listener; gives the port.
port_of() {
    local _
    for _ in $(seq 600); do
        if [ -s "$1" ]; then
            sed -n '1s/.*:\([0-9]*\)\/.*/\1/p' "$1"
            return
        fi
        sleep 0.05
    done
    fail "it does not say where it listens"
}

# PORT: two clients; what the first one says must reach the other.
relay_one_line() {
    local line
    exec 3<> "/dev/tcp/127.0.0.1/$1" 4<> "/dev/tcp/127.0.0.1/$1"
    sleep 0.2
    echo hello >&3
    read -r -t 30 line <&4 || fail "no line comes"
    [[ $line == '{"content":"hello","remote_addr":"127.0.0.1:'*'"}' ]] || fail "it says $line"
}

# PID: ends it as systemd would; it must say goodbye and exit 0.
drain() {
    local line
    kill -TERM "$1"
    read -r -t 30 line <&4 || fail "no goodbye"
    [ "$line" = "Warning: Server is shutting down." ] || fail "its goodbye is $line"
    exec 3<&- 3>&- 4<&- 4>&-
    wait "$server" || fail "it ends with status $?"
    server=
}

say "the container file: the compiler that is ours"
version=$(sed -n 's/^channel = "\(.*\)"/\1/p' ../rust-toolchain.toml)
grep -q "rust:$version-" Containerfile && grep -q "RUSTUP_TOOLCHAIN=$version\$" Containerfile \
    || fail "the container file is for another compiler than $version"

say "a static program"
program=$(./build-static.sh)
if readelf -lW "$program" | grep INTERP || readelf -dW "$program" | grep NEEDED; then
    fail "it is not static"
fi
ls -l "$program"

say "alone in an empty root, as nobody"
mkdir -m 755 "$work/root"
chmod 755 "$work"
cp "$program" "$work/root/wardline"
mkdir -m 777 "$work/root/run"
chroot --userspec=65532:65532 "$work/root" \
    /wardline serve --listen "$LISTEN" --ports-file /run/ports &
server=$!
relay_one_line "$(port_of "$work/root/run/ports")"
drain "$server"

say "the example settings"
"$program" check -c wardline.toml > "$work/example"
"$program" check > "$work/default"
# Its values are the defaults, and its keys all there are, those that are commented out included.
diff <(sed 's/ *# [^#]*$//' "$work/default") <(sed 's/ *# [^#]*$//' "$work/example") \
    || fail "an example setting is not the default"
# Files that are named are read, so they have to be there.
"$program" keygen "$work/server.key" > "$work/identity"
grep -oE '[0-9a-f]{64}' "$work/identity" | head -n 1 > "$work/authorized_keys"
sed -e 's/^#\([a-z_]* = \)/\1/' -e "s,\"/etc/wardline/,\"$work/," \
    wardline.toml > "$work/all.toml"
"$program" check -c "$work/all.toml" > "$work/all"
if grep -E '# default$| is unset' "$work/all"; then
    fail "not every setting is in the example"
fi
echo "$(wc -l < "$work/all") settings"

say "the service: is it one, and how far is it exposed"
# The paths are those of a machine where it is installed.
sed -e "s|/usr/local/bin/wardline|$program|" wardline.service > "$work/wardline.service"
# What it does not know it says, and goes on.
said=$(systemd-analyze verify --man=no "$work/wardline.service" 2>&1) || fail "no service: $said"
[ -z "$said" ] || fail "the service: $said"
systemd-analyze security --no-pager --offline=true --threshold=$EXPOSURE_MAX \
    "$work/wardline.service" | tail -1

say "the service: what its filter lets through, and what the program asks"
# NAME: the system calls of one of systemd's groups, those of groups in it included; or that one.
group() {
    local name
    if [[ $1 != @* ]]; then
        echo "$1"
        return
    fi
    for name in $(systemd-analyze --no-pager syscall-filter "$1" | awk 'NR > 1 && !/#/ {print $1}'); do
        case $name in
            @*) group "$name" ;;
            *) echo "$name" ;;
        esac
    done
}
allowed=$(group @default)
while read -r filter; do
    for name in ${filter#\~}; do
        case $filter in
            \~*) allowed=$(comm -23 <(sort -u <<< "$allowed") <(group "$name" | sort -u)) ;;
            *) allowed+=$'\n'$(group "$name") ;;
        esac
    done
done < <(sed -n 's/^SystemCallFilter=//p' wardline.service)
strace -f -o "$work/calls" "$program" serve -c wardline.toml --listen "$LISTEN" \
    --ports-file "$work/ports" &
server=$!
relay_one_line "$(port_of "$work/ports")"
traced=$(awk 'NR == 1 {print $1}' "$work/calls")
kill -HUP "$traced" && sleep 0.2
kill -USR1 "$traced" && sleep 0.2
drain "$traced"
# Netlink and both families of IP are all that it may open.
if grep -oE 'socket\(AF_[A-Z0-9]+' "$work/calls" | sort -u | grep -vE 'AF_(INET6?|NETLINK)$'; then
    fail "an address family that the service does not allow"
fi
asked=$(sed -nE 's/^[0-9]+ +(<\.\.\. )?([a-z0-9_]+)[( ].*/\2/p' "$work/calls" | sort -u)
refused=$(comm -13 <(sort -u <<< "$allowed") <(grep -vx execve <<< "$asked"))
[ -z "$refused" ] || fail "the service would refuse: $refused"
echo "$(wc -l <<< "$asked") system calls, all of them allowed"

say "the kernel's settings"
while IFS='= ' read -r key _; do
    path=/proc/sys/${key//.//}
    [ -e "$path" ] || fail "$key is not known here"
    # Those that a network has of its own are tried in one; the machine's are only looked for.
    if [[ $key == net.* ]] && unshare --net test -e "$path"; then
        grep "^$key *=" sysctl.conf
    fi
done < <(grep -vE '^#|^$' sysctl.conf) > "$work/sysctl.conf"
unshare --net sysctl --load "$work/sysctl.conf"
