"""How rare a word is in the language at large: what a few documents cannot tell of their own words."""

from __future__ import annotations

import functools
from importlib.resources import files

_UNKNOWN = 13.0
"""Rarity of what stands in no table: less than one in 400,000."""
_COMMONEST = 3.0
_NAMES_A_THING = 1.4
"""An identifier or a number says more than a rare word."""


def information(word: str) -> float:
    """Tell how much it says, in nats, that a text holds a Chinese word of the lexical index, or a name.

    Next to nothing of 有, much of 疫苗.
    """
    rarity = _rarities().get(word, _UNKNOWN)
    if any(character.isdigit() for character in word):
        rarity *= _NAMES_A_THING
    return max(0.0, rarity - _COMMONEST)


@functools.cache
def _rarities() -> dict[str, float]:
    """Read the table: characters and pairs by minus the logarithm of their share.

    Source: the word counts of jieba (MIT), written by ingest/data/rarity.py.
    """
    table: dict[str, float] = {}
    for line in files("ingest").joinpath("data/rarity.txt").read_text("utf-8").splitlines()[1:]:
        level, characters, pairs = line.split(" ")
        terms = (*characters, *(pairs[i : i + 2] for i in range(0, len(pairs), 2)))
        table.update(dict.fromkeys(terms, int(level) / 2))
    return table
