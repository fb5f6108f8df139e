"""Files to visible versions: partition and chunk in a thread ahead, embed and publish behind it."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

import structlog

from ingest.chunker import MIN_TOKENS, chunk
from ingest.errors import (
    EmbedderMismatch,
    FileChanging,
    LimitExceeded,
    PartitionError,
    UndecodableText,
    UnreadableFile,
    UnsupportedFormat,
)
from ingest.partition.formats import no_reader, supported
from ingest.reconciler import FoundFile, collection_of, opened
from ingest.values import ChunkDraft, Element, FileFacts, NewVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ingest.embedder import Embedder
    from ingest.partition.partitioner import Partitioner
    from ingest.reconciler import Plan
    from ingest.record import Record
    from ingest.values import KnownFile

log = structlog.get_logger(__name__)

TARGET_TOKENS = 320
EMBED_TEXTS = 64
# Special tokens, and what a tokenizer counts differently at a join.
_RESERVED_TOKENS = 8
_PARSED_AHEAD = 8
_FINAL = (UnsupportedFormat, LimitExceeded, UndecodableText)


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far a pass is; the totals are those of the whole pass, known before it starts."""

    n_done: int
    n_total: int
    bytes_done: int
    bytes_total: int
    n_chunks_embedded: int
    path: str


