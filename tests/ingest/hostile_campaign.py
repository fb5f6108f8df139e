"""SECURITY 4: 60 hostile files and 40 bombs, each read as a document of the folder would be.

    python -m tests.ingest.hostile_campaign [--every N]

Nothing may be written outside the reader's own folder, no socket may be opened, each must be done with within
60 s and 1.5 GiB, and the next good file must be read. The system calls of the readers are watched by strace
where there is one. Last, a library takes the whole folder in.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ingest.errors import PartitionError
from ingest.library import Library
from ingest.partition.limits import MIB, Limits
from ingest.partition.partitioner import Partitioner
from tests.ingest.hashing_embedder import HashingEmbedder, count_tokens
from tests.ingest.hostile_files import BOMBS, HOSTILE, OUTSIDE, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[2]
GOOD = "# Good\n\nThe next file is read as if nothing had been.\n"
_SECONDS, _BYTES = 61.0, 1536 * MIB
_CALLS = (
    "socket,connect,bind,open,openat,creat,mkdir,mkdirat,symlink,symlinkat,link,linkat,"
    "rename,renameat2,unlink,unlinkat"
)
_WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
_NAMED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one file went. said: its text, or why there is none."""

    name: str
    seconds: float
    peak_bytes: int
    was_read: bool
    said: str


class Reader:
    """A partitioner that is asked for one file after the other, with its process measured."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partitioner = Partitioner(Limits(), count_tokens=count_tokens)
        self.pids: set[int] = set()
        self.folders: set[str] = set()

    def read(self, name: str, content: bytes) -> Outcome:
        path = self._folder / name
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        start = time.monotonic()
        was_read = False
        try:
            cut = self._partitioner.cut(descriptor, path=name, budget=320, limit=500)
            said = "\n".join(draft.text for draft in cut.chunks)
            was_read = True
        except PartitionError as error:
            said = str(error)
        finally:
            os.close(descriptor)
            path.unlink()
        return Outcome(name, time.monotonic() - start, self._peak(), was_read, said)

    def _peak(self) -> int:
        """Return the most memory that the reader's process has had; 0 when it is gone: its limit ended it."""
        child, folder = self._partitioner._child, self._partitioner._folder
        if child is None or folder is None:
            return 0
        self.pids.add(child.pid)
        self.folders.add(folder)
        process = Path(f"/proc/{child.pid}")
        found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        (process / "clear_refs").write_text("5")  # the next peak is the next file's
        return int(found[1]) * 1024 if found else 0

    def close(self) -> None:
        self._partitioner.close()


def chosen(every: int) -> dict[str, Callable[[int], bytes]]:
    """Return every n-th of all files."""
    return dict(list({**HOSTILE, **BOMBS}.items())[::every])


def campaign(names: dict[str, Callable[[int], bytes]]) -> list[str]:
    """Read all the files; return what was wrong."""
    secret = Path(SECRET).read_text()
    faults: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="quarry-hostile-") as place,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        folder = Path(place) / "in" / "documents"
        folder.mkdir(parents=True)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        reader = Reader(folder)
        try:
            reader.read("good.md", GOOD.encode())
            for name, make in names.items():
                outcome = reader.read(name, make(port))
                faults += _faults(outcome, secret)
                good = reader.read("good.md", GOOD.encode())
                if not good.was_read:
                    faults.append(f"{name}: the next good file is not read: {good.said}")
                if called(listener):
                    faults.append(f"{name}: somebody called the listener")
                if left := [p.name for p in Path(place).rglob("*") if p not in (folder, folder.parent)]:
                    faults.append(f"{name}: left {left}")
                print(
                    f"{name}: {outcome.seconds:.1f} s, {outcome.peak_bytes / MIB:.0f} MiB,"
                    f" {'read' if outcome.was_read else outcome.said[:110]}",
                    flush=True,
                )
        finally:
            reader.close()
        faults += [f"{path} was written" for path in OUTSIDE if Path(path).exists()]
        print(f"readers: {sorted(reader.pids)}", file=sys.stderr)
        print(f"folders: {sorted(reader.folders)}", file=sys.stderr, flush=True)
    return faults


def _faults(outcome: Outcome, secret: str) -> list[str]:
    faults = []
    if outcome.seconds > _SECONDS:
        faults.append(f"{outcome.name}: took {outcome.seconds:.0f} s")
    if outcome.peak_bytes > _BYTES:
        faults.append(f"{outcome.name}: took {outcome.peak_bytes} bytes of memory")
    if any(line in outcome.said for line in secret.splitlines() if len(line) > 10):
        faults.append(f"{outcome.name}: shows what {SECRET} holds")
    return faults


