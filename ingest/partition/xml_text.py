"""xml, odt: read with lxml, without entities and without network."""

from __future__ import annotations

import zipfile
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition.limits import check_archive
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits

OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
# Comments, notes and what was deleted with changes tracked are not the text.
_ODT_LEFT_OUT = {f"{TEXT}note", f"{OFFICE}annotation", f"{TEXT}tracked-changes"}


def read_xml(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read XML as lines `path: text`, one element per child of the root."""
    root = parse_xml(file.read(limits.file_bytes))
    blocks = ["\n".join(_lines(root, "", deep=False))]
    blocks += ["\n".join(_lines(child, "", deep=True)) for child in root if isinstance(child.tag, str)]
    return [Element("NarrativeText", block) for block in blocks if block]


def read_odt(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read an OpenDocument text."""
    check_archive(file, limits)
    with zipfile.ZipFile(file) as archive:
        try:
            root = parse_xml(archive.read("content.xml"))
        except KeyError as error:
            raise PartitionError("content.xml is missing: not a complete OpenDocument file") from error
    body = root.find(f"{OFFICE}body/{OFFICE}text")
    if body is None:
        raise PartitionError("holds no text body: not an OpenDocument text")
    return [element for element in _odt_blocks(body) if element.text]


def parse_xml(data: bytes) -> Any:
    """Parse to an lxml element; entities stay unexpanded, nothing is fetched."""
    from lxml import etree  # type: ignore[import-untyped] # it has no stubs

    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        kind = LimitExceeded if "depth" in str(error) or "huge" in str(error).lower() else PartitionError
        raise kind(f"not valid XML: {error}") from error


def _lines(node: Any, path: str, *, deep: bool) -> Iterator[str]:
    from lxml import etree

    name = etree.QName(node).localname
    path = f"{path}.{name}" if path else name
    for key, value in node.attrib.items():
        yield f"{path}.{etree.QName(key).localname}: {value}"
    if not deep:
        return
    children = [child for child in node if isinstance(child.tag, str)]
    if any((child.tail or "").strip() for child in node) or not children:
        # Text with marks inside is one text, whatever the marks are.
        if text := " ".join("".join(node.itertext()).split()):
            yield f"{path}: {text}"
        return
    if text := " ".join((node.text or "").split()):
        yield f"{path}: {text}"
    for child in children:
        yield from _lines(child, path, deep=True)


def _odt_blocks(node: Any) -> Iterator[Element]:
    for child in node:
        if not isinstance(child.tag, str) or child.tag in _ODT_LEFT_OUT:
            continue
        if child.tag == f"{TEXT}h":
            level = child.get(f"{TEXT}outline-level", "1")
            yield Element("Title", open_text(child), level=max(int(level), 1) - 1 if level.isdigit() else 0)
        elif child.tag == f"{TEXT}p":
            yield Element("NarrativeText", open_text(child))
        elif child.tag == f"{TEXT}list":
            for item in child.iter(f"{TEXT}list-item"):
                own = [open_text(p) for p in item if p.tag in {f"{TEXT}p", f"{TEXT}h"}]
                yield Element("ListItem", "\n".join(own))
        elif child.tag == f"{TABLE}table":
            rows = [_odt_row(row) for row in child.iter(f"{TABLE}table-row")]
            yield Element("Table", markdown_table(rows))
        else:
            yield from _odt_blocks(child)


def _odt_row(row: Any) -> list[str]:
    # A cell that is repeated a thousand times is how a sheet writes the empty rest of a row.
    return [
        " ".join(open_text(p) for p in cell.iter(f"{TEXT}p"))
        for cell in row.iterchildren(f"{TABLE}table-cell", f"{TABLE}covered-table-cell")
    ]


def open_text(node: Any) -> str:
    """Return the text of an OpenDocument paragraph."""
    pieces = [node.text or ""]
    for child in node:
        if child.tag == f"{TEXT}s":
            pieces.append(" ")
        elif child.tag == f"{TEXT}tab":
            pieces.append("\t")
        elif child.tag == f"{TEXT}line-break":
            pieces.append("\n")
        elif isinstance(child.tag, str) and child.tag not in _ODT_LEFT_OUT:
            pieces.append(open_text(child))
        pieces.append(child.tail or "")
    return "".join(pieces).strip()
