"""Admission: how many requests may be inside at once. The rest is told at once to come back."""

from starlette.requests import Request

from rag.errors import Overloaded

_RETRY_AFTER_S = 5


class Admission:
    """Counts the work inside, from before its body is read to its last byte. Event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.n_inside = 0

    def enter(self) -> "Places":
        """Take a place. Raises: Overloaded."""
        places = Places(self)
        places.take(1)
        return places

    def add(self, n: int) -> None:
        """Count `n` more; fewer than none to let go. Raises: Overloaded."""
        if n > 0 and self.n_inside + n > self._limit:
            raise Overloaded(
                f"{self.n_inside} requests are being answered or wait; the limit is {self._limit}",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        self.n_inside += n


class Places:
    """The places of one request."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._n = 0

    def take(self, n: int) -> None:
        """Take `n` places more, or none. Raises: Overloaded."""
        self._admission.add(n)
        self._n += n

    def leave(self) -> None:
        """Let all of them go."""
        self._admission.add(-self._n)
        self._n = 0


def places_of(request: Request) -> Places:
    """Give the places of a request that waits for a model, as the boundary took them."""
    places: Places = request.scope["quarry.places"]
    return places
