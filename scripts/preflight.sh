#!/bin/sh
# Check what Quarry needs from the machine, then make the environment in .venv if it is not there.
# Every missing thing names itself and the way out. Usage: sh scripts/preflight.sh [python]
set -eu

say() { printf '%s\n' "$*" >&2; }
stop() { say "quarry: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

# Prints the install line for the package manager of this machine. $1 Debian, $2 Fedora, $3 Homebrew.
way_out() {
    if [ "$(uname -s)" = Darwin ]; then echo "$3"
    elif command -v apt-get >/dev/null 2>&1; then echo "sudo apt install $1"
    elif command -v dnf >/dev/null 2>&1; then echo "sudo dnf install $2"
    else echo "apt install $1, dnf install $2, or: $3"; fi
}

check_compiler() {
    trial=$(mktemp -d)
    trap 'rm -rf "$trial"' EXIT
    printf '#include <bit>\n#include <span>\nint main() { int a[1] = {}; return std::span<int>(a).front() + std::popcount(0u); }\n' \
        >"$trial/trial.cpp"
    found=
    for compiler in ${CXX:-c++ g++ clang++}; do
        command -v "$compiler" >/dev/null 2>&1 || continue
        found=$compiler
        if "$compiler" -std=c++20 "$trial/trial.cpp" -o "$trial/trial" 2>"$trial/log"; then return; fi
    done
    if [ -z "$found" ]; then
        stop "no C++ compiler found (looked for: ${CXX:-c++ g++ clang++}). The engine is built on your machine; install one:" \
            "$(way_out g++ gcc-c++ 'xcode-select --install')"
    fi
    say "$(head -n 3 "$trial/log")"
    stop "the C++ compiler $found cannot build a small C++20 program (GCC 11, Clang 14 or newer is needed):" \
        "$(way_out g++ gcc-c++ 'xcode-select --install')" "or name another one: make run CXX=/path/to/g++"
}

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Sets $python to the first Python >= 3.11.
find_python() {
    if [ -n "${1:-}" ]; then
        recent_enough "$1" || stop "$1 is not a Python 3.11 or newer: $("$1" --version 2>&1 || true)"
        python=$1
        return
    fi
    for python in python3 python3.13 python3.12 python3.11 python; do
        if recent_enough "$python"; then return; fi
    done
    seen=$(python3 --version 2>/dev/null || echo "no python3")
    stop "Python 3.11 or newer is needed; found: $seen." \
        "$(way_out 'python3.11 python3.11-venv python3.11-dev' 'python3.11 python3.11-devel' 'brew install python@3.12')" \
        "or name another one: make run PYTHON=/path/to/python3.12"
}

check_python() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        stop "$python has no venv or ensurepip module, which make its own environments:" \
            "$(way_out "python$version-venv" "python$version" "brew install python@$version")"
    "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        stop "the C headers of $python (Python.h) are missing; the engine is compiled against them:" \
            "$(way_out "python$version-dev" "python$version-devel" "brew install python@$version")"
}

check_compiler
# An environment whose Python was since removed or upgraded away does not start: make it anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    find_python "${1:-}"
    check_python
    say "Making the environment in .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || stop "$python -m venv .venv failed; the reason stands above"
fi
