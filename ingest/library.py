"""The library: everything that ingestion offers to the service, behind one door."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import structlog

from ingest.backup import INDEXES_NAME, RECORD_NAME, write_backup
from ingest.embedder import Embedder, fingerprint_key
from ingest.errors import (
    EmbedderMismatch,
    IndexDamaged,
    LibraryClosed,
)
from ingest.index_sync import IndexSync
from ingest.ownership import acquire
from ingest.partition import old_office
from ingest.partition.ocr import engine_name
from ingest.passes import Passes
from ingest.reconciler import collection_of
from ingest.record import Record
from ingest.report import IngestProgress, IngestReport, PendingFile
from ingest.status import LibraryStatus
from ingest.values import Chunk, ChunkDraft, CollectionInfo, DocumentInfo, FileFacts, Hit, NewVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ingest.partition.limits import Limits

__all__ = [
    "Chunk", "ChunkDraft", "CollectionInfo", "DocumentInfo", "Hit", "IngestProgress", "IngestReport",
    "Library", "LibraryStatus", "PendingFile",
]  # fmt: skip

log = structlog.get_logger(__name__)


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
        forget_copies: Callable[[], None],
    ) -> None:
        """Take over an open record and a held lock; use `Library.open`."""
        self.record = record
        self._lock = lock
        self._data_dir = data_dir
        self._embedder = embedder
        self.embedder_id = record.embedder_id(fingerprint_key(embedder), embedder.dimension)
        indexed_by = record.meta("index_embedder")
        self._index = IndexSync(
            record,
            data_dir / INDEXES_NAME,
            chroma_url=chroma_url,
            embedder_id=int(indexed_by) if indexed_by is not None else self.embedder_id,
        )
        self._passes = Passes(
            record,
            documents_dir,
            embedder=embedder,
            embedder_id=self.embedder_id,
            # Never mix vectors of two models: until re-embedded, dense search finds nothing, lexical goes on.
            embedder_changed=indexed_by is not None and int(indexed_by) != self.embedder_id,
            ready_index=self._reopened_index,
            settle_seconds=settle_seconds,
            limits=limits,
            pages_dir=data_dir / "reading",
            forget_copies=forget_copies,
        )
        self._closed = False
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
        forget_copies: Callable[[], None] = lambda: None,
    ) -> Library:
        """Open or create the library in `data_dir`; the indexes open in the background.

        settle_seconds: how long a file must rest before it is read. forget_copies: drops what others keep of
        passages, in prompts; called when deleted text is taken off the disk. It may raise EngineError.
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
                forget_copies=forget_copies,
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

    def _reopened_index(self) -> IndexSync:
        """Return the indexes, opened once more where that has failed: a Chroma server may be back."""
        self._require_open()
        self._index_ready.wait()
        if self._index_error is not None:
            self._index_error = None
            self._open_index()
        return self._ready_index()

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
        if self._passes.embedder_changed or limit < 1:
            return []
        return index.search_dense(vector, limit=limit, collections=collections)

    def search_lexical(self, query: str, *, limit: int, collections: frozenset[str] | None) -> list[Hit]:
        """Return the best chunks by BM25; any text is a valid query. score: see LexicalIndex.search."""
        return self._ready_index().search_lexical(query, limit=limit, collections=collections)

    def cosines(self, vector: NDArray[np.float32], ids: Sequence[int]) -> dict[int, float]:
        """Return the cosine of chunks with a query vector [dimension], of those that have a vector."""
        if self._passes.embedder_changed or not ids:
            return {}
        known = self.record.feed.indexed_chunks(self.embedder_id, ids)
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

    def collection_names(self) -> list[str]:
        """Return their names alone, which takes no time."""
        return self.record.collection_names()

    def is_empty(self, collections: frozenset[str] | None = None) -> bool:
        """Tell whether these collections, or all, hold nothing to search."""
        return self.record.is_empty(collections)

    def documents(self) -> list[DocumentInfo]:
        """Return every document with its state."""
        return self.record.documents()

    def pending(self) -> list[PendingFile]:
        """Return the files that the pass under way has still to read or to embed, by path."""
        return self._passes.pending()

    def status(self) -> LibraryStatus:
        """Return counts, and what is wrong where something is."""
        documents = self.record.documents()
        return LibraryStatus(
            n_documents=len(documents),
            n_chunks=sum(document.n_chunks for document in documents),
            n_failed=sum(document.state == "failed" for document in documents),
            n_quarantined=sum(document.state == "quarantined" for document in documents),
            n_waiting=self._passes.n_waiting,
            indexes_ready=self._index_ready.is_set() and self._index_error is None,
            index_error=str(self._index_error) if self._index_error else self._index.dense_fault,
            n_index_rebuilds=self._index.n_rebuilds,
            embedder_changed=self._passes.embedder_changed,
            progress=self._passes.progress,
            protections=self._passes.protections,
            skipped=tuple(self._passes.last_scan.skipped),
            unreadable=dict(self._passes.last_scan.unreadable),
            ocr=engine_name(),
            old_files="LibreOffice" if old_office.program() is not None else None,
        )

    # --- passes -------------------------------------------------------------------------------------

    def reconcile(self, *, on_progress: Callable[[IngestProgress], None] | None = None) -> IngestReport:
        """Bring the record up to the folder in one full pass; blocking.

        Files that have not settled are waited for once. What was deleted is not found any more when this
        returns. Raises DocumentsFolderMissing, StorageFull, IndexDamaged, and what the embedder raises.
        """
        return self._passes.reconcile(on_progress)

    def interrupt(self) -> None:
        """Let the pass under way end after its current step; there are no more of them, searches go on."""
        self._passes.stop()

    def start_watching(self) -> None:
        """Run passes in the background: at once, on hints of the file system, and periodically."""
        self._passes.start_watching()

    # --- upkeep -------------------------------------------------------------------------------------

    def insert(
        self,
        path: str,
        chunks: Sequence[ChunkDraft],
        vectors: NDArray[np.float32],
        *,
        facts: FileFacts = FileFacts(0, 0, 0),  # noqa: B008 - a frozen value
    ) -> int:
        """Add a document with given chunks and vectors [n, dimension]; return its id.

        For measurements and imports: the next pass removes it unless the folder has a file with `facts`.
        """
        with self._passes.lock:
            index = self._ready_index()
            self.record.store_vectors(self.embedder_id, [draft.text_hash for draft in chunks], vectors)
            version = NewVersion(path, collection_of(path), facts, b"", path, tuple(chunks))
            (document_id,) = self.record.publish(version)
            index.apply()
            return document_id

    def compact(self) -> None:
        """Rewrite record and indexes: no byte of deleted text or vectors is left in the data folder.

        Raises RecordError while somebody reads the record for long, LibraryClosed when the library closes.
        """
        self._passes.compact()

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
        with self._passes.lock:
            index.apply()
            indexes = index.audit()
        return [] if indexes is None else [f"indexes: {indexes}"]

    def reindex(self) -> None:
        """Build both indexes anew from the record; nothing is embedded again."""
        with self._passes.lock:
            self._ready_index().rebuild(stopping=self._passes.stopping)

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
        self._passes.stop()
        with self._passes.lock:
            self._closed = True
            self._opening.join()
            self._passes.close()
            self._index.close()
            self.record.close()
            os.close(self._lock)
