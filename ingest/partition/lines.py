"""A text by its lines, for readers of formats that are written by hand, and where its parts stand in it."""

from __future__ import annotations

from ingest.values import Element


class Lines:
    """The lines of a text; numbers count from 0."""

    def __init__(self, text: str) -> None:
        """Cut the text."""
        self._text = text
        self.lines = text.split("\n")
        self._starts: list[int] = []
        start = 0
        for line in self.lines:
            self._starts.append(start)
            start += len(line) + 1

    def __getitem__(self, number: int) -> str:
        return self.lines[number]

    def __len__(self) -> int:
        return len(self.lines)

    def element(self, kind: str, text: str, first: int, last: int, level: int | None = None) -> Element:
        """Make an element of what stands in the lines from `first` to before `last`.

        Where no mark was taken out of it, its place is exact; else it is that of the lines.
        """
        start, end = self._starts[first], self._starts[last - 1] + len(self.lines[last - 1])
        if (place := self._text.find(text, start, end)) >= 0:
            start, end = place, place + len(text)
        return Element(kind, text, level=level, start=start, end=end)


def joined(lines: list[str]) -> str:
    """Join the lines of a paragraph: with a space, between Chinese characters without."""
    text = lines[0].strip()
    for line in lines[1:]:
        piece = line.strip()
        wide = bool(text) and ord(text[-1]) >= 0x2E80 and bool(piece) and ord(piece[0]) >= 0x2E80
        text += piece if wide else f" {piece}"
    return text
