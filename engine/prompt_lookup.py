"""Guesses of what an answer says next: what followed the same words before, in the prompt or the answer.

An answer that quotes its context is read off it, several tokens a step. The native step checks every guess
with the draw itself, so the answer is the one of single steps, token for token, drawn or greedy; a guess
only costs time. Whether it is worth its time is measured: how often guesses came true in this answer, and how
long steps of so many rows take.

Source: prompt lookup decoding, A. Saxena, 2023; after Leviathan et al., arXiv 2211.17192.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.step_times import StepTimes

Tokens = NDArray[np.int32]

_SHORTEST_MATCH = 3  # tokens that must agree before a guess
_LONG_MATCH = 8  # from here on guesses are another kind: they come true far more often
_LONGEST_MATCH = 24  # looked at
_LENGTHS = (1, 2, 3, 5, 7, 11, 15)  # of guesses
_DECAY = 0.9  # of what was learned, at each new outcome

NO_GUESS = np.empty(0, np.int32)


@dataclass(slots=True)
class _Record:
    """How often guessed tokens came true, the last ones most; it begins undecided."""

    right: float = 1.0
    wrong: float = 1.0

    def note(self, n_right: int, *, missed: bool) -> None:
        self.right = _DECAY * self.right + n_right
        self.wrong = _DECAY * self.wrong + missed

    @property
    def rate(self) -> float:
        return self.right / (self.right + self.wrong)


class PromptLookup:
    """The guesses of one answer, and what came of them."""

    def __init__(self) -> None:
        """Begin with no opinion."""
        self._records = {False: _Record(), True: _Record()}  # by whether the match was long
        self._open: tuple[_Record, Tokens, int] | None = None  # the last guess, and where it would stand

    def guess(
        self, tokens: Tokens, *, n_most: int, n_rows: int, n_expected: float, times: StepTimes
    ) -> Tokens:
        """Return the tokens that may follow `tokens`; none where it would not pay.

        `n_rows` and `n_expected` are the rows of the step without the guess, and the tokens that it brings.
        """
        self._learn(tokens)
        at, n_matched = find_match(tokens)
        following = tokens[at : at + min(n_most, _LENGTHS[-1])] if n_matched else NO_GUESS
        if not len(following):
            return NO_GUESS
        record = self._records[n_matched >= _LONG_MATCH]
        n = best_length(record.rate, len(following), n_rows=n_rows, n_expected=n_expected, times=times)
        # What is not tried is compared with the next token all the same: it may have become worth it.
        self._open = (record, following[: max(n, 1)].copy(), len(tokens))
        return following[:n]

    def _learn(self, tokens: Tokens) -> None:
        if self._open is None:
            return
        record, guessed, at = self._open
        self._open = None
        came = tokens[at : at + len(guessed)]
        differs = np.flatnonzero(came != guessed[: len(came)])
        if len(differs):
            record.note(int(differs[0]), missed=True)
        elif len(came) == len(guessed):
            record.note(len(guessed), missed=False)


def find_match(tokens: Tokens) -> tuple[int, int]:
    """Find where the last tokens stood before: the place after them, and how many agree; (0, 0): nowhere.

    The longest agreement counts, of equal ones the latest.
    """
    n = len(tokens)
    if n <= _SHORTEST_MATCH:
        return 0, 0
    ends = np.arange(_SHORTEST_MATCH - 1, n - 1)
    for back in range(_SHORTEST_MATCH):
        ends = ends[tokens[ends - back] == tokens[n - 1 - back]]
        if not len(ends):
            return 0, 0
    n_matched = _SHORTEST_MATCH
    while n_matched < _LONGEST_MATCH:
        longer = ends[ends >= n_matched]
        longer = longer[tokens[longer - n_matched] == tokens[n - 1 - n_matched]]
        if not len(longer):
            break
        ends = longer
        n_matched += 1
    return int(ends[-1]) + 1, n_matched


def best_length(rate: float, n_most: int, *, n_rows: int, n_expected: float, times: StepTimes) -> int:
    """Choose the length of a guess that brings most tokens a second, each token being right at `rate`."""
    best, most = 0, n_expected / max(times.expect(n_rows), 1e-9)
    for n in _LENGTHS:
        if n > n_most:
            break
        # The guess is right up to token i with probability rate^i.
        n_right = rate * (1 - rate**n) / (1 - rate)
        speed = (n_expected + n_right) / max(times.expect(n_rows + n), 1e-9)
        if speed > most:
            best, most = n, speed
    return best
