"""Chinese laws and contracts: 编, 章, 节 and 条 are headings, whatever the format makes of them."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NUMBER = "[零〇一二三四五六七八九十百千两0-9０-９]{1,9}"
_ARTICLE = re.compile(rf"^[ \t\u3000]*(第{_NUMBER}条(?:之{_NUMBER})?)[ \t\u3000:：、]+", re.MULTILINE)
_DIVISION = re.compile(rf"第{_NUMBER}(编|章|节)(?=\s|$)")
_RANKS = "编章节"
_ARTICLE_LEVEL = 90
_PROSE = {"NarrativeText", "Title", "ListItem", "UncategorizedText"}


def begins_division(line: str) -> bool:
    """Tell whether a line begins an article or a chapter, and so a paragraph of its own."""
    return _ARTICLE.match(line) is not None or _DIVISION.match(line) is not None


def with_articles(elements: Sequence[Element]) -> list[Element]:
    """Give articles a heading of their own (第三十六条), so that what is cut off them still names them.

    Chapters and sections are ranked where the format puts all headings on one level.
    """
    divided = [part for element in elements for part in _articles(element)]
    titles = [element for element in divided if element.level not in (None, _ARTICLE_LEVEL)]
    if len({element.level for element in titles}) != 1:
        return divided
    ranks = {match[1] for element in titles if (match := _DIVISION.match(element.text))}
    outermost = int(any(_DIVISION.match(element.text) is None for element in titles))
    levels = {rank: outermost + n for n, rank in enumerate(rank for rank in _RANKS if rank in ranks)}
    return [_ranked(element, levels) for element in divided]


def _articles(element: Element) -> Iterator[Element]:
    if element.kind not in _PROSE:
        yield element
        return
    matches = list(_ARTICLE.finditer(element.text))
    if not matches:
        yield element
        return
    if before := element.text[: matches[0].start()].strip():
        begin = element.text.index(before)
        yield _part(element, element.kind, begin, begin + len(before), level=element.level)
    ends = [*(match.start() for match in matches[1:]), len(element.text)]
    for match, end in zip(matches, ends, strict=True):
        yield _part(element, "Title", *match.span(1), level=_ARTICLE_LEVEL)
        if body := element.text[match.end() : end].strip():
            begin = element.text.index(body, match.end())
            yield _part(element, "NarrativeText", begin, begin + len(body))


def _part(element: Element, kind: str, begin: int, end: int, *, level: int | None = None) -> Element:
    """Return a part of an element, with its place where the whole has an exact one."""
    start, stop = element.start, element.end
    if start is not None and stop is not None and stop - start == len(element.text):
        start, stop = start + begin, start + end
    return Element(kind, element.text[begin:end], level, element.page, start, stop, element.place)


def _ranked(element: Element, levels: dict[str, int]) -> Element:
    if element.level is None or not (division := _DIVISION.match(element.text)):
        return element
    return dataclasses.replace(element, level=levels[division[1]])
