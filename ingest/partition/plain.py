"""txt, html: text that is decoded here; pages are structured by unstructured."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition import unstructured_api
from ingest.partition.decoding import decode
from ingest.partition.headings import is_heading
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits


_BLANK = re.compile(r"\n[ \t\u3000\f\v]*(?=\n)")
_PLAIN_BULLET = re.compile(r"[ \t\u3000]*(?:[-*•●▪◦–]|\d{1,3}[.)、])[ \t]+(?=\S)")


def read_text(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read plain text; paragraphs are separated by blank lines, offsets are those of the file's text."""
    text = _newlines(decode(file.read(limits.file_bytes)))
    elements: list[Element] = []
    start = 0
    for end in [*(match.start() for match in _BLANK.finditer(text)), len(text)]:
        elements += _paragraph(text, start, end)
        start = end
    return elements


def _paragraph(text: str, start: int, end: int) -> list[Element]:
    """Read what stands between blank lines: a heading, list items, or a paragraph."""
    piece = text[start:end]
    stripped = piece.strip("\n\t \u3000\f\v")
    if not stripped:
        return []
    start += piece.index(stripped)
    lines = stripped.split("\n")
    if all(_PLAIN_BULLET.match(line) for line in lines):
        items: list[Element] = []
        for line in lines:
            bullet = _PLAIN_BULLET.match(line)
            begin = start + (bullet.end() if bullet else 0)
            items.append(
                Element("ListItem", text[begin : start + len(line)], start=begin, end=start + len(line))
            )
            start += len(line) + 1
        return items
    heading = is_heading(stripped)
    kind, level = ("Title", 0) if heading else ("NarrativeText", None)
    return [Element(kind, stripped, level=level, start=start, end=start + len(stripped))]


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
