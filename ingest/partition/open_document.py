"""odt, ods, odp: the texts, sheets and slides of OpenDocument."""

from __future__ import annotations

import itertools
import zipfile
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import PartitionError
from ingest.partition.limits import check_archive
from ingest.partition.markdown_table import markdown_table
from ingest.partition.xml_text import parse_xml
from ingest.values import Element, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits

_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_PRESENTATION = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
# Comments, notes and what was deleted with changes tracked are not the text.
_LEFT_OUT = {f"{_TEXT}note", f"{_OFFICE}annotation", f"{_TEXT}tracked-changes"}
_PARAGRAPHS = (f"{_TEXT}p", f"{_TEXT}h")
_CELLS = (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell")
# What masters put on every slide.
_REPEATED = {"footer", "header", "date-time", "page-number"}


def read_odt(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a text; places are its paragraphs, headings and the cells of tables among them."""
    return [element for element in _blocks(_body(file, limits, "text"), itertools.count(1)) if element.text]


def read_ods(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a workbook; every sheet's name is a heading, places are rows, pages are sheets."""
    elements: list[Element] = []
    for page, sheet in enumerate(_body(file, limits, "spreadsheet").iterchildren(f"{_TABLE}table"), start=1):
        rows, places = _rows(sheet)
        if rows:
            elements.append(Element("Title", sheet.get(f"{_TABLE}name", ""), level=0, page=page))
            place = Place("row", places[0], places[-1], tuple(places))
            elements.append(Element("Table", markdown_table(rows), page=page, place=place))
    return elements


def read_odp(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a presentation; pages are slides."""
    elements: list[Element] = []
    for page, slide in enumerate(_body(file, limits, "presentation").iterchildren(f"{_DRAW}page"), start=1):
        found = list(_frames(slide, page))
        elements += sorted(found, key=lambda element: element.level is None)
    return elements


def _body(file: IO[bytes], limits: Limits, kind: str) -> Any:
    check_archive(file, limits)
    with zipfile.ZipFile(file) as archive:
        try:
            root = parse_xml(archive.read("content.xml"))
        except KeyError as error:
            raise PartitionError("content.xml is missing: not a complete OpenDocument file") from error
    body = root.find(f"{_OFFICE}body/{_OFFICE}{kind}")
    if body is None:
        raise PartitionError(f"holds no {kind}: not the OpenDocument file that its name says")
    return body


def _rows(sheet: Any) -> tuple[list[list[str]], list[int]]:
    """Read the rows that hold something, and their numbers; repeated empty ones are only counted."""
    rows: list[list[str]] = []
    places: list[int] = []
    number = 1
    for row in sheet.iter(f"{_TABLE}table-row"):
        cells: list[str] = []
        for cell in row.iterchildren(*_CELLS):
            text = " ".join(_text(paragraph) for paragraph in cell.iter(f"{_TEXT}p"))
            # The empty rest of a row is one cell, repeated to the sheet's last column.
            times = _times(cell, "number-columns-repeated")
            cells += [text] * (times if text else min(times, 64))
        while cells and not cells[-1]:
            cells.pop()
        times = _times(row, "number-rows-repeated")
        if cells:
            # A row repeated on and on says it once.
            rows.append(cells)
            places.append(number)
        number += times
    return rows, places


def _frames(slide: Any, page: int) -> Iterator[Element]:
    for frame in slide.iter(f"{_DRAW}frame", f"{_DRAW}custom-shape"):
        kind = frame.get(f"{_PRESENTATION}class", "")
        if kind in _REPEATED:
            continue
        for table in frame.iter(f"{_TABLE}table"):
            if rows := _rows(table)[0]:
                yield Element("Table", markdown_table(rows), page=page)
        for paragraph in frame.iter(f"{_TEXT}p"):
            text = _text(paragraph)
            if not text or any(parent.tag == f"{_TABLE}table" for parent in paragraph.iterancestors()):
                continue
            if kind == "title":
                yield Element("Title", text, level=0, page=page)
            else:
                listed = any(parent.tag == f"{_TEXT}list-item" for parent in paragraph.iterancestors())
                yield Element("ListItem" if listed else "NarrativeText", text, page=page)


def _times(node: Any, name: str) -> int:
    value = node.get(f"{_TABLE}{name}", "1")
    return min(max(int(value), 1), 16_384) if value.isdecimal() and len(value) < 8 else 1


def _blocks(node: Any, numbers: Iterator[int]) -> Iterator[Element]:
    for child in node:
        if not isinstance(child.tag, str) or child.tag in _LEFT_OUT:
            continue
        if child.tag == f"{_TEXT}h":
            level = child.get(f"{_TEXT}outline-level", "1")
            level = max(int(level), 1) - 1 if level.isdigit() else 0
            yield Element("Title", _text(child), level=level, place=_place(child, numbers))
        elif child.tag == f"{_TEXT}p":
            yield Element("NarrativeText", _text(child), place=_place(child, numbers))
        elif child.tag == f"{_TEXT}list":
            for item in child.iter(f"{_TEXT}list-item"):
                own = [p for p in item if p.tag in _PARAGRAPHS]
                places = [_place(p, numbers) for p in own]
                place = Place("paragraph", places[0].first, places[-1].last) if places else None
                yield Element("ListItem", "\n".join(map(_text, own)), place=place)
        elif child.tag == f"{_TABLE}table":
            yield _table(child, numbers)
        else:
            yield from _blocks(child, numbers)


def _place(paragraph: Any, numbers: Iterator[int]) -> Place:
    """Number a paragraph, and those in a frame that hangs on it."""
    first = last = next(numbers)
    for tag in _PARAGRAPHS:
        for _ in paragraph.iterdescendants(tag):
            last = next(numbers)
    return Place("paragraph", first, last)


def _table(table: Any, numbers: Iterator[int]) -> Element:
    rows: list[list[str]] = []
    lines: list[int] = []
    first = last = 0
    for row in table.iter(f"{_TABLE}table-row"):
        cells: list[str] = []
        begins = 0
        # A cell that is repeated a thousand times is how a sheet writes the empty rest of a row.
        for cell in row.iterchildren(*_CELLS):
            paragraphs = list(cell.iter(f"{_TEXT}p"))
            cells.append(" ".join(map(_text, paragraphs)))
            for _ in paragraphs:
                last = next(numbers)
                begins = begins or last
        first = first or begins
        rows.append(cells)
        if any(cell.strip() for cell in cells):
            lines.append(begins)
    place = Place("paragraph", first, last, tuple(lines)) if first else None
    return Element("Table", markdown_table(rows), place=place)


def _text(node: Any) -> str:
    pieces = [node.text or ""]
    for child in node:
        if child.tag == f"{_TEXT}s":
            pieces.append(" ")
        elif child.tag == f"{_TEXT}tab":
            pieces.append("\t")
        elif child.tag == f"{_TEXT}line-break":
            pieces.append("\n")
        elif isinstance(child.tag, str) and child.tag not in _LEFT_OUT:
            pieces.append(_text(child))
        pieces.append(child.tail or "")
    return "".join(pieces).strip()
