"""Run `pip install` and show one line of progress instead of pip's hundreds.

Usage: python scripts/pip_install.py LABEL REQUIREMENTS...   (pinned with hashes, no dependency resolution)
"""

import re
import subprocess
import sys
from collections import deque
from pathlib import Path


def main(label: str, *files: str) -> int:
    """Install the requirement files; on failure print the end of what pip said."""
    total = sum(len(re.findall(r"^[\w.\[\]-]+==", Path(file).read_text(), re.MULTILINE)) for file in files)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--require-hashes",
        "--progress-bar",
        "off",
    ]
    for file in files:
        command += ["-r", file]
    tail: deque[str] = deque(maxlen=30)
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            tail.append(line)
            if re.match(r"(Collecting|Ignoring|Requirement already)", line):
                seen += 1
                show(f"{label}: {seen} of {total} packages", every=50, count=seen)
            elif line.startswith("Installing collected"):
                show(f"{label}: unpacking {total} packages", every=1, count=1)
    if sys.stdout.isatty():
        print()
    if pip.returncode != 0:
        print("".join(tail), file=sys.stderr)
        print(f"quarry: pip could not install {' '.join(files)}; the reason stands above.", file=sys.stderr)
        print("  Is the package index reachable? A mirror: export PIP_INDEX_URL=https://…", file=sys.stderr)
    return pip.returncode


def show(text: str, *, every: int, count: int) -> None:
    """Rewrite the line on a terminal; elsewhere print every `every`-th one."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)
    elif count % every == 0 or count == 1:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
