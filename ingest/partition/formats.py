"""Which reader takes which kind of file."""

from __future__ import annotations

import dataclasses
import importlib
import re
import zipfile
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError, UnsupportedFormat
from ingest.partition import ocr, old_office, source_code
from ingest.partition.articles import with_articles
from ingest.partition.page_log import PageLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.partition.limits import Limits
    from ingest.values import Element

_SURROGATE = re.compile("[\ud800-\udfff]")

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
# Their readers keep what is read page by page, in files inside of them too.
_PAGED = {".pdf", *_PICTURES, ".zip", ".eml", ".msg"}

# suffix -> module, function; the module is imported when the first such file comes
READERS: dict[str, tuple[str, str]] = {
    ".txt": ("plain", "read_text"),
    ".text": ("plain", "read_text"),
    ".log": ("plain", "read_text"),
    ".md": ("markdown", "read_markdown"),
    ".markdown": ("markdown", "read_markdown"),
    ".html": ("web_page", "read_html"),
    ".htm": ("web_page", "read_html"),
    ".xhtml": ("web_page", "read_html"),
    ".csv": ("spreadsheet", "read_csv"),
    ".tsv": ("spreadsheet", "read_csv"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xltm"), ("workbook", "read_xlsx")),
    ".xls": ("spreadsheet", "read_xls"),
    ".json": ("json_text", "read_json"),
    ".jsonl": ("json_text", "read_json_lines"),
    ".eml": ("mail", "read_mail"),
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), ("word", "read_docx")),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".ppsm", ".potx"), ("slides", "read_pptx")),
    ".epub": ("ebook", "read_epub"),
    ".pdf": ("pdf", "read_pdf"),
    ".rst": ("restructured", "read_rst"),
    ".mhtml": ("mail", "read_web_archive"),
    ".mht": ("mail", "read_web_archive"),
    ".msg": ("outlook", "read_outlook"),
    ".xml": ("xml_text", "read_xml"),
    ".odt": ("open_document", "read_odt"),
    ".ods": ("open_document", "read_ods"),
    ".odp": ("open_document", "read_odp"),
    ".rtf": ("richtext", "read_rtf"),
    ".zip": ("archive", "read_zip"),
    ".jsonlines": ("json_text", "read_json_lines"),
    ".ndjson": ("json_text", "read_json_lines"),
    **dict.fromkeys(_PICTURES, ("picture", "read_picture")),
    **dict.fromkeys(source_code.SUFFIXES, ("source_code", "read_source")),
}

# Known, and not read: what helps instead.
_WAYS_OUT = {
    ".doc": "an old Word file: save it as .docx",
    ".ppt": "an old PowerPoint file: save it as .pptx",
    ".wps": "a WPS file: save it as .docx",
    ".et": "a WPS workbook: save it as .xlsx",
    ".dps": "a WPS presentation: save it as .pptx",
    ".pages": "a Pages file: export it as .docx or .pdf",
    ".heic": "a picture of a kind that is not read: save it as .jpg",
    **dict.fromkeys(
        (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz"),
        "an archive of a kind that is not opened: unpack it, or pack it as .zip",
    ),
}


def no_reader(suffix: str, *, alone: bool = False) -> str:
    """Say why files that end in `suffix` are not read, and what helps; alone: the file is in no other one."""
    if suffix.lower() in _PICTURES:
        return f"a picture: reading its text needs {ocr.HOW_TO_INSTALL}"
    if way_out := _WAYS_OUT.get(suffix.lower()):
        by_office = alone and old_office.is_old(suffix)
        return f"{way_out}, or install LibreOffice, then quarry retry" if by_office else way_out
    return f"no reader for {suffix or 'files without a suffix'}"


def supported(suffix: str) -> bool:
    """Tell whether there is a reader for files that end in `suffix`."""
    if suffix.lower() in _PICTURES:
        return ocr.engine_name() is not None
    return suffix.lower() in READERS


def readable(suffix: str) -> bool:
    """Tell whether files of their own that end in `suffix` are read, if need be by LibreOffice."""
    return old_office.is_old(suffix) or supported(suffix)


def is_paged(suffix: str) -> bool:
    """Tell whether what is read of such files is kept page by page."""
    return suffix.lower() in _PAGED


def read(file: IO[bytes], suffix: str, limits: Limits, pages: PageLog | None = None) -> list[Element]:
    """Partition an open file; pages: those that were read before. Raises PartitionError with a reason."""
    if not supported(suffix):
        raise UnsupportedFormat(no_reader(suffix))
    module, function = READERS[suffix.lower()]
    reader: Callable[..., list[Element]] = getattr(
        importlib.import_module(f"ingest.partition.{module}"), function
    )
    try:
        paged = (pages or PageLog.forgetful(),) if suffix.lower() in _PAGED else ()
        elements = with_articles(reader(file, limits, *paged))
    except zipfile.BadZipFile as error:
        raise PartitionError(f"damaged, or not a {suffix} file: {error}") from error
    if any(element.start is None for element in elements):
        # Offsets of a part, an attachment say, are none of the file.
        elements = [dataclasses.replace(element, start=None, end=None) for element in elements]
    # JSON and XML can spell half a surrogate pair, which is no character and cannot be stored.
    elements = [
        dataclasses.replace(element, text=_SURROGATE.sub("", element.text))
        if _SURROGATE.search(element.text)
        else element
        for element in elements
    ]
    n = sum(len(element.text) for element in elements)
    if n > limits.text_characters:
        raise LimitExceeded(f"holds {n} characters of text; the limit is {limits.text_characters}")
    if len(elements) > limits.elements:
        raise LimitExceeded(f"holds {len(elements)} elements; the limit is {limits.elements}")
    return elements
