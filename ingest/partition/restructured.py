"""rst: headings, code, lists and prose, by a small reader of our own."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition.decoding import decode_lines
from ingest.partition.markdown import joined
from ingest.partition.markdown_table import markdown_table
from ingest.values import Element

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_RULE = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_BULLET = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)]|#\.)\s+")
_CODE = re.compile(r"\.\.\s+(?:code-block|code|sourcecode|highlight)::")
_DIRECTIVE = re.compile(r"\.\.(?:\s|$)")
_SIMPLE_TABLE = re.compile(r"=+(?: +=+)+\s*$")
_ROLE = re.compile(r":[\w:+.-]+:`([^`<]+?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")


def read_rst(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read reStructuredText; a heading's level is the order in which its rule first appears."""
    text = decode_lines(file.read(limits.file_bytes)).expandtabs(4)
    elements: list[Element] = []
    rules: list[str] = []
    blocks = _blocks(text)
    place = 0
    while place < len(blocks):
        block = blocks[place]
        place += 1
        heading = _heading(block)
        if heading is not None:
            title, rule, rest = heading
            if rule not in rules:
                rules.append(rule)
            elements.append(Element("Title", title, level=rules.index(rule)))
            if rest:
                blocks.insert(place, rest)
        elif _DIRECTIVE.match(block[0]):
            # Options and bodies are indented; notes and the like are prose, comments and images are nothing.
            is_code = _CODE.match(block[0])
            place = _directive(blocks, place, block, elements, is_code=is_code is not None)
        elif block[0].startswith(" ") and elements and elements[-1].text.endswith("::"):
            place = _literal(blocks, place - 1, elements)
        elif _SIMPLE_TABLE.match(block[0]):
            elements.append(Element("Table", _simple_table(block)))
        else:
            _prose(block, elements)
    return [
        Element(e.kind, e.text.removesuffix(":") if e.text.endswith("::") else e.text, level=e.level)
        for e in elements
        if e.text
    ]


def _blocks(text: str) -> list[list[str]]:
    """Cut at blank lines."""
    blocks: list[list[str]] = []
    for line in text.split("\n"):
        if not line.strip():
            blocks.append([])
        elif blocks:
            blocks[-1].append(line.rstrip())
        else:
            blocks.append([line.rstrip()])
    return [block for block in blocks if block]


def _heading(block: list[str]) -> tuple[str, str, list[str]] | None:
    """Return title, rule and the lines after it, where the block begins with a heading."""
    if len(block) >= 3 and _RULE.match(block[0]) and block[0] == block[2] and not _RULE.match(block[1]):
        return _plain(block[1]).strip(), block[0][0] * 2, block[3:]
    if len(block) >= 2 and _RULE.match(block[1]) and not block[0].startswith(" "):
        return _plain(block[0]), block[1][0], block[2:]
    return None


def _directive(
    blocks: list[list[str]], place: int, first: list[str], elements: list[Element], *, is_code: bool
) -> int:
    body = [[line for line in first[1:] if not line.strip().startswith(":")]]
    while place < len(blocks) and blocks[place][0].startswith(" "):
        body.append(blocks[place])
        place += 1
    body = [lines for lines in body if lines]
    if is_code:
        elements.append(Element("CodeSnippet", _dedented(body)))
    elif "::" in first[0]:
        for lines in body:
            _prose(lines, elements)
    return place


def _literal(blocks: list[list[str]], place: int, elements: list[Element]) -> int:
    body = []
    while place < len(blocks) and blocks[place][0].startswith(" "):
        body.append(blocks[place])
        place += 1
    elements.append(Element("CodeSnippet", _dedented(body)))
    return place


def _dedented(blocks: list[list[str]]) -> str:
    margin = min((len(line) - len(line.lstrip()) for block in blocks for line in block), default=0)
    return "\n\n".join("\n".join(line[margin:] for line in block) for block in blocks)


def _simple_table(block: list[str]) -> str:
    starts = [match.start() for match in re.finditer("=+", block[0])]
    ends = [*starts[1:], None]
    return markdown_table(
        [
            [_plain(line[start:end]).strip() for start, end in zip(starts, ends, strict=True)]
            for line in block
            if not _SIMPLE_TABLE.match(line)
        ]
    )


def _prose(block: list[str], elements: list[Element]) -> None:
    if not _BULLET.match(block[0]):
        elements.append(Element("NarrativeText", _plain(joined(block))))
        return
    for line in block:
        if bullet := _BULLET.match(line):
            elements.append(Element("ListItem", _plain(line[bullet.end() :])))
        else:
            last = elements.pop()
            elements.append(Element(last.kind, joined([last.text, _plain(line)])))


def _plain(text: str) -> str:
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", text))
    return text.replace("``", "`")
