"""Ceilings for one document; what goes over them is quarantined with its reason."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import IO

from ingest.errors import LimitExceeded

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, seconds and counts that one document may use.

    cpu_seconds, wall_seconds: anew for each page that is read by OCR, of which there may be `ocr_pages`.
    """

    file_bytes: int = 256 * MIB
    memory_bytes: int = 1536 * MIB
    cpu_seconds: int = 55
    wall_seconds: float = 60.0
    written_bytes: int = 256 * MIB
    text_characters: int = 64_000_000
    elements: int = 500_000
    archive_bytes: int = 512 * MIB
    archive_entries: int = 20_000
    archive_ratio: int = 200
    archive_depth: int = 2
    nesting: int = 200
    pixels: int = 40_000_000
    ocr_pages: int = 2_000


def check_archive(file: IO[bytes], limits: Limits) -> None:
    """Refuse a zip container that would unpack to too much; raises LimitExceeded or zipfile.BadZipFile."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    file.seek(0)
    if len(entries) > limits.archive_entries:
        raise LimitExceeded(f"the archive has {len(entries)} entries; the limit is {limits.archive_entries}")
    total = sum(entry.file_size for entry in entries)
    if total > limits.archive_bytes:
        raise LimitExceeded(f"the archive unpacks to {total} bytes; the limit is {limits.archive_bytes}")
    for entry in entries:
        # Small parts of repeated XML compress well and harmlessly: only large ones are judged by ratio.
        if entry.file_size > 16 * MIB and entry.file_size > limits.archive_ratio * max(
            entry.compress_size, 1
        ):
            raise LimitExceeded(
                f"the archive's part {entry.filename!r} unpacks {entry.compress_size} bytes to"
                f" {entry.file_size}; the limit is {limits.archive_ratio} times"
            )
