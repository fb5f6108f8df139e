"""Keep Chroma and tantivy equal to the record: apply the queue, audit, rebuild.

Both live in folders named by a generation, `indexes/<n>/`. A rebuild writes the next generation beside the
current one and switches by one row in the record; folders of other generations are leftovers of a kill and
are removed. Nothing is ever embedded again.

Chroma rewrites its files in place without fsync, so a note in the record says when a write is under way: who
finds it set was killed in mid-write, and rebuilds.

Where Chroma neither answers nor can be rebuilt (a server is away; a disk became read-only, and Chroma writes
even while it searches), the record's own vectors are searched until a pass has mended it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from typing import TYPE_CHECKING

import numpy as np
import structlog

from ingest.dense_index import DenseIndex
from ingest.errors import IndexChanging, IndexDamaged, LibraryClosed, StorageFull
from ingest.exact_search import nearest
from ingest.lexical_index import LexicalIndex
from ingest.words import WORDS_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ingest.index_feed import IndexedChunk, IndexOperation
    from ingest.record import Record
    from ingest.values import Hit

log = structlog.get_logger(__name__)

AUDIT_SAMPLES = 24
# Chroma leaves live rows unreachable after many deletes: audit again after so many of them.
DELETES_BEFORE_AUDIT = 2000
_QUEUE_ROWS = 512
_TRIES = 3
_REBUILD_ROWS = 128


class IndexSync:
    """Own both derived indexes; searches from any thread, writes under one lock."""

    def __init__(self, record: Record, folder: Path, *, chroma_url: str | None, embedder_id: int) -> None:
        self._record = record
        self._folder = folder
        self._chroma_url = chroma_url
        self._embedder_id = embedder_id
        self._lock = threading.RLock()
        self._dense: DenseIndex | None = None
        self._lexical: LexicalIndex | None = None
        self.n_rebuilds = 0
        self.dense_fault: str | None = None
        """Why dense searches go through the record for now."""

    # --- opening ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open both indexes, audit them, rebuild on any doubt, then apply what is queued."""
        with self._lock:
            self._remove_leftovers()
            reason = self._open_and_audit()
            if reason is not None:
                if self._generation():
                    log.warning("index_rebuild", reason=reason)
                self.rebuild()
                self.n_rebuilds -= self._generation() == 1  # the first build repairs nothing
            self.apply()

    def _open_and_audit(self) -> str | None:
        """Return why the indexes cannot be trusted, None when they can."""
        if self._record.meta("index_generation") is None:
            return "there are no indexes yet"
        if self._record.meta("index_writing") == "1":
            return "the last write was cut off"
        if self._record.meta("index_words") != WORDS_VERSION:
            return "words are cut in another way now"
        if self._record.meta("index_embedder") != str(self._embedder_id):
            return "the indexes hold vectors of another embedder"
        changed = self._changed_file()
        if changed is not None:
            return f"{changed} is not as it was left"
        try:
            self._open_generation()
            self.apply()
            return self.audit()
        except IndexDamaged as error:
            return str(error)

    def _open_generation(self) -> None:
        folder = self._generation_folder()
        self._lexical = LexicalIndex.open(folder / "lexical")
        self._dense = DenseIndex.open(
            folder / "dense", url=self._chroma_url, prefix=self._prefix(self._generation())
        )

    def _generation(self) -> int:
        return int(self._record.meta("index_generation") or 0)

    def _generation_folder(self) -> Path:
        return self._folder / str(self._generation())

    def _prefix(self, generation: int) -> str:
        # ASCII, and apart from other libraries and generations on a shared server.
        return f"quarry-{self._record.meta('library_id')}-{generation}-"

    def _remove_leftovers(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        current = self._generation_folder()
        for folder in self._folder.iterdir():
            if folder != current:
                shutil.rmtree(folder, ignore_errors=True)

    # --- searching ----------------------------------------------------------------------------------

    def search_dense(
        self, vector: NDArray[np.float32], *, limit: int, collections: frozenset[str] | None
    ) -> list[Hit]:
        """Return the nearest visible chunks, best first."""
        ids = self._record.collection_ids(collections)

        def find(n: int) -> list[Hit]:
            dense = self._dense
            return [] if dense is None else dense.search(vector, limit=n, collection_ids=ids)

        if self.dense_fault is None:
            try:
                return self._searching(lambda: self._visible(find, limit, collections))
            except (IndexDamaged, StorageFull) as error:
                log.error("dense_index_unavailable", reason=str(error))
                self.dense_fault = str(error)
        return nearest(self._record.feed, self._embedder_id, vector, limit=limit, collection_ids=ids)

    def search_lexical(self, query: str, *, limit: int, collections: frozenset[str] | None) -> list[Hit]:
        """Return the best visible chunks by BM25; raises IndexDamaged when a rebuild does not help."""
        ids = None if collections is None else self._record.collection_ids(collections)

        def find(n: int) -> list[Hit]:
            lexical = self._lexical
            return [] if lexical is None else lexical.search(query, limit=n, collection_ids=ids)

        return self._searching(lambda: self._visible(find, limit, collections))

    def _searching(self, search: Callable[[], list[Hit]]) -> list[Hit]:
        """Search; a fault that stays while nobody writes is damage: then rebuild and search once more."""
        seen = self.n_rebuilds
        for _ in range(_TRIES):
            try:
                return search()
            except IndexChanging:
                continue
            except IndexDamaged:
                break
        with self._lock:
            if self.n_rebuilds == seen:
                try:
                    return search()
                except IndexDamaged as error:
                    log.warning("index_rebuild", reason=str(error))
                    self.rebuild()
        return search()

    def _visible(
        self, find: Callable[[int], list[Hit]], limit: int, collections: frozenset[str] | None
    ) -> list[Hit]:
        """Drop hits that the record does not show; ask for more while too few are left."""
        asked = limit
        while True:
            found = find(asked)
            visible = self._record.visible((hit.chunk_id for hit in found), collections)
            hits = [hit for hit in found if hit.chunk_id in visible]
            if len(hits) >= limit or len(found) < asked:
                return hits[:limit]
            asked *= 4

    # --- writing ------------------------------------------------------------------------------------

    def apply(self) -> int:
        """Bring both indexes up to the record's queue; return the number of operations applied."""
        with self._lock:
            dense, lexical = self._dense, self._lexical
            if dense is None or lexical is None:
                return 0
            n = 0
            n_deleted = int(self._record.meta("index_deletes") or 0)
            while operations := self._record.feed.queue_after(0, limit=_QUEUE_ROWS):
                self._record.set_meta(index_writing="1")
                try:
                    n_deleted += self._write(dense, lexical, operations)
                except IndexDamaged as error:
                    log.warning("index_rebuild", reason=str(error))
                    self.rebuild()
                    return n
                self._record.feed.prune_queue(operations[-1].seq)
                n += len(operations)
                self._record.set_meta(
                    index_writing="0", index_files=self._file_sizes(), index_deletes=str(n_deleted)
                )
            if n_deleted >= DELETES_BEFORE_AUDIT or self.dense_fault is not None:
                self._record.set_meta(index_deletes="0")
                reason = self.audit()
                if reason is not None:
                    log.warning("index_rebuild", reason=reason)
                    self.rebuild()
                self.dense_fault = None
            return n

    def _write(self, dense: DenseIndex, lexical: LexicalIndex, operations: Sequence[IndexOperation]) -> int:
        """Apply one batch; every step may be repeated without harm. Return the number of removals."""
        removed: dict[int, list[int]] = {}
        added: set[int] = set()
        for operation in operations:
            if operation.operation == "remove":
                removed.setdefault(operation.collection_id, []).append(operation.chunk_id)
            else:
                added.add(operation.chunk_id)
        for collection_id, ids in removed.items():
            dense.delete(collection_id, ids)
            lexical.delete(ids)
        # What was added and is gone again has no row in the record any more, and is left out here.
        _add(dense, lexical, self._record.feed.indexed_chunks(self._embedder_id, sorted(added)))
        lexical.commit()
        return sum(map(len, removed.values()))

    def rebuild(self, embedder_id: int | None = None, *, stopping: threading.Event | None = None) -> None:
        """Write both indexes anew from the record and switch to them; the old ones are deleted.

        embedder_id: whose vectors to take from now on. stopping: where it gets set, LibraryClosed is raised
        and everything stays as it was.
        """
        with self._lock:
            self.n_rebuilds += 1
            old_dense, old_lexical, old_folder = self._dense, self._lexical, self._generation_folder()
            embedder_id = embedder_id or self._embedder_id
            generation = self._generation() + 1
            last = self._record.feed.last_seq()
            dense, lexical = self._build(generation, embedder_id, stopping)
            self._record.set_meta(
                index_generation=str(generation),
                index_embedder=str(embedder_id),
                index_words=WORDS_VERSION,
                index_writing="0",
                index_deletes="0",
            )
            # Only now: killed before, the old generation still had its queue.
            self._record.feed.prune_queue(last)
            self._dense, self._lexical, self._embedder_id = dense, lexical, embedder_id
            self.dense_fault = None
            self._record.set_meta(index_files=self._file_sizes())
            if old_lexical is not None:
                old_lexical.close()
            if old_dense is not None:
                if self._chroma_url is not None:
                    with contextlib.suppress(IndexDamaged):
                        old_dense.drop()
                old_dense.close()
            shutil.rmtree(old_folder, ignore_errors=True)

    def _build(
        self, generation: int, embedder_id: int, stopping: threading.Event | None
    ) -> tuple[DenseIndex, LexicalIndex]:
        """Write a generation from the record into new folders."""
        folder = self._folder / str(generation)
        shutil.rmtree(folder, ignore_errors=True)
        prefix = self._prefix(generation)
        dense = DenseIndex.open(folder / "dense", url=self._chroma_url, prefix=prefix)
        try:
            dense.drop()  # on a server, a rebuild that was cut off leaves collections of the same name
            lexical = LexicalIndex.open(folder / "lexical")
            after = 0
            while rows := self._record.feed.indexed_chunks_after(embedder_id, after, limit=_REBUILD_ROWS):
                if stopping is not None and stopping.is_set():
                    raise LibraryClosed("the library is closing")
                _add(dense, lexical, rows)
                after = rows[-1].chunk_id
            lexical.commit()
        except BaseException:
            dense.close()
            raise
        return dense, lexical

    # --- auditing -----------------------------------------------------------------------------------

    def audit(self) -> str | None:
        """Compare counts and let sampled chunks find themselves; return what is wrong, None when nothing."""
        with self._lock:
            dense, lexical = self._dense, self._lexical
            if dense is None or lexical is None:
                return "the indexes are not open"
            try:
                counts = self._record.feed.chunk_counts()
                for collection_id in dense.collection_ids() | set(counts):
                    found, expected = dense.count(collection_id), counts.get(collection_id, 0)
                    if found != expected:
                        return f"dense index: {found} rows of collection {collection_id}, not {expected}"
                if lexical.count() != sum(counts.values()):
                    return f"lexical index: {lexical.count()} chunks, not {sum(counts.values())}"
                return self._audit_samples(dense, lexical)
            except IndexDamaged as error:
                return str(error)

    def _audit_samples(self, dense: DenseIndex, lexical: LexicalIndex) -> str | None:
        ids = self._record.feed.sample_chunks(AUDIT_SAMPLES)
        for chunk in self._record.feed.indexed_chunks(self._embedder_id, ids):
            if not lexical.contains(chunk.chunk_id):
                return f"lexical index: chunk {chunk.chunk_id} is missing"
            if chunk.vector is None:
                return f"chunk {chunk.chunk_id} has no vector"
            hits = dense.search(chunk.vector, limit=4, collection_ids=[chunk.collection_id])
            # Equal texts have equal vectors: the score tells, not the id.
            if not hits or (np.any(chunk.vector) and hits[0].score < 0.999):
                return f"dense index: chunk {chunk.chunk_id} does not find itself"
        return None

    def _file_sizes(self) -> str:
        """Return the sizes of Chroma's vector files, which it rewrites in place, as JSON."""
        folder = self._generation_folder()
        return json.dumps(
            {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.glob("dense/*/*.bin"))}
        )

    def _changed_file(self) -> str | None:
        """Return a vector file that is missing or has another size than after our last write."""
        folder = self._generation_folder()
        for name, size in json.loads(self._record.meta("index_files") or "{}").items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                return str(name)
        return None

    def close(self) -> None:
        """Let go of both indexes."""
        with self._lock:
            if self._lexical is not None:
                self._lexical.close()
            if self._dense is not None:
                self._dense.close()
            self._dense = self._lexical = None


def _add(dense: DenseIndex, lexical: LexicalIndex, chunks: Sequence[IndexedChunk]) -> None:
    """Write chunks into both indexes; those without a vector into the lexical one only."""
    lexical.add((chunk.chunk_id, chunk.collection_id, f"{chunk.name}\n{chunk.text}") for chunk in chunks)
    by_collection: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for chunk in chunks:
        if chunk.vector is not None:
            by_collection.setdefault(chunk.collection_id, []).append((chunk.chunk_id, chunk.vector))
    for collection_id, rows in by_collection.items():
        dense.upsert(collection_id, [row[0] for row in rows], np.stack([row[1] for row in rows]))
