"""How much of a waiting prompt the next step reads: as much as those who write can wait for."""

from dataclasses import dataclass

from engine.step_times import ReadingTimes

LONGEST_SLICE = 512  # prompt tokens of one step
_FIRST_SLICE = 64  # while nothing is known of how long a step takes, and nobody waits
_SHORTEST_SLICE = 16
_SLICE_STEP = 8  # by which slices are shortened

# Who writes should not wait longer than 0.3 s for the next word: between two steps there may be queries to
# embed and blocks to copy, a tenth of a second of them. The second figure is for machines that take longer
# than they did: what a step may take, if it goes as far beyond what is expected as others did.
_STEP_SECONDS = 0.15
_LATE_STEP_SECONDS = 0.25
_ALONE_SECONDS = 1.0  # while nobody writes: who leaves or comes should not wait long either


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What a step has so far: rows, what they look back at, and whether any of them read or write."""

    n_rows: int
    n_keys: int
    reads: bool
    writes: bool


class PromptSlices:
    """Chooses the lengths of slices by what steps took."""

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self._times = ReadingTimes()

    def note(self, n_rows: int, n_keys: int, seconds: float) -> None:
        """Learn from a step that read."""
        self._times.note(n_rows, n_keys, seconds)

    def choose(self, n_pending: int, n_cached: int, step: PlannedStep) -> int:
        """Return how many of a prompt's `n_pending` tokens the step reads besides; 0: none has room."""
        times = self._times
        # Some prompt goes on in every step, however slow the machine is.
        least = 0 if step.reads else min(n_pending, _SHORTEST_SLICE)
        if times.most_rows == 0:
            return least if step.writes else min(n_pending, _FIRST_SLICE)
        if step.writes:
            n_most = max(times.most_rows - step.n_rows, least)
            seconds = min(_STEP_SECONDS, _LATE_STEP_SECONDS / times.margin)
        else:
            n_most = max(2 * times.most_rows - step.n_rows, _FIRST_SLICE)
            seconds = _ALONE_SECONDS
        n_tokens = min(n_pending, n_most)
        while n_tokens > least:
            n_keys = step.n_keys + n_tokens * n_cached + n_tokens * (n_tokens + 1) // 2
            if times.expect(step.n_rows + n_tokens, n_keys) <= seconds:
                break
            n_tokens = max(n_tokens - _SLICE_STEP, least)
        return n_tokens
