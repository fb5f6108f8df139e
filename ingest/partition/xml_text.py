"""xml: read with lxml, without entities and without network."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any
from xml.parsers import expat

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition.decoding import with_newlines
from ingest.partition.web_page import html_text
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits


def read_xml(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read XML as lines `path: text`, one element per child of the root; offsets are in the file's text."""
    data = file.read(limits.file_bytes)
    root = parse_xml(data)
    text = with_newlines(html_text(data, declared=root.getroottree().docinfo.encoding)).lstrip("\ufeff")
    children = [child for child in root if isinstance(child.tag, str)]
    blocks = ["\n".join(_lines(root, "", deep=False))]
    blocks += ["\n".join(_lines(child, "", deep=True)) for child in children]
    spans = _spans(text)
    if len(spans) != len(blocks):  # an entity that is not expanded may hold elements
        return [Element("NarrativeText", block) for block in blocks if block]
    return [
        Element("NarrativeText", block, start=start, end=end)
        for block, (start, end) in zip(blocks, spans, strict=True)
        if block
    ]


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where the root's start tag and each of its children stand; nothing where expat does not tell."""
    data = text.encode("utf-8", "ignore")
    parser = expat.ParserCreate("utf-8")  # whatever the text says of the bytes that it once was
    begins: list[int] = []
    ends: list[int] = []
    depth = 0

    def close_tag() -> None:
        # A tag ends where the next thing begins.
        if len(ends) < len(begins) and depth < 2:
            ends.append(parser.CurrentByteIndex)

    def on_start(_name: str, _attributes: object) -> None:
        nonlocal depth
        close_tag()
        if depth < 2:
            begins.append(parser.CurrentByteIndex)
        depth += 1

    def on_end(_name: str) -> None:
        nonlocal depth
        close_tag()
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    # With it, entities are not expanded.
    parser.DefaultHandler = lambda _data: close_tag()
    try:
        parser.Parse(data, True)
    except expat.ExpatError:
        return []
    spans: list[tuple[int, int]] = []
    n_bytes = n_characters = 0
    for begin, end in zip(begins, ends, strict=True):
        start = n_characters + len(data[n_bytes:begin].decode())
        n_bytes, n_characters = end, start + len(data[begin:end].decode())
        spans.append((start, n_characters))
    return spans


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
