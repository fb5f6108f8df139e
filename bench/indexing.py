"""Rows on 100,000 chunks: how fast searches are, alone and while documents come in, and what they find."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from bench.corpus import Writer
from bench.product import HashEmbedder, word_of
from bench.turns import Row
from bench.worker import BenchError
from ingest.embedder import Embedder, fingerprint_key
from ingest.values import ChunkDraft, FileFacts, NewVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ingest.library import Library
    from rag.retriever import Retriever

N_DOCUMENTS, CHUNKS_EACH, WORDS_EACH = 2_000, 50, 120
N_QUERIES, N_CHECKED = 500, 200
_NEAREST = 10
_VOCABULARY = [word_of(number) for number in range(20_000)]
# Longer to read and to embed than the searches take.
_INCOMING_FILES, _INCOMING_BYTES = 600, 20_000
_GROUP = 50


@dataclass(frozen=True, slots=True)
class House:
    """A library of 100,000 chunks that a row may change, and what searches it."""

    library: Library
    retriever: Retriever
    documents: Path

    def time(self, n: int, *, first: int = 0) -> list[float]:
        """Return the milliseconds of n searches: dense and lexical, fused, checked against the record."""
        times = []
        for k in range(first, first + n):
            query = QUERIES[k % N_QUERIES]
            start = perf_counter()
            self.retriever.search(query)
            times.append((perf_counter() - start) * 1e3)
        return times


def searching(folder: Path, models: Path) -> Iterator[Row]:
    """Search 100,000 chunks at rest; compare with brute force."""
    with _house(folder, models) as house:
        yield from _percentiles("index/100k/search", house.time(N_QUERIES))
        yield _row("index/100k/search/recall_at_10", _recall(house.library), "share")


def replacing(folder: Path, models: Path) -> Iterator[Row]:
    """Search while half of the documents are replaced, chunk by chunk; then compare with brute force."""
    with _house(folder, models) as house:
        replaced = list(_replacements(house.library))
        seconds = 0.0

        def replace() -> None:
            nonlocal seconds
            start = perf_counter()
            for path, facts, drafts, vectors in replaced:
                house.library.insert(path, drafts, vectors, facts=facts)
            seconds = perf_counter() - start

        working = threading.Thread(target=replace)
        working.start()
        times: list[float] = []
        while working.is_alive():
            times += house.time(20, first=len(times))
        if not seconds:
            raise BenchError("the documents could not be replaced")
        yield from _percentiles("index/100k/replace", times)
        yield _row("index/100k/replace/chunks_per_s", len(replaced) * CHUNKS_EACH / seconds, "chunks/s")
        yield _row("index/100k/replace/recall_at_10", _recall(house.library), "share")


def ingesting(folder: Path, models: Path) -> Iterator[Row]:
    """Search while files are read, embedded by the starter model, and put into the indexes."""
    with _house(folder, models) as house, _incoming(house.documents):
        before = len(house.library.documents())
        reading = threading.Thread(target=house.library.reconcile)
        reading.start()
        try:
            threading.Event().wait(3)  # until the readers' processes run and the first batch is embedded
            times = house.time(N_QUERIES)
            n_more = len(house.library.documents()) - before
            if not reading.is_alive() or n_more <= 0:
                raise BenchError(f"the documents did not come in beside the searches: {n_more} in all")
        finally:
            house.library.interrupt()
            reading.join()
        yield from _percentiles("index/100k/ingest", times)
        yield _row("index/100k/ingest/documents", n_more, "documents")


@contextmanager
def _house(folder: Path, models: Path) -> Iterator[House]:
    """Open a copy of the library, made once; searches are warm.

    The vectors are hashed bags of words, in which no graph finds its way more easily than in a model's; files
    that come in are embedded by the starter model.
    """
    from engine.engine import Engine
    from engine.model_store import ModelStore
    from ingest.library import Library
    from rag.retriever import Retriever

    model = ModelStore(models).pull("starter-embedding")
    engine = Engine.open(chat_model=None, embedding_model=model, checks_dir=models)
    assert engine.embedder is not None
    try:
        if not (folder / "data").exists():
            _build(folder, engine.embedder)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            data, documents = Path(place) / "data", folder / "documents"
            shutil.copytree(folder / "data", data)
            library = Library.open(data, documents_dir=documents, embedder=engine.embedder)
            try:
                if (wrong := library.check_indexes()) is not None:
                    raise BenchError(wrong)
                house = House(library, Retriever(embedder=HashEmbedder(), library=library), documents)
                house.time(20)
                yield house
            finally:
                library.close()
    finally:
        engine.close()


def _replacements(
    library: Library,
) -> Iterator[tuple[str, FileFacts, list[ChunkDraft], NDArray[np.float32]]]:
    """Give new content for every second document, as long as the old one."""
    for n, (path, known) in enumerate(sorted(library.record.known_files().items())):
        if n % 2:
            texts = _texts(CHUNKS_EACH, words=WORDS_EACH, seed=10_000 + n)
            drafts = [ChunkDraft(text, (), None, WORDS_EACH, 0, len(text)) for text in texts]
            yield path, known.facts, drafts, vectors_of(texts)


@contextmanager
def _incoming(documents: Path) -> Iterator[None]:
    """Put new files into the folder; they are gone at the end."""
    folder = documents / "incoming"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = Writer(21)
    try:
        for n in range(_INCOMING_FILES):
            (folder / f"{n}.md").write_bytes(writer.md(_INCOMING_BYTES))
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build(folder: Path, embedder: Embedder) -> None:
    """Make a library of 2,000 documents of 50 chunks, whose files rest in the documents folder."""
    from ingest.library import Library

    shutil.rmtree(folder, ignore_errors=True)
    documents, unfinished = folder / "documents", folder / "data.part"
    documents.mkdir(parents=True)
    library = Library.open(unfinished, documents_dir=documents, embedder=embedder)
    try:
        embedder_id = library.record.embedder_id(fingerprint_key(embedder), embedder.dimension)
        for first in range(0, N_DOCUMENTS, _GROUP):
            versions = []
            for n in range(first, first + _GROUP):
                file = documents / f"{n:04}.md"
                file.write_text(f"{n}\n")
                texts = _texts(CHUNKS_EACH, words=WORDS_EACH, seed=100 + n)
                drafts = tuple(ChunkDraft(text, (), None, WORDS_EACH, 0, len(text)) for text in texts)
                library.record.store_vectors(embedder_id, [d.text_hash for d in drafts], vectors_of(texts))
                found = file.stat()
                facts = FileFacts(found.st_size, found.st_mtime_ns, found.st_ino)
                versions.append(NewVersion(file.name, "default", facts, bytes(32), file.name, drafts))
            library.record.publish(*versions)
        library.reindex()
    finally:
        library.close()
    unfinished.rename(folder / "data")


def _recall(library: Library) -> float:
    """Return the share of the ten nearest chunks, by brute force over the record's vectors, that are found.

    Equal distances count as found: which of two copies comes first says nothing.
    """
    feed = library.record.feed
    ids, vectors = zip(*feed.vectors(library.embedder_id, library.record.collection_ids(None)), strict=True)
    matrix = np.concatenate(vectors)
    if len(matrix) < N_DOCUMENTS * CHUNKS_EACH:
        raise BenchError(f"{len(matrix)} chunks are searched; the rows need {N_DOCUMENTS * CHUNKS_EACH}")
    place = {int(chunk_id): n for n, chunk_id in enumerate(np.concatenate(ids))}
    found = 0
    for query in vectors_of(_texts(N_CHECKED, words=8, seed=4)):
        cosines = matrix @ query
        tenth = np.partition(cosines, -_NEAREST)[-_NEAREST]
        hits = library.search_dense(query, limit=_NEAREST, collections=None)
        found += sum(cosines[place[hit.chunk_id]] >= tenth - 1e-5 for hit in hits)
    return found / (N_CHECKED * _NEAREST)


def _row(name: str, value: float, unit: str) -> Row:
    return Row(name, value, None, None, unit, None)


def _percentiles(name: str, times: Sequence[float]) -> list[Row]:
    values = statistics.quantiles(times, n=100)
    return [_row(f"{name}/p50_ms", values[49], "ms"), _row(f"{name}/p99_ms", values[98], "ms")]


def _texts(n: int, *, words: int, seed: int) -> list[str]:
    """Draw texts of words whose frequencies fall the way those of a language do."""
    drawn = np.random.default_rng(seed).pareto(0.9, (n, words)).astype(np.int64) % len(_VOCABULARY)
    return [" ".join(_VOCABULARY[w] for w in row) for row in drawn]


def vectors_of(texts: Sequence[str]) -> NDArray[np.float32]:
    return HashEmbedder().embed(texts, kind="document")


QUERIES = _texts(N_QUERIES, words=8, seed=3)
