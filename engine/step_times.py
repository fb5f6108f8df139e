"""How long a step takes by what it reads: learned from the steps themselves."""

from dataclasses import dataclass

import numpy as np

_WEIGHT = 0.3  # of the newest step
_FEW_ROWS = 32  # steps of guesses
_FORGOTTEN_AFTER = 100  # steps; of such sizes only

_KEPT = 0.93  # of what was learned about long steps, at each new one
_SCALE = np.array([1.0, 1 / 256, 1 / 2**18])  # brings one, rows and keys to the same order of magnitude
_REMEMBERED = 0.9  # at each new one, of how long and how late steps were
_GROWTH = 2  # of a step over the longest of the newest
_LARGEST_MARGIN = 3.0
_RIDGE = 1e-3  # holds what the steps do not tell apart


@dataclass(slots=True)
class _Point:
    n_rows: float
    seconds: float
    noted_at: int


class StepTimes:
    """A moving average for each power of two of rows, and lines between them.

    A few rows cost as much as one, because all weights are read for them; many cost by the row. Where the
    one turns into the other depends on model and machine: it is measured, not known.
    """

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self._points: dict[int, _Point] = {}
        self._n_steps = 0

    def note(self, n_rows: int, seconds: float) -> None:
        """Learn from a step."""
        self._n_steps += 1
        size = (n_rows - 1).bit_length()
        point = self._points.get(size)
        if point is None:
            self._points[size] = _Point(n_rows, seconds, self._n_steps)
            self._points = dict(sorted(self._points.items()))
            return
        point.n_rows += _WEIGHT * (n_rows - point.n_rows)
        point.seconds += _WEIGHT * (seconds - point.seconds)
        point.noted_at = self._n_steps
        # A size that was slow once, because the machine was, would never be tried again.
        self._points = {
            size: point
            for size, point in self._points.items()
            if point.n_rows > _FEW_ROWS or self._n_steps - point.noted_at < _FORGOTTEN_AFTER
        }

    def expect(self, n_rows: int) -> float:
        """Estimate the seconds of a step; 0 while nothing is known.

        Beyond what was measured it is taken to cost by the row; below, as much as the smallest.
        """
        lower = upper = None
        for point in self._points.values():
            if point.n_rows <= n_rows:
                lower = point
            else:
                upper = point
                break
        if lower is None:
            return upper.seconds if upper else 0.0
        if upper is None:
            return lower.seconds * n_rows / lower.n_rows
        share = (n_rows - lower.n_rows) / (upper.n_rows - lower.n_rows)
        return lower.seconds + share * (upper.seconds - lower.seconds)


class ReadingTimes:
    """Seconds = a + b rows + c keys, for steps that read prompts; least squares, the newest steps most.

    Keys are what the rows look back at, all together: at the end of a long prompt a row of a small model
    costs twice what it cost at the beginning.

    An estimate is a guess where it leaves what was measured: steps of one length do not tell what a row
    costs, and a machine that others use takes longer than it took. So `most_rows` bounds how much longer than
    the newest steps the next one may be, and `margin` tells how far beyond the estimate steps went of late.
    """

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self._products = np.zeros((3, 3))
        self._seconds = np.zeros(3)
        self._parts = np.zeros(3)
        self._longest = 0.0  # rows
        self.margin = 1.0

    def note(self, n_rows: int, n_keys: int, seconds: float) -> None:
        """Learn from a step."""
        expected = self.expect(n_rows, n_keys)
        if expected > 0:
            faded = 1 + _REMEMBERED * (self.margin - 1)
            self.margin = min(max(faded, seconds / expected), _LARGEST_MARGIN)
        self._longest = max(_REMEMBERED * self._longest, n_rows)
        x = np.array([1, n_rows, n_keys]) * _SCALE
        self._products = _KEPT * self._products + np.outer(x, x)
        self._seconds = _KEPT * self._seconds + seconds * x
        self._parts = self._solve()

    @property
    def most_rows(self) -> int:
        """Return how many rows a step may have for which somebody waits; 0 while nothing is known."""
        return int(_GROWTH * self._longest)

    def expect(self, n_rows: int, n_keys: int) -> float:
        """Estimate the seconds of a step; 0 while nothing is known."""
        return float(self._parts @ (np.array([1, n_rows, n_keys]) * _SCALE))

    def _solve(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Fit a, b and c. None costs less than nothing: the one that would is left out."""
        parts = np.zeros(3)
        used = [0, 1, 2]
        while used:
            matrix = self._products[np.ix_(used, used)]
            found = np.linalg.solve(matrix + _RIDGE * np.eye(len(used)), self._seconds[used])
            if found.min() >= 0:
                parts[used] = found
                break
            used.pop(int(found.argmin()))
        return parts
