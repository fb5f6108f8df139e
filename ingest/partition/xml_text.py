"""xml: read with lxml, without entities and without network."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from ingest.errors import LimitExceeded, PartitionError
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits


def read_xml(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read XML as lines `path: text`, one element per child of the root."""
    root = parse_xml(file.read(limits.file_bytes))
    blocks = ["\n".join(_lines(root, "", deep=False))]
    blocks += ["\n".join(_lines(child, "", deep=True)) for child in root if isinstance(child.tag, str)]
    return [Element("NarrativeText", block) for block in blocks if block]


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
