"""Passes over the documents folder: compare, read what is new, remove what is gone; and upkeep in between."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import structlog

from engine.errors import EngineError
from ingest.errors import LibraryClosed, RecordError
from ingest.partition.page_log import PageStore
from ingest.partition.partitioner import Partitioner
from ingest.pipeline import Pipeline
from ingest.reconciler import Scan, compare, scan, settles_in
from ingest.reembed import reembed
from ingest.report import IngestProgress, IngestReport, PendingFile
from ingest.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ingest.embedder import Embedder
    from ingest.index_sync import IndexSync
    from ingest.partition.limits import Limits
    from ingest.reconciler import FoundFile, Plan
    from ingest.record import Record

log = structlog.get_logger(__name__)

# More readers than this only take memory: the embedder is slower than two.
_MAX_READERS = 4
# The folder rests once nothing has come for so many times as long as a file must rest.
_RESTING = 5
# Compaction by itself rests so many times as long as it took: a large library spends 2 % of its time on it.
_COMPACTION_SHARE = 50
_COMPACTION_RETRY_SECONDS = 600


class Passes:
    """Run passes one after the other, on request or in the background."""

    def __init__(
        self,
        record: Record,
        documents_dir: Path,
        *,
        embedder: Embedder,
        embedder_id: int,
        embedder_changed: bool,
        ready_index: Callable[[], IndexSync],
        settle_seconds: float,
        limits: Limits | None,
        pages_dir: Path,
        forget_copies: Callable[[], None],
    ) -> None:
        """Prepare; ready_index waits for the indexes, tries once more where opening failed, and may raise.

        pages_dir: where the pages of long documents are kept while they are being read. forget_copies: drops
        what others keep of passages; called when deleted text is taken off the disk.
        """
        self._record = record
        self._documents_dir = documents_dir
        self._embedder = embedder
        self._embedder_id = embedder_id
        self.embedder_changed = embedder_changed
        self._ready_index = ready_index
        self._settle_seconds = settle_seconds
        self._forget_copies = forget_copies
        n_readers = max(1, min(_MAX_READERS, os.cpu_count() or 1))
        self._pages = PageStore(pages_dir)
        self._readers = [
            Partitioner(limits, count_tokens=embedder.token_counter, pages=self._pages)
            for _ in range(n_readers)
        ]
        self.lock = threading.RLock()
        """Held by whoever changes the library."""
        self.stopping = threading.Event()
        self._watcher: Watcher | None = None
        self._compact_from = 0.0  # time.monotonic()
        self.last_scan = Scan()
        self.n_waiting = 0
        self.progress: IngestProgress | None = None
        self._pending: dict[str, int] = {}  # path to size, of the pass under way

    @property
    def protections(self) -> dict[str, bool]:
        """Tell what confines the readers, by name; empty before the first document."""
        return dict(next((r.protections for r in self._readers if r.protections), {}))

    def pending(self) -> list[PendingFile]:
        """Return the files that the pass under way has not finished, in the order of their paths."""
        return [PendingFile(path, size) for path, size in self._pending.copy().items()]

    def reconcile(self, on_progress: Callable[[IngestProgress], None] | None) -> IngestReport:
        """Run one full pass; files that have not settled are waited for once."""
        report, unsettled = self._pass(on_progress)
        if unsettled is not None and not self.stopping.wait(unsettled):
            again, _ = self._pass(on_progress)
            report.merge(again)
        return report

    def start_watching(self) -> None:
        """Run passes in the background: at once, on hints of the file system, and periodically."""
        with self.lock:
            if self.stopping.is_set():
                raise LibraryClosed("the library is closed")
            if self._watcher is None:
                self._watcher = Watcher(self._documents_dir, self._watched_pass)
                self._watcher.start()

    def stop(self) -> None:
        """End the pass under way after its current step, and the watching."""
        self.stopping.set()
        for reader in self._readers:
            reader.interrupt()
        with self.lock:
            watcher = self._watcher  # none comes after this: start_watching() looks at `stopping`
        if watcher is not None:
            watcher.stop()

    def close(self) -> None:
        """End the readers' processes; after stop()."""
        for reader in self._readers:
            reader.close()

    def compact(self) -> None:
        """Rewrite record and indexes, so that no byte of what was deleted is left."""
        with self.lock:
            began = time.monotonic()
            index = self._ready_index()
            index.apply()
            self._drop_unused()
            self._record.compact()
            try:
                self._forget_copies()
            except EngineError as error:
                raise RecordError(f"prompts may hold what was deleted: {error}; compact again") from error
            index.rebuild(stopping=self.stopping)
            self._record.note_compacted()
            ended = time.monotonic()
            self._compact_from = ended + _COMPACTION_SHARE * (ended - began)

    def _watched_pass(self) -> float | None:
        """Run a pass; once the folder rests, take what was deleted off the disk."""
        report, pause = self._pass(None)
        if pause is not None or not self._record.holds_deleted():
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

    def _pass(
        self, on_progress: Callable[[IngestProgress], None] | None
    ) -> tuple[IngestReport, float | None]:
        """Run one pass; return its report, and in how many seconds unsettled files will have settled."""
        with self.lock:
            index = self._ready_index()
            self._adopt_embedder(index)
            found = scan(self._documents_dir)
            plan = compare(found, known := self._record.known_files())
            self.last_scan = found
            rests = {file.path: settles_in(file, self._settle_seconds) for file in plan.fresh}
            unsettled = [file for file in plan.fresh if rests[file.path] > 0]
            report = IngestReport(
                unchanged=plan.n_unchanged, waiting=len(unsettled), skipped=len(found.skipped)
            )
            settled = [file for file in plan.fresh if rests[file.path] == 0]
            claimed: set[int] = set()
            if settled:
                pipeline = self._pipeline(settled, index, report, on_progress)
                try:
                    claimed = pipeline.run(
                        settled, plan, known, root=self._documents_dir, readers=self._readers
                    )
                finally:
                    self.progress, self._pending = None, {}
            if not self.stopping.is_set():
                self._remove(plan, claimed, unsettled, report)
                # What is in the record needs its pages no more; what failed goes on from them, if need be
                # after `quarry retry`.
                known = self._record.known_files()
                self._pages.keep_only(old.sha256 for old in known.values() if old.state != "indexed")
            index.apply()
            if report.added or report.changed or report.removed:
                self._drop_unused()
            self.n_waiting = report.waiting
            # Most passes find nothing: those are for whoever looks for a fault.
            (log.info if report.found_something else log.debug)(
                "pass_done", added=report.added, changed=report.changed, moved=report.moved,
                removed=report.removed, failed=len(report.failed), waiting=report.waiting,
            )  # fmt: skip
            pause = max((rests[file.path] for file in unsettled), default=None)
            if pause is None and report.waiting:
                pause = self._settle_seconds  # a file that changed while it was read
            return report, pause

    def _pipeline(
        self,
        files: Sequence[FoundFile],
        index: IndexSync,
        report: IngestReport,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> Pipeline:
        self._pending = {file.path: file.facts.size for file in files}

        def progress(now: IngestProgress) -> None:
            self.progress = now
            self._pending.pop(now.path, None)
            if on_progress is not None:
                on_progress(now)

        return Pipeline(
            self._record,
            embedder=self._embedder,
            embedder_id=self._embedder_id,
            stopping=self.stopping,
            published=index.apply,
            report=report,
            on_progress=progress,
        )

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
            self._record.delete(gone)
            report.removed += len(gone)

    def _adopt_embedder(self, index: IndexSync) -> None:
        """Re-embed everything for a changed embedder and switch to it."""
        if not self.embedder_changed:
            return
        log.warning("reembedding", reason="the embedding model changed")
        if reembed(self._record, self._embedder, self._embedder_id, stopping=self.stopping):
            index.rebuild(self._embedder_id)
            self.embedder_changed = False
            self._drop_unused()

    def _drop_unused(self) -> None:
        # Vectors of the old embedder carry the old index until the switch.
        if not self.embedder_changed and not self.stopping.is_set():
            self._record.drop_unused(self._embedder_id)
