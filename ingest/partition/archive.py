"""zip: every readable member is a section under its name."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import formats
from ingest.partition.limits import check_archive
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_UTF8_NAME = 0x800
_ENCRYPTED = 0x1


def read_zip(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read the members of an archive, archives inside of it too, as far as the limits go.

    One document, so that it comes, moves and goes as the one file it is. Members that cannot be read are
    named at its end; raises PartitionError when none can.
    """
    if limits.archive_depth < 1:
        raise LimitExceeded("an archive in an archive in an archive is not opened")
    check_archive(file, limits)
    elements: list[Element] = []
    unread: list[str] = []
    left = limits.archive_bytes
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            name = _name(entry)
            if entry.is_dir() or _is_hidden(name):
                continue
            inner = dataclasses.replace(limits, archive_depth=limits.archive_depth - 1, archive_bytes=left)
            left -= entry.file_size
            try:
                elements += _member(archive, entry, name, inner)
            except PartitionError as error:
                unread.append(f"{name}: {error}")
    if unread and not elements:
        raise PartitionError(f"none of its {len(unread)} files can be read: {unread[0]}")
    if unread:
        elements.append(Element("Title", "Files in this archive that cannot be read", level=0))
        elements += [Element("ListItem", line) for line in unread]
    return elements


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, limits: Limits) -> list[Element]:
    suffix = PurePosixPath(name).suffix
    if not formats.supported(suffix):
        raise PartitionError(formats.no_reader(suffix))
    if entry.flag_bits & _ENCRYPTED:
        raise PartitionError("protected by a password")
    try:
        read = formats.read(io.BytesIO(archive.read(entry)), suffix, limits)
    except (PartitionError, MemoryError, RecursionError):
        raise
    except Exception as error:
        # Readers of other people's formats raise anything; one member must not cost the others.
        raise PartitionError(f"damaged or not a {suffix} file ({type(error).__name__})") from error
    deeper = [e if e.level is None else dataclasses.replace(e, level=e.level + 1) for e in read]
    return [Element("Title", name, level=0), *deeper] if deeper else []


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
