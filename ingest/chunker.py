"""Elements to chunks: by structure first, then by sentence, packed to a token budget."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ingest.units import CHARACTERS_PER_TOKEN, Unit, Units, table_header
from ingest.values import ChunkDraft, Element, Place, embedding_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ingest.units import CountTokens

MIN_TOKENS = 16
# Above this share of the limit the sum over sentences no longer does: the text as a whole is counted.
_COUNTED_FROM = 0.8
# A cut may come once a chunk is so full; among the places from there on the best one is taken.
_FULL_ENOUGH = 0.5
_LAST_TWO = 1.6
_OVERLAP_SHARE = 8
_OVERLAP_SENTENCES = 2
_APART = {"Table", "CodeSnippet"}
_MARGINAL = {"Header", "Footer"}
_LEADS_ON = (":", "：")


@dataclass(frozen=True, slots=True)
class _Section:
    """The blocks under one heading, and the headings above them; or what pages repeat."""

    path: tuple[str, ...]
    elements: tuple[int, ...]
    searchable: bool = True


def chunk(
    elements: Sequence[Element], *, count_tokens: CountTokens, budget: int, limit: int | None = None
) -> list[ChunkDraft]:
    """Cut a document into chunks of about `budget` tokens, in reading order.

    Every element's text stands in a chunk's text or heading path; nothing is truncated. Tables repeat their
    header row in every chunk; code stays whole where it fits; short sections under one parent are merged;
    prose repeats its last sentences at the beginning of the next chunk. Where a change moves what follows,
    the cuts soon fall into the same places again.

    limit: what no embedding text may exceed, counted exactly; `budget` where it is not given.
    """
    if budget < MIN_TOKENS:
        raise ValueError(f"a budget of {budget} tokens is too small to cut sensibly; at least {MIN_TOKENS}")
    limit = budget if limit is None else limit
    kept = [e for e in elements if e.text.strip()]
    while True:
        drafts = _Chunker(kept, count_tokens, budget).drafts()
        near = [draft for draft in drafts if draft.n_tokens > _COUNTED_FROM * limit]
        exact = dict(zip(map(id, near), count_tokens([d.embedding_text for d in near]), strict=True))
        if all(n <= limit for n in exact.values()):
            return [replace(d, n_tokens=exact[id(d)]) if id(d) in exact else d for d in drafts]
        # The tokenizer counts more where sentences meet than in each: begin again with more room.
        budget -= 1 + budget // 8
        if budget < MIN_TOKENS // 4:
            raise ValueError(f"a single character has more than the {limit} tokens that a chunk may have")


class _Chunker:
    """Hold what every step needs: the document, the tokenizer and the budget."""

    def __init__(self, elements: Sequence[Element], count: CountTokens, budget: int) -> None:
        self._elements = elements
        self._count = count
        self._budget = budget
        self._units = Units(elements, count, budget)
        self._offsets: list[int] = []
        offset = 0
        for element in elements:
            self._offsets.append(offset)
            offset += len(element.text) + 2
        self._path_costs: dict[tuple[str, ...], int] = {}

    def drafts(self) -> list[ChunkDraft]:
        sections = [
            [replace(draft, searchable=section.searchable) for draft in self._section(section)]
            for section in self._sections()
        ]
        return self._merge([drafts for drafts in sections if drafts])

    # --- sections -----------------------------------------------------------------------------------

    def _sections(self) -> Iterator[_Section]:
        """Group the elements by heading; a heading without a body, or too long to repeat, is body itself."""
        stack: list[tuple[int, int]] = []  # (level, element)
        body: list[int] = []
        marginal: list[int] = []
        levels = _levels(self._elements)
        for i, level in enumerate(levels):
            if level is None:
                (marginal if self._elements[i].kind in _MARGINAL else body).append(i)
                continue
            if body:
                yield _Section(self._path(stack), tuple(body))
                body = []
            while stack and stack[-1][0] >= level:
                stack.pop()
            follower = levels[i + 1] if i + 1 < len(levels) else level
            if self._path_tokens(self._path([*stack, (level, i)])) > self._budget // 2:
                body.append(i)
                continue
            stack.append((level, i))
            if follower is not None and follower <= level:
                yield _Section(self._path(stack), (i,))
        if body:
            yield _Section(self._path(stack), tuple(body))
        if marginal:
            yield _Section((), tuple(marginal), searchable=False)

    def _path(self, stack: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        return tuple(" ".join(self._elements[i].text.split()) for _, i in stack)

    def _path_tokens(self, path: tuple[str, ...]) -> int:
        if not path:
            return 0
        if path not in self._path_costs:
            text = embedding_text(path, "")
            self._path_costs[path] = max(self._count([text])[0], len(text) // CHARACTERS_PER_TOKEN)
        return self._path_costs[path]

    def _section(self, section: _Section) -> Iterator[ChunkDraft]:
        """Cut one section; runs of text are packed together, every large table on its own."""
        room = self._budget - self._path_tokens(section.path)
        run: list[Unit] = []
        for i in section.elements:
            kind, n = self._elements[i].kind, self._units.n_tokens(i)
            if kind == "Table" and n > room // 2:
                yield from self._pack(section.path, run)
                run = []
                yield from self._table(section.path, i, room)
            elif kind in _APART and n <= room:
                run.append(self._units.whole(i))
            else:
                run += self._units.of(i)
        yield from self._pack(section.path, run)

    def _table(self, path: tuple[str, ...], i: int, room: int) -> Iterator[ChunkDraft]:
        """Cut a Markdown table by rows, its two header lines before each part."""
        units = self._units.of(i)
        text = self._elements[i].text
        n_header = table_header(text)
        header_tokens = sum(unit.n_tokens for unit in units if unit.end <= n_header)
        if header_tokens > room // 3:
            n_header = 0  # too wide to repeat: it is a row as any other
        rows = [unit for unit in units if unit.start >= n_header]
        if n_header and rows:
            yield from self._pack(path, rows, text[:n_header], header_tokens)
        else:
            yield from self._pack(path, units)

    # --- packing ------------------------------------------------------------------------------------

    def _pack(
        self, path: tuple[str, ...], units: Sequence[Unit], header: str = "", header_tokens: int = 0
    ) -> Iterator[ChunkDraft]:
        """Fill chunks with consecutive units; the sum of their tokens guides."""
        fixed = self._path_tokens(path) + header_tokens
        room = self._budget - fixed
        units = [part for unit in units for part in self._units.fit(unit, room)]
        first = 0
        left = sum(unit.n_tokens for unit in units)
        while first < len(units):
            carried = self._carried(units, first)
            total = sum(unit.n_tokens + 1 for unit in carried)
            if total + units[first].n_tokens > room:
                carried, total = [], 0
            last = first
            sums = []
            while last < len(units) and (last == first or total + units[last].n_tokens <= room):
                total += units[last].n_tokens + self._joint(units, last)
                sums.append(total)
                last += 1
            if last < len(units):
                last = self._best_cut(units, first, sums, room, left)
            draft = self._draft(path, carried, units[first:last], fixed, header)
            if header and first:
                draft = replace(draft, n_overlap=len(header))
            if draft.text:
                yield draft
            left -= sum(unit.n_tokens for unit in units[first:last])
            first = last

    def _joint(self, units: Sequence[Unit], at: int) -> int:
        """Allow a token for what stands between two elements."""
        return int(at + 1 < len(units) and units[at + 1].element != units[at].element)

    def _carried(self, units: Sequence[Unit], first: int) -> list[Unit]:
        """Return what the chunk that begins at `first` repeats: the last sentences, or a list's lead-in."""
        room = self._budget // _OVERLAP_SHARE
        if first == 0 or self._kind(units[first]) in _APART:
            return []
        if self._kind(units[first]) == "ListItem":
            before = first - 1
            while before > 0 and self._kind(units[before]) == "ListItem":
                before -= 1
            leads = self._units.text(units[before]).rstrip().endswith(_LEADS_ON)
            return [units[before]] if leads and units[before].n_tokens <= room else []
        begin = first
        while begin > 0 and first - begin < _OVERLAP_SENTENCES:
            unit = units[begin - 1]
            room -= unit.n_tokens
            if room < 0 or self._kind(unit) in _APART or self._kind(unit) == "ListItem":
                break
            begin -= 1
        return list(units[begin:first])

    def _kind(self, unit: Unit) -> str:
        return self._elements[unit.element].kind

    def _best_cut(self, units: Sequence[Unit], first: int, sums: Sequence[int], room: int, left: int) -> int:
        """Return where to end a chunk: at the strongest break once it is full enough.

        Among equals their words decide, not their order: so after a change further up, the cuts meet the
        old ones again within a few chunks, and what follows keeps its vectors. The last two chunks of a
        section share what is left instead, lest a crumb remain.
        """
        is_end = left < _LAST_TWO * room
        cut = first + len(sums)
        best: tuple[int, int] | None = None
        for n in range(len(sums), 0, -1):
            if n < len(sums) and sums[n - 1] < (left // 3 if is_end else _FULL_ENOUGH * room):
                break
            place = first + n
            text = self._units.text(units[place - 1])
            worth = -abs(2 * sums[n - 1] - left) if is_end else zlib.crc32(text.encode())
            merit = (self._strength(units, place, text), worth)
            if best is None or merit > best:
                best, cut = merit, place
        return cut

    def _strength(self, units: Sequence[Unit], place: int, before: str) -> int:
        """Rank a cut before `place`: inside a thought, after a sentence or row, after a paragraph."""
        left, right = units[place - 1], units[place]
        kind = self._kind(left)
        if before.rstrip().endswith(_LEADS_ON):
            return 0
        if left.element == right.element:
            blank = kind == "CodeSnippet" and not before.strip()
            return 1 if kind != "CodeSnippet" or blank else 0
        return 1 if kind == self._kind(right) == "ListItem" else 2

    def _draft(
        self,
        path: tuple[str, ...],
        carried: Sequence[Unit],
        units: Sequence[Unit],
        fixed: int,
        header: str,
    ) -> ChunkDraft:
        own = self._text(units).strip()
        repeated = self._text([*carried, *units]).strip() if carried else own
        # A list's lead-in may stand far above its items: the place is that of the chunk's own text.
        begin = carried[0] if carried and self._kind(units[0]) != "ListItem" else units[0]
        page = self._elements[units[0].element].page
        start, end = self._place(begin)[0], self._place(units[-1])[1]
        n_tokens = fixed + sum(unit.n_tokens for unit in (*carried, *units))
        first, last = self._elements[begin.element], self._elements[units[-1].element]
        place = span(self._lines(begin), first.page, self._lines(units[-1]), last.page)
        n_overlap = len(repeated) - len(own)
        return ChunkDraft(header + repeated, path, page, n_tokens, start, end, n_overlap, place=place)

    def _lines(self, unit: Unit) -> Place | None:
        """Return the place of a unit: of a table whose rows tell theirs, that of the row."""
        element = self._elements[unit.element]
        place = element.place
        if place is None or not place.lines:
            return place
        # The second line of a Markdown table is its rule.
        first, last = (element.text.count("\n", 0, at) for at in (unit.start, max(unit.end - 1, unit.start)))
        rows = [place.lines[min(max(at - 1, 0) if at else 0, len(place.lines) - 1)] for at in (first, last)]
        return Place(place.unit, rows[0], rows[1])

    def _place(self, unit: Unit) -> tuple[int, int]:
        """Return a unit's offsets: in the file where its reader tells them, else in the extracted text."""
        element = self._elements[unit.element]
        if element.start is None or element.end is None:
            offset = self._offsets[unit.element]
            return offset + unit.start, offset + unit.end
        if element.end - element.start == len(element.text):
            return element.start + unit.start, element.start + unit.end
        # Marks were taken out of it: a part of it is only known to stand somewhere in it.
        return element.start, element.end

    def _text(self, units: Sequence[Unit]) -> str:
        pieces: list[str] = []
        place = 0
        while place < len(units):
            stop = place
            while stop + 1 < len(units) and units[stop + 1].element == units[place].element:
                stop += 1
            element = self._elements[units[place].element]
            if pieces:
                previous = self._elements[units[place - 1].element]
                tight = previous.kind == element.kind == "ListItem"
                pieces.append("\n" if tight else "\n\n")
            pieces.append(element.text[units[place].start : units[stop].end])
            place = stop + 1
        return "".join(pieces)

    # --- merging ------------------------------------------------------------------------------------

    def _merge(self, sections: Sequence[list[ChunkDraft]]) -> list[ChunkDraft]:
        """Join short sections that follow one another under one parent."""
        merged: list[ChunkDraft] = []
        changed: set[int] = set()
        open_path: tuple[str, ...] | None = None  # of the last chunk, where another section may join it
        for drafts in sections:
            draft = drafts[0]
            if len(drafts) == 1 and open_path is not None:
                joined = self._join(merged[-1], draft, open_path)
                if joined is not None:
                    merged[-1] = joined
                    changed.add(len(merged) - 1)
                    continue
            merged += drafts
            open_path = draft.heading_path[:-1] if len(drafts) == 1 and draft.heading_path else None
        counts = self._count([merged[i].embedding_text for i in changed])
        for i, n in zip(changed, counts, strict=True):
            merged[i] = replace(merged[i], n_tokens=n)
        return merged

    def _join(self, left: ChunkDraft, right: ChunkDraft, parent: tuple[str, ...]) -> ChunkDraft | None:
        """Put two short siblings into one chunk under their parent, their own headings inside the text."""
        if right.heading_path[:-1] != parent or not right.heading_path:
            return None
        # Both count their headings, which is more than they need together.
        n = left.n_tokens + right.n_tokens
        if n > self._budget // 2:
            return None
        text = f"{_with_heading(left, parent)}\n\n{_with_heading(right, parent)}"
        place = span(left.place, left.page, right.place, right.page)
        return ChunkDraft(text, parent, left.page, n, left.start, right.end, place=place)


def span(first: Place | None, page: int | None, last: Place | None, last_page: int | None) -> Place | None:
    """Return the place from one to another; whole pages where they stand on several."""
    if first is None or last is None:
        return None
    over_pages = page != last_page or "page" in (first.unit, last.unit)
    if page is not None and last_page is not None and over_pages:
        return Place("page", page, last.last if last.unit == "page" else last_page)
    return Place(first.unit, first.first, max(first.last, last.last)) if first.unit == last.unit else None


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
