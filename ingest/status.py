"""What a library says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.report import IngestProgress


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What the library holds and how it is.

    indexes_ready: Chroma and tantivy are open and audited; embedder_changed: dense search waits for
    re-embedding; protections: what confines the reading of documents, by name, empty before the first one;
    skipped: links and special files in the folder; unreadable: folders and why; ocr: what reads pictures of
    text, old_files: what reads files of Word 97 and its like, each None where nothing is installed.
    """

    n_documents: int
    n_chunks: int
    n_failed: int
    n_quarantined: int
    n_waiting: int
    indexes_ready: bool
    index_error: str | None
    n_index_rebuilds: int
    embedder_changed: bool
    progress: IngestProgress | None
    protections: dict[str, bool]
    skipped: tuple[str, ...]
    unreadable: dict[str, str]
    ocr: str | None = None
    old_files: str | None = None
