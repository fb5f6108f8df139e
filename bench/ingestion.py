"""Rows on ingestion: reading, looking again, what a change costs, memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench.corpus import Writer, write_corpus
from bench.product import HashEmbedder
from bench.turns import Row
from bench.worker import ROOT, BenchError
from ingest.pipeline import EMBED_TEXTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ingest.embedder import Embedder
    from ingest.units import CountTokens
    from ingest.values import NewVersion


# Half a minute of embedding, twice.
_EMBEDDED_FILES, _EMBEDDED_BYTES = 60, 20_000
_PIECES = 10


def read_mixed(folder: Path, models: Path) -> list[Row]:
    """Read and cut 1,000 mixed files with two readers, tokens counted by the starter embedder's tokenizer.

    Tenth by tenth, each of all kinds, one side after the other.
    What is measured is kept until the row is whole: a run that was cut off goes on.
    """
    write_corpus(folder)
    files = sorted(folder.iterdir())
    kept = folder.with_name(f"{folder.name}-pieces.jsonl")
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for n in range(len(done), _PIECES):
        piece = {"ours": _read_piece(files[n::_PIECES], models), "peer": _peer_seconds(folder, n)}
        done.append(piece)
        with kept.open("a") as file:
            file.write(json.dumps(piece) + "\n")
    kept.unlink()
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    ours, peer = (sum(piece[side] for piece in done) for side in ("ours", "peer"))
    name = "unstructured.partition.auto + RecursiveCharacterTextSplitter"
    return [Row("ingest/read/mixed", megabytes / ours, megabytes / peer, name, "MB/s", peer / ours)]


def _read_piece(files: Sequence[Path], models: Path) -> float:
    """Return the seconds that ours takes, from starting its readers."""
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            (Path(place) / file.name).write_bytes(file.read_bytes())
        return _read(Path(place), _starter_tokens(models))[0]


def _peer_seconds(folder: Path, piece: int) -> float:
    """Return the seconds that the peer takes for a piece; its imports are not counted."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.plain_unstructured", str(folder), str(piece), str(_PIECES)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"DO_NOT_TRACK": "1", "SCARF_NO_ANALYTICS": "true"},
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"unstructured failed: {done.stderr[-300:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def read_one(models: Path) -> list[Row]:
    """Read a PDF of 300 pages and a Markdown file of 2 MB, each from starting the reader to its chunks."""
    writer = Writer(13)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            ("pdf-300-pages", _pdf(writer, 300)),
            ("markdown-2mb", writer.md(2_000_000)),
        ):
            place = Path(folder) / name
            place.mkdir()
            (place / f"a.{name.partition('-')[0].replace('markdown', 'md')}").write_bytes(content)
            seconds, versions = _read(place, _starter_tokens(models))
            if not versions or not versions[0].chunks:
                raise BenchError(f"nothing was read of {name}")
            rows.append(Row(f"ingest/read/{name}_s", seconds, None, None, "s", None))
    return rows


def rescan() -> list[Row]:
    """Look through an unchanged folder of 20,000 files."""
    from ingest.library import Library
    from ingest.reconciler import collection_of, scan
    from ingest.values import NewVersion as Version

    with tempfile.TemporaryDirectory() as name:
        documents = Path(name) / "documents"
        for n in range(20_000):
            file = documents / f"folder{n % 100}" / f"file-{n}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# Document {n}\n")
        library = Library.open(Path(name) / "data", documents_dir=documents, embedder=HashEmbedder())
        try:
            found = list(scan(documents).files.values())
            # Known without being read: what is timed is the looking.
            for start in range(0, len(found), 1000):
                library.record.publish(
                    *(
                        Version(file.path, collection_of(file.path), file.facts, b"x" * 32, "", ())
                        for file in found[start : start + 1000]
                    )
                )
            library.check_indexes()
            start_s = perf_counter()
            report = library.reconcile()
            seconds = perf_counter() - start_s
            if report.unchanged != 20_000:
                raise BenchError(f"{report.unchanged} of 20,000 files were taken for unchanged")
        finally:
            library.close()
    return [Row("ingest/rescan/20k_s", seconds, None, None, "s", None)]


