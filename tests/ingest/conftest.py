"""A library over a folder of documents, with a small real embedder."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from ingest.library import Library
from tests.ingest.hashing_embedder import HashingEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ingest.values import Chunk


class Place:
    """A documents folder, a data folder, and whatever library is open on them."""

    def __init__(self, root: Path, *, chroma_url: str | None = None) -> None:
        self.documents = root / "documents"
        self.data = root / "data"
        self.documents.mkdir()
        self.embedder = HashingEmbedder()
        self._chroma_url = chroma_url
        self._open: Library | None = None

    def open(self, embedder: HashingEmbedder | None = None, **options: object) -> Library:
        """Open the library; closes the one that is open."""
        self.close()
        self.embedder = embedder or self.embedder
        self._open = Library.open(
            self.data,
            documents_dir=self.documents,
            embedder=self.embedder,
            settle_seconds=0.02,
            chroma_url=self._chroma_url,
            **options,  # type: ignore[arg-type] # passed on as they are
        )
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def write(self, path: str, content: str | bytes) -> Path:
        target = self.documents / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def dense(self, library: Library, query: str, **options: object) -> list[Chunk]:
        """Return the chunks that dense search finds, best first."""
        (vector,) = self.embedder.embed([query], kind="query")
        hits = library.search_dense(vector, limit=5, collections=options.get("collections"))  # type: ignore[arg-type]
        return library.chunks([hit.chunk_id for hit in hits])

    def lexical(self, library: Library, query: str) -> list[Chunk]:
        """Return the chunks that lexical search finds, best first."""
        hits = library.search_lexical(query, limit=5, collections=None)
        return library.chunks([hit.chunk_id for hit in hits])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with ExitStack() as stack:
        stack.callback(place.close)
        yield place
