"""docx, pptx."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from ingest.partition import unstructured_api
from ingest.partition.limits import check_archive

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.values import Element


def read_docx(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a Word document."""
    check_archive(file, limits)
    return unstructured_api.read_docx(file)


def read_pptx(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a presentation."""
    check_archive(file, limits)
    return unstructured_api.read_pptx(file)
