"""txt: paragraphs, lists and what stands as a heading."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition.decoding import decode, with_newlines
from ingest.partition.headings import is_heading
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits


_BLANK = re.compile(r"\n[ \t\u3000\f\v]*(?=\n)")
_PLAIN_BULLET = re.compile(r"[ \t\u3000]*(?:[-*•●▪◦–]|\d{1,3}[.)、])[ \t]+(?=\S)")


def read_text(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read plain text; paragraphs are separated by blank lines, offsets are those of the file's text."""
    return elements_of(decode(file.read(limits.file_bytes)))


def elements_of(text: str) -> list[Element]:
    """Read text that is decoded."""
    text = with_newlines(text)
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
