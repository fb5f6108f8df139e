"""The container of docx, pptx and xlsx: parts of a zip that name one another."""

from __future__ import annotations

import posixpath
import zipfile
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import PartitionError
from ingest.partition.limits import check_archive
from ingest.partition.xml_text import parse_xml

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# What Office saves as "strict" differs from the rest in its names' beginnings only.
_STRICT = b"http://purl.oclc.org/ooxml/"
_NAMESPACES = (
    (b"http://purl.oclc.org/ooxml/officeDocument/relationships", b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"),
    (b"http://purl.oclc.org/ooxml/officeDocument/math", b"http://schemas.openxmlformats.org/officeDocument/2006/math"),
    (b"http://purl.oclc.org/ooxml/wordprocessingml/main", b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"),
    (b"http://purl.oclc.org/ooxml/spreadsheetml/main", b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"),
    (b"http://purl.oclc.org/ooxml/presentationml/main", b"http://schemas.openxmlformats.org/presentationml/2006/main"),
    (b"http://purl.oclc.org/ooxml/drawingml/main", b"http://schemas.openxmlformats.org/drawingml/2006/main"),
)  # fmt: skip


class Package:
    """An open Office file."""

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        """Open; raises zipfile.BadZipFile, LimitExceeded or PartitionError."""
        start = file.read(len(_OLE))
        file.seek(0)
        if start == _OLE:
            # Office encrypts a file inside of its old container.
            raise PartitionError("protected by a password, or in an old format under a new name")
        check_archive(file, limits)
        self._archive = zipfile.ZipFile(file)
        # Names are told apart without their case, and some producers write backslashes.
        self._names = {entry.filename.replace("\\", "/").lower(): entry for entry in self._archive.infolist()}
        self.main = self._main()

    def xml(self, name: str) -> Any | None:
        """Parse a part; None when it is not there."""
        data = self.data(name)
        return None if data is None else parse_xml(data)

    def data(self, name: str) -> bytes | None:
        """Return a part as it stands; None when it is not there."""
        entry = self._names.get(name.lower())
        if entry is None:
            return None
        data = self._archive.read(entry)
        if _STRICT in data[:8192]:
            for strict, usual in _NAMESPACES:
                data = data.replace(strict, usual)
        return data

    def required(self, name: str) -> Any:
        """Parse a part without which there is no text."""
        root = self.xml(name)
        if root is None:
            raise PartitionError(f"{name} is missing: not a complete Office file")
        return root

    def links(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the parts that a part names: id -> kind, name. What lies outside the file is left out."""
        folder, base = posixpath.split(name)
        root = self.xml(f"{folder}/_rels/{base}.rels" if folder else f"_rels/{base}.rels")
        found: dict[str, tuple[str, str]] = {}
        if root is None:
            return found
        for link in root.iter(f"{{{_RELATIONSHIPS}}}Relationship"):
            if link.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, link.get("Target", ""))).lstrip("/")
                found[link.get("Id", "")] = link.get("Type", "").rsplit("/", 1)[-1], target
        return found

    def linked(self, name: str, kind: str) -> list[str]:
        """Return the names of the parts of one kind that a part names."""
        return [target for found, target in self.links(name).values() if found == kind]

    def _main(self) -> str:
        mains = self.linked("", "officeDocument")
        if not mains:
            raise PartitionError("names no main part: not a complete Office file")
        return mains[0]
