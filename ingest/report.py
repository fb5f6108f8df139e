"""How far a pass is, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far a pass is; the totals are those of the whole pass, known before it starts.

    bytes_done: of documents under way, the share of their chunks that is embedded. seconds: since the pass
    began; seconds_left: at the rate of bytes so far, None until there is one.
    """

    n_done: int
    n_total: int
    bytes_done: int
    bytes_total: int
    n_chunks_embedded: int
    path: str
    seconds: float = 0.0

    @property
    def bytes_per_second(self) -> float:
        """The rate so far."""
        return self.bytes_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time left at the rate so far."""
        rate = self.bytes_per_second
        return (self.bytes_total - self.bytes_done) / rate if rate else None


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file that the pass under way has still to read or to embed."""

    path: str
    size: int


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
