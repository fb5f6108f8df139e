"""The pages of a document that are read already, kept beside the record until the document is in it.

A reader that was killed in the middle of a long document goes on after the last page that it finished.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ingest.partition.limits import Limits

# Counted up whenever a page's lines come out differently.
_VERSION = 2
PageLines = list[tuple[str, float]]


class PageLog:
    """What the reader's process knows of pages: those read before, and where to tell of further ones."""

    def __init__(self, known: dict[str, PageLines], tell: Callable[[str, PageLines, bool], None]) -> None:
        """Begin with pages read before."""
        self._known = known
        self._tell = tell
        self._place = ""
        self._whole = self
        self._n_slow = 0

    @classmethod
    def forgetful(cls) -> PageLog:
        """Know nothing and tell nobody."""
        return cls({}, lambda *_: None)

    def inside(self, part: int) -> PageLog:
        """Return the log of a file inside of this one, which stands there as the part of this number."""
        log = PageLog(self._known, self._tell)
        log._place, log._whole = f"{self._place}{part}/", self._whole
        return log

    def get(self, page: int) -> PageLines | None:
        """Return the lines of a page that was read before."""
        return self._known.get(f"{self._place}{page}")

    def put(self, page: int, lines: PageLines, *, slow: bool) -> None:
        """Tell that a page is read; slow: it took OCR, and the next one may take as long."""
        self._whole._n_slow += slow
        self._tell(f"{self._place}{page}", lines, slow)

    def has_room(self, limits: Limits) -> bool:
        """Tell whether one more page may be read by OCR, of the file and all that is inside of it."""
        return self._whole._n_slow < limits.ocr_pages


class PageStore:
    """One file for each document that is being read; the parent's side."""

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, made when the first one comes."""
        self._folder = folder

    def path(self, sha256: bytes) -> Path:
        """Return where the pages of a content are kept."""
        return self._folder / f"{sha256.hex()}.{_VERSION}.jsonl"

    def append(self, sha256: bytes, page: str, lines: list[Any]) -> None:
        """Keep a page; what is written survives the end of this process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.path(sha256).open("a", encoding="utf-8") as file:
            # The newline comes first: half a line that a kill left spoils no other.
            file.write("\n" + json.dumps([page, lines], ensure_ascii=False))

    def keep_only(self, contents: Iterable[bytes]) -> None:
        """Remove the pages of all other contents."""
        if not self._folder.is_dir():
            return
        kept = {self.path(sha256).name for sha256 in contents}
        for file in self._folder.iterdir():
            if file.name not in kept:
                file.unlink(missing_ok=True)


def parse(text: str) -> dict[str, PageLines]:
    """Read a file of pages; a last line that was cut off by a kill is left out."""
    pages: dict[str, PageLines] = {}
    for line in filter(None, text.split("\n")):
        try:
            page, lines = json.loads(line)
            pages[str(page)] = [(str(words), float(size)) for words, size in lines]
        except (ValueError, TypeError):
            # Half a line, or a disk that was full: that page is read again.
            continue
    return pages
