"""SECURITY 15: a folder in turmoil is watched; once it rests, the library holds what it holds, no more.

    python -m tests.ingest.folder_campaign --files 20000

Writers fill the folder at once; some write slowly, in pieces; files and folders are renamed, replaced and
deleted meanwhile; links, FIFOs, sockets, devices and files that may not be read lie in between. Permissions
hold root back only without two of its capabilities: see COMMAND.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from ingest.library import Library
from tests.ingest.hashing_embedder import HashingEmbedder

COMMAND = [sys.executable, "-m", "tests.ingest.folder_campaign"]
if os.geteuid() == 0 and shutil.which("setpriv"):
    COMMAND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *COMMAND]
"""What runs the campaign with permissions that count."""
_SETTLE_SECONDS = 0.3
_PER_FOLDER = 500


class Turmoil:
    """Writes into a folder from several threads; `expected` is what the library must hold: path to mark."""

    def __init__(self, root: Path, n_files: int, *, seed: int) -> None:
        self._root = root
        self._n_files = n_files
        self._draw = random.Random(seed)
        self.expected: dict[str, str] = {}
        self.unreadable: list[str] = []
        self.closed: list[str] = []
        self.skipped: set[str] = set()

    def run(self) -> None:
        """Let all of it happen at once; returns when everything is written."""
        folders = range(0, self._n_files, _PER_FOLDER)
        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(self._burst, first) for first in folders]
            done += [pool.submit(self._slowly, n) for n in range(4)]
            done += [pool.submit(self._specials), pool.submit(self._renamed_folder)]
            for each in done:
                each.result()

    def _burst(self, first: int) -> None:
        """Fill one folder; every tenth file is replaced, renamed, deleted or moved afterwards."""
        folder = self._root / f"c{first // _PER_FOLDER}"
        folder.mkdir()
        for n in range(first, min(first + _PER_FOLDER, self._n_files)):
            path = folder / f"{n}.md"
            self._write(path, "v1")
            if n % 40 == 10:
                part = folder / f".{n}.part"
                part.write_text(_text(path.name, "v2"))
                part.replace(path)
                self._note(path, "v2")
            elif n % 40 == 20:
                path.rename(folder / f"renamed-{n}.md")
                self._forget(path)
                self._note(folder / f"renamed-{n}.md", "v1", name=path.name)
            elif n % 40 == 30:
                path.unlink()
                self._forget(path)

    def _slowly(self, n: int) -> None:
        """Write one file in pieces, with pauses near what counts as rest."""
        path = self._root / f"slow-{n}.md"
        text = _text(path.name, "v1")
        pause = threading.Event()
        with path.open("w") as file:
            for start in range(0, len(text), max(1, len(text) // 8)):
                file.write(text[start : start + max(1, len(text) // 8)])
                file.flush()
                pause.wait(_SETTLE_SECONDS * (0.5 + 0.25 * n))
        self._note(path, "v1")

    def _renamed_folder(self) -> None:
        folder = self._root / "before"
        folder.mkdir()
        for n in range(20):
            (folder / f"{n}.md").write_text(_text(f"in-{n}", "v1"))
        threading.Event().wait(2 * _SETTLE_SECONDS)
        folder.rename(self._root / "after")
        for n in range(20):
            self._note(self._root / "after" / f"{n}.md", "v1", name=f"in-{n}")

    def _specials(self) -> None:
        """Put down what must not be followed, opened or waited for."""
        folder = self._root / "special"
        folder.mkdir()
        outside = self._root.parent / "outside.md"
        outside.write_text("outside v1 must never be read")
        (folder / "link.md").symlink_to(outside)
        (folder / "loop.md").symlink_to("loop.md")
        (folder / "up").symlink_to(self._root)
        (folder / "nowhere.md").symlink_to("absent.md")
        os.mkfifo(folder / "fifo.md")
        self.skipped |= {f"special/{name}" for name in ("link.md", "loop.md", "up", "nowhere.md", "fifo.md")}
        with suppress(PermissionError, OSError), socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(folder / "socket.md"))
            self.skipped.add("special/socket.md")
        with suppress(PermissionError):
            os.mknod(folder / "device.md", 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # endless zeros
            self.skipped.add("special/device.md")
        for n in range(5):
            path = folder / f"unreadable-{n}.md"
            self._write(path, "v1")
            path.chmod(0)
            if not os.access(path, os.R_OK):
                self._forget(path)
                self.unreadable.append(f"special/unreadable-{n}.md")
        (folder / "closed").mkdir()
        self._write(folder / "closed" / "in.md", "v1")
        (folder / "closed").chmod(0)
        if not os.access(folder / "closed", os.R_OK):
            self._forget(folder / "closed" / "in.md")
            self.closed.append("special/closed/")

    def release(self) -> None:
        """Let what may not be read be read."""
        for name in self.unreadable:
            (self._root / name).chmod(0o644)
            self._note(self._root / name, "v1", name=Path(name).name)

    def _write(self, path: Path, mark: str) -> None:
        path.write_text(_text(path.name, mark))
        self._note(path, mark)

    def _note(self, path: Path, mark: str, *, name: str | None = None) -> None:
        self.expected[path.relative_to(self._root).as_posix()] = f"{name or path.name} {mark}"

    def _forget(self, path: Path) -> None:
        self.expected.pop(path.relative_to(self._root).as_posix(), None)


def _text(name: str, mark: str) -> str:
    return f"# {name} {mark}\n\nThis is what {name} says in {mark}.\n"


def wrong_in(library: Library, turmoil: Turmoil) -> list[str]:
    """Return how library and folder differ."""
    documents = {d.path: d for d in library.documents() if d.state == "indexed"}
    faults = [f"{path} is missing" for path in turmoil.expected.keys() - documents.keys()]
    faults += [f"{path} is there still" for path in documents.keys() - turmoil.expected.keys()]
    for path, mark in turmoil.expected.items():
        text = (
            "".join(chunk.text for chunk in library.record.document_chunks(documents[path].id))
            if path in documents
            else mark
        )
        if mark.split()[0] not in text or mark.split()[1] not in text or "outside" in text:
            faults.append(f"{path} holds {text[:60]!r}, not {mark!r}")
    return faults


def campaign(n_files: int, *, seed: int = 1, patience: float = 3000) -> list[str]:
    """Run it; return what was wrong once it should have come to rest."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    place = Path(tempfile.mkdtemp(prefix="quarry-folder-"))
    try:
        return _in_turmoil(place, n_files, seed, patience)
    finally:
        for path in place.rglob("closed"):
            path.chmod(0o755)
        shutil.rmtree(place)


