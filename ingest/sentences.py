"""Where sentences end, in English and Chinese."""

from __future__ import annotations

import re

_CLOSING = r"[\"'”’」』》）)\]】]*"
# A full-width stop ends a sentence by itself; a Latin one only before a space; a newline always.
_END = re.compile(rf"[。！？；…]+{_CLOSING}\s*|[.!?]+{_CLOSING}(?:\s+|$)|\s*\n\s*")
_LAST_WORD = re.compile(r"([A-Za-z][A-Za-z.]*)\.$")
_ABBREVIATIONS = re.compile(
    r"dr|mrs?|ms|prof|st|jr|sr|vs|etc|e\.g|i\.e|figs?|eq|nos?|vol|pp?|ch|sec|al|approx|dept|inc|ltd|co|corp"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|u\.s|u\.k|ph\.d|a\.m|p\.m|cf|ca"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Cut text into sentences: adjoining spans that together are the whole text.

    The space after a sentence belongs to it.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _END.finditer(text):
        if match.start() == start or match.end() == start or _is_abbreviation(text, start, match):
            continue
        spans.append((start, match.end()))
        start = match.end()
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def _is_abbreviation(text: str, start: int, match: re.Match[str]) -> bool:
    """Tell whether the stop belongs to a word such as `e.g.` or to an initial such as `J.`."""
    if text[match.start()] != "." or "\n" in match.group():
        return False
    word = _LAST_WORD.search(text[max(start, match.start() - 12) : match.start() + 1])
    if word is None:
        return False
    name = word[1].lower()
    return _ABBREVIATIONS.fullmatch(name) is not None or (len(name) == 1 and name != "i")
