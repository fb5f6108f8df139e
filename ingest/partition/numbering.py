"""The numbers that Word writes before paragraphs and does not keep in their text: 第三条, 2.1, (a)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_VALUE = f"{_W}val"
_DIGITS = "零一二三四五六七八九"
_LEVEL = re.compile(r"%([1-9])")
_MAX_DEPTH = 9


@dataclass(frozen=True, slots=True)
class _Level:
    """How one level counts. text: %1 stands for the number of level 1."""

    form: str
    text: str
    start: int
    legal: bool


class Numbering:
    """The numbering definitions of a document, and how far each has counted."""

    def __init__(self, root: Any | None) -> None:
        """Read numbering.xml, where there is one."""
        self._levels: dict[str, dict[int, _Level]] = {}  # of an abstract numbering
        self._abstract: dict[str, str] = {}
        self._overrides: dict[tuple[str, int], int] = {}
        self._counts: dict[str, list[int]] = {}
        self._begun: set[str] = set()
        if root is not None:
            self._read(root)

    def label(self, number: str, depth: int) -> str | None:
        """Count on; return what stands before the paragraph: "" for a bullet, None where nothing is known."""
        abstract = self._abstract.get(number)
        levels = self._levels.get(abstract or "")
        if abstract is None or levels is None or not 0 <= depth < _MAX_DEPTH or depth not in levels:
            return None
        counts = self._counts.setdefault(abstract, [])
        if number not in self._begun:
            self._begun.add(number)
            if (number, depth) in self._overrides:
                del counts[depth:]
        while len(counts) <= depth:
            at = len(counts)
            start = self._overrides.get((number, at), levels[at].start if at in levels else 1)
            counts.append(start - 1 if at == depth else start)
        counts[depth] += 1
        del counts[depth + 1 :]
        level = levels[depth]
        if level.form in {"bullet", "none"}:
            return ""

        def shown(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            if at >= len(counts):
                return ""
            form = levels[at].form if at in levels and not level.legal else "decimal"
            return written(counts[at], form)

        return _LEVEL.sub(shown, level.text).strip()

    def _read(self, root: Any) -> None:
        for abstract in root.iter(f"{_W}abstractNum"):
            self._levels[abstract.get(f"{_W}abstractNumId", "")] = {
                _integer(level.get(f"{_W}ilvl"), 0): _level(level) for level in abstract.iter(f"{_W}lvl")
            }
        for number in root.iter(f"{_W}num"):
            name = number.get(f"{_W}numId", "")
            reference = number.find(f"{_W}abstractNumId")
            if reference is not None:
                self._abstract[name] = reference.get(_VALUE, "")
            for override in number.iter(f"{_W}lvlOverride"):
                start = override.find(f"{_W}startOverride")
                if start is not None:
                    depth = _integer(override.get(f"{_W}ilvl"), 0)
                    self._overrides[name, depth] = _integer(start.get(_VALUE), 1)


def written(number: int, form: str) -> str:
    """Write a number in one of Word's forms; unknown ones in digits."""
    if form in {"upperRoman", "lowerRoman"} and 0 < number < 4000:
        roman = _roman(number)
        return roman if form == "upperRoman" else roman.lower()
    if form in {"upperLetter", "lowerLetter"} and number > 0:
        letter = chr(ord("A") + (number - 1) % 26) * min((number - 1) // 26 + 1, 9)
        return letter if form == "upperLetter" else letter.lower()
    if form.startswith(("chinese", "ideograph", "japaneseCounting", "taiwaneseCounting")) and number > 0:
        return chinese(number)
    if form == "decimalEnclosedCircle" and 1 <= number <= 20:
        return chr(0x2460 + number - 1)
    return f"{number:02}" if form == "decimalZero" else str(number)


def chinese(number: int) -> str:
    """Write a number below 10,000 as it is counted in Chinese: 十五, 一百零三; larger ones in digits."""
    if number >= 10_000:
        return str(number)
    written, gap = "", False
    for value, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // value % 10
        if digit:
            written += ("零" if gap else "") + _DIGITS[digit] + unit
            gap = False
        else:
            gap = bool(written)
    return written[1:] if written.startswith("一十") else written


def _roman(number: int) -> str:
    written = ""
    for value, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        count, number = divmod(number, value)
        written += letters * count
    return written


def _level(node: Any) -> _Level:
    def value(name: str) -> str | None:
        child = node.find(f"{_W}{name}")
        return None if child is None else child.get(_VALUE)

    return _Level(
        value("numFmt") or "decimal",
        value("lvlText") or "",
        _integer(value("start"), 1),
        node.find(f"{_W}isLgl") is not None,
    )


def _integer(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.lstrip("-").isdecimal() and len(text) < 7 else default
