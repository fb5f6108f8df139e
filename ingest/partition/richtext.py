"""rtf: text, paragraphs and code pages, by a small reader of our own."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition.headings import is_heading
from ingest.values import Element, Place

if TYPE_CHECKING:
    from ingest.partition.limits import Limits

_TOKEN = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\([a-zA-Z]{1,32})(-?[0-9]{1,10})?[ ]?|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)"
)
# What stands in these groups is not the text.
_LEFT_OUT = frozenset(
    b"fonttbl colortbl stylesheet info pict object themedata datastore header footer headerl headerr"
    b" footerl footerr footnote listtable listoverridetable revtbl rsidtbl xmlnstbl generator fldinst".split()
)
_BREAKS = {
    b"par": "\n",
    b"line": "\n",
    b"sect": "\n",
    b"page": "\n",
    b"row": "\n",
    b"cell": "\t",
    b"tab": "\t",
}
_SIGNS = {
    b"emdash": "—", b"endash": "–", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“", b"rdblquote": "”",
    b"bullet": "•",
}  # fmt: skip
_CHARSETS = {
    0: "cp1252",
    128: "cp932",
    129: "cp949",
    134: "gb18030",
    136: "big5",
    204: "cp1251",
    238: "cp1250",
}


@dataclass(frozen=True, slots=True)
class _State:
    """What a group inherits. n_skipped: characters that stand in for one of Unicode."""

    visible: bool = True
    in_fonts: bool = False
    n_skipped: int = 1
    font: int = 0


def read_rtf(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read Rich Text; every paragraph is an element, and its place."""
    data = file.read(limits.file_bytes)
    if not data.startswith(b"{\\rtf"):
        raise PartitionError("does not begin as Rich Text does")
    elements: list[Element] = []
    for number, line in enumerate(_Reader(limits).read(data).split("\n"), start=1):
        if text := " ".join(line.split()):
            heading = is_heading(text)
            kind = "Title" if heading else "NarrativeText"
            place = Place("paragraph", number, number)
            elements.append(Element(kind, text, level=0 if heading else None, place=place))
    return elements


class _Reader:
    """Walk over the tokens with a stack of group states."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._page = "cp1252"
        self._fonts: dict[int, str] = {}
        self._pieces: list[str] = []
        self._bytes = bytearray()
        self._state = _State()
        self._font_named = 0
        self._to_skip = 0

    def read(self, data: bytes) -> str:
        stack: list[_State] = []
        for match in _TOKEN.finditer(data):
            code, word, number, symbol, brace, text = match.groups()
            if brace == b"{":
                self._flush()
                if len(stack) >= self._limits.nesting:
                    raise LimitExceeded(f"nested too deeply; the limit is {self._limits.nesting} levels")
                stack.append(self._state)
            elif brace == b"}":
                self._flush()
                self._state = stack.pop() if stack else self._state
            elif code is not None:
                self._byte(int(code, 16))
            elif word is not None:
                self._word(word, None if number is None else int(number))
            elif symbol is not None:
                self._symbol(symbol)
            elif text is not None and self._state.visible:
                skipped, self._to_skip = self._to_skip, max(0, self._to_skip - len(text))
                self._bytes += text[skipped:]
        self._flush()
        return "".join(self._pieces).encode("utf-16", "surrogatepass").decode("utf-16", "ignore")

    def _byte(self, value: int) -> None:
        if self._to_skip:
            self._to_skip -= 1
        elif self._state.visible:
            self._bytes.append(value)

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._state = replace(self._state, visible=False)
        elif symbol in (b"\\", b"{", b"}"):
            self._byte(symbol[0])
        elif symbol == b"~":
            self._text(" ")

    def _word(self, word: bytes, number: int | None) -> None:
        if word == b"u" and number is not None:
            self._flush()
            self._text(chr(number & 0xFFFF))
            self._to_skip = self._state.n_skipped
            return
        if word == b"uc":
            self._state = replace(self._state, n_skipped=max(0, number or 0))
        elif word == b"ansicpg" and number:
            self._page = {936: "gb18030", 950: "big5"}.get(number, f"cp{number}")
        elif word == b"f" and number is not None:
            self._flush()
            self._font_named = number
            self._state = replace(self._state, font=number)
        elif word == b"fcharset" and number in _CHARSETS and self._state.in_fonts:
            self._fonts[self._font_named] = _CHARSETS[number] if number else self._page
        elif word in _LEFT_OUT:
            self._state = replace(self._state, visible=False, in_fonts=word == b"fonttbl")
        elif word in _BREAKS:
            self._text(_BREAKS[word])
        elif word in _SIGNS:
            self._text(_SIGNS[word])

    def _text(self, text: str) -> None:
        self._flush()
        if self._state.visible:
            self._pieces.append(text)

    def _flush(self) -> None:
        if not self._bytes:
            return
        data, self._bytes = bytes(self._bytes), bytearray()
        for page in (self._fonts.get(self._state.font, self._page), self._page, "gb18030"):
            try:
                self._pieces.append(data.decode(page))
            except (UnicodeDecodeError, LookupError):
                continue
            return
        raise PartitionError(f"{len(data)} bytes of its text fit neither its fonts nor its code page")
