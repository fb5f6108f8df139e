"""What is not cut any further: sentences, table rows, lines of code; counted in one batch a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.sentences import sentence_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ingest.values import Element

    CountTokens = Callable[[Sequence[str]], Sequence[int]]

# Tokenizers count a "word" of any length as one unknown token: characters are limited as well.
CHARACTERS_PER_TOKEN = 16
_TABLE_RULE = "| ---"


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of an element. element: its index; start, end: where the piece stands in its text."""

    element: int
    start: int
    end: int
    n_tokens: int


class Units:
    """The elements of a document cut into units, with their tokens."""

    def __init__(self, elements: Sequence[Element], count: CountTokens, budget: int) -> None:
        """Cut and count; no unit has more characters than `budget` tokens may have."""
        self._elements = elements
        self._count = count
        self._max_characters = budget * CHARACTERS_PER_TOKEN
        spans = [list(self._spans(element)) for element in elements]
        texts = [element.text[a:b] for element, own in zip(elements, spans, strict=True) for a, b in own]
        counts = iter(count(texts))
        self._of = [
            [Unit(i, a, b, _cost(next(counts), b - a)) for a, b in own] for i, own in enumerate(spans)
        ]

    def of(self, element: int) -> list[Unit]:
        """Return an element's units in reading order."""
        return self._of[element]

    def n_tokens(self, element: int) -> int:
        """Return the tokens of a whole element."""
        return sum(unit.n_tokens for unit in self._of[element])

    def whole(self, element: int) -> Unit:
        """Return an element as one unit."""
        return Unit(element, 0, len(self._elements[element].text), self.n_tokens(element))

    def text(self, unit: Unit) -> str:
        """Return what a unit says."""
        return self._elements[unit.element].text[unit.start : unit.end]

    def fit(self, unit: Unit, room: int) -> Iterator[Unit]:
        """Cut a unit that is longer than the room at a space near its middle, or at any character."""
        pending = [unit]
        while pending:
            unit = pending.pop()
            if unit.n_tokens <= room or unit.end - unit.start == 1:
                yield unit
                continue
            text = self._elements[unit.element].text
            middle = _middle(text, unit.start, unit.end)
            spans = ((unit.start, middle), (middle, unit.end))
            counts = self._count([text[a:b] for a, b in spans])
            halves = [
                Unit(unit.element, a, b, _cost(n, b - a)) for (a, b), n in zip(spans, counts, strict=True)
            ]
            pending += reversed(halves)

    def _spans(self, element: Element) -> Iterator[tuple[int, int]]:
        is_prose = element.kind not in {"Table", "CodeSnippet"}
        for start, end in sentence_spans(element.text) if is_prose else line_spans(element.text):
            for piece in range(start, end, self._max_characters):
                yield piece, min(end, piece + self._max_characters)


def table_header(text: str) -> int:
    """Return where the rows of a Markdown table begin, 0 when it has no header."""
    lines = line_spans(text[: text.find("\n", text.find("\n") + 1) + 1])
    return lines[1][1] if len(lines) == 2 and text[lines[1][0] :].startswith(_TABLE_RULE) else 0


def line_spans(text: str) -> list[tuple[int, int]]:
    """Cut text into lines, each with its newline."""
    spans: list[tuple[int, int]] = []
    start = 0
    while (end := text.find("\n", start) + 1) > 0:
        spans.append((start, end))
        start = end
    if start < len(text):
        spans.append((start, len(text)))
    return spans


def _cost(n_tokens: int, n_characters: int) -> int:
    return max(n_tokens, n_characters // CHARACTERS_PER_TOKEN)


def _middle(text: str, start: int, end: int) -> int:
    """Return a place to cut between start and end: after a space near the middle, else the middle."""
    middle = (start + end) // 2
    reach = max(1, (end - start) // 4)
    space = text.rfind(" ", middle - reach, middle + reach)
    return space + 1 if start < space + 1 < end else max(middle, start + 1)
