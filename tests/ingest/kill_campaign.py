"""SECURITY 2: kill the process at named steps and at random moments; nothing may be lost, doubled or mixed.

    python -m tests.ingest.kill_campaign --named 200 --random 200 --log build/kills.jsonl --seconds 150

Every run begins with a library of one generation of documents, changes all of them, adds, moves and deletes
some, and kills the pass that takes it in. Then queries must see whole versions only, and the next pass must
bring exactly what the folder holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ingest.library import Library
from tests.ingest.hashing_embedder import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (
    "ingest.record:Record:store_vectors",
    "ingest.record:Record:publish",
    "ingest.record:Record:move",
    "ingest.record:Record:delete",
    "ingest.record:Record:drop_unused",
    "ingest.record:Record:set_meta",
    "ingest.dense_index:DenseIndex:upsert",
    "ingest.dense_index:DenseIndex:delete",
    "ingest.lexical_index:LexicalIndex:add",
    "ingest.lexical_index:LexicalIndex:delete",
    "ingest.lexical_index:LexicalIndex:commit",
    "ingest.index_feed:IndexFeed:prune_queue",
    "ingest.index_sync:IndexSync:apply",
)
KILLED = textwrap.dedent(
    """
    import importlib, itertools, os, signal, sys
    from pathlib import Path
    from ingest.library import Library
    from tests.ingest.hashing_embedder import HashingEmbedder

    data, documents, place, n, when = sys.argv[1:]
    library = Library.open(
        Path(data), documents_dir=Path(documents), embedder=HashingEmbedder(), settle_seconds=0
    )
    library._index_ready.wait()
    if place:
        module, owner, name = place.split(":")
        target = getattr(importlib.import_module(module), owner)
        step, calls = getattr(target, name), itertools.count(1)

        def stepping(*arguments, **named):
            call = next(calls)  # steps run in several threads
            if call == int(n) and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = step(*arguments, **named)
            if call == int(n):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(target, name, stepping)
    print("begins", flush=True)
    library.reconcile()
    print("ends", flush=True)
    library.close()
    """
)
N_DOCUMENTS = 6
# A pass calls no step more often than a few times; what does not come is not tried again.
_MOST_CALLS = 6
ROOT = Path(__file__).parents[2]


def text_of(name: str, generation: str) -> str:
    """Write a document of several chunks, each of which carries its name and generation."""
    sections = (
        f"## {generation} {name} part {n}\n\n{f'{generation} {name} says word{n}. ' * 30}" for n in range(4)
    )
    return f"# {generation} {name}\n\n" + "\n\n".join(sections)


def write(documents: Path, generation: str) -> dict[str, str]:
    """Bring the folder to a generation; return what it holds: path to mark."""
    for n in range(N_DOCUMENTS):
        (documents / f"{n}.md").write_text(text_of(f"doc{n}", generation))
    held = {f"{n}.md": generation for n in range(N_DOCUMENTS)}
    (documents / "hr").mkdir(exist_ok=True)
    if generation == "v1":
        (documents / "gone.md").write_text(text_of("gone", "v1"))
        (documents / "moving.md").write_text(text_of("moving", "v1"))
        return held | {"gone.md": "v1", "moving.md": "v1"}
    (documents / "gone.md").unlink(missing_ok=True)
    (documents / "moving.md").rename(documents / "hr" / "moved.md")
    (documents / "new.md").write_text(text_of("new", "v2"))
    return held | {"hr/moved.md": "v1", "new.md": "v2"}


class Campaign:
    """Run after run on copies of one library."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template"
        (self._template / "documents").mkdir(parents=True)
        write(self._template / "documents", "v1")
        self._reconcile(self._template)

        self.pass_seconds = self._pass_seconds()

    def run(self, number: int, step: str, n: int, when: str, delay: float | None) -> list[str] | None:
        """Kill once; return what was wrong afterwards, None where the moment did not come."""
        place = self._folder / str(number)
        shutil.copytree(self._template, place)
        try:
            held = write(place / "documents", "v2")
            if not self._kill(place, step, n, when, delay):
                return None
            return self._faults(place, held)
        finally:
            shutil.rmtree(place)

    def _pass_seconds(self) -> float:
        """Return how long a pass takes that nobody kills."""
        place = self._folder / "timed"
        shutil.copytree(self._template, place)
        write(place / "documents", "v2")
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, place / "data", place / "documents", "", "0", ""],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdout is not None
        began = math.nan
        with child.stdout:
            for line in child.stdout:
                if b"begins" in line:
                    began = time.monotonic()
                elif b"ends" in line:
                    break
        seconds = time.monotonic() - began
        if child.wait(timeout=600) or math.isnan(seconds):
            raise RuntimeError(f"a pass that is not killed ends with status {child.returncode}")
        shutil.rmtree(place)
        return seconds

    def _kill(self, place: Path, step: str, n: int, when: str, delay: float | None) -> bool:
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, place / "data", place / "documents", step, str(n), when],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdout is not None
        with child.stdout:
            while (line := child.stdout.readline()) and b"begins" not in line:
                pass
            if delay is not None:
                threading.Event().wait(delay)
                child.kill()
            child.stdout.read()
        return child.wait(timeout=600) == -signal.SIGKILL

    def _faults(self, place: Path, held: dict[str, str]) -> list[str]:
        """Look at a killed library as it is, then after a pass."""
        faults: list[str] = []
        library = self._open(place)
        try:
            for path, marks in self._found(library).items():
                if len(marks) > 1:
                    faults.append(f"a query sees {marks} of {path}")
            for document in library.documents():
                marks = {mark_of(c.text) for c in library.document_chunks(document.path)}
                if len(marks) > 1:
                    faults.append(f"{document.path} is a mix of {marks}")
            library.reconcile()
            found = self._found(library)
            if found != {path: {mark} for path, mark in held.items()}:
                faults.append(f"after the next pass queries see {found}, not {held}")
            for path in held:
                chunks = library.document_chunks(path)
                if len({c.ordinal for c in chunks}) != len(chunks) or len({c.text for c in chunks}) != len(
                    chunks
                ):
                    faults.append(f"{path} has chunks twice")
                n_parts = sum(c.text.count("word") for c in chunks)
                if n_parts < 120:
                    faults.append(f"{path} lost text: {n_parts} of 120 words")
            if (wrong := library.check_indexes()) is not None:
                faults.append(wrong)
        finally:
            library.close()
        return faults

    def _found(self, library: Library) -> dict[str, set[str]]:
        """Return which generations of which documents both searches see."""
        (vector,) = HashingEmbedder().embed(["says word1 doc"], kind="query")
        hits = library.search_dense(vector, limit=200, collections=None)
        hits += library.search_lexical("says word0 word1 word2 word3", limit=200, collections=None)
        seen: dict[str, set[str]] = {}
        for chunk in library.chunks([hit.chunk_id for hit in hits]):
            seen.setdefault(chunk.path, set()).add(mark_of(chunk.text))
        return seen

    def _open(self, place: Path) -> Library:
        return Library.open(
            place / "data",
            documents_dir=place / "documents",
            embedder=HashingEmbedder(),
            settle_seconds=0,
        )

    def _reconcile(self, place: Path) -> None:
        library = self._open(place)
        library.reconcile()
        library.close()