def called(listener: socket.socket) -> bool:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


def take_in(names: dict[str, Callable[[int], bytes]]) -> list[str]:
    """Let a library read a folder of them and of good files; return what was wrong."""
    with tempfile.TemporaryDirectory(prefix="quarry-hostile-") as place:
        documents = Path(place) / "documents"
        documents.mkdir()
        for n, (name, make) in enumerate(names.items()):
            (documents / name).write_bytes(make(9))
            (documents / f"good-{n}.md").write_text(GOOD + f"\nNumber {n}.\n")
        library = Library.open(
            Path(place) / "data", documents_dir=documents, embedder=HashingEmbedder(), settle_seconds=0
        )
        try:
            library.reconcile()
            states = {document.path: document for document in library.documents()}
            faults = [
                f"{path} is {states[path].state if path in states else 'missing'}"
                for path in (f"good-{n}.md" for n in range(len(names)))
                if path not in states or states[path].state != "indexed"
            ]
            faults += [f"{name} is not listed" for name in names if name not in states]
            faults += [
                f"{document.path} took {document.seconds:.0f} s to fail"
                for document in states.values()
                if document.seconds > _SECONDS and document.state != "indexed"
            ]
            if (wrong := library.check_indexes()) is not None:
                faults.append(wrong)
            print(
                f"the library: {len(states)} documents,"
                f" {sum(d.state == 'indexed' for d in states.values())} read"
            )
        finally:
            library.close()
    return faults


def watched(arguments: Iterable[str]) -> list[str]:
    """Run the readers' part under strace; return what was wrong with their system calls, too."""
    with tempfile.TemporaryDirectory(prefix="quarry-calls-") as folder:
        log = Path(folder) / "calls"
        command = ["strace", "-f", "-ff", "-qq", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-o", str(log)]
        command += [sys.executable, "-m", "tests.ingest.hostile_campaign", "--readers-only", *arguments]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        if "ptrace" in done.stderr.lower():
            print(f"not watched by strace: {done.stderr.strip()[-200:]}")
            return ["the readers' system calls could not be watched"]
        pids = re.search(r"readers: \[(.*)\]", done.stderr)
        folders = re.search(r"folders: \[(.*)\]", done.stderr)
        faults = re.findall(r"^FAULT (.*)$", done.stderr, re.MULTILINE)
        if done.returncode and not faults:
            return [f"the campaign broke off: {done.stderr[-500:]}"]
        if pids is None or folders is None:
            return [*faults, "no reader was watched"]
        allowed = tuple(re.findall(r"'([^']+)'", folders[1]))
        n_calls = 0
        for pid in pids[1].split(", "):
            for line in log.with_name(f"calls.{pid}").read_text("utf-8", "replace").splitlines():
                n_calls += 1
                if (fault := forbidden(line, allowed)) is not None:
                    faults.append(f"reader {pid}: {fault}")
        print(f"{n_calls} system calls of {len(pids[1].split(', '))} readers were looked at")
        return faults


def forbidden(line: str, allowed: tuple[str, ...]) -> str | None:
    """Return a system call that succeeded and must not: a socket, or a write outside its folder."""
    call, _, rest = line.partition("(")
    if "= -1 " in line or "=" not in line:
        return None
    if call in ("socket", "connect", "bind"):
        return line
    if call in ("open", "openat", "creat") and not (call == "creat" or _WRITES.search(rest)):
        return None
    names = _NAMED.findall(rest)
    if all(name == os.devnull or not name.startswith("/") or name.startswith(allowed) for name in names):
        return None
    return line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ingest.hostile_campaign", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th file")
    parser.add_argument("--only", default="", help="only files whose name begins so")
    parser.add_argument("--readers-only", action="store_true", help="without strace and without the library")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = {name: make for name, make in chosen(options.every).items() if name.startswith(options.only)}
    if options.readers_only:
        faults = campaign(names)
    else:
        began = time.monotonic()
        same = ["--every", str(options.every), "--only", options.only]
        faults = watched(same) if shutil.which("strace") else campaign(names)
        faults += take_in(names)
        print(f"{len(names)} files, {len(faults)} faults; {time.monotonic() - began:.0f} s")
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr, flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
