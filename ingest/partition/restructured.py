"""rst: headings, code, lists and prose, by a small reader of our own."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from ingest.partition.decoding import decode_lines
from ingest.partition.lines import Lines, joined
from ingest.partition.markdown_table import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits
    from ingest.values import Element

# The numbers of its first line and of the one after its last; blank lines are in none.
_Block = tuple[int, int]

_RULE = re.compile(r"([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_BULLET = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)]|#\.)\s+")
_CODE = re.compile(r"\.\.\s+(?:code-block|code|sourcecode|highlight)::")
_DIRECTIVE = re.compile(r"\.\.(?:\s|$)")
_SIMPLE_TABLE = re.compile(r"=+(?: +=+)+\s*$")
_ROLE = re.compile(r":[\w:+.-]+:`([^`<]+?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")


def read_rst(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read reStructuredText; a heading's level is the order in which its rule first appears.

    Offsets are those of the file's text.
    """
    return list(_Reader(decode_lines(file.read(limits.file_bytes))).elements())


class _Reader:
    """Walk over the blocks between blank lines once."""

    def __init__(self, text: str) -> None:
        self._source = Lines(text)
        self._lines = [line.expandtabs(4).rstrip() for line in self._source.lines]
        self._blocks = list(self._cut())
        self._next = 0
        self._rules: list[str] = []
        self._is_literal = False
        """Whether the text before ends with ::, so that what is indented after it is code."""

    def _cut(self) -> Iterator[_Block]:
        first = None
        for number, line in enumerate([*self._lines, ""]):
            if line and first is None:
                first = number
            elif not line and first is not None:
                yield first, number
                first = None

    def elements(self) -> Iterator[Element]:
        while self._next < len(self._blocks):
            first, last = self._blocks[self._next]
            self._next += 1
            line = self._lines[first]
            was_literal, self._is_literal = self._is_literal, False
            if (heading := self._heading(first, last)) is not None:
                yield heading
            elif _DIRECTIVE.match(line):
                yield from self._directive(first, last)
            elif line.startswith(" ") and was_literal:
                self._next -= 1
                yield from self._code(self._indented())
            elif _SIMPLE_TABLE.match(line):
                if table := _simple_table(self._lines[first:last]):
                    yield self._source.element("Table", table, first, last)
            else:
                yield from self._prose(first, last)

    def _heading(self, first: int, last: int) -> Element | None:
        """Read a heading that begins the block, its rule below it or on both sides; the rest stays."""
        lines = self._lines[first:last]
        if len(lines) >= 3 and _RULE.match(lines[0]) and lines[0] == lines[2] and not _RULE.match(lines[1]):
            title, rule, end = lines[1].strip(), lines[0][0] * 2, first + 3
        elif len(lines) >= 2 and _RULE.match(lines[1]) and not lines[0].startswith(" "):
            title, rule, end = lines[0], lines[1][0], first + 2
        else:
            return None
        if rule not in self._rules:
            self._rules.append(rule)
        if end < last:
            self._blocks.insert(self._next, (end, last))
        return self._source.element("Title", _plain(title), first, end, self._rules.index(rule))

    def _directive(self, first: int, last: int) -> Iterator[Element]:
        """Read what belongs to a directive: code, or notes as prose; comments and images are nothing."""
        line = self._lines[first]
        # Options are indented, as the body is.
        begin = first + 1
        while begin < last and self._lines[begin].strip().startswith(":"):
            begin += 1
        body = [*([(begin, last)] if begin < last else []), *self._indented()]
        if _CODE.match(line):
            yield from self._code(body)
        elif "::" in line:
            for block in body:
                yield from self._prose(*block)

    def _indented(self) -> list[_Block]:
        """Take the next blocks, as long as they are indented."""
        taken: list[_Block] = []
        while self._next < len(self._blocks) and self._lines[self._blocks[self._next][0]].startswith(" "):
            taken.append(self._blocks[self._next])
            self._next += 1
        return taken

    def _code(self, blocks: list[_Block]) -> Iterator[Element]:
        if not blocks:
            return
        first, last = blocks[0][0], blocks[-1][1]
        lines = self._lines[first:last]
        margin = min(len(line) - len(line.lstrip()) for line in lines if line)
        code = "\n".join(line[margin:] for line in lines)
        yield self._source.element("CodeSnippet", code, first, last)

    def _prose(self, first: int, last: int) -> Iterator[Element]:
        lines = self._lines[first:last]
        starts = (
            [n for n, line in enumerate(lines) if _BULLET.match(line)] if _BULLET.match(lines[0]) else [0]
        )
        for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            bullet = _BULLET.match(lines[begin])
            own = [lines[begin][bullet.end() :] if bullet else lines[begin], *lines[begin + 1 : end]]
            text = _plain(joined(own))
            self._is_literal = text.endswith("::")
            if text := text.removesuffix(":") if self._is_literal else text:
                kind = "ListItem" if bullet else "NarrativeText"
                yield self._source.element(kind, text, first + begin, first + end)


def _simple_table(lines: list[str]) -> str:
    starts = [match.start() for match in re.finditer("=+", lines[0])]
    ends = [*starts[1:], None]
    return markdown_table(
        [
            [_plain(line[start:end]).strip() for start, end in zip(starts, ends, strict=True)]
            for line in lines
            if not _SIMPLE_TABLE.match(line)
        ]
    )


def _plain(text: str) -> str:
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", text))
    return text.replace("``", "`")
