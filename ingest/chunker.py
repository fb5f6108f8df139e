"""Elements to chunks: by structure first, then by sentence, packed to a token budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.sentences import sentence_spans
from ingest.values import ChunkDraft, Element, embedding_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    CountTokens = Callable[[str], int]

# Tokenizers count a "word" of any length as one unknown token: characters are limited as well.
CHARACTERS_PER_TOKEN = 16
MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is not cut any further: a sentence, a table row, a whole code block or a line of it.

    element: index of its element; start, end: where it stands in that element's text.
    """

    element: int
    start: int
    end: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class _Section:
    """The blocks under one heading, and the headings above them."""

    path: tuple[str, ...]
    elements: tuple[int, ...]


class _Document:
    """The elements with their places in the extracted text."""

    def __init__(self, elements: Sequence[Element]) -> None:
        self.elements = elements
        self.offsets: list[int] = []
        offset = 0
        for element in elements:
            self.offsets.append(offset)
            offset += len(element.text) + 2


def chunk(elements: Sequence[Element], *, count_tokens: CountTokens, budget: int) -> list[ChunkDraft]:
    """Cut a document into chunks whose embedding text has at most `budget` tokens, in reading order.

    Every element's text stands in a chunk's text or heading path; nothing is truncated. Tables repeat their
    header row in every chunk; code stays whole where it fits; short sections under one parent are merged.
    """
    if budget < MIN_TOKENS:
        raise ValueError(f"a budget of {budget} tokens is too small to cut sensibly; at least {MIN_TOKENS}")
    document = _Document([e for e in elements if e.text.strip()])
    chunker = _Chunker(document, count_tokens, budget)
    sections = [list(chunker.section(section)) for section in chunker.sections()]
    return chunker.merge([drafts for drafts in sections if drafts])


