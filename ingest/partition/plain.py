"""txt, md, html: text that is decoded here and structured by unstructured."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition import unstructured_api
from ingest.partition.decoding import decode

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.values import Element


def read_text(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read plain text."""
    return unstructured_api.read_text(_newlines(decode(file.read(limits.file_bytes))))


def read_markdown(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read Markdown."""
    return unstructured_api.read_markdown(_newlines(decode(file.read(limits.file_bytes))))


def read_html(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read HTML; a declared charset counts where the bytes are not UTF-8."""
    data = file.read(limits.file_bytes)
    declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", data[:4096], re.IGNORECASE)
    return unstructured_api.read_html(
        html_text(data, declared=declared[1].decode("ascii", "ignore") if declared else None)
    )


def html_text(data: bytes, *, declared: str | None) -> str:
    """Decode a page by its declared charset, or as any text where that does not fit."""
    text: str | None = None
    if declared is not None:
        try:
            name = declared.lower()
            # GB2312 in a page means whatever Chinese Windows wrote; GB18030 contains it.
            text = data.decode("gb18030" if name in {"gb2312", "gbk"} else name)
        except (LookupError, UnicodeDecodeError):
            text = None
    if text is None:
        text = decode(data)
    # An XML declaration with an encoding makes lxml refuse a str.
    return re.sub(r"^\s*<\?xml[^>]{0,400}\?>", "", text.lstrip("\ufeff"))


def _newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
