"""Files to outcomes, in threads ahead of the embedder; each thread has a reader's process of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingest.errors import (
    FileChanging,
    LimitExceeded,
    PartitionError,
    UndecodableText,
    UnreadableFile,
    UnsupportedFormat,
)
from ingest.outcomes import Failed, Moved, Outcome, Ready, Unchanged, Verdict, Waiting
from ingest.partition.formats import no_reader, readable
from ingest.reconciler import FoundFile, collection_of, opened
from ingest.values import NewVersion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from ingest.partition.partitioner import Partitioner
    from ingest.reconciler import Plan
    from ingest.values import KnownFile

# So much text may wait for the embedder: minutes of its work, and little memory.
_CHARACTERS_AHEAD = 4_000_000
_DOCUMENTS_AHEAD = 512
_FINAL = (UnsupportedFormat, LimitExceeded, UndecodableText)


class ReadAhead:
    """Read files with several readers at once and hand out what came of them; use as a context."""

    def __init__(
        self,
        files: Sequence[FoundFile],
        plan: Plan,
        known: dict[str, KnownFile],
        *,
        root: Path,
        readers: Sequence[Partitioner],
        budget: int,
        limit: int,
    ) -> None:
        """Prepare to read. budget, limit: tokens, as in `chunk`."""
        self._pending = deque(files)
        self._known = known
        self._root = root
        self._readers = readers
        self._budget = budget
        self._limit = limit
        # Copies of one content may be gone from several places: each is found again once.
        self._gone: dict[bytes, list[KnownFile]] = {}
        for lost in plan.gone:
            self._gone.setdefault(lost.sha256, []).append(lost)
        self._changed = threading.Condition()
        self._outcomes: deque[Outcome] = deque()
        self._n_characters = 0
        self._n_reading = len(readers)
        self._ended = False
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._read, args=(reader,), name="quarry-reading", daemon=True)
            for reader in readers
        ]

    def __enter__(self) -> ReadAhead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def take(self, *, patience: float) -> list[Outcome] | None:
        """Return what has come, [] when nothing comes in `patience` seconds, None after the last file.

        Raises what a reading thread raised: a fault of ours, not of a file.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._outcomes or self._error or self._n_reading == 0, timeout=patience
            )
            if self._error is not None:
                raise self._error
            if not self._outcomes and self._n_reading == 0:
                return None
            taken = list(self._outcomes)
            self._outcomes.clear()
            self._n_characters = 0
            self._changed.notify_all()
            return taken

    def _read(self, reader: Partitioner) -> None:
        try:
            while (file := self._next()) is not None:
                self._put(self._outcome(file, reader))
        except BaseException as error:  # noqa: BLE001 - raised again in the pass's own thread
            self._error = error
        finally:
            with self._changed:
                self._n_reading -= 1
                self._changed.notify_all()

    def _next(self) -> FoundFile | None:
        """Wait until there is room ahead, then return the next file; None when there is no more to do."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._ended
                    or self._error
                    or (self._n_characters < _CHARACTERS_AHEAD and len(self._outcomes) < _DOCUMENTS_AHEAD)
                )
            )
            done = self._ended or self._error is not None or not self._pending
            return None if done else self._pending.popleft()

    def _put(self, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes.append(outcome)
            if isinstance(outcome, Ready):
                self._n_characters += sum(len(draft.text) for draft in outcome.version.chunks)
            self._changed.notify_all()

    def _outcome(self, file: FoundFile, reader: Partitioner) -> Outcome:
        """Read one file."""
        old = self._known.get(file.path)
        suffix = PurePosixPath(file.path).suffix
        sha256 = b""
        began = time.monotonic()

        def failed(reason: str, verdict: Verdict) -> Failed:
            seen_before = old is not None and old.state != "indexed" and old.sha256 == sha256
            return Failed(file, sha256, reason, verdict, seen_before, time.monotonic() - began)

        if not readable(suffix):
            return failed(no_reader(suffix, alone=True), "final")
        try:
            with opened(self._root, file.path) as (descriptor, facts, sha256):
                if old is not None and old.sha256 == sha256 and old.state == "indexed":
                    return Unchanged(file, old.document_id, facts)
                if old is None and (moved := self._claim(sha256)) is not None:
                    return Moved(file, moved.document_id, facts)
                cut = reader.cut(
                    descriptor, path=file.path, budget=self._budget, limit=self._limit, sha256=sha256
                )
        except FileChanging:
            return Waiting(file)
        except UnreadableFile as error:
            return failed(str(error), "passing")
        except PartitionError as error:
            return failed(str(error), "final" if isinstance(error, _FINAL) else "counted")
        version = NewVersion(
            path=file.path,
            collection=collection_of(file.path),
            facts=facts,
            sha256=sha256,
            title=cut.title,
            chunks=cut.chunks,
            offsets_in_file=cut.offsets_in_file,
            seconds=time.monotonic() - began,
        )
        return Ready(file, version, is_new=old is None)

    def _claim(self, sha256: bytes) -> KnownFile | None:
        """Return a document with this content that is gone from its place, to one reader only."""
        with self._changed:
            candidates = self._gone.get(sha256)
            moved = candidates.pop() if candidates else None
        return moved if moved is not None and moved.state == "indexed" else None
