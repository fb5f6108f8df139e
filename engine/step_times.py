"""How long a step takes by its number of rows: learned from the steps themselves."""

from dataclasses import dataclass

_WEIGHT = 0.3  # of the newest step


@dataclass(slots=True)
class _Point:
    n_rows: float
    seconds: float


class StepTimes:
    """A moving average for each power of two of rows, and lines between them.

    A few rows cost as much as one, because all weights are read for them; many cost by the row. Where the
    one turns into the other depends on model and machine: it is measured, not known.
    """

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self._points: dict[int, _Point] = {}

    def note(self, n_rows: int, seconds: float) -> None:
        """Learn from a step."""
        point = self._points.setdefault((n_rows - 1).bit_length(), _Point(n_rows, seconds))
        point.n_rows += _WEIGHT * (n_rows - point.n_rows)
        point.seconds += _WEIGHT * (seconds - point.seconds)

    def expect(self, n_rows: int) -> float:
        """Estimate the seconds of a step; 0 while nothing is known.

        Beyond what was measured it is taken to cost by the row; below, as much as the smallest.
        """
        lower = upper = None
        for _, point in sorted(self._points.items()):
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