@dataclass(slots=True)
class IngestReport:
    """What a pass did. waiting: files that have not settled yet; failed: path and reason."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    waiting: int = 0
    skipped: int = 0
    n_chunks_embedded: int = 0
    n_chunks_reused: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def found_something(self) -> bool:
        """Tell whether the folder was not as the record had it."""
        return bool(self.added or self.changed or self.moved or self.removed or self.waiting)

    def merge(self, again: IngestReport) -> None:
        """Add a second pass of the same call."""
        self.added += again.added
        self.changed += again.changed
        self.moved += again.moved
        self.removed += again.removed
        self.n_chunks_embedded += again.n_chunks_embedded
        self.n_chunks_reused += again.n_chunks_reused
        self.failed += [failure for failure in again.failed if failure not in self.failed]
        self.waiting = again.waiting


@dataclass(frozen=True, slots=True)
class _Unchanged:
    file: FoundFile
    document_id: int
    facts: FileFacts


@dataclass(frozen=True, slots=True)
class _Moved:
    file: FoundFile
    document_id: int
    facts: FileFacts


@dataclass(frozen=True, slots=True)
class _Failed:
    file: FoundFile
    sha256: bytes
    reason: str
    verdict: Literal["passing", "counted", "final"]
    seen_before: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    file: FoundFile


@dataclass(frozen=True, slots=True)
class _Ready:
    file: FoundFile
    version: NewVersion
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Broken:
    """The preparing thread itself failed: a fault of ours, raised where the pass runs."""

    error: BaseException


_Outcome = _Unchanged | _Moved | _Failed | _Waiting | _Ready | _Broken


def chunk_budget(embedder: Embedder) -> int:
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
    return min(TARGET_TOKENS, room)


class Pipeline:
    """Bring the files of a plan into the record; one run at a time."""

    def __init__(
        self,
        record: Record,
        root: Path,
        *,
        embedder: Embedder,
        embedder_id: int,
        partitioner: Partitioner,
        stopping: threading.Event,
        published: Callable[[], object],
    ) -> None:
        """Prepare a run. published: called after every group of documents that became visible."""
        self._record = record
        self._root = root
        self._embedder = embedder
        self._embedder_id = embedder_id
        self._partitioner = partitioner
        self._stopping = stopping
        self._published = published

    def run(
        self,
        files: Sequence[FoundFile],
        plan: Plan,
        known: dict[str, KnownFile],
        report: IngestReport,
        on_progress: Callable[[IngestProgress], None] | None,
    ) -> set[int]:
        """Ingest `files`; return the ids of documents of `plan.gone` that were found again elsewhere."""
        claimed: set[int] = set()
        bytes_total = sum(file.facts.size for file in files)
        n_done = bytes_done = 0

        def progress(path: str, file: FoundFile | None = None) -> None:
            nonlocal n_done, bytes_done
            if file is not None:
                n_done += 1
                bytes_done += file.facts.size
            if on_progress is not None:
                on_progress(
                    IngestProgress(
                        n_done, len(files), bytes_done, bytes_total, report.n_chunks_embedded, path
                    )
                )

        for group in self._groups(files, plan, known):
            ready = [outcome for outcome in group if isinstance(outcome, _Ready)]
            self._embed([draft for r in ready for draft in r.version.chunks], report, progress)
            if self._stopping.is_set():
                break  # some vectors may be missing: publish nothing, the stored ones serve the next pass
            for outcome in group:
                self._settle(outcome, report, claimed)
                if not isinstance(outcome, _Broken):
                    progress(outcome.file.path, outcome.file)
            self._published()
        return claimed

    # --- behind: embed and publish ------------------------------------------------------------------

    def _settle(self, outcome: _Outcome, report: IngestReport, claimed: set[int]) -> None:
        """Write one outcome into the record."""
        match outcome:
            case _Broken(error):
                raise error
            case _Unchanged(_, document_id, facts):
                self._record.touch(document_id, facts)
                report.unchanged += 1
            case _Moved(file, document_id, facts):
                self._record.move(document_id, file.path, collection_of(file.path), facts)
                claimed.add(document_id)
                report.moved += 1
            case _Waiting():
                report.waiting += 1
            case _Failed(file, sha256, reason, verdict, seen_before):
                collection = collection_of(file.path)
                self._record.fail(file.path, collection, file.facts, sha256, reason, verdict=verdict)
                report.failed.append((file.path, reason))
                # What is tried again in every pass is said once.
                (log.debug if seen_before else log.warning)("document_failed", path=file.path, reason=reason)
            case _Ready(_, version, is_new):
                self._record.publish(version)
                if is_new:
                    report.added += 1
                else:
                    report.changed += 1

    def _embed(
        self, drafts: Sequence[ChunkDraft], report: IngestReport, progress: Callable[[str], None]
    ) -> None:
        """Embed the texts that have no vector yet; every stored batch survives a kill."""
        texts = {draft.text_hash: draft.embedding_text for draft in drafts}
        missing = self._record.missing_vectors(self._embedder_id, list(texts))
        todo = [text_hash for text_hash in texts if text_hash in missing]
        report.n_chunks_reused += len(drafts) - len(todo)
        for start in range(0, len(todo), EMBED_TEXTS):
            if self._stopping.is_set():
                return
            hashes = todo[start : start + EMBED_TEXTS]
            vectors = self._embedder.embed([texts[h] for h in hashes], kind="document")
            self._record.store_vectors(self._embedder_id, hashes, vectors)
            report.n_chunks_embedded += len(hashes)
            progress("")

    # --- ahead: read, partition, chunk --------------------------------------------------------------

    def _groups(
        self, files: Sequence[FoundFile], plan: Plan, known: dict[str, KnownFile]
    ) -> Iterator[list[_Outcome]]:
        """Yield outcomes in groups that fill an embedding batch, while the next ones are prepared."""
        outcomes: queue.Queue[_Outcome | None] = queue.Queue(maxsize=_PARSED_AHEAD)
        ended = threading.Event()

        def put(outcome: _Outcome | None) -> bool:
            while not ended.is_set():
                try:
                    outcomes.put(outcome, timeout=0.2)
                except queue.Full:
                    continue
                return True
            return False

        def prepare() -> None:
            gone: dict[bytes, list[KnownFile]] = {}
            for lost in plan.gone:
                gone.setdefault(lost.sha256, []).append(lost)
            try:
                for file in files:
                    if self._stopping.is_set() or not put(self._prepare(file, known.get(file.path), gone)):
                        break
            except BaseException as error:  # noqa: BLE001 - raised again in the pass's own thread
                put(_Broken(error))
            put(None)

        thread = threading.Thread(target=prepare, name="quarry-partition", daemon=True)
        thread.start()
        try:
            group: list[_Outcome] = []
            n_chunks = 0
            while (outcome := outcomes.get()) is not None:
                group.append(outcome)
                n_chunks += len(outcome.version.chunks) if isinstance(outcome, _Ready) else 0
                if n_chunks >= EMBED_TEXTS or outcomes.empty():
                    yield group
                    group, n_chunks = [], 0
            if group:
                yield group
        finally:
            ended.set()
            thread.join()

    def _prepare(
        self, file: FoundFile, old: KnownFile | None, gone: dict[bytes, list[KnownFile]]
    ) -> _Outcome:
        suffix = PurePosixPath(file.path).suffix
        sha256 = b""

        def failed(reason: str, verdict: Literal["passing", "counted", "final"]) -> _Failed:
            seen_before = old is not None and old.state != "indexed" and old.sha256 == sha256
            return _Failed(file, sha256, reason, verdict, seen_before)

        if not supported(suffix):
            return failed(no_reader(suffix), "final")
        try:
            with opened(self._root, file.path) as (descriptor, facts, sha256):
                if old is not None and old.sha256 == sha256 and old.state == "indexed":
                    return _Unchanged(file, old.document_id, facts)
                if old is None and (candidates := gone.get(sha256)):
                    moved = candidates.pop()
                    if moved.state == "indexed":
                        return _Moved(file, moved.document_id, facts)
                elements = self._partitioner.partition(descriptor, suffix=suffix)
        except FileChanging:
            return _Waiting(file)
        except UnreadableFile as error:
            return failed(str(error), "passing")
        except PartitionError as error:
            return failed(str(error), "final" if isinstance(error, _FINAL) else "counted")
        drafts = chunk(
            elements, count_tokens=self._embedder.count_tokens, budget=chunk_budget(self._embedder)
        )
        version = NewVersion(
            path=file.path,
            collection=collection_of(file.path),
            facts=facts,
            sha256=sha256,
            title=title_of(elements, file.path),
            chunks=tuple(drafts),
        )
        return _Ready(file, version, is_new=old is None)


def title_of(elements: Sequence[Element], path: str) -> str:
    """Return the first outermost heading near the beginning, else the file's name without its suffix.

    An archive is called by its own name, not by that of its first member.
    """
    if path.lower().endswith(".zip"):
        return PurePosixPath(path).stem
    for element in elements[:20]:
        if element.level == 0 and len(element.text) <= 200:
            return " ".join(element.text.split())
    return PurePosixPath(path).stem
