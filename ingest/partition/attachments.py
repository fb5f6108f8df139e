"""Files inside of files: each is a section under its name, and all share one ceiling."""

from __future__ import annotations

import dataclasses
import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import formats
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLog

    _Read = Callable[[Limits, PageLog], list[Element]]


class Parts:
    """Read the files that one file holds, as far as the limits go; those unread are named at the end."""

    def __init__(self, limits: Limits, pages: PageLog, container: str) -> None:
        """Prepare. pages: of the container; container: what it is called in what is said to the user."""
        self._pages = pages
        self._n_parts = 0
        self._limits = limits
        self._container = container
        self._left = limits.archive_bytes
        self._elements: list[Element] = []
        self._unread: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        """Read one file."""
        self._left -= len(data)
        if self._left < 0:
            raise LimitExceeded(
                f"the files in this {self._container} have more than {self._limits.archive_bytes} bytes"
            )
        suffix = PurePosixPath(name).suffix
        if not formats.supported(suffix):
            self.refuse(name, formats.no_reader(suffix))
            return
        self.add_read(name, lambda limits, pages: formats.read(io.BytesIO(data), suffix, limits, pages))

    def add_read(self, name: str, read: _Read) -> None:
        """Read what has no bytes of its own; read: gets the limits that are left to it, and its pages."""
        try:
            self._elements += self._read(name, read)
        except PartitionError as error:
            self.refuse(name, str(error))

    def refuse(self, name: str, reason: str) -> None:
        """Note a file that is not read."""
        self._unread.append(f"{name}: {reason}")

    def elements(self) -> list[Element]:
        """Return what was read, and the names of what was not."""
        if not self._unread:
            return self._elements
        return [
            *self._elements,
            Element("Title", f"Files in this {self._container} that cannot be read", level=0),
            *(Element("ListItem", line) for line in self._unread),
        ]

    def none_read(self) -> str | None:
        """Return the reason when there were files and none could be read."""
        if self._unread and not self._elements:
            return f"none of its {len(self._unread)} files can be read: {self._unread[0]}"
        return None

    def _read(self, name: str, read: _Read) -> list[Element]:
        depth = self._limits.archive_depth - 1
        if depth < 0:
            raise LimitExceeded(f"a file in {self._container}s in one another is not opened")
        inner = dataclasses.replace(self._limits, archive_depth=depth, archive_bytes=max(self._left, 0))
        self._n_parts += 1
        try:
            found = read(inner, self._pages.inside(self._n_parts))
        except (PartitionError, MemoryError, RecursionError):
            raise
        except Exception as error:
            # Readers of other people's formats raise anything; one file must not cost the others.
            kind = PurePosixPath(name).suffix or "readable"
            raise PartitionError(f"damaged or not a {kind} file ({type(error).__name__})") from error
        deeper = [e if e.level is None else dataclasses.replace(e, level=e.level + 1) for e in found]
        return [Element("Title", name, level=0), *deeper] if deeper else []
