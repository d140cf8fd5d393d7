# Sourced by tools/demo and tools/test: makes sure that what they need is installed.
#
# Nothing is installed that is there already, and then no root is needed. Debian 12 and 13, Ubuntu 24.04.

rust_minimum=1.89

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs the named Debian packages that are missing.
need_packages() {
    command -v dpkg-query >/dev/null || fail "this needs a Debian or Ubuntu system; install by hand: $*"
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "Installing with apt-get: ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "become root and run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    "${as_root[@]}" apt-get update -qq || fail "apt-get update failed; is there a network?"
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" \
        >/dev/null || fail "apt-get install failed; run it by hand to see why: apt-get install ${missing[*]}"
}

# Checks for a Rust toolchain that is new enough. Debian's own is older than that, and a toolchain is a
# thing that a developer wants to choose, so this one is not installed behind anyone's back.
need_rust() {
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    local how="install Rust $rust_minimum or newer: https://rustup.rs (Debian 13 and Ubuntu 24.04 also: apt-get install rustup && rustup default stable)"
    command -v cargo >/dev/null || fail "cargo was not found; $how"
    local found
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$rust_minimum" "$found" | sort -V | head -n 1)" = "$rust_minimum" ] ||
        fail "rustc $found is too old; $how"
}

# What building needs; the last four are for the eBPF programs: clang compiles them, libbpf loads them.
packages_build=(gcc g++ make pkg-config nasm libisal-dev clang libelf-dev zlib1g-dev linux-libc-dev ethtool)
# What the programs load at run time, and a display for machines without one.
packages_display=(xvfb libxkbcommon-x11-0 libx11-xcb1 libxcursor1 libxi6 libxrandr2)
