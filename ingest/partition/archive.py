"""zip: every readable member is a section under its name."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import formats
from ingest.partition.attachments import Parts
from ingest.partition.limits import check_archive

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLog
    from ingest.values import Element

_UTF8_NAME = 0x800
_ENCRYPTED = 0x1


def read_zip(file: IO[bytes], limits: Limits, pages: PageLog) -> list[Element]:
    """Read the members of an archive, archives inside of it too, as far as the limits go.

    One document, so that it comes, moves and goes as the one file it is. Members that cannot be read are
    named at its end; raises PartitionError when none can.
    """
    if limits.archive_depth < 1:
        raise LimitExceeded("an archive in an archive in an archive is not opened")
    check_archive(file, limits)
    parts = Parts(limits, pages, "archive")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            name = _name(entry)
            if entry.is_dir() or _is_hidden(name):
                continue
            suffix = PurePosixPath(name).suffix
            if entry.flag_bits & _ENCRYPTED:
                parts.refuse(name, "protected by a password")
            elif not formats.supported(suffix):
                parts.refuse(name, formats.no_reader(suffix))
            else:
                parts.add(name, archive.read(entry))
    if (reason := parts.none_read()) is not None:
        raise PartitionError(reason)
    return parts.elements()


def _name(entry: zipfile.ZipInfo) -> str:
    """Return the member's name; without its UTF-8 mark, it may be GBK that was taken for code page 437."""
    if entry.flag_bits & _UTF8_NAME:
        return entry.filename
    try:
        data = entry.filename.encode("cp437")
    except UnicodeEncodeError:
        return entry.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return entry.filename


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX", "~$")) for part in PurePosixPath(name).parts)
