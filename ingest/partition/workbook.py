"""xlsx, straight from its XML: every sheet's name is a heading, its rows are a table.

Formulas show their values, and themselves where no program has computed them; dates and shares show as such.
Hidden sheets are read and called so.
"""

from __future__ import annotations

import datetime
import io
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import PartitionError
from ingest.partition.markdown_table import markdown_table
from ingest.partition.ooxml import Package
from ingest.values import Element, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ingest.partition.limits import Limits

_S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_VALUE, _FORMULA, _TEXT = f"{_S}v", f"{_S}f", f"{_S}t"
# What stands in quotes or brackets of a format, or after a backslash, is no code; [h] counts hours.
_LITERAL = re.compile(r'"[^"]*"|\[(?!h+\]|m+\]|s+\])[^\]]*\]|\\.|_.', re.IGNORECASE)
# Source: ECMA-376, 18.8.30, and the East Asian ones beside.
_DATES = {*range(14, 18), 22, *range(27, 32), 36, *range(50, 55), 57, 58}
_TIMES = {*range(18, 22), *range(32, 36), *range(45, 48), 55, 56}
_SHARES = {9, 10}
_EPOCHS = (datetime.datetime(1899, 12, 30), datetime.datetime(1904, 1, 1))  # noqa: DTZ001 - sheets know no zones
_LAST_DAY = 2_958_465
# A sheet with a word in each far corner has more empty cells than a table may write.
_MAX_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class _Book:
    """What all sheets share. forms: of each style, how its numbers are written."""

    strings: list[str]
    forms: list[Callable[[str], str] | None]