def _in_turmoil(place: Path, n_files: int, seed: int, patience: float) -> list[str]:
    documents = place / "documents"
    documents.mkdir()
    turmoil = Turmoil(documents, n_files, seed=seed)
    library = Library.open(
        place / "data", documents_dir=documents, embedder=HashingEmbedder(), settle_seconds=_SETTLE_SECONDS
    )
    began = time.monotonic()
    try:
        library.start_watching()
        turmoil.run()
        written = time.monotonic()
        faults = _converged(library, turmoil, patience)
        known = {d.path: d for d in library.documents()}
        faults += [
            f"{path} is {known[path].state if path in known else 'not listed'}, not failed with its reason"
            for path in turmoil.unreadable
            if path not in known
            or known[path].state != "failed"
            or "denied" not in (known[path].reason or "")
        ]
        status = library.status()
        faults += [f"{path} is not among what is skipped" for path in turmoil.skipped - set(status.skipped)]
        faults += [f"{path} is not told of" for path in turmoil.closed if path not in status.unreadable]
        turmoil.release()
        faults += _converged(library, turmoil, patience)
        if (wrong := library.check_indexes()) is not None:
            faults.append(wrong)
        print(
            f"{n_files} files written in {written - began:.0f} s, {len(turmoil.expected)} left,"
            f" {len(turmoil.unreadable)} not readable at first, {len(turmoil.skipped)} not to be followed;"
            f" at rest after {time.monotonic() - began:.0f} s: {len(faults)} faults"
        )
    finally:
        library.close()
    return faults


def _converged(library: Library, turmoil: Turmoil, patience: float) -> list[str]:
    """Wait until library and folder agree; return how they differ after all."""
    pause = threading.Event()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        indexed = {d.path for d in library.documents() if d.state == "indexed"}
        if indexed == turmoil.expected.keys() and not (faults := wrong_in(library, turmoil)):
            return faults
        pause.wait(1.0)
    return wrong_in(library, turmoil)[:20]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ingest.folder_campaign", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patience", type=float, default=3000, help="seconds until it must have come to rest"
    )
    options = parser.parse_args()
    faults = campaign(options.files, seed=options.seed, patience=options.patience)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
