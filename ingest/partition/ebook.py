"""epub: a zip of XHTML parts, read in the order of its spine."""

from __future__ import annotations

import dataclasses
import posixpath
import zipfile
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from ingest.errors import PartitionError
from ingest.partition.decoding import decode
from ingest.partition.limits import check_archive
from ingest.partition.web_page import elements_of
from ingest.partition.xml_text import parse_xml

if TYPE_CHECKING:
    from ingest.partition.limits import Limits
    from ingest.values import Element

_NAMES = {
    "container": "urn:oasis:names:tc:opendocument:xmlns:container",
    "opf": "http://www.idpf.org/2007/opf",
}


def read_epub(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read an e-book without pandoc; places are its blocks of text, counted through all of its parts."""
    check_archive(file, limits)
    elements: list[Element] = []
    n_before = 0
    with zipfile.ZipFile(file) as archive:
        for name in _spine(archive):
            if name in archive.NameToInfo:
                part = elements_of(decode(archive.read(name)), limits)
                elements += (_moved(element, n_before) for element in part)
                n_before += max((e.place.last for e in part if e.place is not None), default=0)
    return elements


def _moved(element: Element, n: int) -> Element:
    """Count the place of an element from the beginning of the book."""
    place = element.place
    if place is None:
        return element
    moved = dataclasses.replace(place, first=place.first + n, last=place.last + n)
    return dataclasses.replace(element, place=moved)


def _spine(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the text parts in reading order."""
    container = _xml(archive, "META-INF/container.xml")
    roots = container.xpath("//container:rootfile/@full-path", namespaces=_NAMES)
    if not roots:
        raise PartitionError("META-INF/container.xml names no package file: not a complete e-book")
    package = _xml(archive, str(roots[0]))
    folder = posixpath.dirname(str(roots[0]))
    parts = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in package.xpath("//opf:manifest/opf:item", namespaces=_NAMES)
        if "html" in item.get("media-type", "")
    }
    order = package.xpath("//opf:spine/opf:itemref/@idref", namespaces=_NAMES)
    return [parts[reference] for reference in order if reference in parts]


def _xml(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        data = archive.read(name)
    except KeyError as error:
        raise PartitionError(f"{name} is missing: not a complete e-book") from error
    return parse_xml(data)
