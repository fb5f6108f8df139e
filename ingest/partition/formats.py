"""Which reader takes which kind of file."""

from __future__ import annotations

import dataclasses
import importlib
import zipfile
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.partition.limits import Limits
    from ingest.values import Element

# suffix -> module, function; the module is imported when the first such file comes
READERS: dict[str, tuple[str, str]] = {
    ".txt": ("plain", "read_text"),
    ".text": ("plain", "read_text"),
    ".log": ("plain", "read_text"),
    ".md": ("plain", "read_markdown"),
    ".markdown": ("plain", "read_markdown"),
    ".html": ("plain", "read_html"),
    ".htm": ("plain", "read_html"),
    ".xhtml": ("plain", "read_html"),
    ".csv": ("spreadsheet", "read_csv"),
    ".tsv": ("spreadsheet", "read_csv"),
    ".xlsx": ("spreadsheet", "read_xlsx"),
    ".json": ("json_text", "read_json"),
    ".jsonl": ("json_text", "read_json_lines"),
    ".eml": ("mail", "read_mail"),
    ".docx": ("office", "read_docx"),
    ".pptx": ("office", "read_pptx"),
    ".epub": ("ebook", "read_epub"),
    ".pdf": ("pdf", "read_pdf"),
}


def supported(suffix: str) -> bool:
    """Tell whether there is a reader for files that end in `suffix`."""
    return suffix.lower() in READERS


def read(file: IO[bytes], suffix: str, limits: Limits) -> list[Element]:
    """Partition an open file; raises PartitionError with a reason for the user."""
    if not supported(suffix):
        raise UnsupportedFormat(f"no reader for {suffix or 'files without a suffix'}")
    module, function = READERS[suffix.lower()]
    reader: Callable[[IO[bytes], Limits], list[Element]] = getattr(
        importlib.import_module(f"ingest.partition.{module}"), function
    )
    try:
        elements = reader(file, limits)
    except zipfile.BadZipFile as error:
        raise PartitionError(f"damaged, or not a {suffix} file: {error}") from error
    # JSON and XML can spell half a surrogate pair, which is no character and cannot be stored.
    elements = [
        dataclasses.replace(element, text=element.text.encode("utf-8", "ignore").decode())
        for element in elements
    ]
    n = sum(len(element.text) for element in elements)
    if n > limits.text_characters:
        raise LimitExceeded(f"holds {n} characters of text; the limit is {limits.text_characters}")
    if len(elements) > limits.elements:
        raise LimitExceeded(f"holds {len(elements)} elements; the limit is {limits.elements}")
    return elements
