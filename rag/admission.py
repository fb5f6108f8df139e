"""Admission: how many requests may be inside at once. The rest is told at once to come back."""

from collections.abc import Callable

from rag.errors import Overloaded

_RETRY_AFTER_S = 5


class Admission:
    """Counts the requests inside, from before their search to their last byte. Event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.n_inside = 0

    def check(self) -> None:
        """Pass where a place is free now. Raises: Overloaded."""
        if self.n_inside >= self._limit:
            raise Overloaded(
                f"{self.n_inside} requests are being answered or wait; the limit is {self._limit}",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )

    def enter(self) -> Callable[[], None]:
        """Take a place; call what comes back to leave it, as often as you like. Raises: Overloaded."""
        self.check()
        self.n_inside += 1
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                self.n_inside -= 1

        return leave
