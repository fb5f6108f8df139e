"""html, by lxml: what a browser shows as text, with its headings, lists, tables and code."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import LimitExceeded
from ingest.partition.decoding import decode
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits

_HEADINGS = {f"h{n}": n - 1 for n in range(1, 7)}
_NOT_TEXT = frozenset((
    "head", "script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "canvas", "audio",
    "video", "select", "datalist", "option", "title", "meta", "link", "base", "map", "area",
))  # fmt: skip
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i",
    "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong",
    "sub", "sup", "time", "tt", "u", "var", "wbr", "nobr", "button", "img", "input", "math", "mi", "mn", "mo",
    "ms", "mrow", "msup", "msub", "mtext",
))  # fmt: skip
_DROPPED_INLINE = {"rt", "rp"}
_CELLS = {"td", "th"}
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\n\r\f\xa0]+")


def read_html(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a page; a declared charset counts where the bytes are not UTF-8. Places are its blocks of text."""
    data = file.read(limits.file_bytes)
    declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", data[:4096], re.IGNORECASE)
    return elements_of(
        html_text(data, declared=declared[1].decode("ascii", "ignore") if declared else None), limits
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
    return decode(data) if text is None else text


def elements_of(text: str, limits: Limits) -> list[Element]:
    """Read a page that is decoded."""
    from lxml import etree  # type: ignore[import-untyped] # it has no stubs

    # As bytes with their encoding named: lxml refuses a str that declares another.
    text = re.sub(r"^\s*<\?xml[^>]{0,400}\?>", "", text.lstrip("\ufeff"))
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        root = etree.fromstring(text.encode("utf-8", "ignore"), parser) if text.strip() else None
    except etree.XMLSyntaxError as error:
        if "empty" in str(error).lower():
            return []
        raise LimitExceeded(f"not readable as a page: {error}") from error
    return [] if root is None else _Reader(limits).read(root)


class _Reader:
    """Walk over the nodes once; text gathers until a block ends it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._elements: list[Element] = []
        self._pieces: list[str] = []
        self._depth = 0
        self._n_blocks = 0

    def read(self, root: Any) -> list[Element]:
        self._block(root, "NarrativeText", None)
        self._end("NarrativeText", None)
        return self._elements

    def _end(self, kind: str, level: int | None) -> None:
        """Make an element of the text gathered."""
        if not self._pieces:
            return
        text = _shown("".join(self._pieces))
        self._pieces.clear()
        if text:
            self._add(kind, text, level)

    def _add(self, kind: str, text: str, level: int | None = None) -> None:
        self._n_blocks += 1
        place = Place("paragraph", self._n_blocks, self._n_blocks)
        self._elements.append(Element(kind, text, level=level, place=place))

    def _block(self, node: Any, kind: str, level: int | None) -> None:
        """Read what stands in a block; its own text becomes elements of one kind."""
        self._depth += 1
        if self._depth > self._limits.nesting * 2:
            raise LimitExceeded(f"nested too deeply; the limit is {self._limits.nesting * 2} levels")
        if node.text:
            self._pieces.append(node.text)
        for child in node:
            tag = child.tag
            if not isinstance(tag, str) or tag in _NOT_TEXT or _is_hidden(child):
                pass
            elif tag == "br":
                self._pieces.append("\v")
            elif tag in _INLINE:
                if tag not in _DROPPED_INLINE:
                    # It may hold blocks nevertheless: a link around a heading.
                    self._block(child, kind, level)
            else:
                self._end(kind, level)
                self._special(child, tag, kind, level)
            if child.tail:
                self._pieces.append(child.tail)
        self._depth -= 1

    def _special(self, child: Any, tag: str, kind: str, level: int | None) -> None:
        if tag in _HEADINGS:
            self._block(child, "Title", _HEADINGS[tag])
            self._end("Title", _HEADINGS[tag])
        elif tag in {"li", "dd"}:
            self._block(child, "ListItem", None)
            self._end("ListItem", None)
        elif tag in {"pre", "textarea", "listing"}:
            code = _verbatim(child).strip("\n").rstrip()
            if code.strip():
                self._add("CodeSnippet", code)
        elif tag == "table":
            self._table(child)
        else:
            inner = "NarrativeText" if tag in {"p", "dt", "blockquote"} and kind != "ListItem" else kind
            inner_level = None if inner != kind else level
            self._block(child, inner, inner_level)
            self._end(inner, inner_level)

    def _table(self, node: Any) -> None:
        """Read a table of data as one; what only lays out a page is read through."""
        rows = [row for row in node.iter("tr") if next(row.iterancestors("table")) is node]
        cells = [[cell for cell in row if cell.tag in _CELLS] for row in rows]
        has_tables = node.find(".//table") is not None
        if has_tables or (max(map(len, cells), default=0) < 2 and node.find(".//th") is None):
            self._block(node, "NarrativeText", None)
            self._end("NarrativeText", None)
            return
        for caption in node.iterchildren("caption"):
            self._block(caption, "NarrativeText", None)
            self._end("NarrativeText", None)
        if text := markdown_table(_grid(cells)):
            self._add("Table", text)


def _grid(rows: list[list[Any]]) -> list[list[str]]:
    """Lay cells out; one that spans rows repeats its text, one that spans columns leaves the rest empty."""
    grid: list[list[str]] = []
    down: dict[int, tuple[int, str]] = {}  # column -> rows left, text
    for cells in rows:
        line: list[str] = []

        def fill(line: list[str]) -> None:
            while (held := down.get(len(line))) is not None:
                left, text = held
                if left > 1:
                    down[len(line)] = (left - 1, text)
                else:
                    del down[len(line)]
                line.append(text)

        for cell in cells:
            fill(line)
            text = _shown("".join(_text_of(cell)))
            across, rows_down = _span(cell, "colspan"), _span(cell, "rowspan")
            for n in range(across):
                if rows_down > 1:
                    down[len(line)] = (rows_down - 1, "" if n else text)
                line.append("" if n else text)
        fill(line)
        grid.append(line)
    return grid


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return min(max(int(value), 1), 1000) if value.isdecimal() and len(value) < 6 else 1


def _text_of(node: Any) -> Iterator[str]:
    if node.text:
        yield node.text
    for child in node:
        if isinstance(child.tag, str) and child.tag not in _NOT_TEXT and not _is_hidden(child):
            if child.tag not in _INLINE:
                yield " "
            if child.tag not in _DROPPED_INLINE:
                yield from _text_of(child)
            if child.tag not in _INLINE:
                yield " "
        if child.tail:
            yield child.tail


def _verbatim(node: Any) -> str:
    for line_break in node.iter("br"):
        line_break.tail = "\n" + (line_break.tail or "")
    return "".join(node.itertext())


def _is_hidden(node: Any) -> bool:
    if not node.attrib:
        return False
    style = node.get("style")
    return (
        node.get("hidden") is not None
        or node.get("aria-hidden") == "true"
        or (style is not None and _HIDDEN_STYLE.search(style) is not None)
    )


def _shown(text: str) -> str:
    """Put blanks together as a browser does; what a <br> parts stays on lines of its own."""
    if "\v" not in text:
        return _BLANKS.sub(" ", text).strip(" \u3000")
    lines = (_BLANKS.sub(" ", line).strip(" \u3000") for line in text.split("\v"))
    return "\n".join(line for line in lines if line)
