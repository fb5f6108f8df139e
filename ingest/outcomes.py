"""What came of reading a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ingest.reconciler import FoundFile
    from ingest.values import FileFacts, NewVersion

Verdict = Literal["passing", "counted", "final"]


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The content is as it was; only the file's facts differ."""

    file: FoundFile
    document_id: int
    facts: FileFacts


@dataclass(frozen=True, slots=True)
class Moved:
    """The content of a document that is gone from its old path."""

    file: FoundFile
    document_id: int
    facts: FileFacts


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be read. verdict: as in `Record.fail`; seen_before: it failed with this content already."""

    file: FoundFile
    sha256: bytes
    reason: str
    verdict: Verdict
    seen_before: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """It changed while it was read."""

    file: FoundFile


@dataclass(frozen=True, slots=True)
class Ready:
    """It was read and cut, and can be embedded."""

    file: FoundFile
    version: NewVersion
    is_new: bool


Outcome = Unchanged | Moved | Failed | Waiting | Ready