def read_xlsx(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a workbook; places are rows, pages are sheets."""
    package = Package(file, limits)
    root = package.required(package.main)
    links = package.links(package.main)
    properties = root.find(f"{_S}workbookPr")
    is_1904 = properties is not None and properties.get("date1904", "0") in {"1", "true"}
    book = _Book(_strings(package), _forms(package, _EPOCHS[is_1904]))
    elements: list[Element] = []
    sheets = root.findall(f"{_S}sheets/{_S}sheet")
    if not sheets:
        raise PartitionError("names no sheet: not a workbook")
    for number, sheet in enumerate(sheets, start=1):
        kind, name = links.get(sheet.get(_LINK, ""), ("", ""))
        data = package.data(name) if kind == "worksheet" else None
        if data is None:
            continue
        rows, merged = _rows(data, book)
        _fill_down(rows, merged)
        if any(rows.values()):
            title = sheet.get("name", "")
            hidden = sheet.get("state", "visible") != "visible"
            elements.append(
                Element("Title", f"{title} (hidden sheet)" if hidden else title, level=0, page=number)
            )
            elements += _table(rows, number)
    return elements


def _table(rows: dict[int, dict[int, str]], page: int) -> Iterator[Element]:
    """Write the rows as a table; what stands alone above it is its caption, not its header."""
    numbers = [number for number in sorted(rows) if rows[number]]
    columns = sorted({column for number in numbers for column in rows[number]})
    while len(numbers) > 1 and len(columns) > 1 and len(rows[numbers[0]]) == 1:
        number = numbers.pop(0)
        (caption,) = rows[number].values()
        yield Element("NarrativeText", caption, page=page, place=Place("row", number, number))
    place = Place("row", numbers[0], numbers[-1], tuple(numbers))
    if len(numbers) * len(columns) > _MAX_CELLS:
        lines = (" ".join(rows[number][column] for column in sorted(rows[number])) for number in numbers)
        yield Element("NarrativeText", "\n".join(" ".join(line.split()) for line in lines), page=page)
        return
    grid = [[rows[number].get(column, "") for column in columns] for number in numbers]
    yield Element("Table", markdown_table(grid), page=page, place=place)


def _rows(data: bytes, book: _Book) -> tuple[dict[int, dict[int, str]], list[str]]:
    """Read the cells that hold something: row -> column -> text; and the merged ranges."""
    from lxml import etree  # type: ignore[import-untyped] # it has no stubs

    rows: dict[int, dict[int, str]] = {}
    merged: list[str] = []
    number = 0
    events = etree.iterparse(
        io.BytesIO(data), tag=(f"{_S}row", f"{_S}mergeCell"), resolve_entities=False, no_network=True,
        load_dtd=False, huge_tree=False,
    )  # fmt: skip
    for _, node in events:
        if node.tag == f"{_S}mergeCell":
            merged.append(node.get("ref", ""))
            continue
        number = _integer(node.get("r")) or number + 1
        cells: dict[int, str] = {}
        column = 0
        for cell in node:
            reference = cell.get("r")
            column = _column(reference) if reference else column + 1
            if text := _cell(cell, book):
                cells[column] = text
        rows[number] = cells
        node.clear()
    return rows, merged


def _cell(cell: Any, book: _Book) -> str:
    kind = cell.get("t", "n")
    value = formula = None
    for child in cell:
        if child.tag == _VALUE:
            value = child.text
        elif child.tag == _FORMULA:
            formula = child.text
        elif kind == "inlineStr":
            return _string(child)
    if value is None:
        return f"={formula}" if formula else ""
    if kind == "s":
        at = _integer(value)
        return book.strings[at] if at is not None and at < len(book.strings) else ""
    if kind == "b":
        return "TRUE" if value.strip() == "1" else "FALSE"
    if kind == "n":
        style = _integer(cell.get("s")) or 0
        form = book.forms[style] if style < len(book.forms) else None
        try:
            return form(value) if form is not None else _number(value)
        except (ValueError, OverflowError):
            return str(value).strip()
    return " ".join(str(value).split())


def _fill_down(rows: dict[int, dict[int, str]], merged: list[str]) -> None:
    """Repeat what stands in cells merged down, so that each row can stand alone."""
    for reference in merged:
        first, _, last = reference.partition(":")
        top, bottom = _row_of(first), _row_of(last)
        text = rows.get(top, {}).get(_column(first))
        if text:
            for number in range(top + 1, bottom + 1):
                # Rows of nothing else stay empty: a column may be merged to its end.
                if rows.get(number):
                    rows[number].setdefault(_column(first), text)


def _strings(package: Package) -> list[str]:
    names = package.linked(package.main, "sharedStrings")
    root = package.xml(names[0]) if names else None
    return [] if root is None else [_string(item) for item in root.iterchildren(f"{_S}si")]


def _string(node: Any) -> str:
    """Read a text, in one piece or several; how it is pronounced stands beside and is left out."""
    if len(node) == 1 and node[0].tag == _TEXT:
        return " ".join((node[0].text or "").split())
    pieces = (text.text or "" for text in node.iter(_TEXT) if text.getparent().tag != f"{_S}rPh")
    return " ".join("".join(pieces).split())


def _forms(package: Package, epoch: datetime.datetime) -> list[Callable[[str], str] | None]:
    """Return, for each cell style, how to write its numbers; None for as they are."""
    names = package.linked(package.main, "styles")
    root = package.xml(names[0]) if names else None
    if root is None:
        return []
    codes = {_integer(node.get("numFmtId")): node.get("formatCode", "") for node in root.iter(f"{_S}numFmt")}

    def date(value: str) -> str:
        return _date(float(value), epoch)

    def form(number: int | None) -> Callable[[str], str] | None:
        code = _LITERAL.sub("", codes.get(number, "").split(";")[0]).lower()
        if number in _SHARES or "%" in code:
            return lambda value: f"{float(value) * 100:.10g}%"
        if (
            number in _DATES
            or "y" in code
            or "d" in code
            or ("m" in code and "h" not in code and "s" not in code)
        ):
            return date
        if number in _TIMES or "h" in code or "s" in code:
            return _time
        return None

    styles = root.find(f"{_S}cellXfs")
    return [] if styles is None else [form(_integer(style.get("numFmtId"))) for style in styles]


def _date(days: float, epoch: datetime.datetime) -> str:
    if not 0 < days <= _LAST_DAY:
        return f"{days:.15g}"
    moment = epoch + datetime.timedelta(seconds=round(days * 86_400))
    if moment.hour == moment.minute == moment.second == 0:
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _time(value: str) -> str:
    seconds = round(float(value) * 86_400)
    if not 0 <= seconds < 86_400 * 10_000:
        return _number(value)
    hours, rest = divmod(seconds, 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}".removesuffix(":00")


def _number(value: str) -> str:
    """Write a number as a sheet shows it: with 15 digits at most."""
    plain = value.strip()
    return plain if len(plain) <= 15 and plain.isascii() and "E" not in plain else f"{float(plain):.15g}"


def _column(reference: str) -> int:
    column = 0
    for character in reference:
        if not "A" <= character <= "Z":
            break
        column = column * 26 + ord(character) - 64
    return min(column, 16_384)


def _row_of(reference: str) -> int:
    return _integer(reference.lstrip("$ABCDEFGHIJKLMNOPQRSTUVWXYZ")) or 0


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 9 else None
