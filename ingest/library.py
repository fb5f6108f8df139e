"""The library: everything that ingestion offers to the service, behind one door."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import structlog

from ingest.backup import INDEXES_NAME, RECORD_NAME, write_backup
from ingest.embedder import Embedder, fingerprint_key
from ingest.errors import (
    EmbedderMismatch,
    IndexDamaged,
    LibraryClosed,
    RecordError,
)
from ingest.index_sync import IndexSync
from ingest.ownership import acquire
from ingest.partition.partitioner import Partitioner
from ingest.pipeline import IngestProgress, IngestReport, Pipeline
from ingest.reconciler import Scan, collection_of, compare, scan, settles_in
from ingest.record import Record
from ingest.reembed import reembed
from ingest.status import LibraryStatus
from ingest.values import Chunk, ChunkDraft, CollectionInfo, DocumentInfo, FileFacts, Hit, NewVersion
from ingest.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ingest.partition.limits import Limits
    from ingest.reconciler import FoundFile, Plan
    from ingest.values import KnownFile

__all__ = [
    "Chunk", "ChunkDraft", "CollectionInfo", "DocumentInfo", "Hit", "IngestProgress", "IngestReport",
    "Library", "LibraryStatus",
]  # fmt: skip

log = structlog.get_logger(__name__)

# The folder rests once nothing has come for so many times as long as a file must rest.
_RESTING = 5
# Compaction by itself rests so many times as long as it took: a large library spends 2 % of its time on it.
_COMPACTION_SHARE = 50
_COMPACTION_RETRY_SECONDS = 600


class Library:
    """Own a data folder: the record, its indexes, and the passes over the documents folder.

    Searches and reads may come from any thread; passes run one after the other.
    """

    def __init__(
        self,
        record: Record,
        lock: int,
        *,
        data_dir: Path,
        documents_dir: Path,
        embedder: Embedder,
        chroma_url: str | None,
        settle_seconds: float,
        limits: Limits | None,
    ) -> None:
        """Take over an open record and a held lock; use `Library.open`."""
        self.record = record
        self._lock = lock
        self._data_dir = data_dir
        self._documents_dir = documents_dir
        self._embedder = embedder
        self._settle_seconds = settle_seconds
        self._embedder_id = record.embedder_id(fingerprint_key(embedder), embedder.dimension)
        indexed_by = record.meta("index_embedder")
        # Never mix vectors of two models: until re-embedded, dense search finds nothing, lexical goes on.
        self._embedder_changed = indexed_by is not None and int(indexed_by) != self._embedder_id
        self._index = IndexSync(
            record,
            data_dir / INDEXES_NAME,
            chroma_url=chroma_url,
            embedder_id=int(indexed_by) if indexed_by is not None else self._embedder_id,
        )
        self._partitioner = Partitioner(limits)
        self._passing = threading.Lock()
        self._stopping = threading.Event()
        self._closed = False
        self._watcher: Watcher | None = None
        self._last_scan = Scan()
        self._n_waiting = 0
        self._progress: IngestProgress | None = None
        self._compact_from = 0.0  # time.monotonic()
        self._index_ready = threading.Event()
        self._index_error: Exception | None = None
        # Importing Chroma takes longer than starting all the rest: it happens beside it.
        self._opening = threading.Thread(target=self._open_index, name="quarry-indexes", daemon=True)
        self._opening.start()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        documents_dir: Path,
        embedder: Embedder,
        chroma_url: str | None = None,
        settle_seconds: float = 1.0,
        limits: Limits | None = None,
    ) -> Library:
        """Open or create the library in `data_dir`; the indexes open in the background.

        settle_seconds: how long a file must rest before it is read.
        Raises LibraryLocked when another process owns `data_dir`; RecordError.
        """
        lock = acquire(data_dir)
        record: Record | None = None
        try:
            record = Record.open(data_dir / RECORD_NAME)
            return cls(
                record,
                lock,
                data_dir=data_dir,
                documents_dir=documents_dir,
                embedder=embedder,
                chroma_url=chroma_url,
                settle_seconds=settle_seconds,
                limits=limits,
            )
        except BaseException:
            if record is not None:
                record.close()
            os.close(lock)
            raise

    def _open_index(self) -> None:
        try:
            self._index.open()
        except Exception as error:  # noqa: BLE001 - kept for whoever searches or reconciles next
            self._index_error = error
            log.error("index_unavailable", reason=str(error))
        finally:
            self._index_ready.set()

    def _retry_index(self) -> None:
        """Open the indexes once more where that has failed: a Chroma server may be back."""
        self._index_ready.wait()
        if self._index_error is not None:
            self._index_error = None
            self._open_index()

    def _ready_index(self) -> IndexSync:
        """Return the indexes once they are open; raises what opening them raised."""
        self._require_open()
        self._index_ready.wait()
        if self._index_error is not None:
            raise IndexDamaged(f"the search indexes cannot be opened: {self._index_error}")
        return self._index

    def _require_open(self) -> None:
        if self._closed:
            raise LibraryClosed("the library is closed")

    # --- searching and reading ----------------------------------------------------------------------

    def search_dense(
        self, vector: NDArray[np.float32], *, limit: int, collections: frozenset[str] | None
    ) -> list[Hit]:
        """Return the chunks nearest to a query vector [dimension], best first; score = cosine.

        Empty while a changed embedder's vectors are being made. Raises EmbedderMismatch on another length.
        """
        if vector.shape != (self._embedder.dimension,):
            raise EmbedderMismatch(
                f"the query vector has shape {vector.shape}; the embedder gives ({self._embedder.dimension},)"
            )
        index = self._ready_index()
        if self._embedder_changed or limit < 1:
            return []
        return index.search_dense(vector, limit=limit, collections=collections)

    def search_lexical(self, query: str, *, limit: int, collections: frozenset[str] | None) -> list[Hit]:
        """Return the best chunks by BM25; any text is a valid query. score: see LexicalIndex.search."""
        return self._ready_index().search_lexical(query, limit=limit, collections=collections)

    def cosines(self, vector: NDArray[np.float32], ids: Sequence[int]) -> dict[int, float]:
        """Return the cosine of chunks with a query vector [dimension], of those that have a vector."""
        if self._embedder_changed or not ids:
            return {}
        known = self.record.feed.indexed_chunks(self._embedder_id, ids)
        return {c.chunk_id: float(c.vector @ vector) for c in known if c.vector is not None}

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        """Return chunks in the order of `ids`; those no longer visible are left out."""
        return self.record.chunks(ids)

    def neighbours(self, chunk_id: int, *, before: int, after: int) -> list[Chunk]:
        """Return a chunk with its neighbours in the document, in reading order; [] when it is gone."""
        return self.record.neighbours(chunk_id, before=before, after=after)

    def document_chunks(self, path: str) -> list[Chunk]:
        """Return a document's chunks in reading order, as they are stored; none when it has none."""
        return [
            c for d in self.record.documents() if d.path == path for c in self.record.document_chunks(d.id)
        ]

    def collections(self) -> list[CollectionInfo]:
        """Return the collections that hold documents."""
        return self.record.collections()

    def documents(self) -> list[DocumentInfo]:
        """Return every document with its state."""
        return self.record.documents()

    def status(self) -> LibraryStatus:
        """Return counts, and what is wrong where something is."""
        documents = self.record.documents()
        return LibraryStatus(
            n_documents=len(documents),
            n_chunks=sum(document.n_chunks for document in documents),
            n_failed=sum(document.state == "failed" for document in documents),
            n_quarantined=sum(document.state == "quarantined" for document in documents),
            n_waiting=self._n_waiting,
            indexes_ready=self._index_ready.is_set() and self._index_error is None,
            index_error=None if self._index_error is None else str(self._index_error),
            n_index_rebuilds=self._index.n_rebuilds,
            embedder_changed=self._embedder_changed,
            progress=self._progress,
            protections=dict(self._partitioner.protections),
            skipped=tuple(self._last_scan.skipped),
            unreadable=dict(self._last_scan.unreadable),
        )

    # --- passes -------------------------------------------------------------------------------------

    def reconcile(self, *, on_progress: Callable[[IngestProgress], None] | None = None) -> IngestReport:
        """Bring the record up to the folder in one full pass; blocking.

        Files that have not settled are waited for once. What was deleted is not found any more when this
        returns. Raises DocumentsFolderMissing, StorageFull, IndexDamaged, and what the embedder raises.
        """
        report, unsettled = self._pass(on_progress)
        if unsettled is not None and not self._stopping.wait(unsettled):
            again, _ = self._pass(on_progress)
            report.merge(again)
        return report

    def start_watching(self) -> None:
        """Run passes in the background: at once, on hints of the file system, and periodically."""
        with self._passing:
            if self._stopping.is_set():
                raise LibraryClosed("the library is closed")
            if self._watcher is None:
                self._watcher = Watcher(self._documents_dir, self._watched_pass)
                self._watcher.start()

    def _pass(
        self, on_progress: Callable[[IngestProgress], None] | None
    ) -> tuple[IngestReport, float | None]:
        """Run one pass; return its report, and in how many seconds unsettled files will have settled."""
        with self._passing:
            self._require_open()
            self._retry_index()
            index = self._ready_index()
            self._adopt_embedder(index)
            found = scan(self._documents_dir)
            known = self.record.known_files()
            plan = compare(found, known)
            self._last_scan = found
            rests = {file.path: settles_in(file, self._settle_seconds) for file in plan.fresh}
            unsettled = [file for file in plan.fresh if rests[file.path] > 0]
            report = IngestReport(
                unchanged=plan.n_unchanged, waiting=len(unsettled), skipped=len(found.skipped)
            )
            settled = [file for file in plan.fresh if rests[file.path] == 0]
            claimed = self._ingest(settled, plan, known, report, on_progress, index)
            if not self._stopping.is_set():
                self._remove(plan, claimed, unsettled, report)
            index.apply()
            if report.added or report.changed or report.removed:
                self._drop_unused()
            self._n_waiting = report.waiting
            self._progress = None
            # Most passes find nothing: those are for whoever looks for a fault.
            (log.info if report.found_something else log.debug)(
                "pass_done", added=report.added, changed=report.changed, moved=report.moved,
                removed=report.removed, failed=len(report.failed), waiting=report.waiting,
            )  # fmt: skip
            pause = max((rests[file.path] for file in unsettled), default=None)
            if pause is None and report.waiting:
                pause = self._settle_seconds  # a file that changed while it was read
            return report, pause

    def _ingest(
        self,
        files: Sequence[FoundFile],
        plan: Plan,
        known: dict[str, KnownFile],
        report: IngestReport,
        on_progress: Callable[[IngestProgress], None] | None,
        index: IndexSync,
    ) -> set[int]:
        def progress(now: IngestProgress) -> None:
            self._progress = now
            if on_progress is not None:
                on_progress(now)

        pipeline = Pipeline(
            self.record,
            self._documents_dir,
            embedder=self._embedder,
            embedder_id=self._embedder_id,
            partitioner=self._partitioner,
            stopping=self._stopping,
            published=index.apply,
        )
        return pipeline.run(files, plan, known, report, progress)

    def _remove(
        self, plan: Plan, claimed: set[int], unsettled: Sequence[FoundFile], report: IngestReport
    ) -> None:
        """Delete what is gone; what may be moving to a file that has not settled is decided next time."""
        inodes = {file.facts.inode for file in unsettled}
        sizes = {file.facts.size for file in unsettled}
        gone = [
            old.document_id
            for old in plan.gone
            if old.document_id not in claimed
            and old.facts.inode not in inodes
            and old.facts.size not in sizes
        ]
        if gone:
            self.record.delete(gone)
            report.removed += len(gone)

    def _adopt_embedder(self, index: IndexSync) -> None:
        """Re-embed everything for a changed embedder and switch to it."""
        if not self._embedder_changed:
            return
        log.warning("reembedding", reason="the embedding model changed")
        if reembed(self.record, self._embedder, self._embedder_id, stopping=self._stopping):
            index.rebuild(self._embedder_id)
            self._embedder_changed = False
            self._drop_unused()

    def _drop_unused(self) -> None:
        # Vectors of the old embedder carry the old index until the switch.
        if not self._embedder_changed and not self._stopping.is_set():
            self.record.drop_unused(self._embedder_id)

    # --- upkeep -------------------------------------------------------------------------------------

    def insert(self, path: str, chunks: Sequence[ChunkDraft], vectors: NDArray[np.float32]) -> int:
        """Add a document with given chunks and vectors [n, dimension]; return its id.

        For measurements and imports: the next pass removes it again unless the folder has such a file.
        """
        with self._passing:
            index = self._ready_index()
            self.record.store_vectors(self._embedder_id, [draft.text_hash for draft in chunks], vectors)
            version = NewVersion(path, collection_of(path), FileFacts(0, 0, 0), b"", path, tuple(chunks))
            document_id = self.record.publish(version)
            index.apply()
            return document_id

    def compact(self) -> None:
        """Rewrite record and indexes: no byte of deleted text or vectors is left in the data folder.

        Raises RecordError while somebody reads the record for long, LibraryClosed when the library closes.
        """
        with self._passing:
            began = time.monotonic()
            index = self._ready_index()
            index.apply()
            self._drop_unused()
            self.record.compact()
            index.rebuild(stopping=self._stopping)
            self.record.note_compacted()
            ended = time.monotonic()
            self._compact_from = ended + _COMPACTION_SHARE * (ended - began)

    def _watched_pass(self) -> float | None:
        """Run a pass; once the folder rests, take what was deleted off the disk."""
        report, pause = self._pass(None)
        if pause is not None or not self.record.holds_deleted():
            return pause
        rest = max(self._compact_from - time.monotonic(), 0.0)
        if report.found_something or rest:
            return max(rest, _RESTING * self._settle_seconds)
        try:
            self.compact()
        except RecordError as error:
            self._compact_from = time.monotonic() + _COMPACTION_RETRY_SECONDS
            log.warning("compaction_failed", reason=str(error))
        else:
            log.info("compacted")
        return None

    def retry(self, path: str | None = None) -> list[str]:
        """Let the next pass read again what could not be read, all of it or one file; return the paths."""
        failed = [d.path for d in self.record.documents() if d.state != "indexed" and path in (None, d.path)]
        return [name for name in failed if self.record.retry(name)]

    def verify(self) -> list[str]:
        """Check record and indexes; return what is wrong, nothing when all is well."""
        index = self._ready_index()
        record = self.record.check()
        if record is not None:
            return [f"record: {record}"]
        with self._passing:
            index.apply()
            indexes = index.audit()
        return [] if indexes is None else [f"indexes: {indexes}"]

    def reindex(self) -> None:
        """Build both indexes anew from the record; nothing is embedded again."""
        with self._passing:
            self._ready_index().rebuild(stopping=self._stopping)

    def backup(self, out: Path) -> None:
        """Write the record, as it is at one moment, to `out`; passes go on meanwhile."""
        self._require_open()
        write_backup(self._data_dir / RECORD_NAME, out)

    def check_indexes(self) -> str | None:
        """Audit the indexes; return what is wrong, None when nothing."""
        return self._ready_index().audit()

    def close(self) -> None:
        """Stop the pass under way after its current step, close everything, release the lock."""
        if self._closed:
            return
        self._stopping.set()
        self._partitioner.interrupt()
        with self._passing:
            watcher = self._watcher  # none comes after this: start_watching() looks at _stopping
        if watcher is not None:
            watcher.stop()
        with self._passing:
            self._closed = True
            self._opening.join()
            self._partitioner.close()
            self._index.close()
            self.record.close()
            os.close(self._lock)
