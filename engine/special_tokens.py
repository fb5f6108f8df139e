"""Find special tokens in a text: those that stand for themselves, whatever the model would make of them."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Found(NamedTuple):
    """A token at [start, end) of a text."""

    start: int
    end: int
    id: int


class SpecialTokens:
    """A set of tokens; where several begin at a place, the longest is meant.

    Gemma has 6,000 of them: an expression of so many alternatives would try each at every place.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Keep `ids` by text."""
        self._ids = dict(ids)
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            if text:
                lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        firsts = "".join(map(re.escape, self._lengths))
        self._begins = re.compile(f"[{firsts}]") if firsts else None

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._lengths)

    def find(self, text: str) -> Iterator[Found]:
        """Give the tokens in a text from its beginning on, none inside another."""
        at = 0
        while self._begins is not None and (begin := self._begins.search(text, at)) is not None:
            start = at = begin.start()
            at += 1
            for length in self._lengths[text[start]]:
                token_id = self._ids.get(text[start : start + length])
                if token_id is not None:
                    # At the end of the text a longer slice may be a shorter token.
                    at = min(start + length, len(text))
                    yield Found(start, at, token_id)
                    break

    def is_in(self, text: str) -> bool:
        """Say whether a text holds one."""
        return next(self.find(text), None) is not None