def change_one(models: Path) -> list[Row]:
    """Change one paragraph in a Markdown file of 1 MB; count the chunks that are embedded again."""
    writer = Writer(14)
    text = writer.md(1_000_000).decode()
    paragraphs = text.split("\n\n")
    paragraphs[len(paragraphs) // 3] = "This paragraph was changed. It says something else now."
    hashes = []
    with tempfile.TemporaryDirectory() as folder:
        for content in (text, "\n\n".join(paragraphs)):
            (Path(folder) / "a.md").write_text(content)
            _, versions = _read(Path(folder), _starter_tokens(models))
            hashes.append({draft.text_hash for draft in versions[0].chunks})
    touched = len(hashes[1] - hashes[0])
    return [Row("ingest/change/1mb_chunks", touched, len(hashes[1]), "chunks in all", "chunks", None)]


def embed_share(models: Path) -> list[Row]:
    """Ingest files with the starter embedder; its throughput against that of embedding the same chunks alone.

    The rates are those of a backlog: of the chunks between the second batch and the last but two.
    """
    from engine.engine import Engine
    from engine.model_store import ModelStore
    from ingest.library import Library
    from ingest.values import embedding_text

    writer = Writer(17)
    engine = Engine.open(
        chat_model=None, embedding_model=ModelStore(models).pull("starter-embedding"), checks_dir=models
    )
    assert engine.embedder is not None
    samples: list[tuple[int, float]] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            documents = Path(name) / "documents"
            documents.mkdir()
            for n in range(_EMBEDDED_FILES):
                (documents / f"{n}.md").write_bytes(writer.md(_EMBEDDED_BYTES))
            library = Library.open(Path(name) / "data", documents_dir=documents, embedder=engine.embedder)
            try:
                library.check_indexes()
                library.reconcile(
                    on_progress=lambda now: samples.append((now.n_chunks_embedded, perf_counter()))
                )
                texts = [
                    embedding_text(chunk.heading_path, chunk.text)
                    for document in library.documents()
                    for chunk in library.document_chunks(document.path)
                ]
            finally:
                library.close()
        alone = _embedding_rate(engine.embedder, texts)
    finally:
        engine.close()
    backlog = [(n, at) for n, at in samples if 2 * EMBED_TEXTS <= n <= samples[-1][0] - 3 * EMBED_TEXTS]
    if len(backlog) < 2 or backlog[-1][0] < 1000:
        raise BenchError(f"{samples[-1][0]} chunks were embedded; that is no backlog")
    (first, began), (last, ended) = backlog[0], backlog[-1]
    ingesting = (last - first) / (ended - began)
    return [
        Row("ingest/embed_share", ingesting / alone, None, None, "of embedding alone", None),
        Row("ingest/embed_share/chunks_per_s", ingesting, alone, "embedding alone", "chunks/s", None),
    ]


def _embedding_rate(embedder: Embedder, texts: Sequence[str]) -> float:
    """Return how many of the texts are embedded a second, two calls at a time so that none waits."""
    from concurrent.futures import ThreadPoolExecutor

    batches = [texts[start : start + EMBED_TEXTS] for start in range(0, len(texts), EMBED_TEXTS)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda batch: embedder.embed(batch, kind="document"), batches[:4]))
        start = perf_counter()
        list(pool.map(lambda batch: embedder.embed(batch, kind="document"), batches))
        return len(texts) / (perf_counter() - start)


def memory() -> list[Row]:
    """Ingest 10,000 small documents; MiB of growth per 1,000, fitted from the 2,000th on."""
    import numpy as np

    from ingest.library import Library

    writer, draw = Writer(15), random.Random(16)
    samples: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as name:
        documents = Path(name) / "documents"
        documents.mkdir()
        for n in range(10_000):
            (documents / f"{n}.txt").write_bytes(writer.txt(draw.randint(200, 800)))
        library = Library.open(Path(name) / "data", documents_dir=documents, embedder=HashEmbedder())
        try:
            library.reconcile(on_progress=lambda now: samples.append((now.n_done, _resident_mib())))
        finally:
            library.close()
    points = np.array([(n, mib) for n, mib in samples if n >= 2_000], float)
    slope = float(np.polyfit(points[:, 0], points[:, 1], 1)[0]) * 1_000
    return [Row("ingest/memory/mib_per_1000", slope, None, None, "MiB", None)]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _starter_tokens(models: Path) -> CountTokens:
    from engine import _native
    from engine.model_store import ModelStore
    from engine.tokenizer import load_tokenizer

    return load_tokenizer(_native.GgufFile(str(ModelStore(models).pull("starter-embedding")))).count


def _read(folder: Path, count_tokens: CountTokens) -> tuple[float, Sequence[NewVersion]]:
    """Read all files of a folder with two readers; return the seconds and what came of them."""
    from ingest.outcomes import Failed, Ready
    from ingest.partition.partitioner import Partitioner
    from ingest.read_ahead import ReadAhead
    from ingest.reconciler import compare, scan

    plan = compare(scan(folder), {})
    readers = [Partitioner(count_tokens=count_tokens) for _ in range(2)]
    versions: list[NewVersion] = []
    start = perf_counter()
    try:
        ahead = ReadAhead(plan.fresh, plan, {}, root=folder, readers=readers, budget=320, limit=504)
        with ahead:
            while (taken := ahead.take(patience=1)) is not None:
                for outcome in taken:
                    if isinstance(outcome, Failed):
                        raise BenchError(f"{outcome.file.path}: {outcome.reason}")
                    if isinstance(outcome, Ready):
                        versions.append(outcome.version)
        seconds = perf_counter() - start
    finally:
        for reader in readers:
            reader.close()
    return seconds, versions


def _pdf(writer: Writer, n_pages: int) -> bytes:
    """Make a text PDF of 40 lines a page."""
    from tests.ingest.test_partition import pdf

    text = writer.txt(400_000).decode().encode("ascii", "ignore").decode()
    lines = [line[i : i + 80] for line in text.splitlines() for i in range(0, len(line), 80)]
    return pdf(*([(11, lines[(40 * n + k) % len(lines)]) for k in range(40)] for n in range(n_pages)))