class _Chunker:
    """Hold what every step needs: the document, the tokenizer and the budget."""

    def __init__(self, document: _Document, count_tokens: CountTokens, budget: int) -> None:
        self.document = document
        self.count = count_tokens
        self.budget = budget

    # --- sections -----------------------------------------------------------------------------------

    def sections(self) -> Iterator[_Section]:
        """Group the elements by heading; a heading without a body, or too long to repeat, is body itself."""
        stack: list[tuple[int, int]] = []  # (level, element)
        body: list[int] = []
        levels = _levels(self.document.elements)
        for i, (element, level) in enumerate(zip(self.document.elements, levels, strict=True)):
            if level is None:
                body.append(i)
                continue
            if body:
                yield _Section(self._path(stack), tuple(body))
                body = []
            while stack and stack[-1][0] >= level:
                stack.pop()
            follower = levels[i + 1] if i + 1 < len(levels) else level
            too_long = self._path_tokens((*self._path(stack), element.text)) > self.budget // 2
            if too_long:
                body.append(i)
                continue
            stack.append((level, i))
            if follower is not None and follower <= level:
                yield _Section(self._path(stack), (i,))
        if body:
            yield _Section(self._path(stack), tuple(body))

    def _path(self, stack: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        return tuple(" ".join(self.document.elements[i].text.split()) for _, i in stack)

    def _path_tokens(self, path: tuple[str, ...]) -> int:
        return self._cost(embedding_text(path, ""))

    def _cost(self, text: str) -> int:
        return max(self.count(text), len(text) // CHARACTERS_PER_TOKEN)

    # --- units --------------------------------------------------------------------------------------

    def section(self, section: _Section) -> Iterator[ChunkDraft]:
        """Cut one section; runs of text are packed together, every table on its own."""
        room = self.budget - (self._path_tokens(section.path) + 1 if section.path else 0)
        run: list[_Unit] = []
        for i in section.elements:
            element = self.document.elements[i]
            if element.kind == "Table":
                if self._whole(i, room // 2) is None:
                    yield from self._pack(section.path, run)
                    run = []
                    yield from self._table(section.path, i, room)
                    continue
                spans = [(0, len(element.text))]
            elif element.kind == "CodeSnippet" and self._whole(i, room) is not None:
                spans = [(0, len(element.text))]
            elif element.kind == "CodeSnippet":
                spans = _line_spans(element.text)
            else:
                spans = sentence_spans(element.text)
            run += [unit for span in spans for unit in self._fit(i, *span, room)]
        yield from self._pack(section.path, run)

    def _whole(self, element: int, room: int) -> _Unit | None:
        text = self.document.elements[element].text
        if len(text) > room * CHARACTERS_PER_TOKEN:
            return None
        n = self._cost(text)
        return _Unit(element, 0, len(text), n) if n <= room else None

    def _fit(self, element: int, start: int, end: int, room: int) -> Iterator[_Unit]:
        """Cut what is longer than the room at a space near its middle, or at any character."""
        text = self.document.elements[element].text
        pending = [(start, end)]
        while pending:
            start, end = pending.pop()
            if end - start <= room * CHARACTERS_PER_TOKEN:
                n = self._cost(text[start:end])
                if n <= room or end - start == 1:
                    yield _Unit(element, start, end, n)
                    continue
            middle = _middle(text, start, end)
            pending += [(middle, end), (start, middle)]

    # --- packing ------------------------------------------------------------------------------------

    def _pack(self, path: tuple[str, ...], units: Sequence[_Unit]) -> Iterator[ChunkDraft]:
        """Fill chunks with consecutive units; the sum of their tokens guides, the exact count decides."""
        heading = self._path_tokens(path) if path else 0
        first = 0
        while first < len(units):
            last, total = first, heading
            while last < len(units) and (last == first or total + units[last].n_tokens + 1 <= self.budget):
                total += units[last].n_tokens + 1
                last += 1
            draft = self._draft(path, units[first:last])
            while draft.n_tokens > self.budget and last - first > 1:
                last -= 1 + (last - first) // 8
                draft = self._draft(path, units[first : max(last, first + 1)])
            last = max(last, first + 1)
            if draft.n_tokens > self.budget:
                yield from self._squeeze(path, units[first])
            elif draft.text:
                yield draft
            first = last

    def _squeeze(self, path: tuple[str, ...], unit: _Unit) -> Iterator[ChunkDraft]:
        """Halve a unit that fits alone but not under its headings; at one character give up the headings."""
        if unit.end - unit.start <= 1:
            yield from [self._draft(path[1:], [unit])] if path else [self._draft((), [unit])]
            return
        text = self.document.elements[unit.element].text
        middle = _middle(text, unit.start, unit.end)
        for start, end in ((unit.start, middle), (middle, unit.end)):
            part = _Unit(unit.element, start, end, self._cost(text[start:end]))
            yield from self._pack(path, [part])

    def _draft(self, path: tuple[str, ...], units: Sequence[_Unit], header: str = "") -> ChunkDraft:
        elements = self.document.elements
        pieces: list[str] = []
        place = 0
        while place < len(units):
            stop = place
            while stop + 1 < len(units) and units[stop + 1].element == units[place].element:
                stop += 1
            element = elements[units[place].element]
            if pieces:
                previous = elements[units[place - 1].element]
                tight = previous.kind == element.kind == "ListItem"
                pieces.append("\n" if tight else "\n\n")
            pieces.append(element.text[units[place].start : units[stop].end])
            place = stop + 1
        text = header + "".join(pieces).strip()
        first, last = units[0], units[-1]
        return ChunkDraft(
            text=text,
            heading_path=path,
            page=elements[first.element].page,
            n_tokens=self.count(embedding_text(path, text)),
            start=self.document.offsets[first.element] + first.start,
            end=self.document.offsets[last.element] + last.end,
        )

    def _table(self, path: tuple[str, ...], element: int, room: int) -> Iterator[ChunkDraft]:
        """Cut a Markdown table by rows, its two header lines before each part."""
        text = self.document.elements[element].text
        rows = _line_spans(text)
        header = text[: rows[1][1]] if len(rows) > 2 and text[rows[1][0] :].startswith("| ---") else ""
        header_tokens = self.count(header)
        if header and header_tokens > room // 3:
            header = ""  # too wide to repeat: it is a row as any other
        body = rows[2:] if header else rows
        inside = room - header_tokens - 2 if header else room
        units = [unit for span in body for unit in self._fit(element, *span, inside)]
        first = 0
        while first < len(units):
            last, total = first, 0
            while last < len(units) and (last == first or total + units[last].n_tokens + 1 <= inside):
                total += units[last].n_tokens + 1
                last += 1
            draft = self._draft(path, units[first:last], header)
            while draft.n_tokens > self.budget and last - first > 1:
                last -= 1
                draft = self._draft(path, units[first:last], header)
            if draft.n_tokens > self.budget:
                yield from self._pack(path, units[first:last])
            else:
                yield draft
            first = last

    # --- merging ------------------------------------------------------------------------------------

    def merge(self, sections: Sequence[list[ChunkDraft]]) -> list[ChunkDraft]:
        """Join neighbouring sections of one parent while they fill no more than half of the budget."""
        merged: list[ChunkDraft] = []
        open_path: tuple[str, ...] | None = None  # of the last chunk, where another section may join it
        for drafts in sections:
            draft = drafts[0]
            if len(drafts) == 1 and open_path is not None:
                joined = self._join(merged[-1], draft, open_path)
                if joined is not None:
                    merged[-1] = joined
                    continue
            merged += drafts
            open_path = draft.heading_path[:-1] if len(drafts) == 1 and draft.heading_path else None
        return merged

    def _join(self, left: ChunkDraft, right: ChunkDraft, parent: tuple[str, ...]) -> ChunkDraft | None:
        """Put two short siblings into one chunk under their parent, their own headings inside the text."""
        if right.heading_path[:-1] != parent or not right.heading_path:
            return None
        if left.n_tokens + right.n_tokens > self.budget // 2:
            return None
        text = f"{_with_heading(left, parent)}\n\n{_with_heading(right, parent)}"
        n = self.count(embedding_text(parent, text))
        if n > self.budget:
            return None
        return ChunkDraft(text, parent, left.page, n, left.start, right.end)


def _with_heading(draft: ChunkDraft, parent: tuple[str, ...]) -> str:
    own = draft.heading_path[len(parent) :]
    # A heading without a body is its own text.
    return draft.text if own == (draft.text,) else "\n\n".join([*own, draft.text])


def _levels(elements: Sequence[Element]) -> list[int | None]:
    """Return the heading levels; a title that opens the document, directly followed by a
    heading of its own level, stands above that.

    Word's title style and its first heading style come out at one level.
    """
    levels = [element.level for element in elements]
    if len(levels) > 1 and levels[0] is not None and levels[0] == levels[1]:
        levels[0] = -1
    return levels


def _line_spans(text: str) -> list[tuple[int, int]]:
    """Cut text into lines, each with its newline."""
    spans: list[tuple[int, int]] = []
    start = 0
    for line in text.splitlines(keepends=True):
        spans.append((start, start + len(line)))
        start += len(line)
    return spans


def _middle(text: str, start: int, end: int) -> int:
    """Return a place to cut between start and end: after a space near the middle, else the middle."""
    middle = (start + end) // 2
    reach = max(1, (end - start) // 4)
    space = text.rfind(" ", middle - reach, middle + reach)
    return space + 1 if start < space + 1 < end else max(middle, start + 1)