def mark_of(text: str) -> str:
    """Return the generation that a chunk's text carries, both where it has both."""
    return "+".join(mark for mark in ("v1", "v2") if mark in text)


def named_steps() -> Iterator[tuple[str, int, str]]:
    """Yield moments, before or after the k-th call of each step, again and again: threads differ."""
    return itertools.cycle(
        (step, k, when) for k in range(1, _MOST_CALLS + 1) for step in STEPS for when in ("before", "after")
    )


@dataclass(frozen=True, slots=True)
class Kill:
    """One run: at the k-th call of a step, or `delay` s into the pass. faults: None if it did not come."""

    step: str
    k: int
    when: str
    delay: float | None
    faults: list[str] | None

    @property
    def kind(self) -> str:
        return "named" if self.delay is None else "random"


class Log:
    """The kills so far, kept in a file where there is one: an interrupted campaign goes on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.kills: list[Kill] = []
        if path is not None and path.exists():
            self.kills = [Kill(**json.loads(line)) for line in path.read_text().splitlines()]

    def add(self, kill: Kill) -> None:
        with self._lock:
            self.kills.append(kill)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps(asdict(kill)) + "\n")
        for fault in kill.faults or ():
            print(f"kill at {kill.step or f'{kill.delay:.3f} s'} {kill.k} {kill.when}: {fault}", flush=True)

    def n(self, kind: str) -> int:
        """Return how many kills of a kind came."""
        with self._lock:
            return sum(kill.kind == kind and kill.faults is not None for kill in self.kills)

    def absent(self) -> set[tuple[str, int, str]]:
        """Return the moments that do not come in this pass."""
        with self._lock:
            return {
                (kill.step, kill.k, kill.when)
                for kill in self.kills
                if kill.delay is None and kill.faults is None
            }


def campaign(
    n_named: int,
    n_random: int,
    *,
    seed: int,
    jobs: int,
    log: Path | None = None,
    seconds: float = math.inf,
) -> int:
    """Run both kinds until so many came, or for so many seconds; return how many had a fault."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    kills = Log(log)
    draw = random.Random(seed + len(kills.kills))
    with tempfile.TemporaryDirectory(prefix="quarry-kills-") as folder:
        runs = Campaign(Path(folder))
        steps = itertools.islice(named_steps(), len(kills.kills) % (2 * _MOST_CALLS * len(STEPS)), None)
        taking = threading.Lock()
        numbers = itertools.count()
        under_way = {"named": 0, "random": 0}

        def take() -> tuple[int, str, int, str, float | None] | None:
            """Return the next run, None when there are enough."""
            with taking:
                if time.monotonic() - began > seconds:
                    return None
                if kills.n("named") + under_way["named"] < n_named:
                    absent = kills.absent()
                    step = next(step for step in steps if step not in absent)
                    under_way["named"] += 1
                    return next(numbers), *step, None
                if kills.n("random") + under_way["random"] < n_random:
                    under_way["random"] += 1
                    return next(numbers), "", 0, "", draw.uniform(0, runs.pass_seconds)
                return None

        def work() -> None:
            while (run := take()) is not None:
                number, step, k, when, delay = run
                kind = "named" if delay is None else "random"
                faults = runs.run(number, step, k, when, delay)
                kills.add(Kill(step, k, when, delay, faults))
                with taking:
                    under_way[kind] -= 1

        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(work) for _ in range(jobs)]:
                done.result()
    n_faulty = sum(bool(kill.faults) for kill in kills.kills)
    print(
        f"{kills.n('named')} kills at named steps, {kills.n('random')} at random moments"
        f" ({sum(kill.faults is None for kill in kills.kills)} did not come):"
        f" {n_faulty} with a fault; {time.monotonic() - began:.0f} s"
    )
    return n_faulty


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ingest.kill_campaign", description=__doc__)
    parser.add_argument("--named", type=int, default=200)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (default 2)")
    parser.add_argument("--log", type=Path, help="keep each kill here; what it holds is not done again")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after so long")
    options = parser.parse_args()
    n_faulty = campaign(
        options.named,
        options.random,
        seed=options.seed,
        jobs=options.jobs,
        log=options.log,
        seconds=options.seconds,
    )
    return 1 if n_faulty else 0


if __name__ == "__main__":
    sys.exit(main())
