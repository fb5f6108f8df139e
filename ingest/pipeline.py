"""Files to visible versions: readers ahead, the embedder in the middle, the record and its indexes behind.

    readers (processes) --outcomes--> embed, batch after batch --settled--> publish, index

The three overlap: while there is a backlog, the embedder has its next batch before it ends the last one.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from ingest.chunker import MIN_TOKENS
from ingest.errors import EmbedderMismatch
from ingest.outcomes import Failed, Moved, Outcome, Ready, Unchanged, Waiting
from ingest.read_ahead import ReadAhead
from ingest.reconciler import collection_of
from ingest.report import IngestProgress, IngestReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ingest.embedder import Embedder
    from ingest.partition.partitioner import Partitioner
    from ingest.reconciler import FoundFile, Plan
    from ingest.record import Record
    from ingest.values import KnownFile

log = structlog.get_logger(__name__)

TARGET_TOKENS = 320
EMBED_TEXTS = 64
# Special tokens, and what a tokenizer counts differently at a join.
_RESERVED_TOKENS = 8
# A batch that is not full waits so long for more: readers are faster, unless a large file keeps them.
_PATIENCE_SECONDS = 0.1
# One batch is embedded while the next one is cut into tokens and the last one stored.
_BATCHES_AHEAD = 2
_GROUP_DOCUMENTS, _GROUP_CHUNKS = 64, 512
_MAX_SETTLED = 256


def token_limit(embedder: Embedder) -> int:
    """Return how many tokens a chunk's embedding text may have, special tokens and prefix aside.

    Raises EmbedderMismatch when that leaves too few.
    """
    prefix = getattr(embedder.fingerprint, "document_prefix", "") or ""
    room = embedder.max_tokens - _RESERVED_TOKENS - (embedder.count_tokens(prefix) if prefix else 0)
    if room < MIN_TOKENS:
        raise EmbedderMismatch(
            f"the embedder reads {embedder.max_tokens} tokens and leaves {room} for a chunk;"
            f" at least {MIN_TOKENS} are needed"
        )
    return room


@dataclass(slots=True)
class _UnderWay:
    """A document on its way through the embedder. missing: hashes of texts that have no vector yet."""

    outcome: Outcome
    missing: set[bytes]
    n_chunks: int
    seconds: float = 0.0


class Pipeline:
    """Bring the files of a plan into the record; one run."""

    def __init__(
        self,
        record: Record,
        *,
        embedder: Embedder,
        embedder_id: int,
        stopping: threading.Event,
        published: Callable[[], object],
        report: IngestReport,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> None:
        """Prepare a run. published: called after every group of documents that became visible."""
        self._record = record
        self._embedder = embedder
        self._embedder_id = embedder_id
        self._stopping = stopping
        self._published = published
        self._report = report
        self._on_progress = on_progress
        self._claimed: set[int] = set()
        self._under_way: deque[_UnderWay] = deque()
        self._texts: dict[bytes, str] = {}  # to embed, in order
        self._embedding: deque[tuple[Future[float], list[bytes]]] = deque()
        self._settled: deque[Outcome] = deque()
        self._publishing: Future[None] | None = None
        self._progress_lock = threading.Lock()
        self._began = time.monotonic()
        self._n_done = self._bytes_done = self._n_total = self._bytes_total = 0

    def run(
        self,
        files: Sequence[FoundFile],
        plan: Plan,
        known: dict[str, KnownFile],
        *,
        root: Path,
        readers: Sequence[Partitioner],
    ) -> set[int]:
        """Ingest `files`; return the ids of documents of `plan.gone` that were found again elsewhere."""
        self._n_total, self._bytes_total = len(files), sum(file.facts.size for file in files)
        limit = token_limit(self._embedder)
        ahead = ReadAhead(
            files, plan, known, root=root, readers=readers[: len(files)], budget=min(TARGET_TOKENS, limit),
            limit=limit,
        )  # fmt: skip
        with (
            ThreadPoolExecutor(_BATCHES_AHEAD, "quarry-embedding") as embedding,
            ThreadPoolExecutor(1, "quarry-publishing") as publishing,
            ahead,
        ):
            while (taken := ahead.take(patience=_PATIENCE_SECONDS)) is not None:
                for outcome in taken:
                    self._enter(outcome)
                self._embed(embedding, publishing, all_of_it=not taken)
                if self._stopping.is_set():
                    break
            self._embed(embedding, publishing, all_of_it=True)
            self._publish(publishing, last=True)
        return self._claimed

    # --- the middle: embed --------------------------------------------------------------------------

    def _enter(self, outcome: Outcome) -> None:
        """Take an outcome in; its texts without a vector are put in line."""
        missing: set[bytes] = set()
        n_chunks = 0
        if isinstance(outcome, Ready):
            texts = {draft.text_hash: draft for draft in outcome.version.chunks}
            n_chunks = len(texts)
            # What another document has put in line is embedded once.
            missing = self._record.missing_vectors(self._embedder_id, list(texts))
            waiting = set(self._texts).union(*(hashes for _, hashes in self._embedding))
            fresh = [text_hash for text_hash in texts if text_hash in missing and text_hash not in waiting]
            self._texts |= {text_hash: texts[text_hash].embedding_text for text_hash in fresh}
            self._report.n_chunks_reused += len(outcome.version.chunks) - len(fresh)
        self._under_way.append(_UnderWay(outcome, missing, n_chunks))

    def _embed(
        self, embedding: ThreadPoolExecutor, publishing: ThreadPoolExecutor, *, all_of_it: bool
    ) -> None:
        """Embed full batches, or everything in line; what is whole is published meanwhile."""
        while not self._stopping.is_set() and (
            len(self._texts) >= EMBED_TEXTS or (all_of_it and (self._texts or self._embedding))
        ):
            hashes = [h for h, _ in zip(self._texts, range(EMBED_TEXTS), strict=False)]
            if hashes:
                texts = [self._texts.pop(h) for h in hashes]
                self._embedding.append((embedding.submit(self._embed_batch, hashes, texts), hashes))
            if len(self._embedding) >= _BATCHES_AHEAD or not hashes:
                self._finish_batch()
            self._settle(publishing)
        self._settle(publishing)

    def _embed_batch(self, hashes: list[bytes], texts: list[str]) -> float:
        """Embed and store one batch, which then survives a kill; return the seconds it took."""
        began = time.monotonic()
        vectors = self._embedder.embed(texts, kind="document")
        self._record.store_vectors(self._embedder_id, hashes, vectors)
        return time.monotonic() - began

    def _finish_batch(self) -> None:
        """Wait for the oldest batch and strike its texts off."""
        future, hashes = self._embedding.popleft()
        seconds = future.result() / len(hashes)
        done = set(hashes)
        for document in self._under_way:
            n = len(document.missing)
            document.missing -= done
            document.seconds += (n - len(document.missing)) * seconds
        self._report.n_chunks_embedded += len(hashes)
        self._tell("")

    # --- behind: publish ----------------------------------------------------------------------------

    def _settle(self, publishing: ThreadPoolExecutor) -> None:
        """Hand over the documents whose chunks all have vectors."""
        while self._under_way and not self._under_way[0].missing:
            document = self._under_way.popleft()
            outcome = document.outcome
            if isinstance(outcome, Ready):
                seconds = outcome.version.seconds + document.seconds
                version = dataclasses.replace(outcome.version, seconds=seconds)
                outcome = dataclasses.replace(outcome, version=version)
            self._settled.append(outcome)
        self._publish(publishing)

    def _publish(self, publishing: ThreadPoolExecutor, *, last: bool = False) -> None:
        """Publish what is settled, group by group; wait only where too much has piled up, or at the end."""
        while True:
            if self._publishing is not None:
                if not (last or self._publishing.done() or len(self._settled) > _MAX_SETTLED):
                    return
                self._publishing.result()
                self._publishing = None
            if not self._settled:
                return
            group: list[Outcome] = []
            n_chunks = 0
            while self._settled and len(group) < _GROUP_DOCUMENTS and n_chunks < _GROUP_CHUNKS:
                group.append(outcome := self._settled.popleft())
                n_chunks += len(outcome.version.chunks) if isinstance(outcome, Ready) else 0
            self._publishing = publishing.submit(self._publish_group, group)

    def _publish_group(self, group: Sequence[Outcome]) -> None:
        """Write a group of outcomes into the record, then into the indexes."""
        if versions := [outcome.version for outcome in group if isinstance(outcome, Ready)]:
            self._record.publish(*versions)
        for outcome in group:
            self._note(outcome)
            self._tell(outcome.file.path, outcome.file)
        self._published()

    def _note(self, outcome: Outcome) -> None:
        """Write an outcome into the record and the report; new versions stand in the record already."""
        report = self._report
        match outcome:
            case Unchanged(_, document_id, facts):
                self._record.touch(document_id, facts)
                report.unchanged += 1
            case Moved(file, document_id, facts):
                self._record.move(document_id, file.path, collection_of(file.path), facts)
                self._claimed.add(document_id)
                report.moved += 1
            case Waiting():
                report.waiting += 1
            case Failed() if self._stopping.is_set():
                pass  # the readers were ended: that says nothing about the file
            case Failed(file, sha256, reason, verdict, seen_before, seconds):
                self._record.fail(
                    file.path, collection_of(file.path), file.facts, sha256, reason,
                    verdict=verdict, seconds=seconds,
                )  # fmt: skip
                report.failed.append((file.path, reason))
                # What is tried again in every pass is said once.
                (log.debug if seen_before else log.warning)("document_failed", path=file.path, reason=reason)
            case Ready(_, _, is_new):
                report.added += is_new
                report.changed += not is_new

    def _tell(self, path: str, file: FoundFile | None = None) -> None:
        """Say how far the pass is; of documents under way, the embedded share counts."""
        with self._progress_lock:
            if file is not None:
                self._n_done += 1
                self._bytes_done += file.facts.size
            if self._on_progress is None:
                return
            partial = sum(
                document.outcome.file.facts.size * (1 - len(document.missing) / document.n_chunks)
                for document in tuple(self._under_way)
                if document.n_chunks
            )
            self._on_progress(
                IngestProgress(
                    self._n_done,
                    self._n_total,
                    min(self._bytes_total, self._bytes_done + int(partial)),
                    self._bytes_total,
                    self._report.n_chunks_embedded,
                    path,
                    time.monotonic() - self._began,
                )
            )
