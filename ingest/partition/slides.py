"""pptx, straight from its XML: a slide's title is a heading; its lists, tables and notes follow."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from ingest.errors import PartitionError
from ingest.partition.headings import is_heading
from ingest.partition.markdown_table import markdown_table
from ingest.partition.ooxml import Package
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_D = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_TITLES = {"title", "ctrTitle"}
# What the master puts on every slide.
_REPEATED = {"ftr", "hdr", "dt", "sldNum", "sldImg"}
_LISTS = {"body", "obj", ""}


def read_pptx(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read a presentation; pages are slides, in the order in which they are shown."""
    package = Package(file, limits)
    root = package.required(package.main)
    links = package.links(package.main)
    references = root.findall(f"{_P}sldIdLst/{_P}sldId")
    elements: list[Element] = []
    for number, reference in enumerate(references, start=1):
        kind, name = links.get(reference.get(_LINK, ""), ("", ""))
        slide = package.xml(name) if kind == "slide" else None
        if slide is not None:
            elements += _slide(package, name, slide, number)
    if not references and root.tag != f"{_P}presentation":
        raise PartitionError("names no slides: not a presentation")
    return elements


def _slide(package: Package, name: str, slide: Any, page: int) -> Iterator[Element]:
    links = package.links(name)
    tree = slide.find(f"{_P}cSld/{_P}spTree")
    shapes = [] if tree is None else list(_shapes(tree))
    # A title may stand anywhere among the shapes; it is read first.
    shapes.sort(key=lambda shape: _placeholder(shape) not in _TITLES)
    for shape in shapes:
        placeholder = _placeholder(shape)
        if placeholder in _REPEATED:
            continue
        if shape.tag == f"{_P}graphicFrame":
            yield from _graphic(package, links, shape, page)
            continue
        body = shape.find(f"{_P}txBody")
        if body is None:
            continue
        if placeholder in _TITLES:
            text = " ".join(" ".join(_text(p) for p in body.iter(f"{_A}p")).split())
            if text:
                yield Element("Title", text, level=0, page=page)
            continue
        yield from _paragraphs(body, page, is_list=placeholder in _LISTS)
    for kind, target in links.values():
        if kind == "notesSlide" and (notes := package.xml(target)) is not None:
            for shape in _shapes(notes.find(f"{_P}cSld/{_P}spTree")):
                body = shape.find(f"{_P}txBody")
                if body is not None and _placeholder(shape) == "body":
                    yield from _paragraphs(body, page, is_list=False)


def _shapes(tree: Any) -> Iterator[Any]:
    """Return shapes and frames, those in groups too."""
    for child in tree if tree is not None else ():
        if child.tag in {f"{_P}sp", f"{_P}graphicFrame"}:
            yield child
        elif child.tag in {f"{_P}grpSp", f"{_MC}AlternateContent", f"{_MC}Choice"}:
            yield from _shapes(child)


def _placeholder(shape: Any) -> str | None:
    """Return the kind of placeholder that a shape fills; None for one that stands by itself."""
    placeholder = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
    return None if placeholder is None else placeholder.get("type", "")


def _paragraphs(body: Any, page: int, *, is_list: bool) -> Iterator[Element]:
    lines = [(text, p) for p in body.iterchildren(f"{_A}p") if (text := _text(p).strip())]
    for text, paragraph in lines:
        # A single paragraph in a list's place is prose that somebody wrote there.
        listed = _has_bullet(paragraph, by_default=is_list) and (len(lines) > 1 or is_heading(text))
        yield Element("ListItem" if listed else "NarrativeText", text, page=page)


def _has_bullet(paragraph: Any, *, by_default: bool) -> bool:
    properties = paragraph.find(f"{_A}pPr")
    if properties is None:
        return by_default
    if properties.find(f"{_A}buNone") is not None:
        return False
    return (
        by_default
        or properties.find(f"{_A}buChar") is not None
        or properties.find(f"{_A}buAutoNum") is not None
    )


def _text(node: Any) -> str:
    pieces = [
        (child.text or "") if child.tag == f"{_A}t" else "\n" if child.tag == f"{_A}br" else "\t"
        for child in node.iter(f"{_A}t", f"{_A}br", f"{_A}tab")
    ]
    # A vertical tab is how PowerPoint writes a line break in a title.
    return "".join(pieces).replace("\v", "\n")


def _graphic(package: Package, links: dict[str, tuple[str, str]], frame: Any, page: int) -> Iterator[Element]:
    """Read a table, or the words of a diagram or chart."""
    for table in frame.iter(f"{_A}tbl"):
        grid: list[list[str]] = []
        for row in table.iterchildren(f"{_A}tr"):
            above = grid[-1] if grid else []
            line: list[str] = []
            for cell in row.iterchildren(f"{_A}tc"):
                text = " ".join(_text(p) for p in cell.iter(f"{_A}p"))
                if cell.get("vMerge") in {"1", "true"} and not text.strip() and len(line) < len(above):
                    text = above[len(line)]
                line.append(text)
            grid.append(line)
        if text := markdown_table(grid):
            yield Element("Table", text, page=page)
    for data in frame.iter(f"{_D}relIds"):
        reference = data.get(_LINK.replace("}id", "}dm"), "")
        part = package.xml(links[reference][1]) if reference in links else None
        for paragraph in () if part is None else part.iter(f"{_A}p"):
            if text := _text(paragraph).strip():
                yield Element("ListItem", text, page=page)
    for chart in frame.iter(f"{_C}chart"):
        reference = chart.get(_LINK, "")
        part = package.xml(links[reference][1]) if reference in links else None
        if part is not None and (text := _chart(part)):
            yield Element("Table", text, page=page)


def _chart(part: Any) -> str:
    """Write a chart's series as a table: a row for each category."""
    series = list(part.iter(f"{_C}ser"))
    if not series:
        return ""

    def points(node: Any, name: str) -> dict[int, str]:
        return {
            int(point.get("idx", "0")): (point.findtext(f"{_C}v") or "")
            for place in node.iterchildren(f"{_C}{name}")
            for point in place.iter(f"{_C}pt")
            if point.get("idx", "0").isdecimal()
        }

    categories = points(series[0], "cat")
    values = [points(one, "val") for one in series]
    names = ["; ".join(points(one, "tx").values()) for one in series]
    rows = [["", *names]]
    rows += [
        [categories.get(at, ""), *(value.get(at, "") for value in values)]
        for at in sorted({*categories, *(at for value in values for at in value)})
    ]
    return markdown_table(rows)
