"""SECURITY 9: every file of the indexes, truncated to half, to nothing, or deleted, is noticed and made anew.

    python -m tests.ingest.damage_campaign [--every N]

Killed in mid-write: tests/ingest/kill_campaign.py.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import structlog

from ingest.library import ChunkDraft, Library
from tests.ingest.hashing_embedder import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# More rows than Chroma keeps in its log alone: its vector files are written.
N_CHUNKS = 1200
HOW = ("half", "empty", "deleted")


class NothingEmbedded(HashingEmbedder):
    """Repairs take the record's vectors."""

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        if kind == "document":
            raise AssertionError("a repair embedded something")
        return super().embed(texts, kind=kind)


def _texts() -> list[str]:
    return [f"entry {n} number{n} of many" for n in range(N_CHUNKS)]


def _vectors() -> NDArray[np.float32]:
    vectors = np.random.default_rng(7).standard_normal((N_CHUNKS, 64)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _open(place: Path) -> Library:
    return Library.open(
        place / "data", documents_dir=place / "documents", embedder=NothingEmbedded(), settle_seconds=0
    )


def build(place: Path) -> list[Path]:
    """Make a library; return its index files, relative to its data folder."""
    (place / "documents").mkdir(parents=True)
    library = _open(place)
    drafts = [ChunkDraft(text, (), None, 5, 0, len(text)) for text in _texts()]
    library.insert("many.md", drafts, _vectors())
    library.insert("hr/few.md", [ChunkDraft("a few words", (), None, 3, 0, 11)], _vectors()[:1])
    library.close()
    data = place / "data"
    return sorted(p.relative_to(data) for p in (data / "indexes").rglob("*") if p.is_file())


def damage(file: Path, how: str) -> None:
    if how == "deleted":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if how == "half" else 0)


def faults_of(place: Path) -> tuple[list[str], int]:
    """Open a damaged library; return what is wrong, and how often its indexes were made anew."""
    library = _open(place)
    try:
        faults = [] if (wrong := library.check_indexes()) is None else [wrong]
        for n in range(0, N_CHUNKS, 40):
            hits = library.search_dense(_vectors()[n], limit=1, collections=None)
            if not hits or hits[0].score < 0.999:
                faults.append(f"chunk {n} does not find itself by its vector")
            by_words = library.search_lexical(f"number{n}", limit=1, collections=None)
            found = library.chunks([hit.chunk_id for hit in by_words])
            if not found or f"number{n} " not in found[0].text:
                faults.append(f"chunk {n} does not find itself by its words")
        return faults, library.status().n_index_rebuilds
    finally:
        library.close()


def campaign(every: int = 1) -> list[str]:
    """Damage file after file, each in a copy of its own; return what was wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.monotonic()
    faults: list[str] = []
    n_runs = n_rebuilt = 0
    with tempfile.TemporaryDirectory(prefix="quarry-damage-") as folder:
        template = Path(folder) / "template"
        files = build(template)
        for file, how in [(file, how) for file in files for how in HOW][::every]:
            place = Path(folder) / "damaged"
            shutil.copytree(template, place)
            damage(place / "data" / file, how)
            found, rebuilds = faults_of(place)
            faults += [f"{file} {how}: {fault}" for fault in found]
            n_runs, n_rebuilt = n_runs + 1, n_rebuilt + (rebuilds > 0)
            shutil.rmtree(place)
    print(
        f"{len(files)} files, {n_runs} damages, {n_rebuilt} times made anew, the others did no harm:"
        f" {len(faults)} faults; {time.monotonic() - began:.0f} s"
    )
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ingest.damage_campaign", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th damage")
    faults = campaign(parser.parse_args().every)
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
