"""How long a step takes by its number of rows: learned from the steps themselves."""

from dataclasses import dataclass

_WEIGHT = 0.3  # of the newest step
_FEW_ROWS = 32  # steps of guesses
_FORGOTTEN_AFTER = 100  # steps; of such sizes only


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
